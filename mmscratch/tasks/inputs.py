"""What a user gives to a verb: pictures, folders of files, lines on the standard input."""

import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from torch import Tensor

from ..data.photographs import PICTURE_SUFFIXES
from ..data.records import is_hidden
from ..images import open_image, to_tensor
from .task import image_size_of


def open_picture(path: Path, checkpoint: dict) -> Tensor:
    """Read a picture at the size that the model needs, (3, S, S) uint8, or raise ValueError."""
    size = image_size_of(checkpoint["model_config"]["encoders"])
    if size == 0:
        raise ValueError(f"{path}: this model was trained without pictures: leave it out")
    return to_tensor(open_image(path), size)


def pictures_in(paths: list[Path]) -> list[Path]:
    """The files among the paths, and the pictures in each folder among them."""
    return files_in(paths, PICTURE_SUFFIXES, "pictures")


def files_in(paths: list[Path], suffixes: Collection[str], noun: str) -> list[Path]:
    """The files among the paths, and those with one of the suffixes in each folder among them."""
    files = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = []
            for file in sorted(path.iterdir()):
                if file.suffix.lower() in suffixes and file.is_file() and not is_hidden(file.name):
                    inside.append(file)
        if not inside:
            raise ValueError(f"{path}: no {noun} in this folder")
        files += inside
    return files


def input_lines() -> Iterator[str]:
    """The lines of standard input; a terminal gets a prompt for each, until Ctrl-D."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    while True:
        try:
            yield input("? ")
        except EOFError:
            print()
            return
