"""What a training run tells: a line that renews itself, a file of numbers, and where the time goes."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from ..engine.devices import Stopwatch, peak_memory


class Progress:
    """A line on the screen or in a notebook that renews itself, or a plain line now and then; and JSON lines in `path`.

    A line holds the means since the line before: loss (for each of what the model counts, its words), learning_rate,
    gradient_norm, words_per_second and examples_per_second, waiting (the fraction of time in which the device waited for
    data); and so far: peak_memory in bytes, skipped (steps whose gradients were not finite). `path` is None in processes
    that report nothing.
    """

    def __init__(
        self,
        path: Path | None,
        steps: tuple[int, int],
        data_time: Stopwatch,
        device: torch.device,
        unit: str,
    ):
        """steps: the number of the one that was done last, and of the last one; unit: of the count that `loss` returns ("words")."""
        step, last = steps
        self.path = path
        self.first = step
        self.steps = last
        self.data_time = data_time
        self.device = device
        self.unit = unit
        self.renewing = sys.stdout.isatty() or "ipykernel" in sys.modules
        self.line = None  # what the next line takes the place of: True on a terminal, in a notebook its display
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() and step else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        beside = path.with_name(path.name + ".writing")
        beside.write_text(
            "".join(line + "\n" for line in kept)
        )  # not what a killed run did after its last checkpoint
        os.replace(beside, path)
        self.start = self.shown = self.stepped = time.perf_counter()
        self._begin()

    def _begin(self) -> None:
        self.logged = time.perf_counter()
        self.loss = self.count = self.examples = 0.0
        self.norms = []

    def update(self, step: int, stats, rate: float, skipped: int) -> None:
        """After a step, with its `training.Step`."""
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
        if self.renewing or now - self.shown >= 15 or step == self.steps:
            left = round((now - self.start) / (step - self.first) * (self.steps - step))
            self._show(
                f"step {step}/{self.steps}  loss {numbers['loss']:.3f}  {numbers['examples_per_second']:.0f} examples/s  "
                f"waiting {100 * numbers['data_time']:.1f} %  {numbers['peak_memory'] / 1e9:.1f} GB  "
                f"{f'{skipped} skipped  ' if skipped else ''}{left // 60}:{left % 60:02} left"
            )
            self.shown = now
        self._begin()

    def validated(self, step: int, loss: float) -> None:
        """Report the mean loss over the validation set."""
        if self.path is None:
            return
        self.close()
        print(f"step {step}/{self.steps}  validation loss {loss:.3f}", flush=True)
        self._write(
            step=step, validation_loss=round(loss, 4) if math.isfinite(loss) else None
        )  # NaN is not JSON
        self.logged += time.perf_counter() - self.stepped  # the time it took is not the next steps'

    def close(self) -> None:
        """What is printed next gets a line of its own."""
        if self.line is True:
            print()
        self.line = None

    def _show(self, line: str) -> None:
        if (
            "ipykernel" in sys.modules
        ):  # a notebook keeps all that is printed: its line is one output that is replaced
            from IPython.display import display

            if self.line is None:
                self.line = display({"text/plain": line}, raw=True, display_id=True)
            else:
                self.line.update({"text/plain": line}, raw=True)
        elif self.renewing:
            width, self.line = shutil.get_terminal_size().columns - 1, True
            print(
                "\r" + line[:width].ljust(width), end="", flush=True
            )  # one that is longer could not be renewed
        else:
            print(line, flush=True)

    def _write(self, **values) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def profiled(batches: Iterable, folder: Path) -> Iterator:
    """Pass batches on, and look closely at the steps that are made with the fourth to sixth of them.

    Writes folder/trace.json, which a browser opens (chrome://tracing, or ui.perfetto.dev), and prints the ten operations
    that cost most.
    """

    def report(profiler) -> None:
        if profiler.step_num < 6:
            return  # training ended, or broke off, before
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / "trace.json"))
        kind = (
            "CUDA" if torch.cuda.is_available() else "CPU"
        )  # of a GPU, what it did itself; not again what called for it
        averages = [a for a in profiler.key_averages() if a.device_type.name == kind]
        averages = [
            a for a in averages if not a.key.startswith(("ProfilerStep", "Optimizer."))
        ]  # marks around many of them
        columns = (
            ["self_cpu_time_total"]
            if kind == "CPU"
            else ["self_device_time_total", "self_cuda_time_total"]
        )  # torch 2.3
        cost = {
            a.key: (next(vars(a)[column] for column in columns if column in vars(a)), a.count)
            for a in averages
        }
        every = max(sum(microseconds for microseconds, _ in cost.values()), 1)
        print(
            f"\n{'the ten costliest operations of 3 steps':50} {'ms':>9} {'share':>7} {'calls':>6}"
        )
        for name, (microseconds, calls) in sorted(cost.items(), key=lambda item: -item[1][0])[:10]:
            print(
                f"{name[:50]:50} {microseconds / 1000:9.1f} {100 * microseconds / every:5.1f} % {calls:6}"
            )
        print(f"see {folder / 'trace.json'} in chrome://tracing or ui.perfetto.dev", flush=True)

    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] * torch.cuda.is_available()
    steps = torch.profiler.schedule(wait=2, warmup=1, active=3, repeat=1)
    with torch.profiler.profile(
        activities=activities, schedule=steps, on_trace_ready=report
    ) as profiler:
        for batch in batches:
            yield batch
            profiler.step()
