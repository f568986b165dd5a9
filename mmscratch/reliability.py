"""Keeps a long run alive: the float16 loss scale, the first NaN, atomic writes, random states."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn


class GradScaler:
    """Keeps small gradients from becoming 0 in float16: all are computed `scale` times as large.

    The loss is multiplied by `scale`, and with it, by the chain rule, every gradient; before use
    they are divided by it. `scale` starts at 65,536. A step whose gradients overflowed is skipped
    and halves it; 2,000 steps in a row without an overflow double it. Other formats have the range
    of float32 and need no scale: theirs stays at 1.
    Source: Micikevicius et al. 2018; the numbers are those of torch.amp.GradScaler.
    """

    def __init__(self, dtype: torch.dtype):
        self.enabled = dtype == torch.float16
        self.scale = 65536.0 if self.enabled else 1.0
        self.good_steps = 0  # in a row

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        if not self.enabled:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= self.scale

    def update(self, finite: bool) -> None:
        """Adapt the scale after a step, whose gradients were finite or not."""
        if not self.enabled:
            return
        if not finite:
            self.scale /= 2
            self.good_steps = 0
            return
        self.good_steps += 1
        if self.good_steps == 2000:
            self.scale *= 2
            self.good_steps = 0


def first_nonfinite(model: nn.Module, batch: dict[str, Tensor]) -> str:
    """Name the first weight, output or gradient that is not finite, after a backward pass.

    Weights are checked first, then the outputs of all modules as they are computed, then the
    gradients, from the loss back to the input: "the weight decoder.bias", "the output of decoder",
    "the gradient of decoder.bias". "the model" names the model itself. "the loss" is left if all
    of these are finite. No hook remains on the model, even if its forward pass fails, and its
    modules stay in the mode that they are in, training or eval.
    """
    found = []
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            found.append(f"the weight {name}")

    def check_output(name: str):
        def hook(_module, _inputs, output) -> None:
            if not _is_finite(output):
                found.append(f"the output of {name}")

        return hook

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(check_output(name or "the model")))
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, weight in reversed(list(model.named_parameters())):  # from the loss to the input
        if weight.grad is not None and not weight.grad.isfinite().all():
            found.append(f"the gradient of {name}")
    return found[0] if found else "the loss"


def _is_finite(output) -> bool:
    """Whether all tensors in a module's output are finite; it may be a tuple, or nested tuples."""
    if isinstance(output, tuple):
        return all(_is_finite(part) for part in output)
    return not isinstance(output, Tensor) or bool(output.isfinite().all())


def write_atomically(path: Path, state: dict) -> None:
    """Write with torch.save so that a reader of `path` finds the old file or the new, never half.

    Writes a temporary file in the same folder, flushes it to the disk, and renames it; a missing
    folder is made. If that fails, raises OSError in one line that names the path and the reason,
    without the traceback of the error behind it (`from None`). The old file is then as it was, and
    no temporary file remains.
    """
    temporary = path.with_name(path.name + ".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # the content is on the disk before the name is
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        kept = "; the previous file is kept" if path.is_file() else ""
        raise OSError(
            f"{path} cannot be written: {_reason(error)}{kept}. Make room, or choose another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # there may be no such folder
            temporary.unlink()


def _reason(error: Exception) -> str:
    """What the operating system said, or else the first line of the error."""
    for cause in (error, error.__context__):
        reason = getattr(cause, "strerror", None)
        if reason:
            return reason
    return str(error).splitlines()[0]


def get_rng_state() -> dict:
    """The state of torch's random generators, on the CPU and on the GPU, as plain values."""
    return {
        "torch": torch.get_rng_state(),
        "device": [(name, device.get_rng_state()) for name, device in _devices()],
    }


def set_rng_state(state: dict) -> None:
    """Put torch's random generators back into a state of `get_rng_state`."""
    torch.set_rng_state(state["torch"])
    states = dict(state["device"])
    for name, device in _devices():
        if name in states:
            device.set_rng_state(states[name])


def _devices() -> list[tuple]:
    """(name, torch module) of the devices here that have a random generator of their own."""
    devices = []
    if torch.cuda.is_available():
        devices.append(("cuda", torch.cuda))
    if torch.backends.mps.is_available():
        devices.append(("mps", torch.mps))
    return devices


@contextlib.contextmanager
def preserve_rng_state():
    """Restore torch's random generators at the end, so that draws within do not affect others."""
    before = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(before)
