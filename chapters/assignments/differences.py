"""Says in words how a result differs from what was expected."""

import contextlib

import torch
from torch import Tensor

CLOSE = {"rtol": 1e-3, "atol": 1e-6}
MAX_SHOWN = 12  # numbers of a small tensor


def describe(got: object, expected: object, masks: dict[str, Tensor]) -> str:
    """How `got` differs from `expected`, if there is something plain to say; or "".

    masks  bool tensors by name, such as those that the test has given: "right where mask is True"
    """
    if isinstance(expected, (tuple, list)) and isinstance(got, (tuple, list)):
        if len(got) != len(expected):
            return f"yours has {len(got)} parts, expected are {len(expected)}"
        for i, (one, other) in enumerate(zip(got, expected)):
            said = describe(one, other, masks)
            if said:
                return f"part {i}: {said}"
        return ""
    if not isinstance(expected, Tensor) or not isinstance(got, Tensor):
        if type(got) is not type(expected) and Tensor in (type(got), type(expected)):
            return f"yours is a {type(got).__name__}, expected is a {type(expected).__name__}"
        return ""
    if got.shape != expected.shape:
        return _describe_shapes(got, expected)
    if got.numel() == 0 or got.is_sparse or expected.is_sparse or got.device != expected.device:
        return ""
    if got.dtype == torch.bool:
        if torch.equal(got, ~expected):
            return "True and False are exchanged"
        return _describe_places(got == expected, masks)
    return _describe_numbers(got.detach().double(), expected.detach().double(), masks)


def _describe_shapes(got: Tensor, expected: Tensor) -> str:
    text = f"yours has the shape {tuple(got.shape)}, expected is {tuple(expected.shape)}"
    if sorted(got.shape) == sorted(expected.shape) and got.dim() > 1:
        text += ": its dimensions are in another order"
    elif got.dim() == expected.dim() + 1 and 1 in got.shape:
        text += ": a dimension of size 1 is left over"
    return text


def _describe_numbers(got: Tensor, expected: Tensor, masks: dict[str, Tensor]) -> str:
    """The tensors have the same shape, and are in double precision."""
    strange = ~got.isfinite() & expected.isfinite()
    if strange.any():
        kind = "NaN" if got.isnan().any() else "infinite"
        return f"yours is {kind} in {int(strange.sum())} of {got.numel()} places{_where(strange, masks)}"
    if not (got.isfinite() & expected.isfinite()).all():
        return ""
    if torch.equal(got, expected):
        return ""
    nonzero = expected.abs() > 1e-12
    if nonzero.any() and torch.allclose(got[~nonzero], expected[~nonzero], **CLOSE):
        ratios = got[nonzero] / expected[nonzero]
        ratio = ratios.median()
        if torch.allclose(ratios, ratio, rtol=1e-3, atol=1e-9) and nonzero.sum() > 1:
            return _describe_ratio(ratio.item())
    if expected.numel() > 1 and not got.any():
        return "yours is 0 everywhere"
    shift = got - expected
    if got.numel() > 1 and torch.allclose(shift, shift.median(), rtol=1e-3, atol=1e-7):
        return f"yours is the expected plus {shift.median().item():.4g} everywhere"
    right = torch.isclose(got, expected, **CLOSE)
    order = _describe_order(got, expected)
    return order or _describe_places(right, masks)


def _describe_ratio(ratio: float) -> str:
    if abs(ratio - 1) < 1e-3:
        return "yours is nearly the expected: the numbers are less exact"
    if abs(ratio + 1) < 1e-3:
        return "yours is the expected with the opposite sign"
    if abs(ratio) < 1e-9:
        return "yours is 0 everywhere"
    inverse = 1 / ratio
    for power, name in ((1, ""), (2, "the square root of ")):
        number = abs(inverse) ** power
        if number > 1 and abs(number - round(number)) < 1e-3 * number:
            return f"yours is the expected divided by {name}{round(number)}"
        number = abs(ratio) ** power
        if number > 1 and abs(number - round(number)) < 1e-3 * number:
            return f"yours is the expected times {name}{round(number)}"
    return f"yours is the expected times {ratio:.4g}"


def _describe_order(got: Tensor, expected: Tensor) -> str:
    """Whether the numbers are the expected ones in other places."""
    for dim in range(got.dim()):
        if got.size(dim) > 1 and torch.allclose(got.flip(dim), expected, **CLOSE):
            return f"the same numbers in reverse order along dimension {dim}"
    for i in range(got.dim()):
        for j in range(i):
            if got.size(i) == got.size(j) and torch.allclose(
                got.transpose(i, j), expected, **CLOSE
            ):
                return f"the same numbers with dimensions {j} and {i} exchanged"
    for dim in range(got.dim()):
        for shift in (1, -1):
            if got.size(dim) > 2 and torch.allclose(got.roll(shift, dim), expected, **CLOSE):
                return f"the same numbers, shifted by one along dimension {dim}"
    mine, theirs = got.flatten().sort().values, expected.flatten().sort().values
    if got.numel() > 2 and torch.allclose(mine, theirs, **CLOSE) and theirs[0] != theirs[-1]:
        return "the same numbers in another order"
    return ""


def _describe_places(right: Tensor, masks: dict[str, Tensor]) -> str:
    """Where the values are right, if that is a whole slice, or all of a mask."""
    if right.all() or not right.any():
        return ""
    fitting = {}
    for name, mask in masks.items():
        with contextlib.suppress(RuntimeError):  # of another shape
            fitting[name] = mask.expand(right.shape)
    for name, mask in fitting.items():
        if torch.equal(right, mask):
            return f"right where {name} is True, wrong elsewhere"
        if torch.equal(right, ~mask):
            return f"right where {name} is False, wrong elsewhere"
    for dim in range(right.dim()):
        others = [d for d in range(right.dim()) if d != dim]
        if right.size(dim) == 1:
            continue
        whole = right.all(others) if others else right
        none = ~(right.any(others) if others else right)
        if not (whole | none).all():
            continue
        places = whole.nonzero().flatten().tolist()
        wrong = none.nonzero().flatten().tolist()
        if len(places) == 1:
            return f"right at {places[0]} along dimension {dim} only"
        if len(wrong) == 1:
            return f"wrong at {wrong[0]} along dimension {dim} only"
    for name, mask in fitting.items():
        if right[mask].all():
            return f"right wherever {name} is True, but not everywhere else"
        if right[~mask].all():
            return f"right wherever {name} is False, but not everywhere else"
    share = int(right.sum())
    return f"right in {share} of {right.numel()} places"


def _where(strange: Tensor, masks: dict[str, Tensor]) -> str:
    for name, mask in masks.items():
        if mask.shape == strange.shape and torch.equal(strange, ~mask):
            return f", where {name} is False"
        if mask.shape == strange.shape and torch.equal(strange, mask):
            return f", where {name} is True"
    if strange.dim() > 1:
        rows = strange.flatten(1).all(1)
        if torch.equal(rows, strange.flatten(1).any(1)) and rows.sum() == 1:
            return f": in row {rows.nonzero().item()}"
    return ""


def show_small(value: object) -> str:
    """A small tensor as it is, or "": "[[1, 0], [0, 1]]"."""
    if not isinstance(value, Tensor) or not 0 < value.numel() <= MAX_SHOWN or value.is_sparse:
        return ""
    if value.is_complex() or value.is_meta:
        return ""

    def written(numbers) -> str:
        if isinstance(numbers, list):
            return f"[{', '.join(written(number) for number in numbers)}]"
        return f"{numbers:.4g}" if isinstance(numbers, float) else str(numbers)

    return written(value.detach().cpu().tolist())
