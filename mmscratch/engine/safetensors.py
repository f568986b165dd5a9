"""The file format of most published weights, read with every bound checked."""

import json
import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = {  # by their names in a .safetensors file
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000  # the reference implementation refuses a longer header, too


class UnsupportedError(ValueError):
    """A whole file with something in it that we do not read."""


class Entry(NamedTuple):
    """A tensor in the header: its bytes in the data, `begin` to `end`, and how to read them."""

    begin: int
    end: int
    name: str
    dtype: torch.dtype
    shape: list[int]


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors file by name, each in its own memory.

        length of the header (8 bytes, little-endian) | header (JSON) | data
        header = {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …}

    Offsets count the bytes of the data. The tensors fill it one after another, without overlaps or
    gaps. "__metadata__" maps names to text. Raises ValueError, in one line, for any other file,
    before it allocates memory for a tensor. Source: huggingface/safetensors, which refuses the same
    files.
    """
    state = {}
    with open(path, "rb") as file:
        try:
            for entry in _read_header(file):
                data = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
                if file.readinto(data.numpy()) < len(data):
                    raise ValueError("it became shorter while it was read")
                state[entry.name] = data.view(entry.dtype).view(entry.shape)
        except UnsupportedError as error:
            raise ValueError(f"{path}: {error}") from None
        except ValueError as error:
            refuse_pointer(path)
            problem = f"{path}: not a whole .safetensors file: {error}. Copy it again"
            raise ValueError(problem) from None
    return state


def refuse_pointer(path: str | Path) -> None:
    """Raise ValueError if a file is git-lfs's pointer to the real one."""
    with open(path, "rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            raise ValueError(f"{path}: a git-lfs pointer in place of the file: run git lfs pull")


def _read_header(file) -> list[Entry]:
    """Read the header up to the data: the tensors, in the order of their data."""
    length = int.from_bytes(file.read(8), "little")
    rest = os.fstat(file.fileno()).st_size - 8  # negative if the file is too short for a length
    if length > min(rest, MAX_HEADER_BYTES):
        limit = f"{MAX_HEADER_BYTES:,}"
        raise ValueError(f"it is too short, or its header of {length:,} bytes longer than {limit}")
    header = parse_json(file.read(length))
    text = header.pop("__metadata__", {})
    if not isinstance(text, dict) or not all(isinstance(value, str) for value in text.values()):
        raise ValueError("its __metadata__ does not map names to text")
    entries = [_read_entry(name, entry) for name, entry in header.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end, entry.name))
    position = 0
    for entry in entries:
        if entry.begin != position:
            where = f"begins at byte {entry.begin:,} of the data, and should at {position:,}"
            raise ValueError(f"{entry.name!r:.200} {where}")
        position = entry.end
    if position != rest - length:
        size = f"{rest - length:,}"
        raise ValueError(f"its tensors take {position:,} bytes of data, and it has {size}")
    return entries


def _read_entry(name: str, entry) -> Entry:
    """Check one entry of the header; raises ValueError if it cannot be right."""
    label = f"{name!r:.200}"
    entry = entry if isinstance(entry, dict) else {}
    dtype = entry.get("dtype")
    shape = entry.get("shape")
    offsets = entry.get("data_offsets")
    if isinstance(dtype, str) and re.fullmatch(r"[A-Z]+\d\w*", dtype) and dtype not in DTYPES:
        raise UnsupportedError(f"the dtype {dtype:.20} is not supported (tensor {label})")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{label} has the dtype {dtype!r:.50}; known are {', '.join(DTYPES)}")
    for numbers in (shape, offsets):
        if not _are_sizes(numbers):
            raise ValueError(f"{label} has {numbers!r:.50} for a shape or data_offsets")
    if len(offsets) != 2 or len(shape) > 64 or math.prod(n or 1 for n in shape) >= 2**63:
        problem = f"too large a shape, {shape!r:.50}, or not two data_offsets, {offsets!r:.50}"
        raise ValueError(f"{label} has {problem}")
    begin, end = offsets
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != size:
        expected = f"{dtype} {shape!r:.50} takes {size:,} bytes"
        raise ValueError(f"{label} lies from byte {begin:,} to {end:,}; {expected}")
    return Entry(begin, end, name, DTYPES[dtype], shape)


def _are_sizes(numbers: object) -> bool:
    """Whether this is a list of non-negative 64-bit integers."""
    if not isinstance(numbers, list):
        return False
    return all(type(n) is int and 0 <= n < 2**63 for n in numbers)


def parse_json(text: bytes) -> dict:
    """Parse a JSON object in UTF-8; raises ValueError for anything else, and for duplicate names."""
    try:
        values = json.loads(text.decode(), object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("its JSON is not an object")
    return values


def unique_keys(pairs: list[tuple[str, object]]) -> dict:
    """dict(pairs), but a duplicate name raises ValueError: an object_pairs_hook for json."""
    values = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{name!r:.200} occurs twice")
        values[name] = value
    return values
