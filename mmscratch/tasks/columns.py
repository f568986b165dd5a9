"""The columns of a table as the task prediction has them: options, and what a run records."""

import re

from ..data.dataset import DataSet
from ..data.listings import PRICE
from ..data.tables import TableOptions, Target
from ..tables import Schema
from .task import Metadata

COLUMNS = {
    "--target": {"default": PRICE, "metavar": "COLUMN", "help": "the column to be predicted"},
    "--group": {
        "metavar": "COLUMN",
        "help": "rows with the same value here (a patient, a house) are kept in one split",
    },
    "--split-by": {
        "choices": ("group", "row"),
        "default": "group",
        "help": "row: split rows of one group, to see how much that flatters",
    },
    "--leave-out": {"default": "", "metavar": "COLUMN,…", "help": "columns that are not used"},
    "--inputs": {
        "choices": ("both", "image", "row"),
        "default": "both",
        "help": "train on pictures or rows only (default: both)",
    },
    "--balance": {
        "choices": ("none", "weights", "focal"),
        "default": "none",
        "help": "weights: rare classes count as much as common ones; focal: easy examples count less",
    },
    "--fold": {"metavar": "I/K", "help": "test on the I-th of K folds, validate on the next"},
}


def table_options(metadata: Metadata) -> TableOptions:
    """The options as the reader of tables needs them. Raises ValueError for a fold that is none."""
    fold = None
    if metadata["fold"]:
        match = re.fullmatch(r"(\d+)/(\d+)", metadata["fold"])
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count or count < 3:
            raise ValueError(f"--fold is I/K, such as 1/5 (of 3 or more), not {metadata['fold']!r}")
        fold = (number - 1, count)
    return TableOptions(
        target=metadata["target"],
        group=metadata["group"],
        by_row=metadata["split-by"] == "row",
        left_out=tuple(name.strip() for name in metadata["leave-out"].split(",") if name.strip()),
        inputs=metadata["inputs"],
        fold=fold,
    )


def known_columns(metadata: Metadata) -> tuple[Schema, Target, int]:
    """The schema, the target and the most pictures of a row, from a run's metadata."""
    column, classes, upper, medians = metadata["labels"]
    target = Target(column, tuple(classes), tuple(upper), tuple(medians))
    return Schema.from_state(metadata["schema"]), target, metadata["most_files"]


def columns_of(training: DataSet) -> Metadata:
    """What a run records, from which `known_columns` makes the schema and the target again."""
    target = [list(part) if isinstance(part, tuple) else part for part in training.target]
    files = training.most_files
    return {"schema": training.schema.state(), "labels": target, "most_files": files}
