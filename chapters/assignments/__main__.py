"""Write the pieces of a chapter yourself, with tests, hints and grades.

    python -m chapters.assignments                              list the exercises
    python -m chapters.assignments start 5 --to work            write stubs to fill in
    python -m chapters.assignments check 5 --from work          run the tests, with hints
    python -m chapters.assignments solution 5 masked_softmax --from work
    python -m chapters.assignments grade 5 submissions --out grades.csv
    python -m chapters.assignments course 3 4 5 --to DIR        a copy for a class, without answers

In a notebook: `from chapters.assignments import check`, then `check(my_function)`.
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

from .course import course
from .exercises import EXERCISES, of_chapter
from .grading import grade
from .splice import definitions, excerpt, is_stub, library, parse
from .stubs import start
from .submissions import read_files
from .verdicts import Verdict, assess, assess_all, prepare, show

# -------------------------------------------------------------------------------------------------
# check


def progress_bar(verdicts: Sequence[Verdict]) -> str:
    """The points of an assignment so far: "[████████············] 20 of 50 points"."""
    points = sum(verdict.points for verdict in verdicts)
    maximum = sum(verdict.exercise.points for verdict in verdicts)
    filled = "█" * (30 * points // maximum)
    return f"[{filled:·<30}] {points} of {maximum} points"


def check_folder(number: int, source: Path, name: str | None) -> bool:
    """Check the files of a learner and print the verdicts. Returns whether all of them passed."""
    exercises = of_chapter(number, name)
    files = read_files(source, exercises)
    if not files:
        names = ", ".join(dict.fromkeys(exercise.file for exercise in exercises))
        raise ValueError(
            f"{source} holds no {names}: "
            f"python -m chapters.assignments start {number} --to {source} writes stubs to fill in"
        )
    if len(exercises) == 1:
        prepare(exercises[0])
    found = []
    for result in assess_all(exercises, files):
        file, _ = files.get(result.exercise.module, ("", ""))
        show(result, file)
        found.append(result)
    print(progress_bar(found))
    return all(result.state == "passed" for result in found)


def watch(number: int, source: Path, name: str | None) -> None:
    """Check now, and after every save, until Ctrl-C."""
    before = None
    while True:
        paths = [source] if source.is_file() else source.rglob("*.py")
        now = {path: path.stat().st_mtime_ns for path in paths if path.exists()}
        if now != before:
            print(f"--- {time.strftime('%H:%M:%S')}")
            check_folder(number, source, name)
            print("waiting for a change; press Ctrl-C to stop", flush=True)
        before = now
        time.sleep(0.5)


# -------------------------------------------------------------------------------------------------
# solution


def side_by_side(theirs: str, ours: str, width: int) -> Iterator[str]:
    """Two texts in two columns: "|" where lines differ, "<" and ">" for lines of one side only."""
    left = theirs.splitlines()
    right = ours.splitlines()
    column = (width - 3) // 2

    def wrap(line: str | None) -> list[str]:
        line = line or ""
        return [line[at : at + column] for at in range(0, len(line), column)] or [""]

    yield f"{'yours':{column}}   the library's"
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        for a, b in itertools.zip_longest(left[i1:i2], right[j1:j2]):
            mark = "|"
            if kind == "equal":
                mark = " "
            elif b is None:
                mark = "<"
            elif a is None:
                mark = ">"
            for mine, other in itertools.zip_longest(wrap(a), wrap(b), fillvalue=""):
                yield f"{mine:{column}} {mark} {other}".rstrip()


def solution(number: int, name: str, source: Path | None, give_up: bool) -> bool:
    """Print the library's version next to the learner's, if theirs passes or they give up.

    Returns whether it was shown.
    """
    [exercise] = of_chapter(number, name)
    files = read_files(source, [exercise]) if source else {}
    _, text = files.get(exercise.module, ("", ""))
    if any(is_stub(definitions(parse(library(exercise.module)))[p]) for p in exercise.parts):
        print("Your instructor has the solution: this is a course copy, without answers.")
        return False
    if not give_up:
        result = assess(exercise, text)
        if result.state != "passed":
            show(result)
            print("The library's version is shown when yours passes, or with --give-up.")
            return False
    library_text = library(exercise.module)
    width = max(100, shutil.get_terminal_size().columns)
    with contextlib.suppress(SyntaxError):
        theirs = definitions(parse(text))
        ours = definitions(parse(library_text))
        for part in exercise.parts:
            yours = textwrap.dedent(excerpt(text, theirs[part])) if part in theirs else ""
            shown = textwrap.dedent(excerpt(library_text, ours[part]))
            print("\n".join(side_by_side(yours, shown, width)), "\n")
    return True


# -------------------------------------------------------------------------------------------------
# The command line.


def list_exercises() -> None:
    from ..__main__ import book  # which imports matplotlib, for which a check need not wait

    for number in dict.fromkeys(exercise.chapter for exercise in EXERCISES):
        exercises = of_chapter(number)
        title = next(entry.title for entry in book() if entry.number == number)
        points = sum(e.points for e in exercises)
        hours = sum(e.minutes for e in exercises) / 60
        print(f"{number:2} {title}: {points} points, {hours:.1f} hours")
        for e in exercises:
            effort = f"{e.points:3} points {e.minutes:4} min  {e.difficulty:7}"
            print(f"     {e.name:44} {effort} {e.title}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chapters.assignments",
        description="Write the pieces of a chapter yourself, with tests, hints and grades.",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", help="without a command: list the exercises"
    )

    def command(name: str, text: str, **several) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("chapter", type=int, metavar="N", help="number of the chapter", **several)
        return sub

    source = {"dest": "source", "type": Path, "metavar": "DIR", "help": "your folder or file"}

    sub = command("start", "write modules with stubs to fill in, and a README.md")
    sub.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")

    sub = command("check", "run the tests on your code, with a hint for each mistake")
    sub.add_argument("--from", required=True, **source)
    sub.add_argument("--exercise", metavar="NAME", help="check only this exercise")
    sub.add_argument("--watch", action="store_true", help="check again after every save")

    sub = command("solution", "show the library's version next to yours, once yours passes")
    sub.add_argument("name", metavar="NAME", help="name of the exercise")
    sub.add_argument("--from", **source)
    sub.add_argument("--give-up", action="store_true", help="show it in any case")

    sub = command("grade", "grade a folder of submissions: files, folders or zip files")
    sub.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="the folder")
    out_help = "the table to write (.csv); the reports are written next to it"
    sub.add_argument("--out", type=Path, required=True, metavar="FILE", help=out_help)

    text = "write a copy of the project in which the exercises of these chapters are stubs"
    sub = command("course", text, nargs="+")
    sub.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0 if all is right, 1 if not yet, 2 after an error, 130 after Ctrl-C."""
    args = make_parser().parse_args(arguments)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="replace")
    try:
        if args.command is None:
            list_exercises()
        elif args.command == "start":
            for path in start(args.chapter, args.to):
                print(f"wrote {path}")
            print(f"Start with {args.to / 'README.md'}")
        elif args.command == "solution":
            was_shown = solution(args.chapter, args.name, args.source, args.give_up)
            return 0 if was_shown else 1
        elif args.command == "course":
            course(args.chapter, args.to)
            print(f"wrote {args.to}; its README.md says what it is")
        elif args.command == "grade":
            grade(args.chapter, args.submissions, args.out)
        elif args.watch:
            watch(args.chapter, args.source, args.exercise)
        else:
            all_passed = check_folder(args.chapter, args.source, args.exercise)
            return 0 if all_passed else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the program that reads our output (head, less) has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
