"""Shared by the scripts: download with resume and checksum, unpack safely, find files."""

import argparse
import contextlib
import hashlib
import http.client
import lzma
import os
import re
import shutil
import stat
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PureWindowsPath

ATTEMPTS = 3  # in a row without a new byte
WAIT = 2.0  # seconds between attempts
TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 17  # bytes
MAX_BYTES = 4 << 30  # of one download, and of the contents of one archive
MAX_FILES = 100_000  # in one archive
BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


class Interrupted(ConnectionError):
    """The download was interrupted; another attempt may help."""


def main(
    fetch: Callable[[Path | None], None],
    licence: str,
    offline: str,
    arguments: list[str] | None = None,
) -> int:
    """Run a script: fetch(the folder after --from, or None).

    `offline` says what to do without a network. Returns 0 if all is well, 2 after an error, 130
    after Ctrl-C.
    """
    parser = argparse.ArgumentParser(description=licence)
    text = "take the files from anywhere below FOLDER, and nothing from the network"
    parser.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help=text)
    source = parser.parse_args(arguments).source
    print(licence)
    try:
        fetch(source)
    except KeyboardInterrupt:
        print("stopped; the same command resumes from here", file=sys.stderr)
        return 130
    except ConnectionError as error:
        print(f"error: {error}. {offline}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a line in place of the previous one.

    Without a terminal, only the last line is printed, at the end.
    """
    line = ""
    terminal = sys.stdout.isatty()

    def show(text: str) -> None:
        nonlocal line
        line = text
        if terminal:
            print(f"\r\033[K{line}", end="", flush=True)

    try:
        yield show
    finally:
        if line:
            print("" if terminal else line, flush=True)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------
# Download.


def download(
    address: str, path: Path, expected: str | None = None, max_bytes: int = MAX_BYTES
) -> bool:
    """Fetch a file unless it exists; returns whether it was fetched.

    expected   its SHA-256; without one, an existing file counts as right, since only complete files get this name
    max_bytes  refuse larger files

    The bytes received so far are in PATH.part; the next attempt, or the next run, adds the rest. It
    does so only if both parts are certain to belong to the same file: if the checksum is known, or
    the server has named the version (its ETag). Raises ConnectionError if the server does not
    deliver the file, and ValueError if it delivers a wrong one.
    """
    if path.is_file() and (expected is None or sha256(path) == expected):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    tag = path.with_name(path.name + ".part.etag")
    failed = 0
    furthest = _size(part)
    while True:
        try:
            _receive(address, part, tag, expected is not None, max_bytes)
            break
        except ConnectionError as error:
            failed = failed + 1 if _size(part) <= furthest else 0
            furthest = max(furthest, _size(part))
            if failed == ATTEMPTS or not isinstance(error, Interrupted):
                raise ConnectionError(f"{address}: {error}") from None
            time.sleep(WAIT)
    found = sha256(part)
    tag.unlink(missing_ok=True)
    if expected not in (None, found):
        part.unlink()
        raise ValueError(
            f"{address}: not the expected file, and deleted: its SHA-256 is {found}, not {expected}. "
            "Run again; if it is wrong again, get the file elsewhere and give its folder as --from FOLDER"
        )
    os.replace(part, path)
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(address: str, part: Path, tag: Path, sum_is_known: bool, max_bytes: int) -> None:
    """Add the missing bytes to `part`; raises Interrupted if another attempt may help."""
    version = tag.read_text() if tag.exists() else ""
    done = _size(part) if version or sum_is_known else 0
    response = _open(address, part, done, version)
    if response is None:
        return
    with response:
        total = response.length  # as announced, or None
        if response.status == 206:
            total = _total_of_range(response, part, done)
        else:
            done = 0
        if total is not None and total > max_bytes:
            raise ValueError(f"{address}: {total:,} bytes, and more than {max_bytes:,} are refused")
        limit = max_bytes if total is None else total
        with open(part, "ab" if done else "wb") as file, progress() as show:
            if not done:  # only now is the old part gone
                version = response.headers.get("ETag", "")
                is_weak = version.startswith("W/")  # does not promise the same bytes
                tag.write_text("" if is_weak else version)
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                of_total = f"of {total / 1e6:.1f} " if total else ""
                show(f"{part.stem}: {done / 1e6:.1f} {of_total}MB")
                if done > limit:
                    break
    if done > limit:
        part.unlink()
        bound = f"the {limit:,} bytes that are {'allowed' if total is None else 'announced'}"
        raise ValueError(f"{address}: more than {bound}; the partial file is deleted")
    if total is not None and done < total:
        raise Interrupted(f"the connection broke off after {done:,} of {total:,} bytes")


def _open(address: str, part: Path, done: int, version: str) -> http.client.HTTPResponse | None:
    """Request the bytes from number `done` on; None if there are no more."""
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and version:
        headers["If-Range"] = version  # the rest of this version, or else all of the new one
    request = urllib.request.Request(address, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return None
        if error.code == 416:
            part.unlink(missing_ok=True)
        is_temporary = error.code in (416, 429) or error.code >= 500
        kind = Interrupted if is_temporary else ConnectionError
        raise kind(f"the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"no connection: {getattr(error, 'reason', error)}") from None


def _total_of_range(response: http.client.HTTPResponse, part: Path, done: int) -> int:
    """The size of the whole file, of which the server sends the bytes from number `done` on."""
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
    if not match or int(match[1]) != done:
        part.unlink(missing_ok=True)
        raise Interrupted(
            f"the bytes from {done:,} on were requested, and the server sends {content_range!r}"
        )
    return int(match[2])


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"the connection broke off: {error}") from None


# -------------------------------------------------------------------------------------------------
# From the disk.


def find(source: Path, names: Collection[str]) -> dict[str, list[Path]]:
    """The files or folders with these names anywhere below `source`."""
    if not source.is_dir():
        raise NotADirectoryError(f"{source}: no such folder")
    found = {name: [] for name in names}
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(set(folders) - {"__MACOSX"})
        for name in found.keys() & {*folders, *files}:
            found[name].append(Path(folder, name))
    return found


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill: it becomes `folder` when complete, and is removed after an error.

    If it then contains only one folder, that one becomes `folder`.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed run
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        inside = list(unfinished.iterdir())
        os.rename(inside[0] if len(inside) == 1 and inside[0].is_dir() else unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unpack(
    archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Unpack a .zip as `folder`, which appears once it is complete.

    Additions of macOS (__MACOSX, .DS_Store, ._*) are left out. Raises ValueError, and leaves
    nothing behind, if an entry would lie outside the folder, is a link or a device, or occurs
    twice; if there are too many entries or bytes; or if the archive is broken.
    """
    name = ""
    total = 0
    with new_folder(folder) as unfinished, progress() as show:
        try:
            with zipfile.ZipFile(archive) as file:
                for count, entry in enumerate(file.infolist(), 1):
                    name = entry.filename
                    total += entry.file_size
                    problem = _problem_of(entry)
                    if total > max_bytes or count > max_files:
                        problem = f"more than {max_bytes:,} bytes or {max_files:,} files"
                    if problem:
                        raise ValueError(f"{archive}: {problem}; nothing is unpacked")
                    _unpack_entry(file, entry, unfinished)
                    show(f"{archive.name}: {count:,} entries unpacked")
        except (FileExistsError, NotADirectoryError):
            problem = f"{name!r} occurs twice, or as a file and a folder"
            raise ValueError(f"{archive}: {problem}; nothing is unpacked") from None
        except OSError as error:
            if error.errno:  # of the disk, and not of the archive: "Invalid data stream" of bzip2
                raise
            raise ValueError(f"{archive}: not a whole archive: {error}") from None
        except BROKEN_ARCHIVE as error:
            reason = str(error).partition("\n")[0] or "it ends too early"
            raise ValueError(f"{archive}: not a whole archive: {reason}") from None


def _problem_of(entry: zipfile.ZipInfo) -> str:
    """Why this entry must not be unpacked, or nothing."""
    path = PureWindowsPath(entry.filename)  # knows drives and both kinds of slashes
    if path.anchor or ".." in path.parts:
        return f"{entry.filename!r} would be outside of the folder"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"{entry.filename!r} is a link or a device"
    return ""


def _unpack_entry(file: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    path = PureWindowsPath(entry.filename)
    if "__MACOSX" in path.parts or path.name == ".DS_Store" or path.name.startswith("._"):
        return
    target = folder.joinpath(*path.parts)
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open(entry) as packed, open(target, "xb") as out:
        shutil.copyfileobj(packed, out)
