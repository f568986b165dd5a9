"""Questions about pictures, with answers: drawn scenes, or photographs in common layouts."""

import json
import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ..metrics import normalize_answer
from .dataset import DataSet, LazyColumn, words_of
from .photographs import Photographs
from .questions import KINDS, draw_pair, write_answer, write_question
from .records import (
    FILE_NAMES,
    Record,
    RecordSchema,
    assign_splits,
    check_split,
    load_json,
    match_files,
    numbered,
    read_folder,
    records_of_split,
)
from .scenes import draw, first_of_split

ONE_TO_NINE = ("validation", *["train"] * 9)
SEVEN_ONE_TWO = (*["train"] * 7, "validation", "test", "test")
SHAPES = ("circle", "rectangle", "triangle")  # the other answers of easy-VQA are colours
# A curriculum: at first no comparisons, later mostly the kinds that are learned last.
EARLY_KINDS = tuple(kind for kind in KINDS if kind != "compare")
LATE_KINDS = (*KINDS, "count", "exists", *["compare"] * 5, *["two-step"] * 2)
EARLY_FRACTION = 0.25  # of the pairs


class QuestionData(DataSet):
    """Questions about pictures, with one answer each, or one per person, in texts[i].

    A source is a subclass that fills in the fields of `DataSet`, and these:

    pictures[i]           the name of example i's picture
    questions[i]          its question as written
    columns["source"][i]  the same, tokenized
    kinds[i]              the kind of question: "yes/no", "colour"
    pairs[i]              the number of example i's balanced pair: the same question about two
                          pictures with different answers; the list is empty if there are no pairs
    """

    def __init__(self):
        super().__init__()
        self.columns["source"] = []
        self.pictures: list[str] = []
        self.questions: list[str] = []
        self.kinds: list[str] = []
        self.pairs: list[int] = []

    def add(self, picture: str, question: str, answers: list[str], kind: str) -> None:
        """Append an example; its picture only by name."""
        self.columns["source"].append(words_of(question))
        self.pictures.append(picture)
        self.questions.append(question)
        self.kinds.append(kind)
        self.texts.append(answers)
        self.references.append([words_of(answer) for answer in answers])
        self.names.append(f"{picture}: {' '.join(question.split())}")


class SceneQuestions(QuestionData):
    """The first `count` balanced pairs of a split, two examples each; the scenes drawn on access.

    size        the side of the pictures; 0 means no pictures
    curriculum  whether the kinds of questions change from EARLY_KINDS to LATE_KINDS; otherwise all
                kinds are equally frequent. Only those who read the examples in their order
                benefit: train with `shuffle=False`.
    """

    def __init__(
        self,
        split: str,
        count: int,
        language: str = "en",
        size: int = 64,
        curriculum: bool = False,
    ):
        super().__init__()
        first = first_of_split(split)
        self.scenes = []
        kinds = KINDS
        for number in range(count):
            if curriculum:
                kinds = EARLY_KINDS if number < EARLY_FRACTION * count else LATE_KINDS
            question, scenes, answers = draw_pair(first + number, kinds)
            text = write_question(question, language)
            for which, (scene, answer) in enumerate(zip(scenes, answers), 1):
                picture = f"{split} {number}, picture {which}"
                self.add(picture, text, [write_answer(answer, language)], question.kind)
                self.scenes.append(scene)
                self.pairs.append(number)
        if size:
            self.columns["image"] = LazyColumn(partial(draw, size=size), self.scenes)


