"""Checkpoints: how they are read, and when they are refused. Nothing here is about a model."""

import contextlib
import os
import platform
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

VERSION = 3  # of the layout of checkpoints


def read_checkpoint(path: Path, kind: str = "a checkpoint") -> dict:
    """Read a file of `write_atomically`: tensors and plain values only; nothing in it is executed."""
    refuse_bomb(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises several kinds, and advises to execute the file
        reason = getattr(error, "strerror", None)
        reason = reason or "it is damaged, or holds more than tensors and plain values"
        raise ValueError(f"{path}: not {kind} that can be read: {reason}") from None


def refuse_bomb(path: Path) -> None:
    """Raise ValueError for a pipe or a device, and for an archive that is larger unpacked.

    torch.save does not compress, so it did not write such an archive. Reading a pipe never ends.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: not a regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        return  # it is no archive, or not there: whoever reads it says so
    if unpacked > path.stat().st_size:
        size = f"{unpacked:,} bytes unpacked, {path.stat().st_size:,} packed"
        raise ValueError(f"{path}: a compressed archive ({size}), and not written by torch.save")


def check_version(path: Path, checkpoint: object) -> None:
    """Raise ValueError for anything but a checkpoint of the layout that this version writes."""
    if not isinstance(checkpoint, dict) or "model_config" not in checkpoint:
        raise _not_a_run(path)
    version = checkpoint.get("version", 1)
    if version != VERSION:
        layouts = f"is of layout {version}, and this version of the project reads layout {VERSION}"
        raise ValueError(f"{path} {layouts}: train it again, with another --to")


def read_run(path: Path, settings: dict) -> dict:
    """The checkpoint of a run to resume. Raises ValueError if its settings differ, and says how."""
    checkpoint = read_checkpoint(path)
    check_version(path, checkpoint)
    if "settings" not in checkpoint:
        raise _not_a_run(path)
    different = differences(settings, checkpoint["settings"])
    if different:
        found = "; ".join(different)
        advice = "choose another --to, or delete it"
        if any(each.startswith("epochs ") for each in different):
            advice += f". To train it for longer, start another run with --from {path.parent}"
        raise ValueError(f"{path} belongs to another run ({found}): {advice}")
    return checkpoint


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """A context in which no other process can lock the folder of a run.

    Raises ValueError, naming the process that holds it. The system gives a lock back when its
    process ends, however it ends. Where there are no such locks (Windows), nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise ValueError(
                f"{folder}: {holder} is training there: wait, stop it, or choose another --to"
            ) from None
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            break
        file.close()  # whoever held it has just removed it
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def ensure_folder(folder: Path) -> None:
    """Make the folder of a run again if somebody has deleted it, and say so."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        print(f"{folder} was deleted while training: it is made again", file=sys.stderr)


def _not_a_run(path: Path) -> ValueError:
    return ValueError(
        f"{path} is the checkpoint of something else: choose another --to, or delete it"
    )


def differences(ours: dict, theirs: dict) -> list[str]:
    """The differences between two nested dicts, in words: "decoder.hidden_size 64, there 32"."""
    ours = _flatten(ours)
    theirs = _flatten(theirs)
    found = []
    for name in ours | theirs:
        mine = ours.get(name, "nothing")
        other = theirs.get(name, "nothing")
        if mine == other:
            continue
        if max(len(str(mine)), len(str(other))) < 100:
            found.append(f"{name} {mine}, there {other}")
        else:
            found.append(f"other {name}")
    return found


def _flatten(values: dict, prefix: str = "") -> dict:
    """{"decoder": {"name": "lstm"}} -> {"decoder.name": "lstm"}."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
