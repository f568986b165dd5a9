"""Shared by the scripts whose data are a table: check its columns, copy its pictures, write it."""

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path


def check_columns(path: Path, found: Sequence[str] | None, needed: Sequence[str]) -> None:
    """Raise ValueError if a table lacks columns."""
    missing = [name for name in needed if name not in (found or ())]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}")


def place(source: Path, target: Path) -> None:
    """Put a picture at `target`: the same file if the disk can, else a copy."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def write_table(path: Path, rows: Sequence[dict[str, str]], source: Path) -> None:
    """Write table.csv. Raises ValueError if there are no rows."""
    if not rows:
        raise ValueError(f"{source}: none of the pictures of its table is below it")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    print(f"{path}: {len(rows):,} rows")
