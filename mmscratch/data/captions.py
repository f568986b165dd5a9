"""Pictures with captions: drawn scenes, or photographs on disk in common layouts."""

import csv
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..engine.safetensors import unique_keys
from .dataset import DataSet, LazyColumn, words_of
from .language import caption
from .photographs import PICTURE_SUFFIXES, Photographs
from .scenes import SPLITS, Scene, draw


class SceneCaptions(DataSet):
    """The first `count` scenes of a split, drawn on access, each with its five captions.

    With `one_caption_each`, for training on many scenes, scene i has only its caption i modulo 5.
    `size` is the side of the pictures; 0 means no pictures.
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
            known = ", ".join(SPLITS)
            raise ValueError(f"the scenes have no split {split!r}: choose one of {known}")
        super().__init__()
        scenes = [Scene(SPLITS[split] + i) for i in range(count)]
        self.set_scenes(scenes, language, size, one_caption_each)
        self.names = [f"{split} {i}" for i in range(count)]

    def set_scenes(
        self,
        scenes: Sequence[Scene],
        language: str = "en",
        size: int = 64,
        one_caption_each: bool = False,
    ) -> None:
        """Replace the examples by these scenes."""
        self.scenes = list(scenes)
        self.names = [f"scene {scene.seed}" for scene in self.scenes]
        if size:
            self.columns["image"] = LazyColumn(partial(draw, size=size), self.scenes)
        self.texts = []
        for i, scene in enumerate(self.scenes):
            numbers = [i % 5] if one_caption_each else range(5)
            self.texts.append([caption(scene, number, language) for number in numbers])
        self.references = [[words_of(text) for text in texts] for texts in self.texts]


class Line(NamedTuple):
    """A line of a captions file: its location, the picture's name, its captions, and perhaps a split."""

    where: str
    name: str
    captions: list[str]
    split: str | None = None


class PhotoCaptions(DataSet):
    """Photographs with captions, from the lines that a layout's reader yields.

    The pictures are decoded once, into a memory-mapped file under `CACHE`. Whatever cannot be used
    (a missing or corrupt picture, an empty caption) is left out and reported in `problems`.
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
        by_file = _captions_by_file(set(files), lines, problems)
        paths = [root / name for name in by_file]
        photographs = Photographs(paths, size)
        problems += photographs.unreadable.values()
        readable = [i for i in range(len(paths)) if i not in photographs.unreadable]
        self.columns["image"] = LazyColumn(photographs.__getitem__, readable)
        self.names = [str(paths[i]) for i in readable]
        captions = list(by_file.values())
        self.texts = [[text for text, _ in captions[i]] for i in readable]
        self.references = [[words for _, words in captions[i]] for i in readable]


def _slashes(name: str) -> str:
    """./b/a.jpg and b\\a.jpg -> b/a.jpg."""
    return str(PurePosixPath(name.replace("\\", "/")))


def _key(name: str) -> str:
    """One key for all spellings of a name: A.jpg and ./a.JPG, b/a.jpg and b\\a.jpg, both forms of "ü"."""
    return unicodedata.normalize("NFC", _slashes(name)).lower()


def _captions_by_file(
    files: set[str], lines: Iterable[Line], problems: list[str]
) -> dict[str, list[tuple[str, list[str]]]]:
    """{file: its captions, each as written and tokenized}, for the files that exist."""
    spellings = defaultdict(list)
    for name in sorted(files):
        spellings[_key(name)].append(name)
    by_file: dict[str, list[tuple[str, list[str]]]] = {}
    for line in lines:
        candidates = spellings[_key(line.name)]
        name = candidates[0] if len(candidates) == 1 else _slashes(line.name)
        if len(candidates) > 1 and name not in by_file:
            names = " and ".join(candidates)
            problems.append(f"{line.where}: {names} differ only in upper and lower case")
        if name not in candidates:
            problems.append(f"{line.where}: there is no picture {line.name!r}")
            continue
        for text in line.captions:
            tokens = words_of(text)
            if tokens:
                by_file.setdefault(name, []).append((text, tokens))
            else:
                problems.append(f"{line.where}: the caption of {line.name!r} is empty")
    return dict(sorted(by_file.items()))


class FolderCaptions(PhotoCaptions):
    """A folder of pictures with captions.csv, captions.tsv, captions.json or captions.jsonl.

    Every line or entry has a file name and a caption; a picture may have several lines. Columns or
    keys are called "file_name" and "caption" ("image" or "file", "captions" or "text" also work),
    and an optional third, "split", is train, validation or test. Without any split, every tenth
    picture by name is for validation and every tenth for test. A table without column names has the
    file name first. JSON may also map file names to captions.
    """

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        root = Path(root)
        if split not in ("train", "validation", "test"):
            raise ValueError(f"no split {split!r}: choose train, validation or test")
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: no such folder")
        table = _captions_file(root)
        problems: list[str] = []
        lines = list(_READERS[table.suffix](table, problems))
        files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        captioned = {_key(line.name) for line in lines}
        for name in sorted(files):
            if Path(name).suffix.lower() in PICTURE_SUFFIXES and _key(name) not in captioned:
                problems.append(f"{root / name}: has no caption")
        super().__init__(root, files, _lines_of(split, lines, problems), problems, size)


def _captions_file(root: Path) -> Path:
    tables = [root / f"captions{suffix}" for suffix in _READERS]
    tables = [table for table in tables if table.is_file()]
    if len(tables) != 1:
        found = " and ".join(table.name for table in tables)
        found = found or f"no captions{', captions'.join(_READERS)}"
        raise ValueError(f"{root} has {found}: exactly one captions file is needed")
    return tables[0]


def _lines_of(split: str, lines: list[Line], problems: list[str]) -> list[Line]:
    """The lines of a split: by the split column if there is one, else by the order of the names."""
    if not any(line.split for line in lines):
        pattern = ("validation", *["train"] * 4, "test", *["train"] * 4)
        names = sorted({_key(line.name) for line in lines})
        splits = {name: pattern[i % 10] for i, name in enumerate(names)}
        return [line for line in lines if splits[_key(line.name)] == split]
    chosen = []
    for line in lines:
        name = line.split or ""
        if name.lower() not in _SPLIT_NAMES:
            known = ", ".join(_SPLIT_NAMES)
            problems.append(f"{line.where}: the split {name!r} is none of {known}")
        elif _SPLIT_NAMES[name.lower()] == split:
            chosen.append(line)
    return chosen


_SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "dev": "validation",
    "validation": "validation",
    "test": "test",
}
_FILE_KEYS = ("file_name", "image", "file")
_CAPTION_KEYS = ("caption", "captions", "text")


def _text_lines(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """(file and line number, text) of every line that is not blank."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, raw in enumerate(content.splitlines(), 1):
        where = f"{path}:{number}"
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            problems.append(f"{where}: not UTF-8 text")
        elif text.strip():
            yield where, text


