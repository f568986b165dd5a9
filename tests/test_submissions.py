"""What learners write, and what others try: taken along, named, or without points.

The rows of "Assignments" in the list of small inputs that once failed, and the tricks against the
judge: objects that equal everything, modes and hooks that are left on, skipped tests, replaced code.
"""

import csv
import os
import re
import sys
import types
import zipfile

import pytest
from test_assignments import ADDITIVE, QUICKLY, RIGHT, ROOT, SOFTMAX, library, written

from chapters.assignments import grading, verdicts
from chapters.assignments import notebook as notebooks
from chapters.assignments import splice as splicing
from chapters.assignments.__main__ import main
from chapters.assignments.exercises import EXERCISES
from chapters.assignments.notebook import _source_with_names
from chapters.assignments.splice import NotStarted, Refused, Spliced, excerpt, parse, splice
from chapters.assignments.verdicts import assess, attempt, described


def exercise_of(name):
    return next(exercise for exercise in EXERCISES if exercise.name == name)


def verdict(text, exercise=SOFTMAX):
    one = assess(exercise, text)
    return one.state, "\n".join(described(one))


# -------------------------------------------------------------------------------------------------
# Files.


def test_annotations_of_the_future_make_no_difference():
    text = "from __future__ import annotations\n" + written(RIGHT)
    text = text.replace("def masked_softmax(scores: Tensor", "def masked_softmax(scores: Tensr")
    assert verdict(text)[0] == "passed"


