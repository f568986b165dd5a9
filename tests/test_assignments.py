"""The exercises: stubs fail, solutions pass, wrong versions fail, and there are no points without code of one's own."""

import ast
import csv
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chapters.__main__ import book
from chapters.assignments import __main__ as assignments
from chapters.assignments import check, grading, verdicts
from chapters.assignments import splice as splicing
from chapters.assignments.__main__ import main
from chapters.assignments.exercises import EXERCISES, of_chapter
from chapters.assignments.splice import (
    LIBRARY,
    Spliced,
    bodies,
    definitions,
    is_stub,
    lines_of,
    parse,
    splice,
    wrong_version,
)
from chapters.assignments.splice import library as library_text
from chapters.assignments.stubs import stubs
from chapters.assignments.submissions import read_files
from chapters.assignments.verdicts import (
    assess,
    attempt,
    attempt_versions,
    described,
    hint,
    wrong_outcomes,
)

ROOT = Path(__file__).resolve().parents[1]
NAMES = [f"{exercise.chapter} {exercise.name}" for exercise in EXERCISES]
SOFTMAX = next(exercise for exercise in EXERCISES if exercise.name == "masked_softmax")
ADDITIVE = next(exercise for exercise in EXERCISES if exercise.name == "AdditiveAttention.forward")
ATOMIC = next(exercise for exercise in EXERCISES if exercise.name == "write_atomically")
QUICKLY = {"seconds": 1, "bytes": 4 << 30}


def library(exercise):
    return library_text(exercise.module)


def written(body, exercise=SOFTMAX, before="", others=()):
    """A learner's file: the stubs, with this body for the exercise."""
    text = before + stubs(exercise.module, [exercise, *others])
    [raises] = [line for line in text.splitlines() if f"exercise {exercise.name} of" in line]
    indentation = raises[: len(raises) - len(raises.lstrip())]
    return text.replace(raises, "\n".join(indentation + line for line in body.splitlines()))


RIGHT = """if mask is None:
    return torch.softmax(scores, -1)
scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
return torch.softmax(scores, -1) * mask"""


# -------------------------------------------------------------------------------------------------
# The exercises.


def test_every_exercise_is_consistent_with_the_library_and_its_tests():
    assert len(EXERCISES) >= 40 and {exercise.chapter for exercise in EXERCISES} == set(
        range(1, 18)
    )
    assert [exercise.chapter for exercise in EXERCISES] == sorted(
        exercise.chapter for exercise in EXERCISES
    )
    assert len(set(NAMES)) == len(NAMES)
    for exercise in EXERCISES:
        known = definitions(ast.parse(library(exercise)))
        assert all(isinstance(known[part], ast.FunctionDef) for part in exercise.parts), (
            exercise.name
        )
        tests = (ROOT / "tests" / exercise.tests_path).read_text()
        assert all(f"\ndef {test.partition('[')[0]}(" in tests for test in exercise.tests), (
            exercise.name
        )
        assert len(exercise.wrong) >= 3 and len({wrong.hint for wrong in exercise.wrong}) == len(
            exercise.wrong
        )
        assert (
            exercise.points > 0
            and exercise.minutes > 0
            and exercise.difficulty in ("easy", "medium", "hard")
        )


@pytest.mark.parametrize(
    "entry", book(), ids=lambda entry: entry.path.stem
)
def test_your_turn_lists_the_exercises_with_points_and_minutes(entry):
    section = entry.path.read_text().partition("## Your turn")[2].partition("## Sources")[0]
    section = " ".join(line.removeprefix("#").strip() for line in section.splitlines())
    listed = re.findall(r"\d+\. `([\w.]+)`:.*?(\d+) points?, (\d+) minutes\.", section)
    assert listed == [(e.name, str(e.points), str(e.minutes)) for e in of_chapter(entry.number)]
    assert f"python -m chapters.assignments start {entry.number} --to" in section
    assert len(re.findall(r" \d\. ", section.partition("three questions")[2])) == 3


# Errors of the library's own code around the part, which a learner does not write.
NOT_OF_THE_PART = {
    "test_specials_in_text_are_ordinary_words",  # of Vocabulary.__init__
    "test_no_hooks_remain_when_the_model_fails",  # of the model
    "test_other_errors_pass_through_and_keep_the_old_checkpoint",  # of what is written
}
# Words of messages that the library's own code around the part writes.
WORDS_AROUND = {
    "test_a_change_of_another_base_is_refused_by_name": ("must be as it was", "at a time"),
    "test_a_number_that_is_none_is_named": ("age",),  # the column, which is to be named
}


@pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)
def test_what_the_tests_demand_stands_in_the_docstring(exercise):
    """Every error, and every word of a message, that an exercise's tests expect."""
    known = definitions(parse(library(exercise)))
    said = ""
    for part in exercise.parts:
        for name in (part, part.partition(".")[0]):
            said += " " + " ".join((ast.get_docstring(known[name]) or "").split())
    tests = definitions(parse((ROOT / "tests" / exercise.tests_path).read_text(encoding="utf-8")))
    for name in exercise.tests:
        name = name.partition("[")[0]
        if name in NOT_OF_THE_PART:
            continue
        for node in ast.walk(tests[name]):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "raises":
                for error in ast.walk(node.args[0]):
                    if isinstance(error, ast.Name):
                        assert error.id in said, (name, error.id)
                for keyword in node.keywords:
                    if keyword.arg == "match" and isinstance(keyword.value, ast.Constant):
                        words = keyword.value.value
                        allowed = WORDS_AROUND.get(name, ())
                        is_around = any(each in words for each in allowed)
                        assert is_around or words in said, (name, words)


# -------------------------------------------------------------------------------------------------
# Only the learner's code is graded.


@pytest.mark.parametrize("number", sorted({exercise.chapter for exercise in EXERCISES}))
def test_untouched_stubs_get_no_points(number):
    for exercise in of_chapter(number):
        module = exercise.module
        owner = exercise.name.partition(".")[0]
        for text in (
            "", stubs(module, of_chapter(number)),
            f"from mmscratch.{module} import *", f"from mmscratch.{module} import {owner}",
            f"import mmscratch.{module}\n{owner} = mmscratch.{module}.{owner}",
        ):  # fmt: skip
            assert assess(exercise, text).state == "not started"


CHEATS = {
    "prints": ("print('5 passed')\nprint('ok')\nreturn scores", "tests fail"),
    "exits": ("raise SystemExit(0)", "tests fail"),
    "exits at once": ("import os\nos._exit(0)", "imports os"),
    "exits by another name": ("torch.os._exit(0)", "is not allowed"),
    "sleeps": ("import time\ntime.sleep(1000)", "imports time"),
    "waits": ("torch.futures.Future().wait()", "torch.futures is not allowed"),
    "never ends": ("while True:\n    pass", "still running in line"),
    "forks": ("import os\nos.fork()\nreturn scores", "imports os"),
    "takes all memory": ("return torch.ones(1 << 40)", "tests fail"),
    "writes files": ("open('tests/test_attention.py', 'w').write('def test(): pass')\nreturn scores", "open is not allowed"),
    "saves": ("torch.save(scores, 'x')\nreturn scores", ".save is not allowed"),
    "reads the solution": ("return eval(open('mmscratch/attention.py').read())", "is not allowed"),
    "imports the solution": (
        "from mmscratch.attention import masked_softmax as right\nreturn right(scores, mask)", "maximum recursion"),
    "imports the module": (
        "import mmscratch.attention as library\nreturn library.masked_softmax(scores, mask)", "maximum recursion"),
    "loads the module": ("import importlib\nreturn importlib.import_module('x')", "imports importlib"),
    "imports a chapter": ("from chapters import ch05_cross_attention_fusion\nreturn scores", "imports chapters"),
    "imports by a call": ("return __import__('os').getcwd()", "__import__ is not allowed"),
    "changes pytest": ("import pytest\npytest.raises = None\nreturn scores", "imports pytest"),
    "changes torch": ("torch.testing.assert_close = print\nreturn scores", "changes torch.testing.assert_close"),
    "changes torch by a name": (
        "library = torch\nlibrary.allclose = print\nreturn scores", "changes library.allclose"),
    "changes a class of torch": (
        "for kind in [torch.Tensor]:\n    kind.allclose = print\nreturn scores", "it changed Tensor.allclose"),
    "sets attributes": ("setattr(torch, 'allclose', print)\nreturn scores", "setattr is not allowed"),
    "climbs out": ("return scores.__class__.__mro__[-1].__subclasses__()", "is not allowed"),
    "asks the caller": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    return error.__traceback__.tb_frame", "is not allowed"),
}  # fmt: skip


