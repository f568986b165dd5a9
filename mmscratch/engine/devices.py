"""The device to compute on, and the number format. Nothing here is about a model."""

import contextlib
import os
import sys
import time
from pathlib import Path

import torch


def pick_device() -> torch.device:
    """cuda if available, else mps, else cpu. Each process of torchrun takes its own GPU."""
    if not torch.cuda.is_available():
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    local_rank = int(os.environ["LOCAL_RANK"])
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"this machine has {count} GPUs: torchrun with --nproc_per_node {count} or less"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


class Precision:
    """Number format and memory layout of the model: `dtype`, and `channels_last` for convolutions.

    float32   24 bits of precision. On a GPU, TF32 (11 bits, in products of float32) is off: float32 means float32
    bfloat16  8 bits of precision, float32's range: half the memory, and the fastest if the hardware supports it
    float16   11 bits, but nothing between 0 and 6e-8 and nothing above 65,504: it needs a `GradScaler`
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, channels_last: bool):
        self.device = device
        self.dtype = dtype
        self.channels_last = channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False

    def autocast(self):
        """A context in which products and convolutions compute in `dtype`; weights stay float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def __str__(self) -> str:
        text = str(self.dtype).removeprefix("torch.")
        if self.channels_last:
            text += ", channels last"
        if self.device.type == "cuda" and self.dtype == torch.float32:
            text += ", TF32 off"
        return text


def pick_precision(device: torch.device, asked: str = "auto") -> tuple[Precision, str]:
    """The requested precision, or the one that suits this machine; and the reason, in words.

    The choice depends on the hardware's specification, not on a measurement, so two runs on one
    machine give the same result. A CPU computes in bfloat16 if it has instructions for that (AMX
    or AVX-512 BF16), otherwise in float32, which is then faster. A GPU computes in bfloat16, or in
    float16 if it is older than 2020.
    """
    if asked not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f'precision is "auto", "float32", "bfloat16" or "float16", not {asked!r}')
    if asked != "auto":
        return Precision(device, getattr(torch, asked), device.type != "mps"), "as asked"
    if device.type == "cuda":
        has_bfloat16 = torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0)
        dtype = torch.bfloat16 if has_bfloat16 else torch.float16
        return Precision(device, dtype, True), "the fastest of this GPU"
    if device.type != "cpu":
        return Precision(device, torch.float32, False), f"the safe choice on {device.type}"
    flags = cpu_flags()
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in flags:
            return Precision(device, torch.bfloat16, True), f"this processor has {flag}"
    return Precision(device, torch.float32, True), "this processor has no instructions for bfloat16"


def cpu_flags() -> set[str]:
    """The processor's features according to the Linux kernel; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    for line in text.splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


class Stopwatch:
    """Adds up the time that the device spends within `with watch:`.

    On a GPU it uses events: marks in the queue of work that record when the GPU passes them,
    without synchronization.
    """

    def __init__(self, device: torch.device):
        self.uses_events = device.type == "cuda"
        self.pending = []  # (start, end) of intervals that have not been summed

    def _now(self):
        if not self.uses_events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __enter__(self):
        self.start = self._now()

    def __exit__(self, *_):
        self.pending.append((self.start, self._now()))

    def seconds(self) -> float:
        """The time since the last call; on a GPU, of the intervals that it has completed."""
        total = 0.0
        if not self.uses_events:
            total = sum(end - start for start, end in self.pending)
            self.pending = []
        while self.pending and self.pending[0][1].query():
            start, end = self.pending.pop(0)
            total += start.elapsed_time(end) / 1000
        return total


def peak_memory(device: torch.device) -> int:
    """The peak memory of this process in bytes: on a GPU its tensors, else everything; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def deterministic(device: torch.device):
    """A context in which a GPU gives bit-identical results every time; a CPU does so anyway."""
    if device.type != "cuda":
        yield
        return
    # Without this, cuBLAS may choose another algorithm each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_enabled = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    was_filling = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling costs time and only helps to find bugs.
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_enabled, warn_only=was_warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = was_filling
