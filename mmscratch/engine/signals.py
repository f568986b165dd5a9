"""What can go wrong while training, caught and said in one line."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import torch


class StopSignals:
    """Within it, the first Ctrl-C or SIGTERM only sets `requested`; one more, after a second, stops at once.

    A second, since torchrun passes on to its processes what the terminal has also sent them.
    """

    def __init__(self):
        self.requested = False

    def _ask(self, *_) -> None:
        if self.requested and time.monotonic() - self.since > 1:
            raise KeyboardInterrupt(
                "stopped at once; the same command goes on from the last checkpoint"
            )
        if not self.requested:
            self.requested, self.since = True, time.monotonic()

    def __enter__(self):
        self.requested, self.before = False, {}
        if (
            threading.current_thread() is threading.main_thread()
        ):  # no other may set signal handlers
            self.before = {
                kind: signal.signal(kind, self._ask) for kind in (signal.SIGINT, signal.SIGTERM)
            }

    def __exit__(self, *_):
        for kind, handler in self.before.items():
            signal.signal(kind, handler or signal.SIG_DFL)  # None: it was not set from Python


@contextlib.contextmanager
def translate_errors(where: Callable[[], str]):
    """What torch says in its own words becomes a MemoryError, or a ConnectionError, in ours. `where` tells the step."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or any(
            words in text
            for words in ("out of memory", "can't allocate memory", "not enough memory")
        ):
            raise MemoryError(
                f"out of memory in {where()}: twice the --accumulation-steps is the same training with half as much at once; or lower "
                "--batch-size or --image-size"
            ) from None
        if torch.distributed.is_initialized() and any(
            words in text for words in ("gloo", "Gloo", "NCCL")
        ):
            raise ConnectionError(
                f"another process of this run has ended (its own message says why), so this one ends in {where()}, too; the same "
                "command goes on from the last checkpoint"
            ) from None
        raise