class PhotoQuestions(QuestionData):
    """Questions about photographs, from the records that a layout's reader yields.

    The pictures are decoded once, into a memory-mapped file under `cache.CACHE`; `size` 0 means no
    pictures. Whatever cannot be used (a missing or corrupt picture, an empty question or answer) is
    left out and reported in `problems`.

    merge  whether records with the same picture and question are one example with several answers
    """

    merge = True

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
        matched = match_files(files, records, problems)
        examples = [record._replace(name=name) for name, record in matched]
        examples = _without_empty_texts(examples, problems)
        if self.merge:
            examples = _merge(examples)
        names = sorted({record.name for record in examples})
        index_of = {name: i for i, name in enumerate(names)}
        if size:
            self.sources += [root / name for name in names]
            photographs = Photographs(self.sources, size)
            problems += photographs.unreadable.values()
            readable = index_of.values() - photographs.unreadable.keys()
            examples = [record for record in examples if index_of[record.name] in readable]
            indices = [index_of[record.name] for record in examples]
            self.columns["image"] = LazyColumn(photographs.__getitem__, indices)
        for record in examples:
            kind = record.kind or kind_of(record.texts)
            self.add(str(root / record.name), record.question, record.texts, kind)


def _without_empty_texts(records: list[Record], problems: list[str]) -> list[Record]:
    """The records that have a question and an answer, without empty answers."""
    kept = []
    for record in records:
        if not words_of(record.question):
            problems.append(f"{record.where}: the question about {record.name!r} is empty")
            continue
        answers = [answer for answer in record.texts if words_of(answer)]
        if len(answers) < len(record.texts):
            problems.append(f"{record.where}: an answer about {record.name!r} is empty")
        if answers:
            kept.append(record._replace(texts=answers))
    return kept


def _merge(records: list[Record]) -> list[Record]:
    """One record for each picture and question, with the answers of all."""
    merged: dict[tuple[str, str], Record] = {}
    for record in records:
        key = _key_of(record)
        if key in merged:
            texts = merged[key].texts + record.texts
            merged[key] = merged[key]._replace(texts=texts)
        else:
            merged[key] = record
    return list(merged.values())


def _key_of(record: Record) -> tuple[str, str]:
    """The picture and the question, whatever its spacing and upper or lower case."""
    return record.name, " ".join(words_of(record.question))


def kind_of(answers: list[str]) -> str:
    """The kind of a question by its answers, as in VQA: "yes/no", "number" or "other"."""
    normal = [normalize_answer(answer) for answer in answers]
    if all(answer in ("yes", "no") for answer in normal):
        return "yes/no"
    if all(re.fullmatch(r"\d+([.,]\d+)*", answer) for answer in normal):
        return "number"
    return "other"


SCHEMA = RecordSchema(
    noun="question",
    texts="answer",
    expected="a file name, a question and an answer",
    columns={
        "file_name": FILE_NAMES,
        "question": ("question",),
        "answer": ("answer", "answers"),
    },
    types=(str, int, float),
)


class FolderQuestions(PhotoQuestions):
    """A folder of pictures with questions.csv, questions.tsv, questions.json or questions.jsonl.

    Every line or entry has a file name, a question and an answer. The columns or keys are called
    "file_name" ("image" or "file" also work), "question" and "answer" (or "answers"). A question
    may have several answers: a list in JSON, or several lines with the same picture and question.
    An optional column, "split", is train, validation or test. Without any split, every tenth
    picture by name is for validation and every tenth for test, with all their questions. A table
    without column names has the file name first and the answer last.
    """

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        root = Path(root)
        check_split(split)
        problems: list[str] = []
        files, records = read_folder(root, SCHEMA, problems)
        records = records_of_split(split, records, problems)
        super().__init__(root, files, records, problems, size)


class EasyVQA(PhotoQuestions):
    """easy-VQA: 48,248 questions about 5,000 pictures of one coloured shape each.

    The folder has train/images/0.png, … and train/questions.json, a list of [question, answer,
    number of the picture]; test/ likewise. Splits: train (3,600 pictures), validation (every tenth
    picture of train/, with all its questions), test (1,000). Kinds: "yes/no", "colour", "shape".
    Source: Zhou 2019, github.com/vzhou842/easy-VQA (MIT licence).
    """

    def __init__(self, root: str | Path, split: str = "train", size: int = 64):
        check_split(split)
        root = Path(root)
        folder = root / ("test" if split == "test" else "train")
        table = folder / "questions.json"
        pictures = folder / "images"
        _check_layout(root, "easy-VQA", [table, pictures])
        problems: list[str] = []
        records = _easy_records(table, problems)
        if split != "test":
            records = [record for record in records if record.split == split]
        super().__init__(pictures, os.listdir(pictures), records, problems, size)


