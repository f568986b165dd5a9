"""Runs the library's tests on a learner's code, and finds the verdict and the hint that fits."""

import ast
import contextlib
import functools
import importlib
import json
import marshal
import os
import re
import shutil
import signal
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from .exercises import ROOT, Exercise, Wrong
from .splice import (
    LIBRARY,
    NotStarted,
    Refused,
    Spliced,
    bodies,
    definitions,
    library,
    library_tree,
    parse,
    splice,
    walk,
    wrong_version,
)

# PYTHONHASHSEED: the same order of sets every time. MMSCRATCH_PRELOAD: see `prepare`
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "MMSCRATCH_PRELOAD": "all"}
# of which tests compare with some, and that take long to import
PACKAGES = "PIL hypothesis matplotlib sacrebleu sklearn torchvision transformers".split()
STARTING = threading.Lock()
MAX_MESSAGE = 1 << 20  # bytes of one result
LIMITS = {"seconds": 30, "bytes": 4 << 30}  # of computing and of memory, for one exercise


# -------------------------------------------------------------------------------------------------
# A trial: the library's tests on a module, in a process of its own.


class Outcome(NamedTuple):
    """The results of an exercise's tests."""

    collected: list[str]  # the names of all tests
    passed: set[str]
    failed: dict[str, dict]  # name -> what went wrong (see `trial`)
    ended: str  # why the process ended early, or ""
    skipped: frozenset[str] = frozenset()
    enclosed: bool = False  # whether its process saw nothing but Python and its own folder

    @property
    def right(self) -> bool:
        """Whether all tests ran, some passed, and none failed."""
        return not self.ended and not self.failed and bool(self.passed)


def _enter(task: str, *arguments) -> None:
    """The target of a process: call a function of trial.py, which the fork server has imported."""
    getattr(importlib.import_module("chapters.assignments.trial"), task)(*arguments)


def prepare(exercise: Exercise) -> None:
    """Start faster if only this exercise is to be checked.

    Processes then begin with no more than the packages that its tests name; for many exercises it
    is faster to import all of them once.
    """
    text = (ROOT / "tests" / exercise.tests_path).read_text(encoding="utf-8")
    tree = parse(text)
    known = definitions(tree)
    kept = [node for node in tree.body if node not in known.values()]
    kept += [known[name.partition("[")[0]] for name in exercise.tests]
    words = set()
    for node in walk(kept):
        if isinstance(node, ast.Import):
            words |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            words.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)  # as in pytest.importorskip("transformers")
    if "reference" in words:  # tests/reference.py
        words.add("torchvision")
    ENVIRONMENT["MMSCRATCH_PRELOAD"] = " ".join(sorted(words & set(PACKAGES)))


def processes():
    """The context that starts processes: a fork server, if the system has one."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["chapters.assignments.trial", "chapters.assignments.verdicts"])
    return context


def _copy_project(exercise: Exercise, folder: Path) -> None:
    """Copy the library without the exercise's module, and the tests, with their compiled files."""
    half_written = shutil.ignore_patterns("*.pyc.*")  # by another process
    shutil.copytree(LIBRARY, folder / "mmscratch", ignore=half_written)
    for path in _with_compiled(folder / "mmscratch" / exercise.path):
        path.unlink()
    helpers = ("conftest.py", "helpers.py", "command_line.py", "reference.py")
    for name in (exercise.tests_path, *helpers):
        for path in _with_compiled(ROOT / "tests" / name):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)


def _with_compiled(path: Path) -> list[Path]:
    """A Python file, and what Python and pytest have compiled from it."""
    return [path, *path.parent.glob(f"__pycache__/{path.stem}.*.pyc")]


def attempt(
    exercise: Exercise, spliced: Spliced, limits: dict = LIMITS, options: Sequence[str] = ()
) -> Outcome:
    """Run the exercise's tests on a module, in a copy of the library and a process with limits.

    options: for pytest.
    """
    known = [exercise.parts, sorted(definitions(library_tree(exercise.module)))]
    arguments = exercise.path, spliced.segments, known, _tests(exercise, options), limits
    with _process(exercise, spliced.text, "run", *arguments) as (copy, receiver, process):
        return _receive(receiver, process, 4 * limits["seconds"], copy, spliced, exercise)


def attempt_versions(
    exercise: Exercise, texts: Sequence[str], limits: dict = LIMITS, options: Sequence[str] = ()
) -> list[Outcome]:
    """The outcome of `attempt` for several versions of the library's module, much faster.

    One process imports the library and collects the tests, and runs them on each version in a fork.
    That is for our own versions, which differ from the library's only in the bodies of the parts. A
    version that differs in more, or that passes, is tried in a process of its own: a mistake in
    code that runs during an import may show only there.
    """
    spliced = [splice(exercise, text) for text in texts]
    original = splice(exercise, library(exercise.module)).text
    _, around = bodies(exercise, original)
    versions = {}
    for i, one in enumerate(spliced):
        codes, around_these = bodies(exercise, one.text)
        if around_these == around and hasattr(os, "fork"):
            versions[i] = {part: marshal.dumps(code) for part, code in codes.items()}
    outcomes = {}
    arguments = exercise.module, list(versions.values()), _tests(exercise, options), limits
    with _process(exercise, original, "run_versions", *arguments) as (copy, receiver, process):
        for i in versions:
            seconds = 4 * limits["seconds"]
            outcomes[i] = _receive(receiver, process, seconds, copy, spliced[i], exercise)
    for i, one in enumerate(spliced):
        if i not in outcomes or (outcomes[i].right and one.text != original):
            outcomes[i] = attempt(exercise, one, limits, options)
    return [outcomes[i] for i in range(len(texts))]


