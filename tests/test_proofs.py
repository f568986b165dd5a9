"""The proof of each exercise: right solutions pass its tests, the stub and wrong versions fail.

tests/independent/chNN.py holds, for each exercise of a chapter, what a learner might hand in, in
another style than the library's: below a line `# %% NUMBER NAME`, the definitions of its parts, with
helpers, constants and imports of their own.

A proof that the record holds is skipped, see proofs.py. Run one of them anew with

    MMSCRATCH_PROVE=1 python -m pytest tests/test_proofs.py -k "12 and masked_softmax"
"""

import ast
import importlib
import json
import sys
from types import ModuleType

import proofs
import pytest

from chapters.assignments.exercises import EXERCISES
from chapters.assignments.notebook import _source_with_names
from chapters.assignments.splice import definitions, library, parse, splice, wrong_version
from chapters.assignments.stubs import stubs
from chapters.assignments.verdicts import assess, attempt, attempt_versions

SHORTLY = {"seconds": 5, "bytes": 4 << 30}  # some wrong versions never end
KEYS = [proofs.key_of(exercise) for exercise in EXERCISES]


@pytest.fixture
def unproved(exercise):
    """Skips the test if the record holds the proof."""
    if proofs.is_proved(exercise):
        pytest.skip("proved, and unchanged since; python -m tests.proofs repeats it")


def independent(exercise):
    return proofs.SOLUTIONS[exercise.chapter, exercise.name]


def test_every_exercise_has_an_independent_solution():
    chapters = {number for number, _ in proofs.SOLUTIONS}
    exercises = {(exercise.chapter, exercise.name) for exercise in EXERCISES}
    assert proofs.SOLUTIONS.keys() == {key for key in exercises if key[0] in chapters}


@pytest.mark.parametrize("exercise", EXERCISES, ids=KEYS)
def test_an_independent_solution_is_accepted(exercise, unproved):
    outcome = attempt(exercise, splice(exercise, independent(exercise)))
    messages = [f"{failed['test']}: {failed['message']}" for failed in outcome.failed.values()]
    assert outcome.right, "\n".join([outcome.ended, *messages])


@pytest.mark.parametrize("exercise", EXERCISES, ids=KEYS)
def test_the_same_code_is_taken_from_a_notebook(exercise, monkeypatch, unproved):
    """From one cell with the module's names and one with the solution, as `check` takes it."""
    solution = independent(exercise)
    library = vars(importlib.import_module(f"mmscratch.{exercise.module}"))
    names = [name for name in library if not name.startswith("__")]
    notebook = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", notebook)
    first = f"from mmscratch.{exercise.module} import {', '.join(names)}"
    notebook.In = [first, solution]
    for cell in notebook.In:
        exec(cell, vars(notebook))
    piece = vars(notebook)[exercise.name.partition(".")[0]]
    from_cells = splice(exercise, _source_with_names(piece, exercise)).text
    from_file = splice(exercise, solution).text
    taken, expected = (
        {name: ast.dump(node) for name, node in definitions(parse(text)).items()}
        for text in (from_cells, from_file)
    )
    assert taken == expected


@pytest.mark.parametrize("exercise", EXERCISES, ids=KEYS)
def test_the_solution_passes_and_the_stub_and_every_wrong_version_fail(exercise, unproved):
    assert assess(exercise, stubs(exercise.module, [exercise])).state == "not started"
    wrong = [wrong_version(exercise, one) for one in exercise.wrong]
    versions = [library(exercise.module), *wrong]
    solution, *outcomes = attempt_versions(exercise, versions, SHORTLY, options=["-x"])
    assert solution.right, (solution.ended, solution.failed)
    for version, outcome in zip(exercise.wrong, outcomes, strict=True):
        assert outcome.failed or "still running" in outcome.ended, version.hint


# -------------------------------------------------------------------------------------------------
# The record.


@pytest.fixture
def exercise():
    return EXERCISES[0]


@pytest.mark.parametrize("changed", ["exercise", "module", "tests", "solution", "checker"])
def test_a_proof_no_longer_holds_when_anything_changes_that_it_depends_on(
    exercise, changed, tmp_path, monkeypatch
):
    before = proofs.digest(exercise)
    assert proofs.digest(exercise) == before
    if changed == "exercise":
        exercise = exercise._replace(wrong=exercise.wrong[1:])
    elif changed == "module":
        monkeypatch.setattr(proofs, "library", lambda module: library(module) + "\n")
    elif changed == "tests":
        path = tmp_path / exercise.tests_path
        path.write_text((proofs.TESTS / exercise.tests_path).read_text() + "\n")
        monkeypatch.setattr(proofs, "TESTS", tmp_path)
    elif changed == "solution":
        key = exercise.chapter, exercise.name
        monkeypatch.setitem(proofs.SOLUTIONS, key, proofs.SOLUTIONS[key] + "\n")
    else:
        path = tmp_path / "trial.py"
        path.write_text("")
        monkeypatch.setattr(proofs, "SHARED", [*proofs.SHARED, path])
    assert proofs.digest(exercise) != before


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_proof_is_skipped_only_if_the_record_holds_it(is_recorded, tmp_path, monkeypatch):
    softmax = next(exercise for exercise in EXERCISES if exercise.name == "masked_softmax")
    digests = {proofs.key_of(softmax): proofs.digest(softmax) if is_recorded else "another"}
    monkeypatch.setattr(proofs, "RECORD", tmp_path / "proofs.json")
    proofs.RECORD.write_text(json.dumps(digests))
    monkeypatch.delenv("MMSCRATCH_PROVE", raising=False)
    assert proofs.is_proved(softmax) == is_recorded
    monkeypatch.setenv("MMSCRATCH_PROVE", "1")
    assert not proofs.is_proved(softmax)
