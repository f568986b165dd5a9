"""Files that take long to make: made once, each in a folder of its own."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CACHE = Path("runs/cache")
DAY = 24 * 3600  # seconds


def make_once(key: str, make: Callable[[Path], None]) -> Path:
    """The folder of this key under `CACHE`; `make` fills it if there is none yet.

    It is filled as a temporary folder that is renamed once it is complete, so neither a killed
    process nor a concurrent one leaves a part of it.
    """
    folder = CACHE.absolute() / key
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    _remove_abandoned()
    unfinished = Path(tempfile.mkdtemp(dir=CACHE, suffix=".unfinished"))
    try:
        make(unfinished)
        os.rename(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.is_dir():  # otherwise another process was faster
            raise
    return folder


def _remove_abandoned() -> None:
    """Remove the temporary folders of killed processes, once they are a day old."""
    for folder in CACHE.glob("*.unfinished"):
        if time.time() - folder.stat().st_mtime > DAY:
            shutil.rmtree(folder, ignore_errors=True)


def report_progress(what: str, done: int, total: int) -> None:
    """Write over the same line how much is done; end the line at the end."""
    end = "\n" if done == total else ""
    print(f"\r{what}: {done:,} of {total:,}", end=end, flush=True)
