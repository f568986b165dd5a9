"""Write the pieces of a chapter anew, and have them checked, hinted and graded.

    python -m chapters.assignments                              lists the exercises
    python -m chapters.assignments start 5 --to work            what to write, as stubs
    python -m chapters.assignments check 5 --from work          what is right already, and a hint for what is not
    python -m chapters.assignments solution 5 masked_softmax --from work
    python -m chapters.assignments grade 5 submissions --out grades.csv

In a notebook: `from chapters.assignments import check`, and then `check(my_function)`.
"""

import argparse
import contextlib
import difflib
import itertools
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..__main__ import book
from .exercises import EXERCISES, of_chapter
from .grading import grade
from .splice import definitions, excerpt, library, parse
from .stubs import start
from .submissions import read_files
from .verdicts import Verdict, show, verdict, verdicts

# -------------------------------------------------------------------------------------------------
# check


def bar(verdicts: Sequence[Verdict]) -> str:
    """How much of the assignment is done: "[████████············] 20 of 50 points"."""
    points, most = sum(one.points for one in verdicts), sum(one.exercise.points for one in verdicts)
    return f"[{'█' * (30 * points // most):·<30}] {points} of {most} points"


def check_folder(number: int, source: Path, name: str | None) -> bool:
    """Check what is there, and say what came of it; -> is everything right?"""
    exercises = of_chapter(number, name)
    files = read_files(source, exercises)
    if not files:
        names = ", ".join(dict.fromkeys(exercise.file for exercise in exercises))
        raise ValueError(
            f"{source} holds no {names}: python -m chapters.assignments start {number} --to {source} lays out what to write"
        )
    found = []
    for one in verdicts(exercises, files):
        show(one, files.get(one.exercise.module, ("", ""))[0])
        found.append(one)
    print(bar(found))
    return all(one.state == "passed" for one in found)


def watch(number: int, source: Path, name: str | None) -> None:
    """Check now, and whenever a file is saved, until Ctrl-C."""
    seen = None
    while True:
        now = {
            path: path.stat().st_mtime_ns
            for path in ([source] if source.is_file() else source.rglob("*.py"))
            if path.exists()
        }
        if now != seen:
            print(f"--- {time.strftime('%H:%M:%S')}")
            check_folder(number, source, name)
            print("waiting for a change; Ctrl-C ends it", flush=True)
        seen = now
        time.sleep(0.5)


# -------------------------------------------------------------------------------------------------
# solution


def side_by_side(theirs: str, ours: str, width: int) -> Iterator[str]:
    """Two texts as two columns: "|" where lines differ, "<" and ">" where only one side has one."""
    left, right = theirs.splitlines(), ours.splitlines()
    column = (width - 3) // 2
    yield f"{'yours':{column}}   the library's"
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(
        None, left, right, autojunk=False
    ).get_opcodes():
        for a, b in itertools.zip_longest(left[i1:i2], right[j1:j2]):
            mark = " " if kind == "equal" else "<" if b is None else ">" if a is None else "|"
            halves = [
                [text[at : at + column] for at in range(0, len(text), column)] or [""]
                for text in (a or "", b or "")
            ]
            for one, other in itertools.zip_longest(*halves, fillvalue=""):
                yield f"{one:{column}} {mark} {other}".rstrip()


def solution(number: int, name: str, source: Path | None, give_up: bool) -> bool:
    """Show the library's version beside the learner's, if that passes or they give up; -> was it shown?"""
    [exercise] = of_chapter(number, name)
    files = read_files(source, [exercise]) if source else {}
    text = files.get(exercise.module, ("", ""))[1]
    if not give_up and (one := verdict(exercise, text)).state != "passed":
        show(one)
        print("The library's version is shown when yours passes, or with --give-up.")
        return False
    whole = library(exercise.module)
    with contextlib.suppress(SyntaxError):
        theirs, ours = definitions(parse(text)), definitions(parse(whole))
        for part in exercise.parts:
            yours = textwrap.dedent(excerpt(text, theirs[part])) if part in theirs else ""
            pair = yours, textwrap.dedent(excerpt(whole, ours[part]))
            print(
                "\n".join(side_by_side(*pair, max(100, shutil.get_terminal_size().columns))), "\n"
            )
    return True


# -------------------------------------------------------------------------------------------------
# The command line.


def list_exercises() -> None:
    for number in dict.fromkeys(exercise.chapter for exercise in EXERCISES):
        chapter = of_chapter(number)
        title = next(entry.title for entry in book() if entry.number == number)
        print(
            f"{number:2} {title}: {sum(e.points for e in chapter)} points, {sum(e.minutes for e in chapter) / 60:.1f} hours"
        )
        for e in chapter:
            print(
                f"     {e.name:44} {e.points:3} points {e.minutes:4} min  {e.difficulty:7} {e.title}"
            )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chapters.assignments",
        description="Write the pieces anew, checked and hinted.",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", help="without one, the exercises are listed"
    )

    def command(name: str, says: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=says, description=says)
        sub.add_argument("chapter", type=int, metavar="N", help="of which chapter")
        return sub

    sub = command("start", "write what to begin with: modules with stubs, and a README.md")
    sub.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    sub = command("check", "say what is right already, and give a hint for what is not")
    sub.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="DIR",
        help="your folder, or file",
    )
    sub.add_argument("--exercise", metavar="NAME", help="only this one")
    sub.add_argument("--watch", action="store_true", help="check again when a file is saved")
    sub = command("solution", "show the library's version beside yours, once that passes")
    sub.add_argument("name", metavar="NAME", help="of the exercise")
    sub.add_argument("--from", dest="source", type=Path, metavar="DIR", help="your folder, or file")
    sub.add_argument("--give-up", action="store_true", help="show it in any case")
    sub = command("grade", "grade a folder of submissions: files, folders or zip files")
    sub.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="the folder")
    sub.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the table (.csv); the reports lie beside it",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all is right, 1 if something is not yet, 2 after an error, 130 after Ctrl-C."""
    args = make_parser().parse_args(arguments)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="replace")
    try:
        if args.command is None:
            list_exercises()
        elif args.command == "start":
            for path in start(args.chapter, args.to):
                print(f"wrote {path}")
            print(f"Begin with {args.to / 'README.md'}")
        elif args.command == "solution":
            return 0 if solution(args.chapter, args.name, args.source, args.give_up) else 1
        elif args.command == "grade":
            grade(args.chapter, args.submissions, args.out)
        elif args.watch:
            watch(args.chapter, args.source, args.exercise)
        else:
            return 0 if check_folder(args.chapter, args.source, args.exercise) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