def _tests(exercise: Exercise, options: Sequence[str]) -> list[str]:
    return [*options, *(f"tests/{exercise.tests_path}::{name}" for name in exercise.tests)]


@contextlib.contextmanager
def _process(exercise: Exercise, text: str, task: str, *arguments):
    """A process that runs a function of trial.py in a copy of the library with this module text.

    Yields the folder of the copy, the pipe with the results, and the process.
    """
    context = processes()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve()
        _copy_project(exercise, copy)
        (copy / "mmscratch" / exercise.path).write_text(text, encoding="utf-8")
        receiver, sender = context.Pipe(duplex=False)
        everything = task, copy, *arguments, sender
        process = context.Process(target=_enter, args=everything, daemon=True)
        with STARTING, patch.dict(os.environ, ENVIRONMENT):
            process.start()
        sender.close()
        try:
            yield copy, receiver, process
        finally:
            with contextlib.suppress(OSError, AttributeError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()


def _receive(
    receiver, process, seconds: float, copy: Path, spliced: Spliced, exercise: Exercise
) -> Outcome:
    """The results of one version, until it ends or its time is up."""
    collected = []
    passed = set()
    skipped = set()
    enclosed = False
    failed = {}
    ended = None  # what was changed, or why it ended early
    status = None
    deadline = time.monotonic() + seconds
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            # JSON instead of pickle: the sender is not trusted
            kind, *rest = json.loads(receiver.recv_bytes(MAX_MESSAGE))
            if kind == "room":
                enclosed = rest[0] is True
            elif kind == "collected":
                collected = [str(name) for name in rest[0]]
            elif kind == "passed":
                passed.add(str(rest[0]))
            elif kind == "skipped":
                skipped.add(str(rest[0]))
            elif kind == "failed":
                name, failure = rest
                failed.setdefault(str(name), {key: failure[key] for key in failure})
            elif kind == "ended":
                ended = [str(change) for change in rest[0]]
                break
            elif kind == "gone":
                (status,) = rest
                break
    except (EOFError, OSError):  # it has ended
        pass
    except Exception:
        ended = ["the way in which results are sent"]
    passed -= set(failed)
    collected = [name for name in collected if name not in skipped]
    if ended is None:
        late = time.monotonic() > deadline
        ended = _why_it_ended(process, late, status, copy, spliced, exercise)
    elif ended:
        ended = f"it changed {', '.join(ended[:3])}, on which the tests rely"
    elif not failed and (set(collected) != passed or not passed):
        ended = "not all of its tests ran, or none could"
    return Outcome(collected, passed, failed, ended or "", frozenset(skipped), enclosed)


def _why_it_ended(
    process, late: bool, status: int | None, copy: Path, spliced: Spliced, exercise: Exercise
) -> str:
    """Why a process ended before its last message."""
    stack = (copy / "stack").read_text() if (copy / "stack").exists() else ""
    if not stack and not late:
        if status is None:
            process.join(5)
            status = process.exitcode
        return f"the process ended before its tests did (exit status {status})"
    lines = re.findall(rf'mmscratch/{re.escape(str(exercise.path))}", line (\d+)', stack)
    place = ""
    for line in map(int, lines):
        for first, theirs, count in spliced.segments:
            if first <= line < first + count and not place:
                place = f" in line {theirs + line - first}"
    return f"it was still running{place} when its time was up; does every loop come to an end?"


# -------------------------------------------------------------------------------------------------
# The verdict on a learner's code, and the hint that fits.


class Verdict(NamedTuple):
    """The result of checking one exercise."""

    exercise: Exercise
    state: str  # "passed", "failed" or "not started"
    problem: str = ""  # why it was not run, or why it ended early
    outcome: Outcome | None = None
    hint: str = ""

    @property
    def points(self) -> int:
        return self.exercise.points if self.state == "passed" else 0


def assess(exercise: Exercise, theirs: str, limits: dict = LIMITS) -> Verdict:
    """The verdict on the text of a learner's file; "" if there is none."""
    try:
        spliced = splice(exercise, theirs)
    except NotStarted:
        return Verdict(exercise, "not started")
    except SyntaxError as error:
        problem = f"line {error.lineno} is not Python: {error.msg}"
        line = (error.text or "").strip()
        if line:
            problem += f": {line}"
        return Verdict(exercise, "failed", problem)
    except (ValueError, RecursionError, MemoryError) as error:
        return Verdict(exercise, "failed", f"the file cannot be read as Python: {error}")
    except Refused as error:
        return Verdict(exercise, "failed", str(error))
    outcome = attempt(exercise, spliced, limits)
    skipped = sorted(outcome.skipped - _skipped_by_the_library(exercise, bool(outcome.skipped)))
    if skipped:
        test = skipped[0].rpartition("::")[2]
        problem = f"{test} was skipped, and the library's version does not skip it"
        return Verdict(exercise, "failed", problem, outcome)
    if outcome.right:
        return Verdict(exercise, "passed", outcome=outcome)
    return Verdict(exercise, "failed", outcome.ended, outcome, hint(exercise, outcome))


@functools.cache
def _skipped_by_the_library(exercise: Exercise, any_skipped: bool) -> frozenset[str]:
    """The tests that the library's own version skips here, for want of a package or a GPU.

    any_skipped  whether it matters
    """
    if not any_skipped:
        return frozenset()
    return attempt(exercise, splice(exercise, library(exercise.module))).skipped


@functools.cache
def wrong_outcomes(exercise: Exercise) -> tuple[tuple[Wrong, Outcome], ...]:
    """Each wrong version of an exercise, and how it fails."""
    texts = [wrong_version(exercise, wrong) for wrong in exercise.wrong]
    return tuple(zip(exercise.wrong, attempt_versions(exercise, texts)))


def hint(exercise: Exercise, outcome: Outcome) -> str:
    """The hint of the one wrong version that fails like this outcome, in words and numbers; or "".

    At least half of the messages must be the same, and no other version may be as like.
    """
    if not exercise.wrong:  # in a course copy
        return ""
    found = []
    for wrong, wrong_outcome in wrong_outcomes(exercise):
        found.append((_similarity(outcome, wrong_outcome), wrong.hint))
    likeness, best = max(found)
    as_like = {hint for other, hint in found if other == likeness}
    return f"Hint: {best}" if likeness[0] >= 0.5 and len(as_like) == 1 else ""


def _similarity(one: Outcome, other: Outcome) -> tuple[float, float]:
    """The fraction of failures with equal messages, and of tests that fail in both."""
    a = _messages(one)
    b = _messages(other)
    either = len(a.keys() | b.keys())
    return len(a.items() & b.items()) / either, len(a.keys() & b.keys()) / either


def _messages(outcome: Outcome) -> dict[str, str]:
    """The messages of the failed tests, without addresses, and with rounded numbers.

    The same mistake may be computed in another order.
    """

    def rounded(number: re.Match) -> str:
        return f"{float(number[0]):.3g}"

    found = {name: failure["message"] for name, failure in outcome.failed.items()}
    if outcome.ended:
        found[""] = re.sub(r" in line \d+", "", outcome.ended)
    for name, text in found.items():
        text = re.sub(r" at 0x[0-9a-f]+", "", text)
        found[name] = re.sub(r"\d+\.\d+(e[-+]\d+)?", rounded, text)
    return found


def described(verdict: Verdict, file: str = "") -> Iterator[str]:
    """The verdict in lines: the first failed expectation, where, with which shapes, and the hint."""
    if verdict.problem:
        yield verdict.problem
    failed = list(verdict.outcome.failed.values()) if verdict.outcome else []
    if failed:
        first = failed[0]
        if verdict.outcome.collected:
            count = f"{len(failed)} of {len(verdict.outcome.collected)}"
            yield f"{count} tests fail. The first: {first['test']}"
        lines = [line for line in first["message"].splitlines() if line.strip()]
        yield from [f"    {line}" for line in lines[:6]]
        if first.get("difference"):
            yield f"that is: {first['difference']}"
        if "line" in first:
            where = f"in line {first['line']}"
            if file:
                where += f" of {file}"
            if first["shapes"]:
                where += f", where {first['shapes']}"
            yield where
        elif "statement" in first:
            yield f"the test was: {first['statement']}"
            if first["given"]:
                yield f"    with {first['given']}"
        printed = first.get("printed", "").strip().splitlines()
        yield from [f"    it printed: {line}" for line in printed[:5]]
    if verdict.hint:
        yield verdict.hint


MARKS = {"passed": "✓", "failed": "✗", "not started": "·"}


def assess_all(
    exercises: Sequence[Exercise], files: dict[str, tuple[str, str]]
) -> Iterator[Verdict]:
    """The verdicts in the order of the exercises, computed in parallel."""
    texts = []
    for exercise in exercises:
        _, text = files.get(exercise.module, ("", ""))
        texts.append(text)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(assess, exercises, texts)


def show(verdict: Verdict, file: str = "") -> None:
    """Print a verdict."""
    exercise = verdict.exercise
    points = {
        "passed": f"{exercise.points} points",
        "failed": f"0 of {exercise.points} points",
        "not started": "not started",
    }
    print(f"{MARKS[verdict.state]} {exercise.name}: {points[verdict.state]}", flush=True)
    width = max(60, shutil.get_terminal_size().columns - 4)
    from mmscratch.text import printable  # not above: a learner's process must import its own

    for line in map(printable, described(verdict, file)):
        indentation = " " * (len(line) - len(line.lstrip()))
        wrapped = textwrap.fill(line, width, subsequent_indent=indentation)
        print(textwrap.indent(wrapped, "    "), flush=True)
