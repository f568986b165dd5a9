"""What the scripts share: download with resume and checksum, unpack safely, find files on disk, and say what is wrong."""

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

ATTEMPTS, WAIT, TIMEOUT = (
    3,
    2.0,
    30.0,
)  # tries in a row without a new byte; seconds between them; seconds of silence
CHUNK = 1 << 17  # bytes
MAX_BYTES, MOST_FILES = 4 << 30, 100_000  # of one download, and of what one archive unpacks to
BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


class Interrupted(ConnectionError):
    """The download broke off, and may be tried again."""


def main(
    fetch: Callable[[Path | None], None],
    licence: str,
    offline: str,
    arguments: list[str] | None = None,
) -> int:
    """Run a script: fetch(the folder after --from, or None). 0 if all is well, 2 after an error, 130 after Ctrl-C.

    `offline` says what to do without a network.
    """
    parser = argparse.ArgumentParser(description=licence)
    parser.add_argument("--from", dest="source", type=Path, metavar="FOLDER",
                        help="take the files from anywhere below FOLDER, and nothing from the network")  # fmt: skip
    source = parser.parse_args(arguments).source
    print(licence)
    try:
        fetch(source)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
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
    """A function that shows a line: on a terminal each in the place of the one before, otherwise only the last."""
    line, terminal = "", sys.stdout.isatty()

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


# ---------------------------------------------------------------------------------------------------------------------
# Download.


def download(address: str, path: Path, expected: str | None = None, most: int = MAX_BYTES) -> bool:
    """Fetch a file, unless it is there; -> whether it was fetched.

    expected   its SHA-256; without one, a file that is there is taken for right, since only a whole one is
    most       bytes; more are refused

    What has come lies in PATH.part, to which the next try, or the next run, adds the rest. So it does only where both
    parts are sure to be of the same file: where the sum is known, or the server has named the version (its ETag).
    Raises ConnectionError where the server does not give the file, and ValueError where it gives a wrong one.
    """
    if path.is_file() and (expected is None or sha256(path) == expected):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part, tag = (path.with_name(path.name + suffix) for suffix in (".part", ".part.etag"))
    failed, furthest = 0, _size(part)
    while True:
        try:
            _receive(address, part, tag, expected is not None, most)
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
        raise ValueError(f"{address}: not the file that was expected, and deleted: its SHA-256 is {found}, not {expected}. Run "
                         "it again; if it is wrong again, take the file from elsewhere, with --from FOLDER")  # fmt: skip
    os.replace(part, path)
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(address: str, part: Path, tag: Path, sum_is_known: bool, most: int) -> None:
    """Add to `part` what it lacks; raises Interrupted where another try may help."""
    version = tag.read_text() if tag.exists() else ""
    done = _size(part) if version or sum_is_known else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and version:
        headers["If-Range"] = version  # the rest of this version, or else the whole of the new one
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(address, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # all is there
        if error.code == 416:
            part.unlink(missing_ok=True)
        again = error.code in (416, 429) or error.code >= 500
        raise (Interrupted if again else ConnectionError)(
            f"the server answers {error.code} {error.reason}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"no connection: {getattr(error, 'reason', error)}") from None
    with response:
        total = response.length  # as announced, or None
        if response.status == 206:
            place = response.headers.get("Content-Range", "")
            sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", place)
            if not sent or int(sent[1]) != done:
                part.unlink(missing_ok=True)
                raise Interrupted(
                    f"bytes from {done:,} on were asked for, and the server sends {place!r}"
                )
            total = int(sent[2])
        else:
            done = 0
        if total is not None and total > most:
            raise ValueError(f"{address}: {total:,} bytes, and more than {most:,} are refused")
        limit = most if total is None else total
        with open(part, "ab" if done else "wb") as file, progress() as show:
            if not done:  # only now is the old part gone
                version = response.headers.get("ETag", "")
                tag.write_text(
                    "" if version.startswith("W/") else version
                )  # a weak one does not promise the same bytes
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                show(f"{part.stem}: {done / 1e6:.1f} {f'of {total / 1e6:.1f} ' if total else ''}MB")
                if done > limit:
                    break
    if done > limit:
        part.unlink()
        reason = "allowed" if total is None else "announced"
        raise ValueError(
            f"{address}: more than the {limit:,} bytes that are {reason}; what has come is deleted"
        )
    if total is not None and done < total:
        raise Interrupted(f"the connection broke off after {done:,} of {total:,} bytes")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"the connection broke off: {error}") from None


# ---------------------------------------------------------------------------------------------------------------------
# From the disk.


def find(source: Path, names: Collection[str]) -> dict[str, list[Path]]:
    """Where files or folders of these names lie below `source`."""
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
    """An empty folder to be filled, which becomes `folder` when it is whole, and otherwise is removed.

    If all that it then holds is one folder, this one becomes `folder`.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed run has left
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        inside = list(unfinished.iterdir())
        os.rename(inside[0] if len(inside) == 1 and inside[0].is_dir() else unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unpack(
    archive: Path, folder: Path, most_bytes: int = MAX_BYTES, most_files: int = MOST_FILES
) -> None:
    """Unpack a .zip as `folder`, which appears when it is whole.

    What macOS adds (__MACOSX) is left out. Raises ValueError, and leaves nothing, where an entry would lie outside of the
    folder, or is a link or a device, or stands there twice, where all are too many or too large, or the archive is broken.
    """
    name, total = "", 0
    with new_folder(folder) as unfinished, progress() as show:
        try:
            with zipfile.ZipFile(archive) as file:
                for count, entry in enumerate(file.infolist(), 1):
                    name, total = entry.filename, total + entry.file_size
                    path = PureWindowsPath(name)  # of Windows: it knows drives and both slashes
                    if path.anchor or ".." in path.parts:
                        raise ValueError(
                            f"{archive}: {name!r} would be outside of the folder; nothing is unpacked"
                        )
                    if stat.S_IFMT(entry.external_attr >> 16) not in (
                        0,
                        stat.S_IFREG,
                        stat.S_IFDIR,
                    ):
                        raise ValueError(
                            f"{archive}: {name!r} is a link or a device; nothing is unpacked"
                        )
                    if total > most_bytes or count > most_files:
                        raise ValueError(
                            f"{archive}: more than {most_bytes:,} bytes or {most_files:,} files; nothing is unpacked"
                        )
                    if "__MACOSX" in path.parts:
                        continue
                    target = unfinished.joinpath(*path.parts)
                    (target if entry.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
                    if not entry.is_dir():
                        with file.open(entry) as packed, open(target, "xb") as out:
                            shutil.copyfileobj(packed, out)
                    show(f"{archive.name}: {count:,} entries unpacked")
        except (FileExistsError, NotADirectoryError):
            raise ValueError(
                f"{archive}: {name!r} is in it twice, or as a file and a folder; nothing is unpacked"
            ) from None
        except BROKEN_ARCHIVE as error:
            reason = str(error).partition("\n")[0] or "it ends too early"
            raise ValueError(f"{archive}: not a whole archive: {reason}") from None
