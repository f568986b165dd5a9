"""Measurements that take minutes to hours: for each, a script and a file of its results."""

import json
from pathlib import Path


def read_rows(path: Path) -> list[dict]:
    """The measurements in a file, one per line; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_row(path: Path, row: dict) -> None:
    """Add a measurement to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
