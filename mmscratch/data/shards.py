"""Shards: pictures with captions in tar files, read where they lie, however many there are."""

import hashlib
import io
import json
import os
import sys
import tarfile
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torch import Tensor

from ..engine.cache import make_once, report_progress
from ..images import open_image, to_tensor
from ..text import printable
from .dataset import DataSet, LazyColumn, words_of
from .photographs import PICTURE_SUFFIXES
from .records import check_split

OPEN_EXAMPLES = 25_000  # of the shards that are open at a time, in each process; at least two are
HELD_OUT = 1000  # examples of the validation or the test split, at most
VOCABULARY_EXAMPLES = 100_000  # whose captions make the vocabulary
MAX_PICTURE = 100_000_000  # bytes
MAX_TEXT = 1_000_000  # bytes
MAX_NAME = 200  # characters of a member's name
MAX_WORDS = 64  # of a caption: texts of the web may be pages long


class Place(NamedTuple):
    """Where a file lies in a tar file, in bytes."""

    offset: int
    size: int


class Entry(NamedTuple):
    """An example in a shard: its key, and where its picture and its caption lie."""

    key: str
    picture: Place
    text: Place
    is_json: bool


def list_shard(path: Path, problems: list[str]) -> list[Entry]:
    """The examples of a tar file, in its order. Only headers are read, nothing is unpacked.

    In the WebDataset convention, files that follow one another with the same name up to its first
    dot are one example: 000123.jpg, 000123.txt, 000123.json. The caption is the .txt, or "caption"
    or "captions" in the .json. What is no file (a link, a device), is too large or incomplete is
    left out and named in `problems`; of a damaged tar file, what comes before the damage is used.
    """
    entries = []
    key = None
    files: dict[str, Place] = {}

    def finish() -> None:
        """Make an entry of the files of a key."""
        pictures = [files[suffix] for suffix in files if suffix in PICTURE_SUFFIXES]
        kinds = [suffix for suffix in (".txt", ".json") if suffix in files]
        if pictures and kinds:
            entries.append(Entry(key, pictures[0], files[kinds[0]], kinds[0] == ".json"))
        elif files:
            lacks = "picture" if not pictures else "caption (.txt or .json)"
            problems.append(f"{path}: {key} has no {lacks}")

    end = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # it would keep them all
                if member.isdir():
                    continue
                name = PurePosixPath(member.name).name
                suffix = PurePosixPath(name).suffix.lower()
                limit = MAX_PICTURE if suffix in PICTURE_SUFFIXES else MAX_TEXT
                if not member.isreg() or member.size > limit:
                    reason = "no file" if not member.isreg() else f"{member.size:,} bytes"
                    problems.append(
                        f"{path}: {printable(member.name)[:MAX_NAME]}: {reason}, not read"
                    )
                    continue
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError("it ends within a file")
                base = printable(name.partition(".")[0])[:MAX_NAME]
                if base != key:
                    finish()
                    key, files = base, {}
                files.setdefault(suffix, Place(member.offset_data, member.size))
            if end < tar.offset + tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it has no end mark")
    except (tarfile.TarError, EOFError) as error:
        problems.append(f"{path}: damaged, {len(entries)} examples before the damage: {error}")
    finish()
    return entries