def _read_table(path: Path, problems: list[str]) -> Iterator[Line]:
    if path.suffix == ".tsv":
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    else:
        style = {"strict": True}
    columns = None
    for where, text in _text_lines(path, problems):
        try:
            cells = next(csv.reader([text], skipinitialspace=True, **style))
        except csv.Error as error:
            problems.append(f"{where}: {error}")
            continue
        cells = [cell.strip() for cell in cells]
        if columns is None:
            columns = [cell.lower() for cell in cells]
            if set(columns) & set(_FILE_KEYS) and set(columns) & set(_CAPTION_KEYS):
                continue
            columns = [_FILE_KEYS[0], _CAPTION_KEYS[0]]
        if len(cells) != len(columns):
            problem = f"{where}: {len(cells)} columns where {len(columns)} were expected"
            if len(cells) > len(columns):
                problem += "; a caption with a comma needs quotes around it"
            problems.append(problem)
            continue
        yield from _line(where, dict(zip(columns, cells)), problems)


def _line(where: str, entry: object, problems: list[str]) -> Iterator[Line]:
    """A dict with the expected keys -> a Line."""
    if isinstance(entry, dict):
        name = _first_value(entry, _FILE_KEYS)
        texts = _first_value(entry, _CAPTION_KEYS)
        if not isinstance(texts, list):
            texts = [texts]
        split = str(entry["split"]) if entry.get("split") else None
        if isinstance(name, str) and texts and all(isinstance(text, str) for text in texts):
            yield Line(where, name, texts, split)
            return
    found = json.dumps(entry)[:60]
    problems.append(f"{where}: a file name and a caption were expected, not {found}")


def _first_value(entry: dict, keys: Sequence[str]):
    """The value of the first of these keys that the entry has."""
    for key in keys:
        if key in entry:
            return entry[key]
    return None


def _unique_names(pairs: list[tuple[str, object]]) -> dict:
    try:
        return unique_keys(pairs)
    except ValueError as error:
        raise ValueError(f"{error}: give it a list of captions instead") from None


def _read_json_lines(path: Path, problems: list[str]) -> Iterator[Line]:
    for where, text in _text_lines(path, problems):
        try:
            entry = json.loads(text, object_pairs_hook=_unique_names)
            yield from _line(where, entry, problems)
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}: not JSON: {getattr(error, 'msg', error)}")


def _read_json(path: Path, problems: list[str]) -> Iterator[Line]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = json.loads(text, object_pairs_hook=_unique_names)
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
    """Flickr8k in its official layout.

    The folder has Flicker8k_Dataset/, Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt;
    the text files may also be in Flickr8k_text/, as the archive unpacks them. Splits: train (6,000
    pictures), validation (1,000; "dev"), test (1,000). Source: Hodosh, Young & Hockenmaier 2013.
    """

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        root = Path(root)
        if split not in _SPLIT_NAMES:
            raise ValueError(f"no split {split!r}: choose train, validation or test")
        split = _SPLIT_NAMES[split].replace("validation", "dev")
        folder = root / "Flickr8k_text"
        if not folder.is_dir():
            folder = root
        split_file = folder / f"Flickr_8k.{split}Images.txt"
        captions_file = folder / "Flickr8k.token.txt"
        pictures = root / "Flicker8k_Dataset"
        for path in (captions_file, split_file, pictures):
            if not path.exists():
                question = f"is {root} Flickr8k in its official layout?"
                raise FileNotFoundError(f"{path}: not found; {question}")
        problems: list[str] = []
        chosen = {text.strip() for _, text in _text_lines(split_file, problems)}
        lines = []
        for where, text in _text_lines(captions_file, problems):
            label, tab, caption = text.partition("\t")
            name = label.rpartition("#")[0]  # 1000268201_693b08cb0e.jpg#0
            if not tab:
                expected = "a name, a tab and a caption were expected"
                problems.append(f"{where}: {expected}, not {text[:60]!r}")
            elif name in chosen:
                lines.append(Line(where, name, [caption]))
        captioned = {line.name for line in lines}
        problems += [f"{split_file}: {name} has no caption" for name in sorted(chosen - captioned)]
        super().__init__(pictures, os.listdir(pictures), lines, problems, size)


LAYOUTS = {"folder": FolderCaptions, "flickr8k": Flickr8k}