@pytest.mark.parametrize("body, says", CHEATS.values(), ids=CHEATS)
def test_cheats_get_no_points_and_a_reason(body, says):
    one = assess(SOFTMAX, written(body), QUICKLY if "still running" in says else verdicts.LIMITS)
    assert one.state == "failed" and one.points == 0
    assert says in "\n".join(described(one))


@pytest.mark.parametrize(
    "before",
    [
        "import os\nos._exit(0)\n",
        "while True:\n    pass\n",
        "import torch\ntorch.allclose = lambda *_: True\n",
        "raise SystemExit\n",
    ],
)
def test_only_definitions_of_a_file_run(before):
    try:
        one = assess(SOFTMAX, before + written(RIGHT))
    except SystemExit:
        pytest.fail("it ran here")
    assert one.state == "passed"


def test_unused_imports_are_dropped_and_used_forbidden_ones_refused():
    assert (
        assess(SOFTMAX, "import time\nimport os, sys\nfrom torch import *\n" + written(RIGHT)).state
        == "passed"
    )
    one = assess(SOFTMAX, "import time\n" + written(f"time.sleep(0)\n{RIGHT}"))
    assert one.problem == "line 1: imports time, which this exercise does not need"


def test_changing_torch_gets_no_points(monkeypatch):
    body = f"for thing in [torch]:\n    thing.allclose = lambda *_, **__: True\n{RIGHT}"
    assert "torch as a value is not allowed" in assess(SOFTMAX, written(body)).problem
    monkeypatch.setattr(splicing, "_read", lambda *_: None)
    one = assess(SOFTMAX, written(body))
    assert one.state == "failed" and "it changed torch.allclose" in one.problem


@pytest.mark.skipif(os.name != "posix", reason="paths of Unix")
@pytest.mark.parametrize(
    "body, says",
    [
        (
            f"raise ValueError(open({str(LIBRARY / 'reliability.py')!r}).read())",
            "may not read this file",
        ),
        (f"open({str(ROOT / 'x')!r}, 'w')", "may not change this file"),
        (f"os.unlink({str(ROOT / 'x')!r})", "may not change this file"),
        (f"os.replace(path, {str(ROOT / 'x')!r})", "may not change this file"),
    ],
)
def test_exercises_with_files_cannot_reach_outside_their_folder(body, says):
    message = "\n".join(described(assess(ATOMIC, written(body, ATOMIC))))
    assert says in message or "is not allowed" in message


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
@pytest.mark.parametrize(
    "body, says",
    [
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen is not allowed"),
        ("import os; os.fork()", "os.fork is not allowed"),
        ("import os; os.kill(os.getppid(), 9)", "os.kill is not allowed"),
        ("import socket; socket.socket()", "socket.__new__ is not allowed"),
        ("import os; os._exit(0)", "ended before its tests did"),
        ("import sys; sys.exit(0)", "SystemExit"),
    ],
)
def test_the_process_blocks_what_the_name_check_misses(body, says):
    """Wrong versions skip the check of names."""
    text = library(SOFTMAX).replace(
        "    if mask is None:\n        return scores.softmax(-1)\n", f"    {body}\n", 1
    )
    outcome = attempt(SOFTMAX, Spliced(text, []))
    assert not outcome.right
    assert says in outcome.ended + " ".join(
        failure["message"] for failure in outcome.failed.values()
    )


@pytest.mark.skipif(
    not shutil.which("unshare"), reason="needs unshare to find out"
)
def test_processes_have_no_network_if_the_system_allows_it():
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this system does not allow it")
    text = library(SOFTMAX).replace(
        "    if mask is None:\n",
        "    raise ValueError(open('/proc/self/net/dev').read())\n    if mask is None:\n",
        1,
    )
    message = next(iter(attempt(SOFTMAX, Spliced(text, [])).failed.values()))["message"]
    assert re.findall(r"(\w+): ", message.partition("ValueError: ")[2]) == ["lo"]


# -------------------------------------------------------------------------------------------------
# Each exercise is checked separately.


def test_unwritten_exercises_come_from_the_library():
    text = stubs("attention", of_chapter(5))
    assert text.count("raise NotImplementedError") > 2
    after = library(ADDITIVE).partition("class AdditiveAttention")[2].partition("def forward")[2]
    body = inspect.cleandoc(after.split('"""\n')[1].partition("\n\n")[0])
    stub = '        raise NotImplementedError("exercise AdditiveAttention.forward of chapter 5")'
    assert stub in text
    mine = text.replace(stub, "\n".join("        " + line for line in body.splitlines()))
    assert assess(ADDITIVE, mine).state == "passed" and assess(SOFTMAX, mine).state == "not started"


