"""What keeps a long run alive: float16's scaler, the first value that is not finite, the atomic write, the random states."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn


class GradScaler:
    """Keeps float16 from losing small gradients: 65,536 in `scale` means that they are computed 65,536 times as large.

    The loss is multiplied by `scale`, and with it, by the chain rule, every gradient; before use they are divided by it.
    A step whose gradients overflowed is skipped and halves the scale; 2,000 steps without one double it. Other formats
    have the range of float32 and need none: their scale stays at 1.
    Source: Micikevicius et al. 2018; the numbers are those of torch.amp.GradScaler.
    """

    def __init__(self, dtype: torch.dtype):
        self.enabled = dtype == torch.float16
        self.scale, self.good_steps = 65536.0 if self.enabled else 1.0, 0

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        if self.enabled:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= self.scale

    def update(self, finite: bool) -> None:
        """After each step: were its gradients finite?"""
        if self.enabled:
            self.good_steps = self.good_steps + 1 if finite else 0
            if not finite:
                self.scale /= 2
            elif self.good_steps == 2000:
                self.scale, self.good_steps = 2 * self.scale, 0


def first_nonfinite(model: nn.Module, batch: dict[str, Tensor]) -> str:
    """Where the first number stands that is not finite, after a backward pass: a weight, a layer's output, a gradient."""

    def finite(output) -> bool:
        if isinstance(output, tuple):
            return all(map(finite, output))
        return not isinstance(output, Tensor) or bool(output.isfinite().all())

    found = [
        f"the weight {name}"
        for name, weight in model.named_parameters()
        if not weight.isfinite().all()
    ]

    def look(name: str):
        def hook(_module, _inputs, output) -> None:
            if not finite(output):
                found.append(f"the output of {name}")

        return hook

    handles = [
        module.register_forward_hook(look(name or "the model"))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    gradients = [
        (name, weight.grad) for name, weight in model.named_parameters() if weight.grad is not None
    ]
    gradients.reverse()  # as they are computed: from the loss back to the input
    found += [
        f"the gradient of {name}" for name, gradient in gradients if not gradient.isfinite().all()
    ]
    return next(iter(found), "the loss")


def write_atomically(path: Path, state: dict) -> None:
    """torch.save to a file beside, flush, rename: whoever reads `path` finds the old file or the new one, never half.

    Raises OSError, in one line, where it cannot be written; the old file is then as it was.
    """
    beside = path.with_name(path.name + ".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # on the disk, before the name is
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a write that failed
        reason = (
            getattr(error, "strerror", None)
            or getattr(error.__context__, "strerror", None)
            or str(error).splitlines()[0]
        )
        kept = "; the one before is kept" if path.is_file() else ""
        raise OSError(
            f"{path} cannot be written: {reason}{kept}. Make room, or choose another folder"
        ) from None
    finally:
        with contextlib.suppress(
            OSError
        ):  # which would hide the one above: there may be no such folder
            beside.unlink()


def get_rng_state() -> dict:
    """The state of torch's generators of random numbers, on the CPU and on its GPU, as plain values."""
    return {
        "torch": torch.get_rng_state(),
        "device": [(name, device.get_rng_state()) for name, device in _devices()],
    }


def set_rng_state(state: dict) -> None:
    """Let the generators continue from where `get_rng_state` found them."""
    torch.set_rng_state(state["torch"])
    states = dict(state["device"])
    for name, device in _devices():
        if name in states:
            device.set_rng_state(states[name])


def _devices() -> list[tuple]:
    """Those that have a generator of their own."""
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    return [(name, getattr(torch, name)) for name, is_available in there.items() if is_available()]


@contextlib.contextmanager
def preserve_rng_state():
    """What is drawn within disturbs nobody outside."""
    before = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(before)