class ShardCaptions(DataSet):
    """Pictures with captions in tar files, as img2dataset writes them: 00000.tar, 00001.tar, …

    The folder has train/ and validation/, perhaps test/, each with tar files; or tar files only:
    the last one by name is then for validation, up to 1,000 of its examples. Examples are read from
    their tar file on access, so that memory does not depend on how many there are. What a shard
    holds is counted once.

    shard_sizes  the number of examples of each shard (training only)
    references   the captions of the first 100,000 examples, for the vocabulary (training only)
    """

    max_words = MAX_WORDS  # of a caption

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        super().__init__()
        check_split(split)
        self.size = size
        self.paths = _shards_of_split(Path(root), split)
        self.opened: OrderedDict[int, tuple[int, list[Entry]]] = OrderedDict()
        self.log: Path | None = None  # where pictures that cannot be read are named
        counts, self.problems = _count(self.paths)
        if not sum(counts):
            raise ValueError(f"{root}: its tar files hold no pictures with captions")
        self.starts = [0, *accumulate(counts)]
        if split != "train":
            self._read_all(min(HELD_OUT, sum(counts)))
            return
        self.shard_sizes = counts
        self.columns["image"] = LazyColumn(self.picture, range(sum(counts)))
        for i in range(min(VOCABULARY_EXAMPLES, sum(counts))):
            try:
                self.references.append(self.captions(i))
            except ValueError as error:
                self.problems.append(str(error))

    def _read_all(self, count: int) -> None:
        pictures = []
        for i in range(count):
            try:
                picture, texts = self.picture(i), self._texts(i)
            except ValueError as error:
                self.problems.append(str(error))
                continue
            pictures.append(picture)
            self.names.append(self._where(i))
            self.texts.append(texts)
            self.references.append([words_of(text) for text in texts])
        self.columns["image"] = LazyColumn(pictures.__getitem__, range(len(pictures)))

    def __len__(self) -> int:
        return sum(self.shard_sizes) if self.shard_sizes else len(self.references)

    def name(self, index: int) -> str:
        if not self.shard_sizes:
            return self.names[index]
        return self._where(index)

    def _where(self, index: int) -> str:
        shard, member = self._locate(index)
        _, entries = self._open(shard)
        return f"{self.paths[shard]}: {entries[member].key}"

    def picture(self, index: int) -> Tensor:
        """(3, S, S) uint8. Raises ValueError, naming shard and key, if it cannot be read."""
        content = io.BytesIO(self._read(index, "picture"))
        try:
            return to_tensor(open_image(content), self.size)
        except ValueError as error:
            reason = str(error).partition(": ")[2]  # without the name, which is no file's
            raise ValueError(f"{self._where(index)}: {reason}") from None

    def captions(self, index: int) -> list[list[str]]:
        """The words of each caption, at most `MAX_WORDS`."""
        return [words_of(text)[:MAX_WORDS] for text in self._texts(index)]

    def skip(self, problem: str) -> None:
        """Name an example that cannot be used, in the log, to which other processes write too."""
        if self.log:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(problem + "\n")
        else:
            print(f"  skipped: {problem}", file=sys.stderr)

    def _texts(self, index: int) -> list[str]:
        shard, member = self._locate(index)
        _, entries = self._open(shard)
        content = self._read(index, "text")
        try:
            text = content.decode("utf-8")
            texts = [text]
            if entries[member].is_json:
                values = json.loads(text)
                texts = values.get("captions") or [values.get("caption")]
            texts = [text.strip() for text in texts]
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise ValueError(f"{self._where(index)}: its caption cannot be read") from None
        texts = [text for text in texts if text]
        if not texts:
            raise ValueError(f"{self._where(index)}: its caption is empty")
        return texts[:5]

    def _locate(self, index: int) -> tuple[int, int]:
        """(the shard of an example, its number there)."""
        shard = bisect_right(self.starts, index) - 1
        return shard, index - self.starts[shard]

    def _open(self, shard: int) -> tuple[int, list[Entry]]:
        """An open file and its entries; only the last few shards are kept."""
        if shard not in self.opened:
            path = self.paths[shard]
            self.opened[shard] = os.open(path, os.O_RDONLY), list_shard(path, [])
            while len(self.opened) > 2 and self._num_listed() > OPEN_EXAMPLES:
                _, (oldest, _) = self.opened.popitem(last=False)
                os.close(oldest)
        self.opened.move_to_end(shard)
        return self.opened[shard]

    def _num_listed(self) -> int:
        return sum(len(entries) for _, entries in self.opened.values())

    def _read(self, index: int, part: str) -> bytes:
        shard, member = self._locate(index)
        file, entries = self._open(shard)
        offset, size = getattr(entries[member], part)
        content = os.pread(file, size, offset)
        if len(content) < size:
            raise ValueError(f"{self._where(index)}: the tar file has become shorter")
        return content

    def __getstate__(self) -> dict:
        """Without open files: a worker process opens its own."""
        return self.__dict__ | {"opened": OrderedDict()}


def _shards_of_split(root: Path, split: str) -> list[Path]:
    """The tar files of a split, by name."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    if (root / "train").is_dir():
        paths = sorted((root / split).glob("*.tar"))
        if not paths:
            raise FileNotFoundError(f"{root / split}: no tar files there")
        return paths
    paths = sorted(root.glob("*.tar"))
    if len(paths) < 2:
        raise ValueError(
            f"{root}: {len(paths)} tar files; at least two are needed, one of them for validation, "
            "or the folders train/ and validation/"
        )
    return paths[:-1] if split == "train" else paths[-1:]


def _count(paths: list[Path]) -> tuple[list[int], list[str]]:
    """The examples in each shard, and what cannot be used; counted once."""
    stats = [path.stat() for path in paths]
    state = [(str(path.resolve()), s.st_size, s.st_mtime_ns) for path, s in zip(paths, stats)]
    key = hashlib.sha256(repr(state).encode()).hexdigest()[:20]

    def make(folder: Path) -> None:
        problems = []
        counts = []
        for i, path in enumerate(paths, 1):
            counts.append(len(list_shard(path, problems)))
            if len(paths) > 10:
                report_progress("counting the examples of shards, once", i, len(paths))
        content = json.dumps({"counts": counts, "problems": problems})
        (folder / "counts.json").write_text(content, encoding="utf-8")

    content = (make_once(key, make) / "counts.json").read_text(encoding="utf-8")
    counted = json.loads(content)
    return counted["counts"], counted["problems"]
