"""Where training computes, and in which number format."""

import contextlib
import os
import sys
import time
from pathlib import Path

import torch


def pick_device() -> torch.device:
    """cuda where there is one, else mps, else cpu. Of several GPUs, each process that torchrun started has its own."""
    if torch.cuda.is_available():
        local_rank = os.environ.get("LOCAL_RANK")
        if local_rank is None:
            return torch.device("cuda")
        if int(local_rank) >= torch.cuda.device_count():
            raise ValueError(
                f"{torch.cuda.device_count()} GPUs are here: torchrun with --nproc_per_node of so many, at most"
            )
        torch.cuda.set_device(int(local_rank))
        return torch.device("cuda", int(local_rank))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Precision:
    """Number format and memory layout of the model's work: `dtype`, and `channels_last` for the convolutions.

    float32   24 bits of precision. On a GPU, TF32 (11 bits, in products of float32) is off: float32 means float32
    bfloat16  8 bits of precision, float32's range: half of the memory, and the fastest where the hardware has it
    float16   11 bits, but nothing between 0 and 6e-8 and nothing above 65,504: it needs a `GradScaler`
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, channels_last: bool):
        self.device, self.dtype, self.channels_last = device, dtype, channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def autocast(self):
        """Within it, matrix products and convolutions compute in `dtype`; the weights stay float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def __str__(self) -> str:
        tf32 = ", TF32 off" if self.device.type == "cuda" and self.dtype == torch.float32 else ""
        return f"{str(self.dtype).removeprefix('torch.')}{', channels last' if self.channels_last else ''}{tf32}"


def pick_precision(device: torch.device, asked: str = "auto") -> tuple[Precision, str]:
    """The precision that was asked for, or the one that suits this machine; and why, in words.

    What the hardware says it has decides, and no measurement, so that two runs on one machine give the same result. A CPU
    computes in bfloat16 if it has instructions for its products (AMX or AVX-512 BF16), otherwise in float32, which is
    faster there. A GPU computes in bfloat16, or in float16 if it is older than 2020.
    """
    if asked not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f'precision is "auto", "float32", "bfloat16" or "float16", not {asked!r}')
    if asked != "auto":
        return Precision(device, getattr(torch, asked), device.type != "mps"), "as asked"
    if device.type == "cuda":
        has_bfloat16 = torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0)
        return Precision(
            device, torch.bfloat16 if has_bfloat16 else torch.float16, True
        ), "the fastest of this GPU"
    if device.type != "cpu":
        return Precision(device, torch.float32, False), f"the safe choice on {device.type}"
    found = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in cpu_flags()]
    if found:
        return Precision(device, torch.bfloat16, True), f"this processor has {found[0]}"
    return Precision(device, torch.float32, True), "this processor has no instructions for bfloat16"


def cpu_flags() -> set[str]:
    """What a Linux kernel says that the processor can do; elsewhere nothing is known."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    flags = [line.partition(":")[2] for line in text.splitlines() if line.startswith("flags")]
    return set(flags[0].split()) if flags else set()


class Stopwatch:
    """Adds up how long what stood within `with watch:` held up the device.

    On a GPU by events, marks in its queue of work: it notes when it passes them, and nobody waits for it to do so.
    """

    def __init__(self, device: torch.device):
        self.gpu, self.passed, self.open = device.type == "cuda", 0.0, []

    def _now(self):
        if not self.gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __enter__(self):
        self.start = self._now()

    def __exit__(self, *_):
        self.open.append((self.start, self._now()))

    def seconds(self) -> float:
        """The sum since this was last asked; on a GPU, of what it has passed."""
        done = [pair for pair in self.open if not self.gpu or pair[1].query()]
        self.open = self.open[len(done) :]
        return sum(
            start.elapsed_time(end) / 1000 if self.gpu else end - start for start, end in done
        )


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has had at once: on a GPU in tensors, else in all. 0 where it cannot be known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


@contextlib.contextmanager
def deterministic(device: torch.device):
    """Within it, a GPU computes only in ways that give the same result every time, to the bit; a CPU does so anyway."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it, cuBLAS may choose anew each time
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filling = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = (
        False  # which only finds mistakes, and takes time
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filling
