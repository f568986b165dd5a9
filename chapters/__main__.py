"""List the chapters, or run them.

    python -m chapters          lists them
    python -m chapters 2 3      runs two of them
    python -m chapters all      runs the book, in order

With --fast a chapter runs in seconds, and its numbers mean nothing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from .chapter import ROOT, folder

HEADER = re.compile(r"# # (\d+) · (.+)\n#\n# \*\*Adds\*\* (.+?)\. \*\*Takes\*\* ([\d.]+) min")


class Entry(NamedTuple):
    """The metadata in a chapter's first lines; `minutes` were measured on two cores."""

    path: Path
    number: int
    title: str
    adds: str
    minutes: float


def book() -> list[Entry]:
    """All chapters, in order."""
    entries = []
    for path in sorted(Path(__file__).parent.glob("ch[0-9][0-9]_*.py")):
        header = HEADER.search(path.read_text(encoding="utf-8"))
        if not header:
            raise ValueError(f'{path}: does not start with a title, "**Adds** …. **Takes** … min"')
        number, title, adds, minutes = header.groups()
        entries.append(Entry(path, int(number), title, adds, float(minutes)))
    return entries


def choose(numbers: list[str]) -> list[Entry]:
    """The chapters with these numbers; "all" means all of them."""
    entries = {str(entry.number): entry for entry in book()}
    for number in numbers:
        if number not in entries and number != "all":
            raise ValueError(f"there is no chapter {number}: choose {', '.join(entries)} or all")
    if "all" in numbers:
        return list(entries.values())
    return [entries[number] for number in numbers]


def list_chapters() -> None:
    """Print a table of the chapters."""
    entries = book()
    width = max(len(entry.title) for entry in entries)
    print(f"    {'chapter':{width}}  minutes  run here  adds")
    for entry in entries:
        run_here = finished(entry)
        line = f"{entry.number:2}  {entry.title:{width}}  {entry.minutes:7.1f}  {run_here:8}"
        print(f"{line}  {entry.adds}")
    print("\npython -m chapters 2 runs one, all runs the book, and --fast tries it out in seconds.")


def finished(entry: Entry) -> str:
    """How long the chapter took on this machine, "fast" after a fast run only, or "no"."""
    full = ROOT / folder(entry.number) / "finished.json"
    fast = ROOT / folder(entry.number, fast=True) / "finished.json"
    if full.exists():
        seconds = json.loads(full.read_text())["seconds"]
        return f"{seconds / 60:.1f} min"
    return "fast" if fast.exists() else "no"


def main() -> int:
    """0 if all is well, 2 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m chapters", description="List the chapters, or run them."
    )
    numbers = "numbers of chapters, or all; without any, list them"
    parser.add_argument("chapters", nargs="*", metavar="N", help=numbers)
    fast = "try it out in seconds; the numbers mean nothing"
    parser.add_argument("--fast", action="store_true", help=fast)
    args = parser.parse_args()
    try:
        chapters = choose(args.chapters)
        if not chapters:
            list_chapters()
            sys.stdout.flush()
        for entry in chapters:
            print(f"Chapter {entry.number}: {entry.title}", flush=True)
            command = [sys.executable, "-m", f"chapters.{entry.path.stem}"]
            if args.fast:
                command.append("--fast")
            subprocess.run(command, cwd=ROOT, check=True)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except subprocess.CalledProcessError as error:
        print(f"error: chapter {entry.number} ended with {error.returncode}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
