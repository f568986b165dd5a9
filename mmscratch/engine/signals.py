"""Ctrl-C, running out of memory, and lost processes: caught, and explained in one line."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import torch


class StopSignals:
    """A context in which the first Ctrl-C or SIGTERM only sets `requested`.

    Another one, more than a second later, stops at once. Within the second it is ignored, because
    torchrun forwards to its processes a signal that the terminal has already sent them.
    """

    def __init__(self):
        self.requested = False

    def _handle(self, *_) -> None:
        if not self.requested:
            self.requested = True
            self.since = time.monotonic()
        elif time.monotonic() - self.since > 1:
            raise KeyboardInterrupt(
                "stopped at once; the same command resumes from the last checkpoint"
            )

    def __enter__(self):
        self.requested = False
        self.previous = {}
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for kind in (signal.SIGINT, signal.SIGTERM):
                self.previous[kind] = signal.signal(kind, self._handle)

    def __exit__(self, *_):
        for kind, handler in self.previous.items():
            signal.signal(kind, handler or signal.SIG_DFL)  # None: it was not set from Python


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
LOST_PROCESS = ("gloo", "Gloo", "NCCL")


@contextlib.contextmanager
def translate_errors(where: Callable[[], str], can_accumulate: bool = True):
    """Turn torch's errors into a MemoryError or ConnectionError of one line; `where` names the step.

    can_accumulate: whether gradient accumulation is to be recommended when memory runs out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
            advice = "lower --batch-size or --image-size"
            if can_accumulate:
                same = "double --accumulation-steps for the same training in half the memory"
                advice = f"{same}, or {advice}"
            raise MemoryError(f"out of memory in {where()}: {advice}") from None
        is_distributed = torch.distributed.is_initialized()
        if is_distributed and any(words in text for words in LOST_PROCESS):
            raise ConnectionError(
                f"another process of this run has ended (see its own message), so this one ends in {where()}, too; "
                "the same command resumes from the last checkpoint"
            ) from None
        raise
