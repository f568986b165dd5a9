"""Sentences and their translations, with or without pictures: drawn scenes, or Multi30k."""

import gzip
import re
import zlib
from pathlib import Path

from .captions import SceneCaptions
from .dataset import DataSet, LazyColumn, words_of
from .language import caption, mask_colours, mask_noun, name_object
from .photographs import PICTURE_SUFFIXES, Photographs

HIDDEN = ("", "colours", "noun", "some")


class SceneTranslation(SceneCaptions):
    """The first `count` scenes of a split, each with one of its captions in two languages.

    Every sixth sentence only names an object, without its size, without its colour, or with both:
    "a red anchor". `hidden` names the words that the source hides, so that only the picture shows
    them: "" for none, "colours" ("a big [v] star"), "noun" (of one object), or "some", each of
    these in a third of the sentences. `size` 0 means no pictures.
    """

    def __init__(
        self,
        split: str,
        count: int,
        languages: tuple[str, str] = ("en", "de"),
        size: int = 64,
        hidden: str = "",
    ):
        if hidden not in HIDDEN:
            raise ValueError(f"`hidden` must be one of {HIDDEN}, not {hidden!r}")
        _check_languages(*languages)
        source, target = languages
        super().__init__(split, count, target, size, one_caption_each=True)
        sources = self.columns["source"] = []
        for i, scene in enumerate(self.scenes):
            cycle, position = divmod(i, 6)
            text = caption(scene, i % 5, source)
            if position == 5:
                leave_out = cycle // 3 % 3
                text = name_object(scene, leave_out, source)
                translation = name_object(scene, leave_out, target)
                self.texts[i] = [translation]
                self.references[i] = [words_of(translation)]
            hide = HIDDEN[cycle % 3] if hidden == "some" else hidden
            if hide == "colours":
                text = mask_colours(text, source)
            elif hide == "noun":
                text = mask_noun(text, cycle, source)
            sources.append(words_of(text))


class Multi30k(DataSet):
    """Multi30k in its official layout.

    The folder has data/task1/raw/train.en or train.en.gz, …, and data/task1/image_splits/train.txt.
    Line i in one language is the translation of line i in another: en, de, fr, cs. Splits: train
    (29,000 sentences), validation (1,014; "val"), test (1,000; "test_2016_flickr"), or any other by
    the name of its files. If a sentence or its translation is empty, the pair is left out and
    reported in `problems`.

    With `photographs`, a folder of pictures, each pair has its photograph if the folder contains
    it. Multi30k is made from Flickr30k, which includes Flickr8k; a photograph has the same number
    in the file names of both. Source: Elliott, Frank, Sima'an & Specia 2016.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        languages: tuple[str, str] = ("en", "de"),
        photographs: str | Path | None = None,
        size: int = 64,
    ):
        super().__init__()
        _check_languages(*languages)
        folder = Path(root, "data/task1")
        split = {"validation": "val", "test": "test_2016_flickr"}.get(split, split)
        paths = [_find_text(folder / "raw" / f"{split}.{language}") for language in languages]
        columns = [read_lines(path) for path in paths]
        photo_ids = [None] * len(columns[0])
        if photographs is not None:
            paths.append(folder / "image_splits" / f"{split}.txt")
            photo_ids = [_photo_id(line) for line in read_lines(paths[-1])]
        _check_lengths(paths, [*columns, photo_ids])
        index_of = {}
        if photographs is not None:
            index_of = self._decode_photographs(Path(photographs), photo_ids, size)
        sources = self.columns["source"] = []
        indices = []  # of each pair's photograph, or None
        for i, (source, target, photo_id) in enumerate(zip(*columns, photo_ids), 1):
            source_words = words_of(source)
            target_words = words_of(target)
            if not source_words or not target_words:
                path = paths[1] if source_words else paths[0]
                self.problems.append(f"{path}:{i}: the sentence is empty")
                continue
            sources.append(source_words)
            indices.append(index_of.get(photo_id))
            self.texts.append([target.strip()])
            self.references.append([target_words])
            self.names.append(f"{paths[0]}:{i}")
        if index_of:
            self.columns["image"] = LazyColumn(self.photographs.__getitem__, indices)

    def _decode_photographs(self, folder: Path, photo_ids: list[str], size: int) -> dict[str, int]:
        """Decode the photographs of the sentences; -> {id: index}, of those that can be read."""
        paths = _photographs(folder)
        ids = sorted(set(photo_ids) & paths.keys())
        self.sources += [paths[photo_id] for photo_id in ids]
        self.photographs = Photographs(self.sources, size)
        unreadable = self.photographs.unreadable
        self.problems += unreadable.values()
        return {photo_id: i for i, photo_id in enumerate(ids) if i not in unreadable}


def _check_languages(source: str, target: str) -> None:
    if source == target:
        raise ValueError(f"{source!r} is the language of source and target: choose two")


def _check_lengths(paths: list[Path], columns: list[list]) -> None:
    expected = len(columns[0])
    for path, column in zip(paths, columns):
        if len(column) != expected:
            lengths = f"{paths[0]} has {expected:,} lines, but {path} {len(column):,}"
            raise ValueError(f"{lengths}: they must be in parallel")


def _find_text(path: Path) -> Path:
    """This file, or the same with .gz."""
    packed = path.with_name(f"{path.name}.gz")
    for candidate in (path, packed):
        if candidate.exists():
            return candidate
    names = sorted({other.name.removesuffix(".gz") for other in path.parent.glob("*.*")})
    found = ", ".join(names) or "nothing"
    raise FileNotFoundError(f"{path}: not found, nor {packed.name}; its folder has {found}")


def _photo_id(name: str) -> str:
    """A photograph's number on Flickr, with which its name begins.

    1000268201.jpg (Flickr30k) and 1000268201_693b08cb0e.jpg (Flickr8k) -> 1000268201
    """
    return re.match(r"[^_.]*", Path(name.strip()).name)[0]


def _photographs(folder: Path) -> dict[str, Path]:
    """The pictures of a folder, by the number in their names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of photographs")
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        raise ValueError(f"{folder}: no pictures in this folder")
    return {_photo_id(path.name): path for path in pictures}


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, including empty ones; a name that ends in .gz means gzip.

    Raises ValueError if the file is damaged, not UTF-8 text, or empty.
    """
    raw = path.read_bytes()
    try:
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start:,} is not UTF-8 text; save it as UTF-8"
        raise ValueError(f"{path}: {problem}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged, {error}; fetch it again") from None
    # Not splitlines: a sentence may contain one of Unicode's other line separators.
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"{path}: the file is empty")
    return lines
