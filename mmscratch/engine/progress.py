"""Reports on training: a status line, a file of numbers, a profile. Nothing here is about a model."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from .devices import Stopwatch, peak_memory
from .runs import ensure_folder

LINE = 100  # characters of an output that are printed


class Progress:
    """A status line on the screen or in a notebook, and JSON lines in a file.

    Without a terminal, a plain line is printed now and then. A line has the means since the
    previous line: loss (per word, or whatever else the model counts), learning_rate, gradient_norm,
    words_per_second and examples_per_second, data_time (the fraction of time in which the device
    waited for data). For the whole run so far it has peak_memory, in bytes, and skipped (the number
    of steps whose gradients were not finite). The line of a validation has its loss, and the outputs
    for the same few examples each time.

    path       the file of JSON lines; None in processes that report nothing
    steps      (the last step that was done, the last step of the run)
    data_time  the stopwatch of the time spent waiting for data
    device     whose peak memory is reported
    unit       of the count that the model's loss returns: "words"
    """

    def __init__(
        self,
        path: Path | None,
        steps: tuple[int, int],
        data_time: Stopwatch,
        device: torch.device,
        unit: str,
    ):
        self.path = path
        self.first, self.steps = steps
        self.data_time = data_time
        self.device = device
        self.unit = unit
        self.renews_line = sys.stdout.isatty() or "ipykernel" in sys.modules
        self.line = None  # the line to replace: True on a terminal, in a notebook its display
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_lines_after(self.first)
        self.start = self.shown = self.stepped = time.perf_counter()
        self._reset()

    def _drop_lines_after(self, step: int) -> None:
        """Remove from the file what a killed run wrote after its last checkpoint."""
        lines = self.path.read_text().splitlines() if self.path.exists() and step else []
        lines = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        temporary = self.path.with_name(self.path.name + ".writing")
        temporary.write_text("".join(line + "\n" for line in lines))
        os.replace(temporary, self.path)

    def _reset(self) -> None:
        self.logged = time.perf_counter()
        self.loss = 0.0
        self.count = 0.0
        self.examples = 0.0
        self.norms = []

    def update(self, step: int, stats, rate: float, skipped: int) -> None:
        """Report a step; `stats` is its `training.Step`."""
        if self.path is None:
            return
        if stats.norm < float("inf"):  # a skipped step would spoil the mean
            self.norms.append(stats.norm)
            self.loss += stats.loss
            self.count += stats.count
            self.examples += stats.examples
        now = self.stepped = time.perf_counter()
        seconds = now - self.logged
        if (seconds < 1 and step < self.steps) or not self.count:
            return
        numbers = {
            "loss": round(self.loss / self.count, 4),
            "learning_rate": rate,
            "gradient_norm": round(sum(self.norms) / len(self.norms), 4),
            f"{self.unit}_per_second": round(self.count / seconds, 1),
            "examples_per_second": round(self.examples / seconds, 1),
            "data_time": round(self.data_time.seconds() / seconds, 4),
            "peak_memory": peak_memory(self.device),
            "skipped": skipped,
        }
        self._write(step=step, **numbers)
        if self.renews_line or now - self.shown >= 15 or step == self.steps:
            left = (now - self.start) / (step - self.first) * (self.steps - step)
            self._show(self._line(step, numbers, round(left)))
            self.shown = now
        self._reset()

    def _line(self, step: int, numbers: dict, seconds_left: int) -> str:
        skipped = f"{numbers['skipped']} skipped  " if numbers["skipped"] else ""
        minutes, seconds = divmod(seconds_left, 60)
        return (
            f"step {step}/{self.steps}  "
            f"loss {numbers['loss']:.3f}  "
            f"{numbers['examples_per_second']:.0f} examples/s  "
            f"waiting {100 * numbers['data_time']:.1f} %  "
            f"{numbers['peak_memory'] / 1e9:.1f} GB  "
            f"{skipped}{minutes}:{seconds:02} left"
        )

    def validated(self, step: int, loss: float, outputs: dict[str, str] | None = None) -> None:
        """Report the mean loss over the validation set, and the outputs for a few examples."""
        if self.path is None:
            return
        self.close()
        print(f"step {step}/{self.steps}  validation loss {loss:.3f}", flush=True)
        for name, text in (outputs or {}).items():
            print(f"  {name}: {text}"[:LINE], flush=True)
        value = round(loss, 4) if math.isfinite(loss) else None  # JSON has no NaN
        written = {"outputs": list(outputs.values())} if outputs else {}
        self._write(step=step, validation_loss=value, **written)
        self.logged += time.perf_counter() - self.stepped  # do not count this time as training

    def close(self) -> None:
        """End the status line, so that the next print gets its own."""
        if self.line is True:
            print()
        self.line = None

    def _show(self, line: str) -> None:
        if "ipykernel" in sys.modules:  # a notebook keeps all output: replace one display
            from IPython.display import display

            if self.line is None:
                self.line = display({"text/plain": line}, raw=True, display_id=True)
            else:
                self.line.update({"text/plain": line}, raw=True)
        elif self.renews_line:
            self.line = True
            width = shutil.get_terminal_size().columns - 1  # a longer line would wrap
            print("\r" + line[:width].ljust(width), end="", flush=True)
        else:
            print(line, flush=True)

    def _write(self, **values) -> None:
        ensure_folder(self.path.parent)
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def profiled(batches: Iterable, folder: Path) -> Iterator:
    """Yield the batches, and profile the training steps on the fourth to the sixth.

    Writes folder/trace.json, which a browser opens (chrome://tracing, or ui.perfetto.dev), and
    prints the ten most expensive operations.
    """

    def report(profiler) -> None:
        if profiler.step_num < 6:
            return  # training ended or failed earlier
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / "trace.json"))
        _print_costs(profiler.key_averages())
        print(f"see {folder / 'trace.json'} in chrome://tracing or ui.perfetto.dev", flush=True)

    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    schedule = torch.profiler.schedule(wait=2, warmup=1, active=3, repeat=1)
    with torch.profiler.profile(
        activities=activities, schedule=schedule, on_trace_ready=report
    ) as profiler:
        for batch in batches:
            yield batch
            profiler.step()


def _print_costs(averages) -> None:
    """Print the ten costliest operations; on a GPU by its own time, not the time of CPU calls."""
    uses_gpu = torch.cuda.is_available()
    kind = "CUDA" if uses_gpu else "CPU"
    costs = []
    for average in averages:
        if average.device_type.name != kind:
            continue
        if average.key.startswith(("ProfilerStep", "Optimizer.")):  # marks around many operations
            continue
        values = vars(average)
        if not uses_gpu:
            microseconds = values["self_cpu_time_total"]
        elif "self_device_time_total" in values:
            microseconds = values["self_device_time_total"]
        else:
            microseconds = values["self_cuda_time_total"]  # torch 2.3
        costs.append((microseconds, average.key, average.count))
    costs.sort(key=lambda cost: -cost[0])
    total = max(sum(microseconds for microseconds, _, _ in costs), 1)
    print(f"\n{'the ten costliest operations of 3 steps':50} {'ms':>9} {'share':>7} {'calls':>6}")
    for microseconds, name, calls in costs[:10]:
        milliseconds = microseconds / 1000
        percent = 100 * microseconds / total
        print(f"{name[:50]:50} {milliseconds:9.1f} {percent:5.1f} % {calls:6}")