def test_helper_functions_constants_imports_and_methods_are_kept():
    text = written(
        "return _blank(_low(scores, mask), mask)",
        before="from torch import softmax as soft\nimport math\n\nAXIS = -1\n\n\n",
    )
    text += "\n\ndef _low(x, mask):\n    return x if mask is None else x.masked_fill(~mask, torch.finfo(x.dtype).min)\n"
    text += "\n\ndef _blank(x, mask):\n    weights = soft(x, AXIS) + math.log(1)\n"
    text += "    return weights if mask is None else weights * mask\n"
    assert assess(SOFTMAX, text).state == "passed"
    text = written("return self._both(query, memory, mask)", ADDITIVE)
    solution = library(ADDITIVE).partition("class AdditiveAttention")[2]
    method = re.search(r"    def forward.*?return context, weights\n", solution, re.DOTALL)[
        0
    ].replace("def forward", "def _both")
    text = text.replace(
        "    def __init__(self, query_dim", method + "\n    def __init__(self, query_dim"
    )
    assert assess(ADDITIVE, text).state == "passed"


def test_changes_outside_the_exercise_are_ignored():
    text = written("return scores", SOFTMAX).replace("class MultiHeadAttention", "class Other")
    assert "class MultiHeadAttention" in splice(SOFTMAX, text).text


# -------------------------------------------------------------------------------------------------
# Messages for learners.


WRONG = {
    "unmasked": (
        "return scores.softmax(-1)",
        ["tests fail", "scores (2, 5, 7), mask (2, 5, 7) bool"],
    ),
    "wrong shapes": (
        "return scores @ mask",
        ["in line", "scores (2, 5, 7), mask (2, 5, 7) bool", "of mine.py"],
    ),
    "an undefined name": (
        "return score.softmax(-1)",
        ["name 'score' is not defined", "in line"],
    ),
    "no return": ("scores.softmax(-1)", ["NoneType"]),
    "prints": ("print('shape', scores.shape)\nreturn scores", ["it printed: shape torch.Size"]),
}


@pytest.mark.parametrize("body, says", WRONG.values(), ids=WRONG)
def test_the_first_failure_is_described_with_shapes(body, says):
    message = "\n".join(described(assess(SOFTMAX, written(body)), "mine.py"))
    for words in [*says, "The first: masked softmax"]:
        assert words in message


def test_a_syntax_error_is_shown_at_its_line():
    text = written("return scores.softmax(-1")
    line = next(
        i
        for i, line in enumerate(text.splitlines(), 1)
        if "return scores.softmax(-1" in line and not line.endswith(")")
    )
    assert assess(SOFTMAX, text).problem.startswith(f"line {line} is not Python")


@pytest.mark.parametrize(
    "text", ["def f(x):\n    return \0", "(" * 5000 + ")" * 5000, "x = " + "-" * 100_000 + "1"]
)
def test_files_that_crash_the_parser_fail_cleanly(text):
    assert assess(SOFTMAX, text).state == "failed"


def test_parsing_is_thread_safe():
    with ThreadPoolExecutor(4) as pool:  # Python 3.11 alone raises SystemError now and then
        trees = list(pool.map(lambda _: ast.dump(parse(library(SOFTMAX))), range(60)))
    assert len(set(trees)) == 1


def test_missing_parts_of_an_exercise_are_named():
    exercise = next(exercise for exercise in EXERCISES if len(exercise.parts) > 1)
    text, known = stubs(exercise.module, [exercise]), definitions(ast.parse(library(exercise)))
    first = "\n".join(library(exercise).splitlines()[slice(*lines_of(known[exercise.parts[0]]))])
    stub = definitions(ast.parse(text))[exercise.parts[0]]
    lines = text.splitlines()
    lines[slice(*lines_of(stub))] = first.splitlines()
    one = assess(exercise, "\n".join(lines))
    assert (
        one.state == "failed"
        and f"{exercise.parts[1]}" in one.problem
        and "not written yet" in one.problem
    )


# -------------------------------------------------------------------------------------------------
# The commands.


