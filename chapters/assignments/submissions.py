"""Reads submissions: files, folders and zip files, which are never unpacked."""

import contextlib
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath

from data_scripts.fetch import BROKEN_ARCHIVE

from .exercises import Exercise, path_of

MAX_BYTES = 1 << 20  # of a learner's file


def read_files(source: Path, exercises: Sequence[Exercise]) -> dict[str, tuple[str, str]]:
    """The exercises' modules in a submission: {module: (file name, text)}.

    source: a folder or zip file, searched to any depth, or a single .py file, which then counts
        for every module. Links are skipped, since they lead elsewhere.
    Raises ValueError for a file that is not text, or too large to be written by hand, and for a
    broken zip file.
    """
    if source.is_file() and source.suffix.lower() not in (".py", ".zip"):
        raise ValueError(f"{source.name}: neither a .py file, a .zip file nor a folder")
    found = {}
    with contextlib.ExitStack() as stack:
        sizes, read = _open_source(source, stack)
        for module in dict.fromkeys(exercise.module for exercise in exercises):
            names = list(sizes)
            if source.suffix != ".py":
                names = [name for name in sizes if _name_of(name) == path_of(module).name]
            if not names:
                continue
            name = min(names, key=lambda name: (len(PureWindowsPath(name).parts), name))
            if sizes[name] > MAX_BYTES:
                raise ValueError(f"{name}: larger than {MAX_BYTES:,} bytes")
            try:
                found[module] = name, read(name).decode("utf-8-sig")
            except UnicodeDecodeError:
                raise ValueError(f"{name}: not UTF-8 text") from None
            except BROKEN_ARCHIVE:
                raise ValueError(f"{source}: not a complete archive") from None
    return found


def _name_of(path: str) -> str:
    """The last part of a path, which may have been written on Windows: work\\attention.py."""
    return PureWindowsPath(path).name


def _open_source(
    source: Path, stack: contextlib.ExitStack
) -> tuple[dict[str, int], Callable[[str], bytes]]:
    """{file name: size in bytes}, and a function that reads a file; `stack` closes the archive."""
    if source.suffix.lower() == ".zip" and source.is_file():
        try:
            archive = stack.enter_context(zipfile.ZipFile(source))
        except BROKEN_ARCHIVE:
            raise ValueError(f"{source}: not a complete archive") from None
        return {entry.filename: entry.file_size for entry in archive.infolist()}, archive.read
    paths = [source]
    if not source.is_file():
        paths = [path for path in source.rglob("*.py") if path.is_file()]
    root = source.resolve()
    inside = {}
    for path in paths:
        if path.resolve() == root / path.relative_to(source):  # not a link
            inside[str(path)] = path
    sizes = {name: path.stat().st_size for name, path in inside.items()}
    return sizes, lambda name: inside[name].read_bytes()


def submissions_in(folder: Path) -> dict[str, Path]:
    """{name: whatever was handed in}. The suffix is left out where the name stays unique."""
    paths = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith((".", "__MACOSX", "__pycache__")):
            paths.append(path)
    if not paths:
        raise ValueError(f"{folder}: no submission in it: no .py or .zip file, and no folder")
    stems = Counter(path.name if path.is_dir() else path.stem for path in paths)
    named = {}
    for path in paths:
        keep_suffix = path.is_dir() or stems[path.stem] > 1
        named[path.name if keep_suffix else path.stem] = path
    return named
