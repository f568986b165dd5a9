"""Tables on disk: rows about pictures, one column of which is to be predicted."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..images import open_image, to_tensor
from ..tables import Schema, is_missing, parse_number, split_groups
from .dataset import DataSet, LazyColumn
from .photographs import Photographs
from .records import SPLIT_NAMES, check_split

SHARES = {"train": 70, "validation": 15, "test": 15}
MOST_CLASSES = 20  # a target with more different numbers is predicted as a number
BRACKETS = 20  # of a number, with equally many training rows each
PER_BRACKET = 15  # training rows, at least: few rows make fewer brackets
FILES = "file_name"
SPLIT = "split"


class Target(NamedTuple):
    """The column to predict: one of `classes`, the commonest first; or a number, by its bracket.

    The brackets of a number are its `classes`, from low to high. `upper` are the upper bounds of
    all but the last one, `medians` their medians in training; both are empty for classes.
    """

    column: str
    classes: tuple[str, ...]
    upper: tuple[float, ...] = ()
    medians: tuple[float, ...] = ()

    @property
    def is_number(self) -> bool:
        return len(self.medians) > 0

    def label(self, cell: str) -> str | None:
        """The class in a cell, or the bracket of its number; None if there is no such class.

        Raises ValueError if a number is expected and the cell has none.
        """
        if not self.is_number:
            return cell if cell in self.classes else None
        number = parse_number(cell)
        if number is None:
            raise ValueError(f"column {self.column!r} holds numbers, not {cell!r}")
        return self.classes[sum(number > bound for bound in self.upper)]


def learn_target(column: str, cells: Sequence[str]) -> Target:
    """The target of training rows, from its cells. Raises ValueError if there is one class only."""
    numbers = [parse_number(cell) for cell in cells]
    if None not in numbers and len(set(numbers)) > MOST_CLASSES:
        return _brackets(column, numbers)
    counts = Counter(cells)
    if len(counts) < 2:
        found = next(iter(counts), "nothing")
        raise ValueError(f"column {column!r} has one class only in training: {found}")
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    return Target(column, tuple(ordered))


def _brackets(column: str, numbers: Sequence[float]) -> Target:
    """Brackets of a number with about equally many training rows each."""
    values = torch.tensor(sorted(numbers), dtype=torch.float64)
    count = max(2, min(BRACKETS, len(values) // PER_BRACKET))
    inner = torch.arange(1, count, dtype=torch.float64) / count
    upper = values.quantile(inner).unique()
    number = torch.bucketize(values, upper)  # the bracket of each
    kept = number.unique().tolist()
    medians = [values[number == b].median().item() for b in kept]
    bounds = [upper[b].item() for b in kept[:-1]]
    names = tuple(f"about {median:.6g}" for median in medians)
    return Target(column, names, tuple(bounds), tuple(medians))


class TableOptions(NamedTuple):
    """Which columns of a table are what: see the options of `tasks.prediction`."""

    target: str
    group: str | None = None
    by_row: bool = False  # split rows, though rows of one group are alike
    left_out: tuple[str, ...] = ()
    inputs: str = "both"  # or "image" or "row"
    fold: tuple[int, int] | None = None  # (i, k): test on the i-th of k folds


class Row(NamedTuple):
    """A row of a table: its line, its target, its group, its pictures, and its other cells."""

    where: str
    target: str
    group: str
    files: list[str]
    split: str
    cells: dict[str, str]


class TableData(DataSet):
    """A folder with table.csv: a row for each example, with columns of any names.

    file_name  the picture, below the folder; several are separated by ";", and become one picture,
               side by side. Without this column there are no pictures.
    split      train, validation or test. Without it, rows are split 70 : 15 : 15, by group, each
               part with its share of each class.

    Rows that cannot be used are left out and named in `problems`, with their line. So is a picture
    that cannot be read: its row has one picture less. A missing cell is no problem.

    schema       of the columns that are neither target, group, file_name nor split
    target       learned from the training rows, as the schema is, unless they are `known`
    most_files   the most pictures that a row has
    labels       each row's class or bracket
    values       each row's number; None for a class
    groups       each row's group, or else its line

    Raises ValueError, in one line, for a table that cannot be used.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        size: int,
        options: TableOptions,
        known: tuple[Schema, Target, int] | None = None,
    ):
        super().__init__()
        check_split(split)
        root = Path(root)
        path = root / "table.csv"
        rows = self._usable(_read_rows(path, self.problems), path, options)
        parts = _split_rows(rows, path, options)
        chosen = [row for row, part in zip(rows, parts) if part == split]
        if known:
            self.schema, self.target, self.most_files = known
        else:
            training = [row for row, part in zip(rows, parts) if part == "train"]
            self._learn(training, path, options)
            self.most_files = max(len(row.files) for row in rows)
        self.sources += [row.cells for row in chosen]
        tensors = self._encode(chosen, options.target)
        if options.inputs != "row" and size > 0 and self.most_files:
            self._add_pictures(root, size)
        if options.inputs != "image":
            self.columns["row"] = LazyColumn(tensors.__getitem__, range(len(tensors)))
        self.texts = [[label] for label in self.labels]
        self.references = [[[label]] for label in self.labels]

    def _learn(self, training: list[Row], path: Path, options: TableOptions) -> None:
        if not training:
            raise ValueError(f"{path}: no row is for training")
        try:
            self.target = learn_target(options.target, [row.target for row in training])
            self.schema = Schema.learn([row.cells for row in training])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _encode(self, rows: list[Row], column: str) -> list[Tensor]:
        """The rows as tensors; those that cannot be used go to `problems`."""
        tensors = []
        self.labels = []
        self.values = []
        self.groups = []
        self.files = []
        for row in rows:
            try:
                label = self.target.label(row.target)
                if label is None:
                    raise ValueError(f"column {column!r}: training has no {row.target!r}")
                if len(row.files) > self.most_files:
                    raise ValueError(f"{len(row.files)} pictures, {self.most_files} at most")
                tensors.append(self.schema.encode(row.cells))
            except ValueError as error:
                self.problems.append(f"{row.where}: {error}")
                continue
            self.labels.append(label)
            self.values.append(parse_number(row.target) if self.target.is_number else None)
            self.groups.append(row.group)
            self.files.append(row.files)
            self.names.append(row.where)
        return tensors

    def _add_pictures(self, root: Path, size: int) -> None:
        """Add the column "image"; a row whose pictures cannot be read has none of them."""
        paths = [root / name for names in self.files for name in names]
        self.sources += paths
        photographs = Photographs(paths, max(1, size // mosaic_side(self.most_files)))
        keys = []
        first = 0
        for where, names in zip(self.names, self.files):
            numbers = list(range(first, first + len(names)))
            first += len(names)
            bad = [i for i in numbers if i in photographs.unreadable]
            self.problems += [f"{where}: {photographs.unreadable[i]}" for i in bad]
            keys.append([i for i in numbers if i not in bad] or None)
        make = partial(_mosaic_of, photographs, size=size)
        self.columns["image"] = LazyColumn(make, keys)

    def _usable(
        self, rows: list[tuple[str, dict[str, str]]], path: Path, options: TableOptions
    ) -> list[Row]:
        """The rows that have a target; the others go to `problems`."""
        names = rows[0][1].keys()
        for column in (options.target, options.group, *options.left_out):
            if column and column not in names:
                raise ValueError(f"{path}: no column {column!r} among: {', '.join(names)}")
        other = {options.target, options.group, FILES, SPLIT, *options.left_out}
        usable = []
        for where, cells in rows:
            target = cells[options.target]
            if is_missing(target):
                self.problems.append(f"{where}: column {options.target!r} is empty")
                continue
            group = cells[options.group] if options.group else ""
            if is_missing(group):
                group = _line(where)
            files = _files_of(cells)
            inputs = {name: cell for name, cell in cells.items() if name not in other}
            usable.append(Row(where, target, group, files, cells.get(SPLIT, ""), inputs))
        if not usable:
            raise ValueError(f"{path}: no row has a {options.target!r}")
        return usable


def _files_of(cells: dict[str, str]) -> list[str]:
    return [name.strip() for name in cells.get(FILES, "").split(";") if name.strip()]


def _read_rows(path: Path, problems: list[str]) -> list[tuple[str, dict[str, str]]]:
    """(file and line, {column: cell}) of each row. Rows of another length go to `problems`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; the rows to learn from are needed")
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            twice = [name for name, count in Counter(names).items() if count > 1 or not name]
            if not names:
                raise ValueError(f"{path}:1: no column names")
            if twice:
                problem = f"the column name {twice[0]!r} is empty or occurs twice"
                raise ValueError(f"{path}:1: {problem}")
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if len(cells) < 2 and not any(map(str.strip, cells)):
                    continue
                if len(cells) != len(names):
                    lengths = f"{len(cells)} cells where there are {len(names)} columns"
                    problems.append(f"{where}: {lengths}")
                    continue
                rows.append((where, dict(zip(names, map(str.strip, cells)))))
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 text") from None
    if not rows:
        raise ValueError(f"{path}: no rows")
    return rows


def _line(where: str) -> str:
    """The line of a row, as a group of its own: the same wherever the table lies."""
    return "line " + where.rpartition(":")[2]


def _split_rows(rows: Sequence[Row], path: Path, options: TableOptions) -> list[str]:
    """The split of each row: by the column "split", or else by group."""
    if any(row.split for row in rows) and not options.fold:
        return _given_splits(rows, path, options)
    groups = [_line(row.where) if options.by_row else row.group for row in rows]
    labels = _strata([row.target for row in rows])
    if options.fold:
        number, count = options.fold
        folds = split_groups(groups, labels, [1] * count)
        roles = {number: "test", (number + 1) % count: "validation"}
        return [roles.get(fold, "train") for fold in folds]
    names = list(SHARES)
    return [names[part] for part in split_groups(groups, labels, list(SHARES.values()))]


def _strata(cells: Sequence[str]) -> list[str | int]:
    """Labels to stratify by: classes, or which fifth of the numbers."""
    numbers = [parse_number(cell) for cell in cells]
    if None in numbers or len(set(numbers)) <= MOST_CLASSES:
        return list(cells)
    values = torch.tensor(numbers, dtype=torch.float64)
    inner = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    return torch.bucketize(values, values.quantile(inner)).tolist()


def _given_splits(rows: Sequence[Row], path: Path, options: TableOptions) -> list[str]:
    """The splits that the table names. Raises ValueError if a group is in two of them."""
    splits = []
    found: dict[str, tuple[str, str]] = {}  # group -> its split, and where
    for row in rows:
        name = row.split.lower()
        if name not in SPLIT_NAMES:
            known = ", ".join(SPLIT_NAMES)
            raise ValueError(f"{row.where}: the split {row.split!r} is none of {known}")
        split = SPLIT_NAMES[name]
        splits.append(split)
        before, where = found.setdefault(row.group, (split, row.where))
        if before != split and not options.by_row:
            raise ValueError(
                f"{row.where}: the group {row.group!r} is in {split}, and in {before} at {where}: "
                "a model would be tested on rows that it knows"
            )
    return splits


def mosaic_side(count: int) -> int:
    """How many of `count` pictures lie in a row of their square mosaic."""
    side = 1
    while side * side < count:
        side += 1
    return side


def mosaic(pictures: Sequence[Tensor], side: int, size: int) -> Tensor:
    """Pictures (3, s, s) -> one (3, size, size), `side` in a row, black where there is none."""
    canvas = torch.zeros(3, size, size, dtype=torch.uint8)
    for i, picture in enumerate(pictures):
        s = picture.size(1)
        top, left = i // side * s, i % side * s
        canvas[:, top : top + s, left : left + s] = picture
    return canvas


def _mosaic_of(photographs: Photographs, numbers: Sequence[int], size: int) -> Tensor:
    pictures = [photographs[i] for i in numbers]
    return mosaic(pictures, size // photographs.shape[-1], size)


def read_examples(
    path: Path, picture: Path | None, schema: Schema, most_files: int, size: int
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(file and line, example) of each row of a CSV file, without a target.

    Its pictures are those in file_name, below the file's folder, or else `picture`. Raises
    ValueError, naming file and line, for a row that cannot be used.
    """
    problems: list[str] = []
    rows = _read_rows(path, problems)
    if problems:
        raise ValueError(problems[0])
    for where, cells in rows:
        files = [picture] if picture else [path.parent / name for name in _files_of(cells)]
        if len(files) > most_files:
            raise ValueError(f"{where}: {len(files)} pictures, where training had {most_files}")
        try:
            example = {"row": schema.encode(cells)}
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if files and size:
            side = mosaic_side(most_files)
            pictures = [to_tensor(open_image(file), max(1, size // side)) for file in files]
            example["image"] = mosaic(pictures, side, size)
        yield where, example
