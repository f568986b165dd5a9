"""python -m chapters lists the chapters; python -m chapters 2 runs one, and all runs the book, in order."""

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
    """What the first lines of a chapter say of it; `minutes` were measured on two cores."""

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
            raise ValueError(f'{path}: does not begin with a title, "**Adds** …. **Takes** … min"')
        entries.append(Entry(path, int(header[1]), header[2], header[3], float(header[4])))
    return entries


def choose(numbers: list[str]) -> list[Entry]:
    """The chapters of these numbers, "all" being all of them."""
    entries = {str(entry.number): entry for entry in book()}
    for number in numbers:
        if number not in entries and number != "all":
            raise ValueError(f"there is no chapter {number}: choose {', '.join(entries)} or all")
    return list(entries.values()) if "all" in numbers else [entries[number] for number in numbers]


def list_chapters() -> None:
    entries = book()
    width = max(len(entry.title) for entry in entries)
    print(f"    {'chapter':{width}}  minutes  run here  adds")
    for entry in entries:
        runs = [ROOT / folder(entry.number, fast) / "finished.json" for fast in (False, True)]
        full, fast = (
            json.loads(run.read_text())["seconds"] if run.exists() else None for run in runs
        )
        here = f"{full / 60:.1f} min" if full is not None else "fast" if fast is not None else "no"
        print(
            f"{entry.number:2}  {entry.title:{width}}  {entry.minutes:7.1f}  {here:8}  {entry.adds}"
        )
    print("\npython -m chapters 2 runs one, all runs the book, and --fast tries it out in seconds.")


def main() -> int:
    """Run what was asked for; 0 if all is well, 2 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m chapters", description="List the chapters, or run them."
    )
    parser.add_argument(
        "chapters", nargs="*", metavar="N", help="numbers of chapters, or all; nothing lists them"
    )
    parser.add_argument(
        "--fast", action="store_true", help="try it out in seconds; the numbers mean nothing"
    )
    args = parser.parse_args()
    try:
        chapters = choose(args.chapters)
        if not chapters:
            list_chapters()
            sys.stdout.flush()
        for entry in chapters:
            print(f"Chapter {entry.number}: {entry.title}", flush=True)
            command = [sys.executable, "-m", f"chapters.{entry.path.stem}", *["--fast"] * args.fast]
            subprocess.run(command, cwd=ROOT, check=True)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has left
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
