"""Pictures with captions: drawn, or photographs on disk in the layouts that people have."""

import csv
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..engine.safetensors import once_each
from .dataset import DataSet, LazyColumn, words_of
from .language import caption
from .photographs import PICTURE_SUFFIXES, Photographs
from .scenes import SPLITS, Scene, draw


class SceneCaptions(DataSet):
    """The first `count` scenes of a split, drawn when they are asked for.

    Each has its five captions; with `one_caption_each`, for training on many scenes, only one of them, in turn.
    With `size` 0 there are no pictures.
    """

    def __init__(
        self,
        split: str,
        count: int,
        language: str = "en",
        size: int = 64,
        one_caption_each: bool = False,
    ):
        if split not in SPLITS:
            raise ValueError(
                f"the scenes have no split {split!r}: choose one of {', '.join(SPLITS)}"
            )
        super().__init__()
        self.tell(
            [Scene(SPLITS[split] + i) for i in range(count)], language, size, one_caption_each
        )
        self.names = [f"{split} {i}" for i in range(count)]

    def tell(
        self,
        scenes: Sequence[Scene],
        language: str = "en",
        size: int = 64,
        one_caption_each: bool = False,
    ) -> None:
        """Hold these scenes instead."""
        self.scenes = list(scenes)
        self.names = [f"scene {scene.seed}" for scene in self.scenes]
        if size:
            self.columns["image"] = LazyColumn(partial(draw, size=size), self.scenes)
        self.texts = []
        for i, scene in enumerate(self.scenes):
            which = [i % 5] if one_caption_each else range(5)
            self.texts.append([caption(scene, j, language) for j in which])
        self.references = [[words_of(text) for text in texts] for texts in self.texts]


class Line(NamedTuple):
    """One line of a captions file: where it stands, the picture's file name, its captions, its split if it says so."""

    where: str
    name: str
    captions: list[str]
    split: str | None = None


class PhotoCaptions(DataSet):
    """Photographs with captions, from lines that a layout has read.

    The pictures are decoded once, into a memory-mapped file under `CACHE`. What cannot be used (a missing or corrupt
    picture, an empty caption) is named in `problems` and left out.
    """

    def __init__(
        self,
        root: Path,
        files: Iterable[str],
        lines: Iterable[Line],
        problems: list[str],
        size: int,
    ):
        super().__init__()
        self.problems = problems
        found = _captions_by_file(set(files), lines, problems)
        paths = [root / name for name in found]
        photographs = Photographs(paths, size)
        problems += photographs.unreadable.values()
        readable = [i for i in range(len(paths)) if i not in photographs.unreadable]
        self.columns["image"] = LazyColumn(photographs.__getitem__, readable)
        self.names = [str(paths[i]) for i in readable]
        captions = list(found.values())
        self.texts = [[text for text, _ in captions[i]] for i in readable]
        self.references = [[words for _, words in captions[i]] for i in readable]


