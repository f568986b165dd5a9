"""Pictures with captions: drawn scenes, or photographs on disk in common layouts."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .dataset import DataSet, LazyColumn, words_of
from .judge import true_pairs
from .language import caption
from .photographs import Photographs
from .published import PUBLISHED
from .records import (
    FILE_NAMES,
    SPLIT_NAMES,
    Record,
    RecordSchema,
    check_split,
    read_folder,
    records_of_split,
    text_lines,
    texts_by_file,
)
from .scenes import Scene, draw, first_of_split
from .shards import ShardCaptions


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
        super().__init__()
        first = first_of_split(split)
        scenes = [Scene(first + i) for i in range(count)]
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


def number_pictures(*datasets: DataSet) -> None:
    """Add a column "number", which tells the pictures of all the data sets apart: 0, 1, …"""
    first = 0
    for data in datasets:
        data.columns["number"] = LazyColumn(torch.tensor, range(first, first + len(data)))
        first += len(data)


def relevant_pictures(data: DataSet) -> Tensor:
    """Whether each of all Q captions is about each of the G pictures: (Q, G) bool.

    For photographs that is the picture that it was written for; for scenes, each of which it is
    true, so several pictures may be right.
    """
    if isinstance(data, SceneCaptions):
        captions = [text for texts in data.texts for text in texts]
        return true_pairs(captions, data.scenes)
    counts = torch.tensor([len(texts) for texts in data.texts])  # (G,)
    return torch.eye(len(data), dtype=torch.bool).repeat_interleave(counts, dim=0)


def judged_pairs(*datasets: SceneCaptions) -> Callable[[Tensor], Tensor]:
    """Return a function for `DualEncoder.same`: which captions of a batch fit which of its scenes.

    It takes the numbers of B scenes, which have one caption each, and returns (B, B) bool: at
    [i, j], whether the caption of scene j is true of scene i.
    """
    scenes = [scene for data in datasets for scene in data.scenes]
    captions = [text for data in datasets for (text,) in data.texts]

    def same(numbers: Tensor) -> Tensor:
        chosen = numbers.tolist()
        true = true_pairs([captions[i] for i in chosen], [scenes[i] for i in chosen])
        return true.T.to(numbers.device)  # (B, B)

    return same


class PhotoCaptions(DataSet):
    """Photographs with captions, from the records that a layout's reader yields.

    The pictures are decoded once, into a memory-mapped file under `cache.CACHE`; with a `size` of 0
    there are none, only names and texts. Whatever cannot be used (a missing or corrupt picture, an
    empty caption) is left out and reported in `problems`.
    """

    def __init__(
        self,
        root: Path,
        files: Iterable[str],
        records: Iterable[Record],
        problems: list[str],
        size: int,
    ):
        super().__init__()
        self.problems = problems
        by_file = texts_by_file(files, records, problems, SCHEMA)
        paths = [root / name for name in by_file]
        self.sources += paths
        readable = list(range(len(paths)))
        if size:
            photographs = Photographs(paths, size)
            problems += photographs.unreadable.values()
            readable = [i for i in readable if i not in photographs.unreadable]
            self.columns["image"] = LazyColumn(photographs.__getitem__, readable)
        self.names = [str(paths[i]) for i in readable]
        captions = list(by_file.values())
        self.texts = [[text for text, _ in captions[i]] for i in readable]
        self.references = [[words for _, words in captions[i]] for i in readable]


SCHEMA = RecordSchema(
    noun="caption",
    texts="caption",
    expected="a file name and a caption",
    columns={
        "file_name": FILE_NAMES,
        "caption": ("caption", "captions", "text", "description", "sentence", "comment"),
    },
    published=PUBLISHED,
)


class FolderCaptions(PhotoCaptions):
    """A folder of pictures with captions.csv, captions.tsv, captions.json or captions.jsonl.

    Every line or entry has a file name and a caption; a picture may have several lines. Columns or
    keys are called "file_name" and "caption" (other usual names also work: see `SCHEMA`), separated
    by commas, semicolons, tabs or "|"; an optional third, "split", is train, validation or test.
    Without any split, every tenth picture by name is for validation and every tenth for test. A
    table without column names has the file name first. JSON may also map file names to captions.

    Without such a table, those of published sets are found: COCO's captions_train2017.json,
    Karpathy's dataset_coco.json, and captions.txt or results.csv of Flickr8k and Flickr30k from
    Kaggle. The pictures may then be in any folder below.
    """

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        root = Path(root)
        check_split(split)
        problems: list[str] = []
        files, records = read_folder(root, SCHEMA, problems)
        records = records_of_split(split, records, problems)
        super().__init__(root, files, records, problems, size)


class Flickr8k(PhotoCaptions):
    """Flickr8k in its official layout.

    The folder has Flicker8k_Dataset/, Flickr8k.token.txt and Flickr_8k.{train,dev,test}Images.txt;
    the text files may also be in Flickr8k_text/, as the archive unpacks them. Splits: train (6,000
    pictures), validation (1,000; "dev"), test (1,000). Source: Hodosh, Young & Hockenmaier 2013.
    """

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        root = Path(root)
        if split not in SPLIT_NAMES:
            raise ValueError(f"no split {split!r}: choose train, validation or test")
        split = SPLIT_NAMES[split].replace("validation", "dev")
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
        chosen = {text.strip() for _, text in text_lines(split_file, problems)}
        records = []
        for where, text in text_lines(captions_file, problems):
            label, tab, caption = text.partition("\t")
            name = label.rpartition("#")[0]  # 1000268201_693b08cb0e.jpg#0
            if not tab:
                expected = "a name, a tab and a caption were expected"
                problems.append(f"{where}: {expected}, not {text[:60]!r}")
            elif name in chosen:
                records.append(Record(where, name, [caption]))
        captioned = {record.name for record in records}
        problems += [f"{split_file}: {name} has no caption" for name in sorted(chosen - captioned)]
        super().__init__(pictures, os.listdir(pictures), records, problems, size)


LAYOUTS = {"folder": FolderCaptions, "flickr8k": Flickr8k, "shards": ShardCaptions}
