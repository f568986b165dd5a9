"""The file format in which most published weights come, read with every bound checked."""

import json
import math
import os
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {  # as a .safetensors file names them
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000  # bytes; the reference implementation refuses a longer header, too


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors file by name, each in memory of its own.

        length of the header (8 bytes, little-endian) | header (JSON) | data
        header = {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …}, in bytes of the data

    "__metadata__" names some text. The tensors fill the data, one behind the other, without overlaps or holes.
    Raises ValueError, in one line, where it is otherwise in any way, before it takes memory for a tensor.
    Source: huggingface/safetensors, which refuses the same.
    """
    state = {}
    with open(path, "rb") as file:
        try:
            for begin, end, name, dtype, shape in _read_header(file):
                data = torch.empty(end - begin, dtype=torch.uint8)
                if file.readinto(data.numpy()) < len(data):
                    raise ValueError("it became shorter while it was read")
                state[name] = data.view(dtype).view(shape)
        except ValueError as error:
            raise ValueError(
                f"{path}: not a whole .safetensors file: {error}. Copy it again"
            ) from None
    return state


def _read_header(file) -> list[tuple[int, int, str, torch.dtype, list[int]]]:
    """What `_read_entry` gives for the tensors in an open .safetensors file, in the order of their data, up to which it
    reads; raises ValueError if they do not fill it."""
    length, rest = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size - 8
    if length > min(
        rest, MAX_HEADER_BYTES
    ):  # `rest` is below 0 in a file that is too short for a length
        raise ValueError(
            f"it is too short, or its header of {length:,} bytes longer than {MAX_HEADER_BYTES:,}"
        )
    header = parse_json(file.read(length))
    text = header.pop("__metadata__", {})
    if not isinstance(text, dict) or not all(isinstance(value, str) for value in text.values()):
        raise ValueError("its __metadata__ is not text by name")
    tensors = sorted(_read_entry(name, entry) for name, entry in header.items())
    place = 0
    for begin, end, name, *_ in tensors:
        if begin != place:
            raise ValueError(
                f"{name!r:.200} begins at byte {begin:,} of the data, and should at {place:,}"
            )
        place = end
    if place != rest - length:
        raise ValueError(f"its tensors take {place:,} bytes of data, and it has {rest - length:,}")
    return tensors


def _read_entry(name: str, entry) -> tuple[int, int, str, torch.dtype, list[int]]:
    """One tensor in the header -> begin, end, name, dtype, shape; raises ValueError if these cannot be."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name!r:.200} is of dtype {dtype!r:.50}; known are {', '.join(DTYPES)}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(n) is int and 0 <= n < 2**63 for n in numbers
        ):
            raise ValueError(f"{name!r:.200} has {numbers!r:.50} for a shape or data_offsets")
    if len(offsets) != 2 or len(shape) > 64 or math.prod(n or 1 for n in shape) >= 2**63:
        raise ValueError(
            f"{name!r:.200} has too large a shape, {shape!r:.50}, or not two data_offsets, {offsets!r:.50}"
        )
    (begin, end), size = offsets, math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != size:
        raise ValueError(
            f"{name!r:.200} lies from byte {begin:,} to {end:,}; {dtype} {shape!r:.50} takes {size:,} bytes"
        )
    return begin, end, name, DTYPES[dtype], shape


def parse_json(text: bytes) -> dict:
    """An object of JSON in UTF-8; raises ValueError for anything else, and if a name stands in an object twice."""
    try:
        values = json.loads(text.decode(), object_pairs_hook=once_each)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("its JSON is not an object")
    return values


def once_each(pairs: list[tuple[str, object]]) -> dict:
    """dict(pairs) of a JSON object, as an object_pairs_hook. Raises ValueError for a name that is there twice, of which
    JSON's reader would silently drop the first."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(name for name in names if names.count(name) > 1)!r:.200} is there twice"
        )
    return entry
