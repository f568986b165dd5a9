"""A copy for a class: the exercises are stubs, their solutions stand nowhere, all else works."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from chapters.assignments import grading
from chapters.assignments.__main__ import main
from chapters.assignments.course import solution_lines
from chapters.assignments.exercises import of_chapter
from chapters.assignments.splice import definitions, is_stub, library, parse
from chapters.chapter import ROOT

CHAPTERS = (5, 9)
SOME = [exercise for number in CHAPTERS for exercise in of_chapter(number)]
pytestmark = pytest.mark.xdist_group("course")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "for my class"
    command = ["course", *map(str, CHAPTERS), "--to", str(folder)]
    assert main(command) == 0
    return folder


def run(copy, *command):
    """Run a command in the copy -> its exit code and all that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=copy, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def text_files(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".py", ".md", ".ipynb", ".txt"):
            yield path


def lines_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return {line.strip() for line in text.splitlines()}
    found = set()
    for cell in json.loads(text)["cells"]:
        texts = [cell["source"]]
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), *output.get("data", {}).values()]
        joined = ["".join(one) for one in texts if isinstance(one, (str, list))]
        found |= {line.strip() for one in joined for line in one.splitlines()}
    return found


def test_the_exercises_are_stubs_and_all_other_code_is_as_it_was(copy):
    parts = {(exercise.module, part) for exercise in SOME for part in exercise.parts}
    for path in (ROOT / "mmscratch").rglob("*.py"):
        name = path.relative_to(ROOT / "mmscratch")
        module = ".".join(name.with_suffix("").parts)
        theirs = definitions(parse((copy / "mmscratch" / name).read_text(encoding="utf-8")))
        ours = definitions(parse(path.read_text(encoding="utf-8")))
        assert theirs.keys() == ours.keys()
        for part in ours:
            if (module, part) in parts:
                assert is_stub(theirs[part]), part


def test_no_line_of_a_solution_is_left(copy):
    """Unless the same line stands in other code of the project, too."""
    solutions = solution_lines(SOME)
    assert len(solutions) > 100
    elsewhere = set()
    stubbed = {exercise.module for exercise in SOME}
    for path in text_files(ROOT):
        relative = path.relative_to(ROOT)
        top = relative.parts[0]
        if top in ("mmscratch", "tests", "data_scripts") or (
            top == "chapters" and path.suffix == ".py" and "assignments" not in relative.parts
        ):
            module = ".".join(relative.with_suffix("").parts[1:])
            if top == "mmscratch" and module in stubbed:
                path = copy / relative  # what is not part of an exercise
            elsewhere |= lines_of(path)
    only_here = solutions - elsewhere
    assert len(only_here) > 0.8 * len(solutions)
    for path in text_files(copy):
        left = only_here & lines_of(path)
        assert not left, (path, left)


def test_no_independent_solution_is_in_the_copy(copy):
    header = re.compile(r"^# %% \d+ \S+$", re.MULTILINE)
    assert (ROOT / "tests/independent").is_dir() and not (copy / "tests/independent").exists()
    for path in (copy / "tests").rglob("*.py"):
        assert not header.search(path.read_text(encoding="utf-8")), path
    assert not (copy / "tests/test_proofs.py").exists()


def test_the_copy_says_what_it_is_and_solutions_are_not_shown(copy):
    text = (copy / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# A course copy") and "The exercises of chapter 5, 9" in text
    code, out = run(copy, "chapters.assignments", "solution", "5", "masked_softmax", "--give-up")
    assert code == 1 and "Your instructor has the solution" in out
    assert not (copy / ".git").exists() and not (copy / "runs").exists()


def test_an_unwritten_exercise_is_named_by_what_needs_it(copy):
    code, out = run(copy, "chapters", "9", "--fast")
    assert code != 0
    assert re.search(r"NotImplementedError: exercise \S+ of chapter [59]", out)
    code, out = run(copy, "chapters", "2", "--fast")  # needs neither
    assert code == 0, out[-500:]


def test_check_works_on_the_library_of_the_copy(copy):
    code, out = run(copy, "chapters.assignments", "check", "5", "--from", "mmscratch")
    assert code == 1 and out.count("not started") == len(of_chapter(5)), out


def test_all_solutions_give_all_points_here_and_when_handed_in(copy, tmp_path, monkeypatch, capsys):
    written = tmp_path / "in" / "written"
    shutil.copytree(copy, written)
    for module in {exercise.module for exercise in of_chapter(5)}:
        path = written / "mmscratch" / (module.replace(".", "/") + ".py")
        path.write_text(library(module), encoding="utf-8")
    code, out = run(written, "chapters.assignments", "check", "5", "--from", "mmscratch")
    points = sum(exercise.points for exercise in of_chapter(5))
    assert code == 0 and f"{points} of {points} points" in out, out
    few = of_chapter(5)[:2]
    monkeypatch.setattr(grading, "of_chapter", lambda number: few)
    shutil.make_archive(str(tmp_path / "in" / "zipped"), "zip", written)
    assert main(["grade", "5", str(tmp_path / "in"), "--out", str(tmp_path / "out.csv")]) == 0
    printed = capsys.readouterr().out
    expected = sum(exercise.points for exercise in few)
    assert len(re.findall(rf"{expected} points  (?:written|zipped)", printed)) == 2


def test_nothing_is_overwritten_and_chapters_must_exist(copy, capsys):
    assert main(["course", "5", "--to", str(copy)]) == 2
    assert "exists already: choose another --to" in capsys.readouterr().err
    assert main(["course", "99", "--to", str(copy / "x")]) == 2
    assert not (copy / "x").exists()