def _key(name: str) -> str:
    """One for all ways to write a file's name: A.jpg, a.JPG and ./a.jpg, b/a.jpg and b\\a.jpg, both forms of "ü"."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name.replace("\\", "/")))).lower()


def _captions_by_file(
    files: set[str], lines: Iterable[Line], problems: list[str]
) -> dict[str, list[tuple[str, list[str]]]]:
    """The captions of each file that is there, as they are and tokenized."""
    alike = defaultdict(list)
    for name in sorted(files):
        alike[_key(name)].append(name)
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for line in lines:
        same = alike[_key(line.name)]
        name = same[0] if len(same) == 1 else str(PurePosixPath(line.name.replace("\\", "/")))
        if len(same) > 1 and name not in found:
            problems.append(
                f"{line.where}: {' and '.join(same)} differ only in upper and lower case"
            )
        if name not in same:
            problems.append(f"{line.where}: there is no picture {line.name!r}")
            continue
        for text in line.captions:
            tokens = words_of(text)
            if tokens:
                found.setdefault(name, []).append((text, tokens))
            else:
                problems.append(f"{line.where}: the caption of {line.name!r} is empty")
    return dict(sorted(found.items()))


class FolderCaptions(PhotoCaptions):
    """A folder of pictures with captions.csv, captions.tsv, captions.json or captions.jsonl.

    Every line or entry has a file name and a caption, and a picture may have several; columns or keys are called
    "file_name" and "caption" ("image" or "file", "captions" or "text" will do as well), and a third, "split", may say
    train, validation or test. Where none says so, every tenth picture by name is for validation and every tenth for
    test. A file without names of columns has the file name first. JSON may also map file names to captions.
    """

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        root = Path(root)
        if split not in ("train", "validation", "test"):
            raise ValueError(f"no split {split!r}: choose train, validation or test")
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: no such folder")
        tables = [
            root / f"captions{suffix}"
            for suffix in _READERS
            if (root / f"captions{suffix}").is_file()
        ]
        if len(tables) != 1:
            names = (
                " and ".join(table.name for table in tables)
                or f"no captions{', captions'.join(_READERS)}"
            )
            raise ValueError(f"{root} has {names}: exactly one captions file is needed")
        files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        problems: list[str] = []
        lines = list(_READERS[tables[0].suffix](tables[0], problems))
        in_a_line = {_key(line.name) for line in lines}
        pictures = sorted(name for name in files if Path(name).suffix.lower() in PICTURE_SUFFIXES)
        problems += [
            f"{root / name}: has no caption" for name in pictures if _key(name) not in in_a_line
        ]
        if any(line.split for line in lines):
            problems += [f"{line.where}: the split {line.split or ''!r} is none of {', '.join(_SPLIT_NAMES)}"
                         for line in lines if (line.split or "").lower() not in _SPLIT_NAMES]  # fmt: skip
            chosen = [
                line for line in lines if _SPLIT_NAMES.get((line.split or "").lower()) == split
            ]
        else:
            tenth = {name: ("validation", *["train"] * 4, "test", *["train"] * 4)[i % 10]
                     for i, name in enumerate(sorted(in_a_line))}  # fmt: skip
            chosen = [line for line in lines if tenth[_key(line.name)] == split]
        super().__init__(root, files, chosen, problems, size)


_SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "dev": "validation",
    "validation": "validation",
    "test": "test",
}
_FILE_KEYS, _CAPTION_KEYS = ("file_name", "image", "file"), ("caption", "captions", "text")


def _text_lines(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """(where it stands, the line), for every line that is not blank."""
    for number, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            problems.append(f"{path}:{number}: not UTF-8 text")
        elif text.strip():
            yield f"{path}:{number}", text


def _read_table(path: Path, problems: list[str]) -> Iterator[Line]:
    style = (
        {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        if path.suffix == ".tsv"
        else {"strict": True}
    )
    columns = None
    for where, text in _text_lines(path, problems):
        try:
            cells = [
                cell.strip() for cell in next(csv.reader([text], skipinitialspace=True, **style))
            ]
        except csv.Error as error:
            problems.append(f"{where}: {error}")
            continue
        if columns is None:
            columns = [cell.lower() for cell in cells]
            if set(columns) & set(_FILE_KEYS) and set(columns) & set(_CAPTION_KEYS):
                continue
            columns = [_FILE_KEYS[0], _CAPTION_KEYS[0]]
        if len(cells) != len(columns):
            hint = (
                "; a caption with a comma needs quotes around it"
                if len(cells) > len(columns)
                else ""
            )
            problems.append(
                f"{where}: {len(cells)} columns where {len(columns)} were expected{hint}"
            )
            continue
        yield from _line(where, dict(zip(columns, cells)), problems)


def _line(where: str, entry: object, problems: list[str]) -> Iterator[Line]:
    """A dict with the expected keys -> a Line."""
    if isinstance(entry, dict):
        name = next((entry[key] for key in _FILE_KEYS if key in entry), None)
        text = next((entry[key] for key in _CAPTION_KEYS if key in entry), None)
        texts = text if isinstance(text, list) else [text]
        if isinstance(name, str) and texts and all(isinstance(caption, str) for caption in texts):
            yield Line(where, name, texts, str(entry["split"]) if entry.get("split") else None)
            return
    problems.append(
        f"{where}: a file name and a caption were expected, not {json.dumps(entry)[:60]}"
    )


def _once_each(pairs: list[tuple[str, object]]) -> dict:
    try:
        return once_each(pairs)
    except ValueError as error:
        raise ValueError(f"{error}: give it a list of captions instead") from None


def _read_json_lines(path: Path, problems: list[str]) -> Iterator[Line]:
    for where, text in _text_lines(path, problems):
        try:
            yield from _line(where, json.loads(text, object_pairs_hook=_once_each), problems)
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}: not JSON: {getattr(error, 'msg', error)}")


def _read_json(path: Path, problems: list[str]) -> Iterator[Line]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if isinstance(entries, dict):
        entries = [{"file_name": name, "captions": texts} for name, texts in entries.items()]
    if not isinstance(entries, list):
        raise ValueError(f"{path}: a list, or a map from file names to captions, was expected")
    for number, entry in enumerate(entries, 1):
        yield from _line(f"{path}, entry {number}", entry, problems)


_READERS = {
    ".csv": _read_table,
    ".tsv": _read_table,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
}


class Flickr8k(PhotoCaptions):
    """Flickr8k in its official layout: Flicker8k_Dataset/, Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt.

    The texts may also lie in Flickr8k_text/, as unpacked. Splits: train (6,000 pictures), validation (1,000; "dev"),
    test (1,000). Source: Hodosh, Young & Hockenmaier 2013.
    """

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        root = Path(root)
        if split not in _SPLIT_NAMES:
            raise ValueError(f"no split {split!r}: choose train, validation or test")
        texts = root / "Flickr8k_text" if (root / "Flickr8k_text").is_dir() else root
        split_file = (
            texts
            / f"Flickr_8k.{ {'validation': 'dev'}.get(_SPLIT_NAMES[split], _SPLIT_NAMES[split]) }Images.txt"
        )
        tokens_file, pictures = texts / "Flickr8k.token.txt", root / "Flicker8k_Dataset"
        for needed in (tokens_file, split_file, pictures):
            if not needed.exists():
                raise FileNotFoundError(
                    f"{needed}: not there; is {root} Flickr8k in its official layout?"
                )
        problems: list[str] = []
        chosen = {text.strip() for _, text in _text_lines(split_file, problems)}
        lines = []
        for where, text in _text_lines(tokens_file, problems):
            name, tab, caption = text.partition("\t")
            if not tab:
                problems.append(
                    f"{where}: a name, a tab and a caption were expected, not {text[:60]!r}"
                )
            elif name.rpartition("#")[0] in chosen:
                lines.append(Line(where, name.rpartition("#")[0], [caption]))
        captioned = {line.name for line in lines}
        problems += [f"{split_file}: {name} has no caption" for name in sorted(chosen - captioned)]
        super().__init__(pictures, os.listdir(pictures), lines, problems, size)


LAYOUTS = {"folder": FolderCaptions, "flickr8k": Flickr8k}
