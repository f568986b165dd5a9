"""Write the pieces of a chapter anew, and have them checked, hinted and graded.

    python -m chapters.assignments                              lists the exercises
    python -m chapters.assignments start 5 --to work            what to write, as stubs
    python -m chapters.assignments check 5 --from work          what is right already, and a hint for what is not
    python -m chapters.assignments solution 5 masked_softmax --from work
    python -m chapters.assignments grade 5 submissions --out grades.csv

In a notebook: `from chapters.assignments import check`, and then `check(my_function)`.
"""

import argparse
import ast
import contextlib
import difflib
import inspect
import itertools
import os
import shutil
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from types import ModuleType

from data_scripts.fetch import BROKEN_ARCHIVE

from ..__main__ import book
from .exercises import EXERCISES, Exercise
from .verdicts import MOST_BYTES, Verdict, definitions, described, excerpt, library, lines_in, parse, verdict

# ---------------------------------------------------------------------------------------------------------------------
# start


def of_chapter(number: int, name: str | None = None) -> list[Exercise]:
    """Its exercises, or the one that is asked for, by its name or a part of it."""
    found = [exercise for exercise in EXERCISES if exercise.chapter == number]
    if not found:
        numbers = sorted({exercise.chapter for exercise in EXERCISES})
        raise ValueError(f"chapter {number} has no exercises: choose one of {', '.join(map(str, numbers))}")
    if name is None:
        return found
    chosen = [exercise for exercise in found if name == exercise.name] or [e for e in found if name.lower() in e.name.lower()]
    if len(chosen) != 1:
        raise ValueError(f"{name}: choose one of {', '.join(exercise.name for exercise in chosen or found)}")
    return chosen


def stubs(module: str, exercises: Sequence[Exercise]) -> str:
    """The library's module, the bodies of the exercises' parts being `raise NotImplementedError`; docstrings stay."""
    text = library(module)
    lines, known = lines_in(text), definitions(parse(text))
    parts = {part: exercise for exercise in exercises if exercise.module == module for part in exercise.parts}
    for part in sorted(parts, key=lambda part: -known[part].lineno):
        body = known[part].body
        first = body[1] if ast.get_docstring(known[part]) is not None and len(body) > 1 else body[0]
        start = body[0].end_lineno if first is not body[0] else body[0].lineno - 1
        message = f"exercise {parts[part].name} of chapter {parts[part].chapter}"
        lines[start : known[part].end_lineno] = [" " * body[0].col_offset + f'raise NotImplementedError("{message}")']
    return "\n".join(lines)


