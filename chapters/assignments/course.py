"""A copy of the project for a class, in which the exercises of some chapters are not written yet."""

import ast
import json
import shlex
import shutil
import tokenize
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from .exercises import ROOT, Exercise, of_chapter, path_of
from .splice import LIBRARY, definitions, library, lines_in, parse, refusable_names
from .stubs import stubs

LEFT_OUT = (
    *(".git", ".venv", "runs", "data", ".ci", ".hypothesis", ".ruff_cache", ".pytest_cache"),
    *("__pycache__", "*.pyc", ".ipynb_checkpoints"),
    *("independent", "proofs.py", "proofs.json", "test_proofs.py"),  # right solutions, in tests
)
KEPT_FOLDERS = (LIBRARY / "data",)  # which is no folder of data


def course(numbers: Sequence[int], folder: Path) -> None:
    """Write the copy: the exercises are stubs in the library itself, and their solutions nowhere.

    Outputs of notebooks that show them are cleared, and their wrong versions left out. What needs
    an exercise that is not written yet ends in a NotImplementedError that names it.
    Raises ValueError, and writes nothing, if the folder exists already.
    """
    exercises = [exercise for number in dict.fromkeys(numbers) for exercise in of_chapter(number)]
    if folder.exists():
        raise ValueError(f"{folder} exists already: choose another --to")
    inside = folder.resolve()

    def left_out(parent: str, names: list[str]) -> set[str]:
        ignored = shutil.ignore_patterns(*LEFT_OUT)(parent, names)
        here = Path(parent)
        return {
            name
            for name in names
            if (name in ignored and here / name not in KEPT_FOLDERS) or (here / name) == inside
        }

    shutil.copytree(ROOT, folder, ignore=left_out, symlinks=True)
    for module in dict.fromkeys(exercise.module for exercise in exercises):
        path = folder / "mmscratch" / path_of(module)
        path.write_text(stubs(module, exercises), encoding="utf-8")
    for number in dict.fromkeys(numbers):
        path = folder / f"chapters/assignments/exercises/ch{number:02}.py"
        path.write_text(_without_answers(of_chapter(number)), encoding="utf-8")
    lines = solution_lines(exercises)
    for path in (folder / "chapters").glob("*.ipynb"):
        _clear_outputs(path, lines)
    _write_read_me(folder, numbers, exercises)


def solution_lines(exercises: Sequence[Exercise]) -> set[str]:
    """The lines of the solutions, without signatures and docstrings, that have three tokens or more."""
    found = set()
    for exercise in exercises:
        text = library(exercise.module)
        known = definitions(parse(text))
        for part in exercise.parts:
            body = known[part].body
            if ast.get_docstring(known[part]) is not None:
                body = body[1:]
            if body:
                lines = lines_in(text)[body[0].lineno - 1 : known[part].end_lineno]
                found.update(line.strip() for line in lines if _count(line) >= 3)
    return found


def _count(line: str) -> int:
    """The number of tokens in a line; of half a statement, as far as they can be read."""
    count = 0
    try:
        for token in tokenize.generate_tokens(StringIO(line.strip() + "\n").readline):
            if token.type in (tokenize.COMMENT, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER):
                continue
            count += 1
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass
    return count


def _without_answers(exercises: Sequence[Exercise]) -> str:
    """The file of a chapter's exercises without the wrong versions, which show most of the right one."""
    kept = []
    for exercise in exercises:
        needs = refusable_names(exercise) | {*exercise.needs}
        blank = exercise._replace(wrong=(), needs=tuple(sorted(needs)))
        fields = ",\n".join(f"        {name}={value!r}" for name, value in blank._asdict().items())
        kept.append(f"    Exercise(\n{fields},\n    ),")
    number = exercises[0].chapter
    body = "\n".join(kept)
    return (
        f'"""The exercises of chapter {number}."""\n\nfrom .exercise import Exercise\n\n'
        f"EXERCISES = (\n{body}\n)\n"
    )


def _clear_outputs(path: Path, lines: set[str]) -> None:
    """Remove the outputs of a notebook in which one of these lines stands."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    changed = False
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        kept = [output for output in outputs if not _shown(output) & lines]
        changed |= len(kept) < len(outputs)
        if "outputs" in cell:
            cell["outputs"] = kept
    if changed:
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def _shown(output: dict) -> set[str]:
    """The lines of an output's text."""
    texts = [output.get("text", ""), *output.get("data", {}).values()]
    joined = ["".join(text) for text in texts if isinstance(text, (str, list))]
    return {line.strip() for text in joined for line in text.splitlines()}


def _write_read_me(folder: Path, numbers: Sequence[int], exercises: Sequence[Exercise]) -> None:
    path = folder / "README.md"
    chapters = ", ".join(map(str, dict.fromkeys(numbers)))
    number = numbers[0]
    files = ", ".join(
        f"`mmscratch/{path_of(m)}`" for m in dict.fromkeys(e.module for e in exercises)
    )
    points = sum(exercise.points for exercise in exercises)
    text = f"""# A course copy

This is a copy of Multimodal from Scratch for a class. The exercises of chapter {chapters} are not written yet: {len(exercises)} in {files},
{points} points. Their solutions are not in this copy; your instructor has them. Whatever needs an exercise that is not written yet says
which one. Write them where they stand, in the library itself, and check them from this folder:

    python -m chapters.assignments
    python -m chapters.assignments check {number} --from mmscratch
    python -m chapters.assignments check {number} --from mmscratch --exercise {shlex.quote(exercises[0].name)} --watch

Hand in the file, the folder or a zip of it. What follows is the project's own README.

"""
    path.write_text(text + path.read_text(encoding="utf-8"), encoding="utf-8")
