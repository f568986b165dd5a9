"""What learners hand in: files, folders and zip files, which are read and never unpacked."""

import contextlib
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from data_scripts.fetch import BROKEN_ARCHIVE

from .exercises import Exercise, path_of

MAX_BYTES = 1 << 20  # of a learner's file


def read_files(source: Path, exercises: Sequence[Exercise]) -> dict[str, tuple[str, str]]:
    """module -> (name of the file, text), from a folder or a zip file, anywhere in it, or from one
    file, for every module.

    Links are left out: they lead elsewhere. Raises ValueError for what is no text, or too large to
    be written by hand, and for a broken zip file.
    """
    found = {}
    with contextlib.ExitStack() as stack:
        sizes, read = _opened(source, stack)
        for module in dict.fromkeys(exercise.module for exercise in exercises):
            wanted = path_of(module).name
            fitting = [
                name for name in sizes if source.suffix == ".py" or PurePath(name).name == wanted
            ]
            if not fitting:
                continue
            name = min(fitting, key=lambda name: (len(PurePath(name).parts), name))
            if sizes[name] > MAX_BYTES:
                raise ValueError(f"{name}: larger than {MAX_BYTES:,} bytes")
            try:
                found[module] = name, read(name).decode("utf-8-sig")
            except UnicodeDecodeError:
                raise ValueError(f"{name}: not UTF-8 text") from None
            except BROKEN_ARCHIVE:
                raise ValueError(f"{source}: not a whole archive") from None
    return found


def _opened(
    source: Path, stack: contextlib.ExitStack
) -> tuple[dict[str, int], Callable[[str], bytes]]:
    """name -> bytes of each file in it, and how to read one; the stack closes what is opened."""
    if source.suffix.lower() == ".zip" and source.is_file():
        try:
            archive = stack.enter_context(zipfile.ZipFile(source))
        except BROKEN_ARCHIVE:
            raise ValueError(f"{source}: not a whole archive") from None
        return {entry.filename: entry.file_size for entry in archive.infolist()}, archive.read
    paths = (
        [source] if source.is_file() else [path for path in source.rglob("*.py") if path.is_file()]
    )
    root = source.resolve()
    inside = {
        str(path): path for path in paths if path.resolve() == root / path.relative_to(source)
    }
    sizes = {name: path.stat().st_size for name, path in inside.items()}
    return sizes, lambda name: inside[name].read_bytes()


def submissions_in(folder: Path) -> dict[str, Path]:
    """name -> file, folder or zip file. The name is the file's, without its ending where that stays unique."""
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__"))
             and (path.is_dir() or path.suffix.lower() in (".py", ".zip"))]  # fmt: skip
    if not paths:
        raise ValueError(
            f"{folder}: there is no submission in it, no .py or .zip file, and no folder"
        )
    stems = Counter(path.name if path.is_dir() else path.stem for path in paths)
    return {
        path.name if path.is_dir() or stems[path.stem] > 1 else path.stem: path for path in paths
    }