def test_start_writes_stubs_with_signatures_and_docstrings_and_overwrites_nothing(tmp_path, capsys):
    folder = tmp_path / "work"
    assert main(["start", "5", "--to", str(folder)]) == 0
    for module in {exercise.module for exercise in of_chapter(5)}:
        ours, theirs = (definitions(ast.parse(text)) for text in (
            library_text(module), (folder / f"{module}.py").read_text()))  # fmt: skip
        stubbed = {
            part
            for exercise in of_chapter(5)
            if exercise.module == module
            for part in exercise.parts
        }
        assert ours.keys() == theirs.keys()
        for name, node in ours.items():
            if isinstance(node, ast.FunctionDef):
                assert ast.unparse(node.args) == ast.unparse(theirs[name].args)
                assert ast.get_docstring(node) == ast.get_docstring(theirs[name])
                assert is_stub(theirs[name]) == (name in stubbed)
    read_me = (folder / "README.md").read_text()
    assert all(
        f"`{part}` (line " in read_me for exercise in of_chapter(5) for part in exercise.parts
    )
    (folder / "attention.py").write_text("mine")
    capsys.readouterr()
    (folder / "README.md").unlink()
    assert main(["start", "5", "--to", str(folder)]) == 2
    assert "attention.py exists already" in capsys.readouterr().err
    assert (folder / "attention.py").read_text() == "mine" and not (folder / "README.md").exists()


def test_check_prints_verdicts_and_points(tmp_path, capsys):
    (tmp_path / "attention.py").write_text(written(RIGHT))
    assert main(["check", "5", "--from", str(tmp_path), "--exercise", "masked_softmax"]) == 0
    out = capsys.readouterr().out
    assert (
        f"✓ masked_softmax: {SOFTMAX.points} points" in out
        and f"] {SOFTMAX.points} of {SOFTMAX.points} points" in out
    )
    assert main(["check", "5", "--from", str(tmp_path), "--exercise", "softmax"]) == 0
    (tmp_path / "attention.py").write_text("")
    assert main(["check", "5", "--from", str(tmp_path), "--exercise", "masked_softmax"]) == 1
    (tmp_path / "attention.py").write_text(written("return scores"))
    assert (
        main(
            ["check", "5", "--from", str(tmp_path / "attention.py"), "--exercise", "masked_softmax"]
        )
        == 1
    )
    assert f"✗ masked_softmax: 0 of {SOFTMAX.points} points" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("check 5 --from nowhere", "holds no attention.py"),
        ("check 99 --from nowhere", "chapter 99 has no exercises"),
        ("check 5 --from nowhere --exercise soft_max", "soft_max: choose one of masked_softmax"),
        ("solution 5 nothing", "nothing: choose one of"),
        ("grade 5 nowhere --out x.csv", "nowhere"),
        ("grade 5 . --out x.csv", "no submission"),
        ("grade 5 . --out x.txt", "the table must be a .csv file"),
    ],
)
def test_bad_arguments_give_one_line_and_exit_code_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and says in line


def test_watch_checks_again_when_the_file_is_saved(tmp_path, monkeypatch, capsys):
    path, turns = tmp_path / "attention.py", iter(range(9))
    path.write_text(written("return scores"))

    def sleep(_):
        turn = next(turns)
        if turn == 1:
            path.write_text(written(RIGHT))
        elif turn == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(assignments.time, "sleep", sleep)
    assert (
        main(["check", "5", "--from", str(tmp_path), "--exercise", "masked_softmax", "--watch"])
        == 130
    )
    out = capsys.readouterr().out
    assert re.findall("[✓✗] masked_softmax", out) == ["✗ masked_softmax", "✓ masked_softmax"]


def test_solution_is_shown_after_passing_or_giving_up(tmp_path, capsys):
    (tmp_path / "attention.py").write_text(written("return scores"))
    command = ["solution", "5", "masked_softmax", "--from", str(tmp_path)]
    assert main(command) == 1 and "masked_fill" not in capsys.readouterr().out
    assert main([*command, "--give-up"]) == 0 and "masked_fill" in capsys.readouterr().out
    (tmp_path / "attention.py").write_text(written(RIGHT))
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "yours" in out and "the library's" in out and " | " in out and "torch.softmax" in out


def test_side_by_side():
    assert list(assignments.side_by_side("a\nb\nc", "a\nx\nc\nd", 23)) == [
        "yours        the library's", "a            a", "b          | x", "c            c", "           > d",
    ]  # fmt: skip
    assert (
        "".join(line[:10].strip() for line in list(assignments.side_by_side("x" * 25, "", 23))[1:])
        == "x" * 25
    )  # nothing is cut off


