"""Sentences and their translations, with pictures or without: drawn, or Multi30k."""

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

    Every sixth only names a thing, without its size, its colour, or neither: "a red anchor". `hidden` is what the source
    does not say, so that only the picture tells: "" for nothing, "colours" ("a big [v] star"), "noun" (of one thing), or
    "some", each of these in a third of the sentences. With `size` 0 there are no pictures.
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
            raise ValueError(f"what is hidden is one of {HIDDEN}, not {hidden!r}")
        _check_languages(*languages)
        source, target = languages
        super().__init__(split, count, target, size, one_caption_each=True)
        sources = self.columns["source"] = []
        for i, scene in enumerate(self.scenes):
            text, turn = caption(scene, i % 5, source), i // 6
            if i % 6 == 5:
                text, translation = (
                    name_object(scene, turn // 3 % 3, language) for language in languages
                )
                self.texts[i] = [translation]
                self.references[i] = [words_of(translation)]
            what = HIDDEN[turn % 3] if hidden == "some" else hidden
            if what == "colours":
                text = mask_colours(text, source)
            elif what == "noun":
                text = mask_noun(text, turn, source)
            sources.append(words_of(text))


class Multi30k(DataSet):
    """Multi30k in its official layout: data/task1/raw/train.en or train.en.gz, …, and data/task1/image_splits/train.txt.

    Line i of a language is the translation of line i of another: en, de, fr, cs. Splits: train (29,000 sentences),
    validation (1,014; "val"), test (1,000; "test_2016_flickr"), or any other by the name of its files. Sentences are left
    out, and named in `problems`, where one of the two is empty.

    With `photographs`, a folder of pictures, each pair has its photograph where there is one: Multi30k is made of
    Flickr30k, of which Flickr8k is a part, and a photograph has the same number in the names of both.
    Source: Elliott, Frank, Sima'an & Specia 2016.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        languages: tuple[str, str] = ("en", "de"),
        photographs: str | Path | None = None,
        size: int = 64,
    ):
        folder = Path(root, "data/task1")
        split = {"validation": "val", "test": "test_2016_flickr"}.get(split, split)
        _check_languages(*languages)
        paths = [_plain_or_packed(folder / "raw", f"{split}.{language}") for language in languages]
        columns = list(map(read_lines, paths))
        if photographs is not None:
            paths.append(folder / "image_splits" / f"{split}.txt")
            columns.append([_photo_id(line) for line in read_lines(paths[-1])])
        for path, column in zip(paths, columns):
            if len(column) != len(columns[0]):
                raise ValueError(
                    f"{paths[0]} has {len(columns[0]):,} lines, but {path} {len(column):,}: they must be in parallel"
                )
        super().__init__()
        sources = self.columns["source"] = []
        places = []  # of each pair's photograph among those that are kept, or None
        number = self._keep(photographs, columns[2], size) if photographs is not None else {}
        for i, (text, translation, *photograph) in enumerate(zip(*columns), 1):
            place = number.get(photograph[0]) if photograph else None
            given = words_of(text)
            written = words_of(translation)
            if not given or not written:
                self.problems.append(
                    f"{paths[1] if given else paths[0]}:{i}: the sentence is empty"
                )
            else:
                sources.append(given)
                places.append(place)
                self.texts.append([translation.strip()])
                self.references.append([written])
                self.names.append(f"{paths[0]}:{i}")
        if number:
            self.columns["image"] = LazyColumn(self.photographs.__getitem__, places)

    def _keep(self, folder: str | Path, wanted: list[str], size: int) -> dict[str, int]:
        """Decode the photographs that the sentences speak of: the number of each that can be read, by its name."""
        found = _photographs(Path(folder))
        names = sorted(set(wanted) & found.keys())
        self.photographs = Photographs([found[name] for name in names], size)
        self.problems += self.photographs.unreadable.values()
        return {name: i for i, name in enumerate(names) if i not in self.photographs.unreadable}


def _check_languages(source: str, target: str) -> None:
    if source == target:
        raise ValueError(f"{source!r} is the language of source and target: choose two")


def _plain_or_packed(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    there = (
        sorted({path.name.removesuffix(".gz") for path in folder.glob("*.*")})
        if folder.is_dir()
        else []
    )
    raise FileNotFoundError(
        f"{folder / name}: not there, nor as .gz; there is {', '.join(there) or 'nothing'}"
    )


def _photo_id(name: str) -> str:
    """Of a photograph on Flickr: 1000268201 of 1000268201.jpg (Flickr30k) and of 1000268201_693b08cb0e.jpg (Flickr8k)."""
    return re.match(r"[^_.]*", Path(name.strip()).name)[0]


def _photographs(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by the number in their names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of photographs")
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        raise ValueError(f"{folder}: no pictures in this folder")
    return {_photo_id(path.name): path for path in pictures}


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, packed with gzip where its name ends in .gz; their places are kept, empty or not.

    Raises ValueError where it is damaged, no UTF-8 text, or empty.
    """
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start:,} is not UTF-8 text; save it as UTF-8"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged, {error}; fetch it again") from None
    lines = text.replace("\r\n", "\n").split(
        "\n"
    )  # not splitlines: a sentence may hold one of Unicode's other separators
    lines = lines if lines[-1] else lines[:-1]
    if not lines:
        raise ValueError(f"{path}: the file is empty")
    return lines
