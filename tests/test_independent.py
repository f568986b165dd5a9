"""Right solutions in other styles than the library's are accepted, in a file and from a notebook.

tests/independent/chNN.py holds, for each exercise of a chapter, what a learner might hand in: below a
line `# %% NUMBER NAME`, the definitions of its parts, with helpers, constants and imports of their
own. Run one with

    python -m pytest tests/test_independent.py -k "12 and masked_softmax"
"""

import ast
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from chapters.assignments.exercises import EXERCISES
from chapters.assignments.notebook import _source_with_names
from chapters.assignments.splice import definitions, parse, splice
from chapters.assignments.verdicts import attempt

FOLDER = Path(__file__).parent / "independent"
HEADER = re.compile(r"^# %% (\d+) (\S+)\n", re.MULTILINE)


def solutions_in(path):
    """The solutions in a file: {(chapter, name of the exercise): text}."""
    before, *pieces = HEADER.split(path.read_text(encoding="utf-8"))
    assert "def " not in before, f"{path.name}: code before the first # %% line"
    found = {}
    for number, name, text in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        key = int(number), name
        assert key not in found, f"{path.name}: {number} {name} stands there twice"
        found[key] = text
    return found


SOLUTIONS = {}
for file in sorted(FOLDER.glob("ch*.py")):
    SOLUTIONS |= solutions_in(file)
EXERCISE = {(exercise.chapter, exercise.name): exercise for exercise in EXERCISES}


def test_every_exercise_has_an_independent_solution():
    chapters = {number for number, _ in SOLUTIONS}
    assert SOLUTIONS.keys() == {key for key in EXERCISE if key[0] in chapters}


@pytest.mark.parametrize("key", SOLUTIONS, ids=lambda key: f"{key[0]} {key[1]}")
def test_an_independent_solution_is_accepted(key):
    exercise = EXERCISE[key]
    outcome = attempt(exercise, splice(exercise, SOLUTIONS[key]))
    messages = [f"{failed['test']}: {failed['message']}" for failed in outcome.failed.values()]
    assert outcome.right, "\n".join([outcome.ended, *messages])


@pytest.mark.parametrize("key", SOLUTIONS, ids=lambda key: f"{key[0]} {key[1]}")
def test_the_same_code_is_taken_from_a_notebook(key, monkeypatch):
    """From one cell with the module's names and one with the solution, as `check` takes it."""
    exercise = EXERCISE[key]
    library = vars(importlib.import_module(f"mmscratch.{exercise.module}"))
    names = [name for name in library if not name.startswith("__")]
    notebook = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", notebook)
    first = f"from mmscratch.{exercise.module} import {', '.join(names)}"
    notebook.In = [first, SOLUTIONS[key]]
    for cell in notebook.In:
        exec(cell, vars(notebook))
    piece = vars(notebook)[exercise.name.partition(".")[0]]
    from_cells = splice(exercise, _source_with_names(piece, exercise)).text
    from_file = splice(exercise, SOLUTIONS[key]).text
    taken, expected = (
        {name: ast.dump(node) for name, node in definitions(parse(text)).items()}
        for text in (from_cells, from_file)
    )
    assert taken == expected