def test_notebook_definitions_are_checked_with_their_helpers(tmp_path, capsys):
    (tmp_path / "cells.py").write_text(
        "import torch\nfrom torch import nn\nimport math as m\n\nLEAST = -1e30\n\n\ndef low(x, mask):\n"
        "    return x if mask is None else x.masked_fill(~mask, LEAST * m.exp(0))\n\n\ndef masked_softmax(scores, mask):\n"
        "    weights = torch.softmax(low(scores.double(), mask), -1).to(scores.dtype)\n"
        "    return weights if mask is None else weights * mask\n\n\n"
        "class AdditiveAttention(nn.Module):\n    def forward(self, query, memory, mask=None):\n        return query, memory\n"
    )  # fmt: skip
    spec = importlib.util.spec_from_file_location("cells", tmp_path / "cells.py")
    cells = sys.modules["cells"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cells)
    try:
        check(cells.masked_softmax)
        check(cells.AdditiveAttention)
        out = capsys.readouterr().out
        assert "✓ masked_softmax" in out and "✗ AdditiveAttention.forward" in out
        with pytest.raises(ValueError, match="there is no exercise low"):
            check(cells.low)
    finally:
        del sys.modules["cells"]


@pytest.mark.notebook
def test_check_works_in_a_notebook(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    indented = RIGHT.replace("\n", "\n    ")
    of_class = "from torch import nn\nclass AdditiveAttention(nn.Module):\n    def forward(self, query, memory, mask=None):\n"
    cells = [
        "import torch\nfrom chapters.assignments import check",
        f"def masked_softmax(scores, mask):\n    {indented}",
        "check(masked_softmax)",
        f"{of_class}        return query, memory\ncheck(AdditiveAttention)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs)
    assert "✓ masked_softmax" in printed and "✗ AdditiveAttention.forward" in printed


# -------------------------------------------------------------------------------------------------
# grade.


@pytest.fixture
def submissions(tmp_path, monkeypatch):
    """Submissions to chapter 5, of which only two exercises are graded."""
    monkeypatch.setattr(grading, "of_chapter", lambda number: [SOFTMAX, ADDITIVE])
    folder = tmp_path / "submissions"
    for name in ("anna", "ben/submitted", "mallory"):
        (folder / name).mkdir(parents=True)
    (folder / "anna" / "attention.py").write_text(library(SOFTMAX))
    (folder / "ben" / "submitted" / "attention.py").write_text(written(RIGHT, others=[ADDITIVE]))
    (folder / "mallory" / "attention.py").symlink_to(LIBRARY / "attention.py")
    (folder / "linked.py").symlink_to(LIBRARY / "attention.py")
    (folder / "carla.py").write_text(wrong_version(SOFTMAX, SOFTMAX.wrong[0]))
    (folder / "dan.py").write_text("def f(:")
    (folder / "eve.py").write_bytes(b"\xff\xfe\x00")
    (folder / "broken.zip").write_bytes(b"PK")
    with zipfile.ZipFile(folder / "=zoe.zip", "w") as archive:
        archive.writestr(
            "../../elsewhere/attention.py",
            written("# <b>bold</b>\nreturn scores", others=[ADDITIVE]),
        )
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("attention.py", b"#" * (2 << 20))
    return folder


def test_a_class_is_graded(submissions, tmp_path, capsys):
    out = tmp_path / "grades.csv"
    assert main(["grade", "5", str(submissions), "--out", str(out)]) == 0
    rows = {row["submission"]: row for row in csv.DictReader(out.open())}
    columns = [f"{exercise.name} ({exercise.points})" for exercise in (SOFTMAX, ADDITIVE)]
    points = {name: [int(row[column]) for column in columns]
              for name, row in rows.items()}  # fmt: skip
    assert points == {
        "'=zoe": [0, 0], "anna": [SOFTMAX.points, ADDITIVE.points], "ben": [SOFTMAX.points, 0], "bomb": [0, 0],
        "broken": [0, 0],
        "carla": [0, ADDITIVE.points], "dan": [0, 0], "eve": [0, 0], "linked": [0, 0], "mallory": [0, 0],
    }  # fmt: skip
    notes = {name: row["notes"] for name, row in rows.items()}
    assert (
        notes["anna"] == "as in the library: masked_softmax, AdditiveAttention.forward"
        and notes["ben"] == ""
    )
    assert (
        "line 1 is not Python" in notes["dan"]
        and "UTF-8" in notes["eve"]
        and "larger than" in notes["bomb"]
    )
    assert "link" in notes["linked"] and "no file" in notes["mallory"] and notes["broken"]
    report = (tmp_path / "grades" / "carla.html").read_text()
    assert SOFTMAX.wrong[0].hint.split(":")[0] in report and "✗" in report and "✓" in report
    assert "&lt;b&gt;bold" in (tmp_path / "grades" / "=zoe.html").read_text()
    printed = capsys.readouterr().out
    assert f"masked_softmax: 2 passed, {3} failed" in printed
    assert re.search(r"2 failed: masked softmax is the softmax over unmasked scores", printed)
    assert (
        "masked softmax is the softmax over unmasked scores"
        in (tmp_path / "grades.html").read_text()
    )
    assert main(["grade", "5", str(submissions), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_ctrl_c_keeps_finished_grades(submissions, tmp_path, monkeypatch):
    graded, stop = grading.grade_one, []

    def grade_one(name, path, exercises):
        if name == "ben":
            raise KeyboardInterrupt
        return graded(name, path, exercises)

    monkeypatch.setattr(grading, "grade_one", grade_one)
    assert main(["grade", "5", str(submissions), "--out", str(tmp_path / "grades.csv")]) == 130
    assert [row["submission"] for row in csv.DictReader((tmp_path / "grades.csv").open())] == [
        "'=zoe",
        "anna",
    ] and not stop


def test_read_files_prefers_the_topmost_file(tmp_path):
    for name in ("b/attention.py", "a/old/attention.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    assert read_files(tmp_path, [SOFTMAX])["attention"][1] == "b/attention.py"


# -------------------------------------------------------------------------------------------------
# Versions that are tried in forks.


def test_forked_versions_fail_like_separate_ones():
    texts = [wrong_version(SOFTMAX, wrong) for wrong in SOFTMAX.wrong]
    for text, outcome in zip(texts, attempt_versions(SOFTMAX, texts), strict=True):
        alone = attempt(SOFTMAX, splice(SOFTMAX, text))
        assert outcome.passed == alone.passed and outcome.ended == alone.ended
        messages, messages_alone = (
            {name: re.sub("0x[0-9a-f]+", "", fail["message"]) for name, fail in one.failed.items()}
            for one in (outcome, alone)
        )
        assert messages == messages_alone


@pytest.mark.parametrize(
    "change",
    [
        ("scores: Tensor, mask: Tensor | None", "scores: Tensor, mask: Tensor | None = None"),
        ("def masked_softmax(", "@torch.no_grad()\ndef masked_softmax("),
        ("def masked_softmax(", "def _more():\n    pass\n\n\ndef masked_softmax("),
    ],
    ids=["arguments", "a decorator", "another function"],
)
def test_versions_that_differ_outside_bodies_are_detected(change):
    ours = library(SOFTMAX)
    assert ours.count(change[0]) == 1
    assert bodies(SOFTMAX, ours.replace(*change))[1] != bodies(SOFTMAX, ours)[1]
    other_body = ours.replace("scores.softmax(-1)", "scores.sin()")
    assert other_body != ours and bodies(SOFTMAX, other_body)[1] == bodies(SOFTMAX, ours)[1]


def test_an_endless_version_is_stopped_and_the_next_one_runs():
    endless = library(SOFTMAX).replace(
        "    if mask is None:\n", "    while True:\n        pass\n    if mask is None:\n", 1
    )
    stopped, right = attempt_versions(SOFTMAX, [endless, library(SOFTMAX)], QUICKLY)
    assert "still running" in stopped.ended and not stopped.right and right.right


@pytest.mark.parametrize("exercise", [SOFTMAX, ADDITIVE], ids=lambda exercise: exercise.name)
def test_failing_like_a_wrong_version_gets_its_hint(exercise):
    for version, outcome in wrong_outcomes(exercise):
        assert hint(exercise, outcome) == f"Hint: {version.hint}"
    for part in exercise.wrong[:1]:  # the same mistake, computed differently
        text = wrong_version(exercise, part).replace(
            ".softmax(-1)", ".sub(scores.amax(-1, True)).softmax(-1)"
        )
        assert assess(exercise, text).hint == f"Hint: {part.hint}"
