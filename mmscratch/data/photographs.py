"""Photographs on disk, decoded once."""

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..images import open_image, to_tensor

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
CACHE = Path("runs/cache")


class Photographs:
    """Picture files, decoded once into a memory-mapped file under `CACHE`; photographs[i] is (3, size, size) uint8.

    `unreadable` says of those that cannot be decoded, by their number, what is wrong.
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
        return self.__dict__ | {
            "pictures": None
        }  # a worker process maps the file itself, and gets no copy


def _decode_once(paths: list[Path], size: int) -> tuple[Path, dict[int, str]]:
    """(a file with all pictures as uint8 (N, 3, size, size), what is wrong with those that cannot be read).

    The file's name depends on the pictures' paths, sizes and dates. It is written in a folder of its own that is
    renamed when it is whole, so that neither a killed process nor a second one at work leaves half of it to others.
    """
    stats = [(str(path.resolve()), _size_and_date(path)) for path in paths]
    folder = CACHE.absolute() / hashlib.sha256(repr((size, stats)).encode()).hexdigest()[:20]
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        for left in CACHE.glob("*.unfinished"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > 24 * 3600:
                shutil.rmtree(left, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(dir=CACHE, suffix=".unfinished"))
        try:
            unreadable = _decode(paths, size, unfinished / "pictures")
            (unfinished / "unreadable.json").write_text(json.dumps(unreadable))
            os.rename(unfinished, folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not folder.is_dir():  # else another process was faster
                raise
    unreadable = json.loads((folder / "unreadable.json").read_text())
    return folder / "pictures", {int(i): reason for i, reason in unreadable.items()}


def _size_and_date(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:  # a link to nothing, say: reading it will tell
        return None
    return stat.st_size, stat.st_mtime_ns


def _decode(paths: list[Path], size: int, file: Path) -> dict[int, str]:
    def read(path: Path) -> Tensor | str:
        try:
            return to_tensor(open_image(path), size)
        except (ValueError, OSError) as error:
            return str(error)

    unreadable, blank = {}, torch.zeros(3, size, size, dtype=torch.uint8)
    waiting = iter(paths)
    # open_image changes Python's warning filters for a moment, which threads do one into the other: put back at the end
    with (
        warnings.catch_warnings(),
        file.open("wb") as out,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for first in range(0, len(paths), 500):  # not all at once: they need not fit into memory
            for i, picture in enumerate(pool.map(read, islice(waiting, 500)), first):
                if isinstance(picture, str):
                    unreadable[i], picture = picture, blank
                out.write(picture.numpy().tobytes())
            if len(paths) > 500:
                done = min(first + 500, len(paths))
                print(
                    f"\rdecoding pictures, once: {done} of {len(paths)}",
                    end="\n" if done == len(paths) else "",
                    flush=True,
                )
    return unreadable
