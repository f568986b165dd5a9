"""Rows of tables: what their columns mean, and how they are split."""

import datetime
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MISSING = ("", "-", "?", "na", "n/a", "nan", "none", "null", "unknown")  # in lower case
MAX_CATEGORIES = 100  # a column with more different texts is no category
OTHER = 0  # the number of a category that training did not have


def is_missing(cell: str) -> bool:
    """Whether a cell says that its value is not known."""
    return cell.strip().lower() in MISSING


def parse_number(cell: str) -> float | None:
    """The number in a cell; of a date such as 2019-04-30, the year with its fraction; or None."""
    text = cell.strip()
    try:
        date = datetime.date.fromisoformat(text)
    except ValueError:
        pass
    else:
        return date.year + (date.timetuple().tm_yday - 1) / 365.25
    try:
        number = float(text.replace(",", "").removeprefix("$"))  # 1,250,000
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class Column(NamedTuple):
    """A column of a table: a number, with the mean and scale of training; or one of `values`."""

    name: str  # as in the table, with its unit
    mean: float = 0.0
    scale: float = 1.0
    values: tuple[str, ...] = ()  # of a category, the commonest first; () for a number

    @property
    def num_categories(self) -> int:
        """The number of its categories, `OTHER` included; 0 for a number."""
        return len(self.values) + 1 if self.values else 0


class Schema:
    """What the columns of a table mean: learned from its training rows, and from no others.

    A column is a number if nine of ten cells in it are numbers or dates; otherwise it is a
    category, one of the texts that occur in it (yes and no are two). Upper and lower case are the
    same. `learn` and `encode` take rows as {column: cell}; whether a cell is missing is decided by
    `is_missing`.
    """

    def __init__(self, columns: Sequence[Column]):
        self.columns = list(columns)

    @classmethod
    def learn(cls, rows: Sequence[Mapping[str, str]]) -> "Schema":
        """The schema of training rows, which all have the same columns.

        A number's scale is its standard deviation, or 1 if all are equal. A column without any
        value is left out. Raises ValueError if there are no rows, or for a column with more than
        `MAX_CATEGORIES` different texts, which is no category.
        """
        if not rows:
            raise ValueError("a table needs at least one row to learn from")
        columns = []
        for name in rows[0]:
            cells = [row[name].strip() for row in rows if not is_missing(row[name])]
            if cells:
                columns.append(_learn_column(name, cells))
        return cls(columns)

    def encode(self, row: Mapping[str, str]) -> Tensor:
        """A row as numbers, (C,): (x - mean) / scale of a number, the number of a category.

        A category that training did not have is `OTHER`. A missing cell is NaN, and not 0, which
        would be the mean. Raises ValueError, naming the column, if a number is none.
        """
        values = []
        for column in self.columns:
            cell = row.get(column.name, "").strip()
            if is_missing(cell):
                values.append(math.nan)
            elif column.values:
                known = [value.lower() for value in column.values]
                is_known = cell.lower() in known
                values.append(known.index(cell.lower()) + 1 if is_known else OTHER)
            else:
                number = parse_number(cell)
                if number is None:
                    raise ValueError(f"column {column.name!r} holds numbers, not {cell!r}")
                values.append((number - column.mean) / column.scale)
        return torch.tensor(values, dtype=torch.float32)

    def num_categories(self) -> list[int]:
        """For each column the number of its categories, and 0 for a number: see `tabular.TableEncoder`."""
        return [column.num_categories for column in self.columns]

    def state(self) -> list[list]:
        """Plain values, to be saved; `from_state` makes the schema of them."""
        return [[c.name, c.mean, c.scale, list(c.values)] for c in self.columns]

    @classmethod
    def from_state(cls, state: list[list]) -> "Schema":
        """The inverse of `state`."""
        return cls([Column(name, mean, scale, tuple(v)) for name, mean, scale, v in state])


def _learn_column(name: str, cells: list[str]) -> Column:
    """A column from its cells, of which none is missing."""
    numbers = [parse_number(cell) for cell in cells]
    numbers = [number for number in numbers if number is not None]
    if 10 * len(numbers) >= 9 * len(cells):
        values = torch.tensor(numbers, dtype=torch.float64)
        scale = values.std(correction=0).item()
        return Column(name, values.mean().item(), scale if scale > 0 else 1.0)
    counts = Counter(cell.lower() for cell in cells)
    if len(counts) > MAX_CATEGORIES:
        raise ValueError(
            f"column {name!r} has {len(counts)} different texts: it names rows, and says nothing "
            "about others; leave it out"
        )
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    return Column(name, values=tuple(ordered))


def split_groups(
    groups: Sequence[Hashable], labels: Sequence[Hashable], shares: Sequence[float], seed: int = 0
) -> list[int]:
    """Which part each row belongs to, 0 to len(shares) - 1: all rows of a group to the same one.

    groups: of each row: the patient, the lesion, the household. Rows of one group are alike, so a
        model that has seen one of them in training knows the others.
    labels: of each row; each part gets about its share of the rows of each label.
    shares: of the parts, such as (70, 15, 15); equal ones make folds.

    Large groups are dealt out first, each to the part that lacks most of its labels. Groups of one
    size come in an order that depends on seed and group only, and not on the order of the rows.
    Raises ValueError if there are fewer groups than parts.
    """
    rows = defaultdict(list)
    for i, group in enumerate(groups):
        rows[group].append(i)
    if len(rows) < len(shares):
        raise ValueError(f"{len(rows)} groups cannot be split into {len(shares)} parts")
    totals = Counter(labels)
    lacking = []  # of each part, how many rows of each label
    for share in shares:
        wanted = {label: count * share / sum(shares) for label, count in totals.items()}
        lacking.append(wanted)

    def draw(group: Hashable) -> bytes:
        return hashlib.sha256(f"{seed} {group}".encode()).digest()

    part_of = [0] * len(groups)
    for group in sorted(rows, key=lambda group: (-len(rows[group]), draw(group))):
        counts = Counter(labels[i] for i in rows[group])

        def need(part: int) -> float:
            """How much of its share the part lacks, in the labels of this group."""
            share = shares[part] / sum(shares)
            return sum(n * lacking[part][c] / (totals[c] * share) for c, n in counts.items())

        part = max(range(len(shares)), key=need)
        for label, count in counts.items():
            lacking[part][label] -= count
        for i in rows[group]:
            part_of[i] = part
    return part_of