def start(number: int, folder: Path) -> list[Path]:
    """Write what a learner begins with: each module with stubs, and README.md. Raises ValueError if one is there already."""
    exercises = of_chapter(number)
    files = {f"{module}.py": stubs(module, exercises) for module in dict.fromkeys(e.module for e in exercises)}
    files["README.md"] = _read_me(number, exercises, files, folder)
    for name in files:
        if (folder / name).exists():
            raise ValueError(
                f"{folder / name} is there already, and stays as it is; nothing was written. Choose another folder: --to …"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with open(folder / name, "x", encoding="utf-8") as file:
            file.write(text)
    return [folder / name for name in files]


def _read_me(number: int, exercises: Sequence[Exercise], files: dict[str, str], folder: Path) -> str:
    entry = next(entry for entry in book() if entry.number == number)
    rows, line_of = [], {name: definitions(parse(text)) for name, text in files.items()}
    for i, exercise in enumerate(exercises, 1):
        file = f"{exercise.module}.py"
        names = ", ".join(f"`{part}` (line {line_of[file][part].lineno})" for part in exercise.parts)
        rows.append(
            f"| {i} | {exercise.title} | `{file}`: {names} | {exercise.points} | {exercise.minutes} | {exercise.difficulty} |"
        )
    points, hours = sum(e.points for e in exercises), sum(e.minutes for e in exercises) / 60
    return f"""# Chapter {number}: {entry.title}

{len(exercises)} exercises, {points} points, about {hours:.0f} hours. Write them in this order, each from its docstring: replace
`raise NotImplementedError(…)`, and leave the rest of the file as it is. You may add functions, classes, methods and
imports of your own. Read `chapters/{entry.path.with_suffix(".ipynb").name}` first; "by hand" in it shows the slow way.

| | exercise | what to write | points | minutes | |
|---|---|---|---|---|---|
{chr(10).join(rows)}

From the folder of the project:

    python -m chapters.assignments check {number} --from {folder}
    python -m chapters.assignments check {number} --from {folder} --exercise {exercises[0].name} --watch

`check` runs the library's own tests on your code. Each exercise is checked by itself: what you have not written yet comes from
the library. When one passes, see how the library does it:

    python -m chapters.assignments solution {number} {exercises[0].name} --from {folder}
"""


# ---------------------------------------------------------------------------------------------------------------------
# check


def read_files(source: Path, exercises: Sequence[Exercise]) -> dict[str, tuple[str, str]]:
    """module -> (name of the file, text), from a folder or a zip file, anywhere in it, or from one file, for every module.

    Links are left out: they lead elsewhere. Raises ValueError for what is no text, or too large to be written by hand, and
    for a broken zip file.
    """
    found = {}
    with contextlib.ExitStack() as stack:
        if source.suffix.lower() == ".zip" and source.is_file():
            try:
                archive = stack.enter_context(zipfile.ZipFile(source))
            except BROKEN_ARCHIVE:
                raise ValueError(f"{source}: not a whole archive") from None
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            read = archive.read
        else:
            paths = [source] if source.is_file() else [path for path in source.rglob("*.py") if path.is_file()]
            inside = {str(path): path for path in paths if path.resolve() == source.resolve() / path.relative_to(source)}
            sizes = {name: path.stat().st_size for name, path in inside.items()}

            def read(name: str) -> bytes:
                return inside[name].read_bytes()

        for module in dict.fromkeys(exercise.module for exercise in exercises):
            fitting = [name for name in sizes if source.suffix == ".py" or PurePath(name).name == f"{module}.py"]
            if not fitting:
                continue
            name = min(fitting, key=lambda name: (len(PurePath(name).parts), name))
            if sizes[name] > MOST_BYTES:
                raise ValueError(f"{name}: larger than {MOST_BYTES:,} bytes")
            try:
                found[module] = name, read(name).decode("utf-8-sig")
            except UnicodeDecodeError:
                raise ValueError(f"{name}: not UTF-8 text") from None
            except BROKEN_ARCHIVE:
                raise ValueError(f"{source}: not a whole archive") from None
    return found


MARKS = {"passed": "✓", "failed": "✗", "not started": "·"}


def verdicts(exercises: Sequence[Exercise], files: dict[str, tuple[str, str]]) -> Iterator[Verdict]:
    """In the order of the exercises, side by side."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda exercise: verdict(exercise, files.get(exercise.module, ("", ""))[1]), exercises)


def show(verdict: Verdict, file: str = "") -> None:
    exercise = verdict.exercise
    points = {"passed": f"{exercise.points} points", "failed": f"0 of {exercise.points} points"}
    print(f"{MARKS[verdict.state]} {exercise.name}: {points.get(verdict.state, 'not started')}", flush=True)
    width = max(60, shutil.get_terminal_size().columns - 4)
    for line in described(verdict, file):
        print(
            textwrap.indent(textwrap.fill(line, width, subsequent_indent=" " * (len(line) - len(line.lstrip()))), "    "),
            flush=True,
        )


def bar(verdicts: Sequence[Verdict]) -> str:
    """How much of the assignment is done: "[████████············] 20 of 50 points"."""
    points, most = sum(one.points for one in verdicts), sum(one.exercise.points for one in verdicts)
    return f"[{'█' * (30 * points // most):·<30}] {points} of {most} points"


def check_folder(number: int, source: Path, name: str | None) -> bool:
    """Check what is there, and say what came of it; -> is everything right?"""
    exercises = of_chapter(number, name)
    files = read_files(source, exercises)
    if not files:
        names = ", ".join(dict.fromkeys(f"{exercise.module}.py" for exercise in exercises))
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
            path: path.stat().st_mtime_ns for path in ([source] if source.is_file() else source.rglob("*.py")) if path.exists()
        }
        if now != seen:
            print(f"--- {time.strftime('%H:%M:%S')}")
            check_folder(number, source, name)
            print("waiting for a change; Ctrl-C ends it", flush=True)
        seen = now
        time.sleep(0.5)


def check(piece: Callable | type) -> None:
    """In a notebook: check one function, or a class, that a cell defines, by the tests of the exercises of that name."""
    exercises = [
        e for e in EXERCISES if any(part == piece.__name__ or part.startswith(f"{piece.__name__}.") for part in e.parts)
    ]
    if not exercises:
        raise ValueError(f"there is no exercise {piece.__name__}: python -m chapters.assignments lists them")
    for exercise in exercises:
        show(verdict(exercise, _written_with(piece, exercise)))


def _written_with(piece: Callable | type, exercise: Exercise) -> str:
    """The source of a function or class, of the exercise's other parts, and of what they use of the notebook."""
    names = getattr(piece, "__globals__", None) or vars(sys.modules[piece.__module__])
    texts, wanted = {}, [piece.__name__, *(part.partition(".")[0] for part in exercise.parts)]
    while wanted:
        name = wanted.pop()
        thing = names.get(name)
        if name in texts or thing is None:
            continue
        if isinstance(thing, ModuleType):
            texts[name] = f"import {thing.__name__} as {name}"
        elif isinstance(thing, (int, float, str)):
            texts[name] = f"{name} = {thing!r}"
        elif getattr(thing, "__module__", None) != piece.__module__:
            texts[name] = f"from {thing.__module__} import {thing.__name__} as {name}" if hasattr(thing, "__name__") else ""
        else:
            texts[name] = _source(thing)
            wanted += {node.id for node in ast.walk(parse(texts[name])) if isinstance(node, ast.Name)}
    ours = definitions(parse(library(exercise.module)))
    given = [name for name in texts if texts[name].startswith("from ") and name in ours]  # the library's, which is there
    return "\n\n".join(text for name, text in texts.items() if name not in given)


def _source(thing: Callable | type) -> str:
    """Of a class method by method, as inspect cannot find the classes of a notebook."""
    if not isinstance(thing, type):
        return textwrap.dedent(inspect.getsource(thing))
    methods = [textwrap.dedent(inspect.getsource(m)) for m in vars(thing).values() if inspect.isfunction(m)]
    return f"class {thing.__name__}:\n" + textwrap.indent("\n".join(methods) or "pass", "    ")


# ---------------------------------------------------------------------------------------------------------------------
# solution


def side_by_side(theirs: str, ours: str, width: int) -> Iterator[str]:
    """Two texts as two columns: "|" where lines differ, "<" and ">" where only one side has one."""
    left, right = theirs.splitlines(), ours.splitlines()
    column = (width - 3) // 2
    yield f"{'yours':{column}}   the library's"
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for a, b in itertools.zip_longest(left[i1:i2], right[j1:j2]):
            mark = " " if kind == "equal" else "<" if b is None else ">" if a is None else "|"
            halves = [[text[at : at + column] for at in range(0, len(text), column)] or [""] for text in (a or "", b or "")]
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
            print("\n".join(side_by_side(*pair, max(100, shutil.get_terminal_size().columns))), "\n")
    return True


# ---------------------------------------------------------------------------------------------------------------------
# The command line.


def list_exercises() -> None:
    for number in dict.fromkeys(exercise.chapter for exercise in EXERCISES):
        chapter = of_chapter(number)
        title = next(entry.title for entry in book() if entry.number == number)
        print(f"{number:2} {title}: {sum(e.points for e in chapter)} points, {sum(e.minutes for e in chapter) / 60:.1f} hours")
        for e in chapter:
            print(f"     {e.name:44} {e.points:3} points {e.minutes:4} min  {e.difficulty:7} {e.title}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chapters.assignments", description="Write the pieces anew, checked and hinted."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", help="without one, the exercises are listed")

    def command(name: str, says: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=says, description=says)
        sub.add_argument("chapter", type=int, metavar="N", help="of which chapter")
        return sub

    sub = command("start", "write what to begin with: modules with stubs, and a README.md")
    sub.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new folder")
    sub = command("check", "say what is right already, and give a hint for what is not")
    sub.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR", help="your folder, or file")
    sub.add_argument("--exercise", metavar="NAME", help="only this one")
    sub.add_argument("--watch", action="store_true", help="check again when a file is saved")
    sub = command("solution", "show the library's version beside yours, once that passes")
    sub.add_argument("name", metavar="NAME", help="of the exercise")
    sub.add_argument("--from", dest="source", type=Path, metavar="DIR", help="your folder, or file")
    sub.add_argument("--give-up", action="store_true", help="show it in any case")
    sub = command("grade", "grade a folder of submissions: files, folders or zip files")
    sub.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="the folder")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table (.csv); the reports lie beside it")
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
            from .grading import grade

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
