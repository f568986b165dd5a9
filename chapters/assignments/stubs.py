"""What a learner begins with: the library's modules with stubs in them, and a README.md."""

import ast
from collections.abc import Sequence
from pathlib import Path

from ..__main__ import book
from .exercises import Exercise, of_chapter, path_of
from .splice import definitions, library, lines_in, parse


def stubs(module: str, exercises: Sequence[Exercise]) -> str:
    """The library's module, the bodies of the exercises' parts being `raise NotImplementedError`; docstrings stay."""
    text = library(module)
    lines, known = lines_in(text), definitions(parse(text))
    parts = {
        part: exercise
        for exercise in exercises
        if exercise.module == module
        for part in exercise.parts
    }
    for part in sorted(parts, key=lambda part: -known[part].lineno):
        body = known[part].body
        first = body[1] if ast.get_docstring(known[part]) is not None and len(body) > 1 else body[0]
        start = body[0].end_lineno if first is not body[0] else body[0].lineno - 1
        message = f"exercise {parts[part].name} of chapter {parts[part].chapter}"
        lines[start : known[part].end_lineno] = [
            " " * body[0].col_offset + f'raise NotImplementedError("{message}")'
        ]
    return "\n".join(lines)


def start(number: int, folder: Path) -> list[Path]:
    """Write what a learner begins with: each module with stubs, and README.md. Raises ValueError if one is there already."""
    exercises = of_chapter(number)
    modules = dict.fromkeys(exercise.module for exercise in exercises)
    files = {path_of(module).name: stubs(module, exercises) for module in modules}
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


def _read_me(
    number: int, exercises: Sequence[Exercise], files: dict[str, str], folder: Path
) -> str:
    entry = next(entry for entry in book() if entry.number == number)
    rows, line_of = [], {name: definitions(parse(text)) for name, text in files.items()}
    for i, exercise in enumerate(exercises, 1):
        file = exercise.file
        names = ", ".join(
            f"`{part}` (line {line_of[file][part].lineno})" for part in exercise.parts
        )
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
