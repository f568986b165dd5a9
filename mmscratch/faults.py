"""What can go wrong while training, caught and said in one line."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


class StopSignals:
    """Within it, the first Ctrl-C or SIGTERM only sets `asked`; one more, after a second, stops at once.

    A second, since torchrun passes on to its processes what the terminal has also sent them.
    """

    def __init__(self):
        self.asked = False

    def _ask(self, *_) -> None:
        if self.asked and time.monotonic() - self.since > 1:
            raise KeyboardInterrupt("stopped at once; the same command goes on from the last checkpoint")
        if not self.asked:
            self.asked, self.since = True, time.monotonic()

    def __enter__(self):
        self.asked, self.before = False, {}
        if threading.current_thread() is threading.main_thread():  # no other may set signal handlers
            self.before = {kind: signal.signal(kind, self._ask) for kind in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_):
        for kind, handler in self.before.items():
            signal.signal(kind, handler or signal.SIG_DFL)  # None: it was not set from Python


@contextlib.contextmanager
def explained(where: Callable[[], str]):
    """What torch says in its own words becomes a MemoryError, or a ConnectionError, in ours. `where` tells the step."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory")):
            raise MemoryError(
                f"out of memory in {where()}: twice the --accumulate is the same training with half as much at once; or lower "
                "--batch-size or --image-size"
            ) from None
        if torch.distributed.is_initialized() and any(words in text for words in ("gloo", "Gloo", "NCCL")):
            raise ConnectionError(
                f"another process of this run has ended (its own message says why), so this one ends in {where()}, too; the same "
                "command goes on from the last checkpoint"
            ) from None
        raise


def first_not_finite(model: nn.Module, batch: dict[str, Tensor]) -> str:
    """Where the first number stands that is not finite, after a backward pass: a weight, a layer's output, a gradient."""

    def finite(output) -> bool:
        if isinstance(output, tuple):
            return all(map(finite, output))
        return not isinstance(output, Tensor) or bool(output.isfinite().all())

    found = [f"the weight {name}" for name, weight in model.named_parameters() if not weight.isfinite().all()]

    def look(name: str):
        def hook(_module, _inputs, output) -> None:
            if not finite(output):
                found.append(f"the output of {name}")

        return hook

    handles = [module.register_forward_hook(look(name or "the model")) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    gradients = [(name, weight.grad) for name, weight in model.named_parameters() if weight.grad is not None]
    gradients.reverse()  # as they are computed: from the loss back to the input
    found += [f"the gradient of {name}" for name, gradient in gradients if not gradient.isfinite().all()]
    return next(iter(found), "the loss")
