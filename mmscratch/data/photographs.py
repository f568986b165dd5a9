"""Photographs on disk, decoded once."""

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..images import open_image, to_tensor

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
CACHE = Path("runs/cache")
CHUNK = 500  # pictures decoded at a time: all of them need not fit into memory


class Photographs:
    """Picture files, decoded once into a memory-mapped file under `CACHE`.

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

    The file's name depends on the paths, sizes and dates of the pictures. It is written in a
    temporary folder that is renamed once it is complete, so neither a killed process nor a
    concurrent one leaves a partial file.
    """
    stats = [(str(path.resolve()), _size_and_date(path)) for path in paths]
    folder = CACHE.absolute() / hashlib.sha256(repr((size, stats)).encode()).hexdigest()[:20]
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        _remove_abandoned()
        unfinished = Path(tempfile.mkdtemp(dir=CACHE, suffix=".unfinished"))
        try:
            unreadable = _decode(paths, size, unfinished / "pictures")
            (unfinished / "unreadable.json").write_text(json.dumps(unreadable))
            os.rename(unfinished, folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not folder.is_dir():  # otherwise another process was faster
                raise
    unreadable = json.loads((folder / "unreadable.json").read_text())
    return folder / "pictures", {int(i): reason for i, reason in unreadable.items()}


def _remove_abandoned() -> None:
    """Remove the temporary folders of killed processes, once they are a day old."""
    for folder in CACHE.glob("*.unfinished"):
        if time.time() - folder.stat().st_mtime > 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)


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
                done = first + len(chunk)
                end = "\n" if done == len(paths) else ""
                print(f"\rdecoding pictures, once: {done} of {len(paths)}", end=end, flush=True)
    return unreadable