def test_tabs_and_comments_at_the_margin_make_no_difference():
    lines = excerpt(library(ADDITIVE), next(
        node for node in ast_definitions(library(ADDITIVE), "AdditiveAttention.forward")
    )).splitlines()  # fmt: skip
    tabbed = []
    for line in lines:
        spaces = len(line) - len(line.lstrip(" "))
        tabbed.append("\t" * (spaces // 4) + line.lstrip(" "))
        tabbed.append("# at the margin")
    start = library(ADDITIVE).splitlines().index(lines[0])
    text = library(ADDITIVE).splitlines()
    text[start : start + len(lines)] = tabbed
    own = "\n".join(text)
    first = own.index("class AdditiveAttention")
    own = own[:first] + re.sub(
        r"^((?:    )+)", lambda m: "\t" * (len(m[0]) // 4), own[first:], flags=re.MULTILINE
    )
    assert verdict(own, ADDITIVE)[0] == "passed"


def ast_definitions(text, name):
    yield splicing.definitions(parse(text))[name]


def with_members(members, forward):
    """A file whose AdditiveAttention has more members, and this change of its forward."""
    text = library(ADDITIVE)
    node = splicing.definitions(parse(text))["AdditiveAttention.forward"]
    body = excerpt(text, node)
    old, new = forward
    assert old in body
    return text.replace(body, f"{members}\n{body.replace(old, new)}")


def test_constants_and_hidden_methods_of_a_class_are_taken_along():
    members = "    ONE = 1.0\n\n    def __one(self):\n        return self.ONE\n"
    text = with_members(
        members, ("return context, weights", "return self.__one() * context, weights")
    )
    assert verdict(text, ADDITIVE)[0] == "passed"


def test_a_method_is_added_to_a_class_whose_name_begins_another_ones():
    exercise = exercise_of("Adapter.__init__")  # and AdapterLinear.forward
    text = library(exercise).replace(
        "        return x + self.up(F.gelu(self.down(x)))",
        "        return x + self.narrow(x)\n\n    def narrow(self, x):\n"
        "        return self.up(F.gelu(self.down(x)))",
    )
    spliced = splice(exercise, text).text
    assert spliced.count("def narrow") == 1
    assert (
        spliced.index("class Adapter(")
        < spliced.index("def narrow")
        < spliced.index("class AdapterLinear")
    )


def test_a_base_class_and_names_that_cannot_be_taken_along_are_named():
    text = library(ADDITIVE).replace(
        "class AdditiveAttention(nn.Module)",
        "class Base(nn.Module):\n    pass\n\n\nclass AdditiveAttention(Base)",
    )
    state, message = verdict(text, ADDITIVE)
    assert state == "failed"
    assert "the base class Base of AdditiveAttention is not taken along" in message
    before = "LOW = 0.0\nfor _ in range(3):\n    LEAST = -1e30\n"
    state, message = verdict(
        before + written(RIGHT.replace("scores.masked", "(LEAST * scores).masked"))
    )
    assert state == "failed"
    assert "line 2: LEAST is set there, but of a file only imports" in message


def test_a_constant_that_is_computed_is_taken_along():
    before = "import math\nLEAST = -math.exp(80.0)\n"
    body = RIGHT.replace(
        "torch.finfo(scores.dtype).min", "max(LEAST, torch.finfo(scores.dtype).min)"
    )
    assert verdict(before + written(body))[0] == "passed"


def test_a_folder_with_a_space_is_quoted(tmp_path, capsys):
    folder = tmp_path / "my work"
    assert main(["start", "8", "--to", str(folder)]) == 0
    text = (folder / "README.md").read_text()
    assert f"--from '{folder}'" in text and f"--from {folder}" not in text


def test_a_zip_of_windows_is_read(tmp_path):
    archive = tmp_path / "work.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("work\\attention.py", "here")
    from chapters.assignments.submissions import read_files

    assert read_files(archive, [SOFTMAX])["attention"][1] == "here"


# -------------------------------------------------------------------------------------------------
# Notebooks.


@pytest.fixture
def run_cells(monkeypatch):
    """Run cells as a notebook would, and return its variables."""

    def run(*cells):
        module = types.ModuleType("cells_of_a_notebook")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        module.In = ["", *cells]
        for cell in cells:
            exec(compile(cell, "<cell>", "exec"), vars(module))
        return module

    return run


OWN_TEXT = ("beam_search", "Vocabulary.build", "BytePairEncoding.learn", "LSTMFunction.forward")


@pytest.mark.parametrize(
    "name", [name for name in OWN_TEXT if any(e.name == name for e in EXERCISES)]
)
def test_the_librarys_own_text_passes_in_a_notebook(name, run_cells):
    exercise = exercise_of(name)
    text = (
        library(exercise).replace("from .", "from mmscratch.").replace("mmscratch..", "mmscratch.")
    )
    module = run_cells(text)
    piece = getattr(module, name.partition(".")[0])
    assert (
        assess(exercise, _source_with_names(notebooks.inspect.unwrap(piece), exercise)).state
        == "passed"
    )


def test_what_a_function_uses_is_taken_along_as_it_is_written(run_cells):
    module = run_cells(
        "import torch\nfrom math import inf\nLEAST, OTHER = float('-inf'), 3",
        "SIZES = (1, 2)\nNAMES = {'a': [1.0]}",
        "from dataclasses import dataclass\n@dataclass\nclass Options:\n    low: float = LEAST",
        "def low():\n    return max(Options().low, -inf, SIZES[0] * LEAST, NAMES['a'][0] * LEAST)",
        "@torch.no_grad()\ndef masked_softmax(scores, mask):\n    if mask is None:\n"
        "        return torch.softmax(scores, -1)\n    return torch.softmax(scores.masked_fill(~mask, low()), -1)",
    )
    source = _source_with_names(notebooks.inspect.unwrap(module.masked_softmax), SOFTMAX)
    for text in (
        "from math import inf",
        "LEAST, OTHER = (float('-inf'), 3)",
        "SIZES = (1, 2)",
        "@dataclass\nclass Options",
        "@torch.no_grad()\ndef masked_softmax",
    ):
        assert text in source
    compile(source, "<taken along>", "exec")
    splice(SOFTMAX, source)


def test_the_last_definition_counts_and_magics_are_no_python(run_cells):
    module = run_cells(
        "LEAST = 1", "def masked_softmax(scores, mask):\n    return LEAST", "LEAST = 2"
    )
    module.In.insert(1, "%timeit 1\n!ls")
    source = _source_with_names(module.masked_softmax, SOFTMAX)
    assert "LEAST = 2" in source and "LEAST = 1" not in source


def test_what_cannot_be_taken_along_is_named(run_cells):
    module = run_cells(
        "for LIMITS in range(3):\n    pass", "def masked_softmax(scores, mask):\n    return LIMITS"
    )
    with pytest.raises(
        ValueError, match="LIMITS is defined in another cell and cannot be taken along"
    ):
        _source_with_names(module.masked_softmax, SOFTMAX)


# -------------------------------------------------------------------------------------------------
# The judge.

EQUALS = """class Equal(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), options=None):
        return torch.tensor(True)


class Anything:
    def __eq__(self, other):
        return True


"""
TRICKS = {
    "a tensor that equals everything": (
        EQUALS,
        "return scores.as_subclass(Equal)",
        "a type of its own",
    ),
    "a list of what equals everything": (EQUALS, "return [Anything()]", "a type of its own"),
    "a mode is left on": (
        "class Mode(torch.overrides.TorchFunctionMode):\n"
        "    def __torch_function__(self, function, types, args=(), options=None):\n"
        "        return function(*args, **(options or {}))\n\n\n",
        f"Mode().__enter__()\n{RIGHT}",
        "the stack of function modes",
    ),
    "another device": ("", f"torch.set_default_device('meta')\n{RIGHT}", "the default device"),
    "another dtype": ("", f"torch.set_default_dtype(torch.float64)\n{RIGHT}", "the default dtype"),
    "no gradients": (
        "",
        f"torch.set_grad_enabled(False)\n{RIGHT}",
        "whether gradients are computed",
    ),
    "a hook of all modules": (
        "",
        "torch.nn.modules.module.register_module_forward_hook(lambda *_: None)\n" + RIGHT,
        "hooks of all modules",
    ),
}


@pytest.fixture
def any_name(monkeypatch):
    """Without the check of names, so that what stands behind it is tested."""
    monkeypatch.setattr(splicing, "_read", lambda *_: None)


@pytest.mark.parametrize("before, body, says", TRICKS.values(), ids=TRICKS)
def test_tricks_get_no_points_and_a_reason(before, body, says, any_name):
    text = written(body, before="")
    place = text.index("def masked_softmax")
    state, message = verdict(text[:place] + before + text[place:])
    assert state == "failed" and says in message, message


UNCHECKED = {  # where the check of names is left out
    "code is replaced": (
        "torch.testing._comparison.assert_close.__code__ = (lambda *_, **__: None).__code__",
        "assert_close",
    ),
    "a default is replaced": (
        "torch.testing._comparison.assert_close.__kwdefaults__.update(rtol=9.0, atol=9.0)",
        "assert_close",
    ),
    "tests are not run": (
        "import _pytest.python as p; p.Function.runtest = lambda self: None",
        "_pytest.python.Function.runtest",
    ),
    "a comparison is replaced": (
        "import pytest; type(pytest.approx(1.0)).__eq__ = lambda *_: True",
        "approx",
    ),
    "a trace is left on": ("import sys; sys.settrace(lambda *_: None)", "the trace function"),
}


@pytest.mark.parametrize("line, says", UNCHECKED.values(), ids=UNCHECKED)
def test_the_judge_notices_what_the_check_of_names_misses(line, says):
    text = library(SOFTMAX).replace(
        "    if mask is None:\n", f"    {line}\n    if mask is None:\n", 1
    )
    outcome = attempt(SOFTMAX, Spliced(text, []))
    assert not outcome.right and says in outcome.ended, outcome.ended


TARGET = str(ROOT / "mmscratch" / "reliability.py")
DOORS = {
    "dir_fd": "import os; here = os.open('/', os.O_RDONLY); "
    f"raise ValueError('SEEN' + str(os.open({TARGET[1:]!r}, os.O_RDONLY, dir_fd=here)))",
    "sqlite3": "import sqlite3\n    try:\n"
    f"        sqlite3.connect('file:{TARGET}?mode=ro', uri=True).execute('select 1 from sqlite_master')\n"
    "    except sqlite3.DatabaseError as error:\n"
    "        raise ValueError(str(error).replace('file is not', 'SEEN'))",
    "ctypes": f"import ctypes; raise ValueError('SEEN' if ctypes.CDLL(None).open({TARGET!r}.encode(), 0) >= 0 else 'no')",
    "a program": f"import ctypes; ctypes.CDLL(None).system(b'cat {TARGET} > out'); "
    "raise ValueError('SEEN' if open('out').read() else 'no')",
    "shared memory": "import ctypes; "
    "raise ValueError('SEEN' if ctypes.CDLL(None).open(b'/dev/shm/x', 66, 420) >= 0 else 'no')",
    "a signal to the grader": "import ctypes; "
    f"raise ValueError('SEEN' if ctypes.CDLL(None).kill({os.getpid()}, 0) == 0 else 'no')",
    "a write to a package": "import ctypes, sys; "
    "raise ValueError('SEEN' if ctypes.CDLL(None).open((sys.prefix + '/x').encode(), 66, 420) >= 0 else 'no')",
}


@pytest.mark.parametrize("line", DOORS.values(), ids=DOORS)
def test_the_answer_is_not_in_the_room(line):
    text = library(SOFTMAX).replace(
        "    if mask is None:\n", f"    {line}\n    if mask is None:\n", 1
    )
    outcome = attempt(SOFTMAX, Spliced(text, []))
    if not outcome.enclosed:
        pytest.skip("this system has no namespaces")
    messages = [failure["message"] for failure in outcome.failed.values()]
    assert messages and not any("SEEN" in message for message in messages), messages[0]


def test_a_report_says_so_if_there_is_no_room(monkeypatch):
    one = assess(SOFTMAX, written(RIGHT))
    graded = grading.Graded("a", [one], [""], "")
    says = "This system has no namespaces for processes"
    assert (says in grading.report(5, graded)) == (not one.outcome.enclosed)
    other = one._replace(outcome=one.outcome._replace(enclosed=False))
    graded = grading.Graded("a", [other], [""], "")
    assert says in grading.report(5, graded)
    assert says in grading.class_report(5, [SOFTMAX], [graded], "grades")


def test_waiting_is_ended_by_the_clock(any_name):
    one = assess(SOFTMAX, written("torch.futures.Future().wait()"), QUICKLY)
    assert one.state == "failed" and "still running in line" in one.problem


def test_a_skipped_test_is_a_failed_one(any_name):
    state, message = verdict(written("import unittest\nraise unittest.SkipTest('x')"))
    assert (
        state == "failed" and "was skipped, and the library's version does not skip it" in message
    )


def test_what_follows_a_semicolon_is_another_statement():
    before = "_a = 1; exec('import os; os._exit(0)')\n"
    assert verdict(before + written(RIGHT))[0] == "passed"
    assert "exec" not in splice(SOFTMAX, before + written(RIGHT)).text


@pytest.mark.parametrize(
    "message", [b"5", b'["passed"]', b'["failed", 3]', b"[]", b"{", b'["collected", 7]', b"\xff"]
)
def test_a_malformed_word_through_the_pipe_is_no_result(message):
    class Pipe:
        def poll(self, seconds):
            return True

        def recv_bytes(self, limit):
            return message

    outcome = verdicts._receive(Pipe(), None, 9, ROOT, Spliced("", []), SOFTMAX)
    assert "the way in which results are sent" in outcome.ended and not outcome.right


# -------------------------------------------------------------------------------------------------
# One submission cannot stop a class.

HOSTILE = {
    "a long number": f"return {'9' * 9000}",
    "a long sum": "return " + "+".join(["1"] * 2500),
    "a surrogate in a message": "raise ValueError('\\udce4\\x1b[2J')",
    "much output": "print('x' * 300_000_000)\nreturn scores",
    "a long message": "raise ValueError('x' * 50_000_000)",
}


def test_whatever_is_handed_in_the_class_is_graded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grading, "of_chapter", lambda number: [SOFTMAX])
    folder = tmp_path / "in"
    folder.mkdir()
    for name, body in HOSTILE.items():
        (folder / f"{name}.py").write_text(written(body))
    (folder / "right.py").write_text(written(RIGHT))
    (folder / ("n" * 250 + ".py")).write_text(written(RIGHT))
    (folder / "notes.docx").write_bytes(b"x")
    (folder / "+2+3.py").write_text(written("raise ValueError('=1+1')"))
    (folder / "\x1b[2J.py").write_text(written(RIGHT))
    (folder / "a&b?c#d.py").write_text(written(RIGHT))
    with open(os.fsencode(folder) + b"/caf\xe9.py", "w") as file:
        file.write(written(RIGHT))
    out = tmp_path / "grades.csv"
    assert main(["grade", "5", str(folder), "--out", str(out)]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) == len(list(folder.iterdir()))
    points = {row[0]: int(row[1]) for row in rows}
    assert [name for name, number in points.items() if number] == sorted(
        name for name in points if name in ("right", "n" * 250, "\\x1b[2J", "a&b?c#d", "caf\\udce9")
    )
    notes = {row[0]: row[-1] for row in rows}
    assert "neither a .py file, a .zip file nor a folder" in notes["notes"]
    for row in rows:
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) and "\x1b" not in cell
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and len(printed) < 100_000
    page = out.with_suffix(".html").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == len(rows) and "grades/a%26b%3Fc%23d.html" in links
    from urllib.parse import unquote

    for link in links:
        report = tmp_path / unquote(link)
        assert report.exists() and report.stat().st_size < 1 << 20, link


def test_an_error_of_ours_becomes_a_note(monkeypatch, tmp_path):
    def fails(*_):
        raise RuntimeError("by mistake")

    monkeypatch.setattr(grading, "assess", fails)
    path = tmp_path / "a.py"
    path.write_text("x = 1")
    graded = grading.grade_one("a", path, [SOFTMAX])
    assert graded.points == 0 and graded.notes == ["it cannot be graded: RuntimeError: by mistake"]


def test_spliced_lines_are_those_of_the_file():
    text = "# one\n# two\n" + written(
        "scores = (\n    scores\n    + 1\n)\nreturn scores.nothing", before=""
    )
    one = assess(SOFTMAX, text)
    line = next(iter(one.outcome.failed.values()))["line"]
    assert text.splitlines()[line - 1].strip() == "return scores.nothing"


def test_refusals_name_the_line():
    with pytest.raises(Refused, match=r"line \d+: eval is not allowed"):
        splice(SOFTMAX, written("return eval('scores')"))
    with pytest.raises(NotStarted):
        splice(SOFTMAX, library(SOFTMAX).replace("def masked_softmax", "def another"))
