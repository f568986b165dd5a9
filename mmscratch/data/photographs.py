"""Photographs on disk, decoded once."""

import hashlib
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..engine.cache import make_once, report_progress
from ..images import open_image, to_tensor

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
CHUNK = 500  # pictures decoded at a time: all of them need not fit into memory


class Photographs:
    """Picture files, decoded once into a memory-mapped file under `cache.CACHE`.

    photographs[i] is (3, size, size) uint8. `unreadable` maps the index of each picture that cannot
    be decoded to the reason.
    """

    def __init__(self, paths: list[Path], size: int):
        self.cache, self.unreadable = _decode_once(paths, size)
        self.shape = (len(paths), 3, size, size)
        self.pictures = None

    def __getitem__(self, index: int) -> Tensor:
        if self.pictures is None:
            self.pictures = np.memmap(self.cache, np.uint8, "r", shape=self.shape)
        return torch.from_numpy(np.array(self.pictures[index]))

    def __getstate__(self) -> dict:
        """Without the pixels: a worker process maps the file itself."""
        return self.__dict__ | {"pictures": None}


def _decode_once(paths: list[Path], size: int) -> tuple[Path, dict[int, str]]:
    """(a file with all pictures, uint8 (N, 3, size, size); why the unreadable ones cannot be read).

    The file's name depends on the paths, sizes and dates of the pictures.
    """
    stats = [(str(path.resolve()), _size_and_date(path)) for path in paths]
    key = hashlib.sha256(repr((size, stats)).encode()).hexdigest()[:20]

    def make(folder: Path) -> None:
        unreadable = _decode(paths, size, folder / "pictures")
        (folder / "unreadable.json").write_text(json.dumps(unreadable))

    folder = make_once(key, make)
    unreadable = json.loads((folder / "unreadable.json").read_text())
    return folder / "pictures", {int(i): reason for i, reason in unreadable.items()}


def _size_and_date(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:  # a broken link, for instance: decoding it will report that
        return None
    return stat.st_size, stat.st_mtime_ns


def _decode(paths: list[Path], size: int, file: Path) -> dict[int, str]:
    """Write the pictures to a file, black where one cannot be read; -> {index: the reason}."""
    unreadable = {}
    black = torch.zeros(3, size, size, dtype=torch.uint8)

    def read(path: Path) -> Tensor | str:
        try:
            return to_tensor(open_image(path), size)
        except (ValueError, OSError) as error:
            return str(error)

    # open_image changes Python's warning filters, which all threads share: restore them at the end.
    with (
        warnings.catch_warnings(),
        file.open("wb") as out,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for first in range(0, len(paths), CHUNK):
            chunk = paths[first : first + CHUNK]
            for i, picture in enumerate(pool.map(read, chunk), first):
                if isinstance(picture, str):
                    unreadable[i] = picture
                    picture = black
                out.write(picture.numpy().tobytes())
            if len(paths) > CHUNK:
                report_progress("decoding pictures, once", first + len(chunk), len(paths))
    return unreadable