def _easy_records(table: Path, problems: list[str]) -> list[Record]:
    """The records of train/questions.json (every tenth picture is for validation) or of test/."""
    records = []
    for where, entry in numbered(table, load_json(table)):
        match entry:
            case [str(question), str(answer), int(number)]:
                split = "train" if number % 10 else "validation"
                kind = _easy_kind(answer)
                record = Record(where, f"{number}.png", [answer], question, split, kind)
                records.append(record)
            case _:
                expected = "[question, answer, number of the picture] was expected"
                problems.append(f"{where}: {expected}, not {json.dumps(entry)[:60]}")
    return records


def _easy_kind(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in SHAPES else "colour"


class VQARAD(PhotoQuestions):
    """VQA-RAD: 3,515 questions by clinicians about radiological pictures.

    The folder has images/ (315 pictures, of which 314 are asked about), trainset.json (3,064
    questions) and testset.json (451). Kinds: "closed" (mostly yes or no) and "open".

    by_picture  False: the official split, by question. All 203 pictures of its test set are also in
                the training set, so it does not show how a model does on new pictures. Validation
                is every tenth question of trainset.json; 493 of them repeat a question about the
                same picture, and go to the same split.
                True: the questions of both files, split by picture: of every ten pictures by name,
                seven are for training, one for validation and two for testing. Two pictures that
                look like slices of one scan, synpic39086 and synpic39088, are both for training.

    Source: Lau, Gayen, Ben Abacha & Demner-Fushman 2018, osf.io/89kps (CC0).
    """

    merge = False  # every entry counts, as in the papers

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        size: int = 64,
        by_picture: bool = False,
    ):
        check_split(split)
        root = Path(root)
        training = root / "trainset.json"
        testing = root / "testset.json"
        pictures = root / "images"
        _check_layout(root, "VQA-RAD", [training, testing, pictures])
        problems: list[str] = []
        train_records = _rad_records(training, problems)
        test_records = _rad_records(testing, problems)
        if by_picture:
            records = train_records + test_records
            splits = assign_splits(sorted({record.name for record in records}), SEVEN_ONE_TWO)
            records = [record for record in records if splits[record.name] == split]
        elif split == "test":
            records = test_records
        else:
            splits = assign_splits(dict.fromkeys(map(_key_of, train_records)), ONE_TO_NINE)
            records = [record for record in train_records if splits[_key_of(record)] == split]
        super().__init__(pictures, os.listdir(pictures), records, problems, size)


def _rad_records(table: Path, problems: list[str]) -> list[Record]:
    records = []
    for where, entry in numbered(table, load_json(table)):
        match entry:
            case {
                "image_name": str(name),
                "question": str(question),
                "answer": str() | int() | float() as answer,
                "answer_type": str(kind),
            }:
                kind = kind.strip().lower()
                records.append(Record(where, name, [str(answer)], question, kind=kind))
            case _:
                expected = "an image_name, a question, an answer and an answer_type were expected"
                problems.append(f"{where}: {expected}, not {json.dumps(entry)[:60]}")
    return records


def _check_layout(root: Path, name: str, paths: list[Path]) -> None:
    for path in paths:
        if not path.exists():
            question = f"is {root} {name} in its official layout?"
            raise FileNotFoundError(f"{path}: not found; {question}")


LAYOUTS = {
    "folder": FolderQuestions,
    "easy-vqa": EasyVQA,
    "vqa-rad": VQARAD,
    "vqa-rad-by-picture": partial(VQARAD, by_picture=True),
}
