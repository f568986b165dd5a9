"""The files that a learner starts with: modules of the library with stubs, and a README.md."""

import ast
import shlex
from collections.abc import Sequence
from pathlib import Path

from .exercises import Exercise, of_chapter, path_of
from .splice import definitions, library, lines_in, parse


def stubs(module: str, exercises: Sequence[Exercise]) -> str:
    """The module's text, with `raise NotImplementedError` as the body of each part of an exercise.

    Docstrings stay.
    """
    text = library(module)
    lines = lines_in(text)
    known = definitions(parse(text))
    exercise_of = {}
    for exercise in exercises:
        if exercise.module == module:
            exercise_of |= dict.fromkeys(exercise.parts, exercise)
    for part in sorted(exercise_of, key=lambda part: -known[part].lineno):  # last lines first
        body = known[part].body
        start = body[0].lineno - 1
        if ast.get_docstring(known[part]) is not None and len(body) > 1:
            start = body[0].end_lineno
        exercise = exercise_of[part]
        message = f"exercise {exercise.name} of chapter {exercise.chapter}"
        indentation = " " * body[0].col_offset
        stub = f'{indentation}raise NotImplementedError("{message}")'
        lines[start : known[part].end_lineno] = [stub]
    return "\n".join(lines)


def start(number: int, folder: Path) -> list[Path]:
    """Write the stubs and README.md of a chapter into a folder. Returns the paths.

    Raises ValueError, and writes nothing, if one of the files exists already.
    """
    exercises = of_chapter(number)
    modules = dict.fromkeys(exercise.module for exercise in exercises)
    files = {path_of(module).name: stubs(module, exercises) for module in modules}
    files["README.md"] = _read_me(number, exercises, files, folder)
    for name in files:
        if (folder / name).exists():
            raise ValueError(
                f"{folder / name} exists already, and nothing was written. "
                "Choose another folder: --to …"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with open(folder / name, "x", encoding="utf-8") as file:
            file.write(text)
    return [folder / name for name in files]


def _read_me(
    number: int, exercises: Sequence[Exercise], files: dict[str, str], folder: Path
) -> str:
    from ..__main__ import book  # which imports matplotlib, for which a check need not wait

    entry = next(entry for entry in book() if entry.number == number)
    known = {name: definitions(parse(text)) for name, text in files.items()}
    rows = []
    for i, exercise in enumerate(exercises, 1):
        parts = []
        for part in exercise.parts:
            parts.append(f"`{part}` (line {known[exercise.file][part].lineno})")
        cells = [
            str(i),
            exercise.title,
            f"`{exercise.file}`: {', '.join(parts)}",
            str(exercise.points),
            str(exercise.minutes),
            exercise.difficulty,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    table = "\n".join(rows)
    points = sum(exercise.points for exercise in exercises)
    hours = sum(exercise.minutes for exercise in exercises) / 60
    notebook = entry.path.with_suffix(".ipynb").name
    place = shlex.quote(str(folder))
    return f"""# Chapter {number}: {entry.title}

{len(exercises)} exercises, {points} points, about {hours:.0f} hours. Write them in this order, each from its docstring: replace
`raise NotImplementedError(…)`, and leave the rest of the file unchanged. You may add functions, classes, methods and
imports of your own. First read `chapters/{notebook}`; its section "by hand" shows the slow way.

| | exercise | what to write | points | minutes | |
|---|---|---|---|---|---|
{table}

From the project's folder:

    python -m chapters.assignments check {number} --from {place}
    python -m chapters.assignments check {number} --from {place} --exercise {exercises[0].name} --watch

`check` runs the library's own tests on your code. It checks each exercise separately: the parts that you have not written yet
come from the library. When yours passes, see how the library does it:

    python -m chapters.assignments solution {number} {exercises[0].name} --from {place}
"""
