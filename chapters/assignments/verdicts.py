"""The library's tests on a learner's code, the verdict on it, and the hint that fits."""

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

from ..chapter import ROOT
from .exercises import Exercise, Wrong
from .splice import LIBRARY, NotStarted, Refused, Spliced, bodies, library, splice, wrong_version

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}  # of all tests: sets are shown in the same order
STARTING = threading.Lock()
LIMITS = {"seconds": 30, "bytes": 4 << 30}  # of one exercise: computing, and memory


# -------------------------------------------------------------------------------------------------
# A trial: the library's tests on a module, in a process of its own.


class Outcome(NamedTuple):
    """What came of the tests of one exercise: the names of all, those that passed, name -> what went wrong (see `trial`)."""

    collected: list[str]
    passed: set[str]
    failed: dict[str, dict]
    ended: str  # why the process ended before its time, or ""

    @property
    def right(self) -> bool:
        """All tests ran, some passed, and none failed."""
        return not self.ended and not self.failed and bool(self.passed)


def _enter(task: str, *arguments) -> None:
    """The first thing that the process does: a function of trial.py, which imports what is large.

    The fork server has imported it already.
    """
    getattr(importlib.import_module("chapters.assignments.trial"), task)(*arguments)


def processes():
    """How processes start: from a server that has imported what is large, where the system can."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["chapters.assignments.trial", "chapters.assignments.verdicts"])
    return context


def _lay_out(exercise: Exercise, folder: Path) -> None:
    """Copy the library and the exercise's tests, with what is compiled of them already, but for its own module."""
    half_written = shutil.ignore_patterns("*.pyc.*")  # by another process
    shutil.copytree(LIBRARY, folder / "mmscratch", ignore=half_written)
    for path in _with_compiled(folder / "mmscratch" / exercise.path):
        path.unlink()
    for name in (exercise.tests_path, "conftest.py", "helpers.py", "reference.py"):
        for path in _with_compiled(ROOT / "tests" / name):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)


def _with_compiled(path: Path) -> list[Path]:
    """A file of Python, and what Python and pytest have compiled of it."""
    return [path, *path.parent.glob(f"__pycache__/{path.stem}.*.pyc")]


def attempt(
    exercise: Exercise, spliced: Spliced, limits: dict = LIMITS, options: Sequence[str] = ()
) -> Outcome:
    """Run the exercise's tests on a module in a copy of the library, in a process with limits of
    time and memory.

    `options` are pytest's.
    """
    arguments = exercise.path, spliced.segments, _tests(exercise, options), limits
    with _process(exercise, spliced.text, "run", *arguments) as (copy, receiver, process):
        return _received(receiver, process, 4 * limits["seconds"], copy, spliced, exercise)


def attempt_versions(
    exercise: Exercise, texts: Sequence[str], limits: dict = LIMITS, options: Sequence[str] = ()
) -> list[Outcome]:
    """What `attempt` says of each of several versions of the library's module, much sooner.

    For versions that are ours, and differ from the library's in the bodies of the exercise's parts:
    one process imports the library and collects the tests, and runs them on each version in a fork.
    A version that differs in more than that, or that passes, is tried by itself: where it is used
    when something is imported, its mistake may show only there.
    """
    spliced = [splice(exercise, text) for text in texts]
    _, around = bodies(exercise, library(exercise.module))
    versions = {}
    for i, one in enumerate(spliced):
        codes, around_these = bodies(exercise, one.text)
        if around_these == around and hasattr(os, "fork"):
            versions[i] = {part: marshal.dumps(code) for part, code in codes.items()}
    outcomes = {}
    arguments = exercise.module, list(versions.values()), _tests(exercise, options), limits
    whole = library(exercise.module)
    with _process(exercise, whole, "run_versions", *arguments) as (copy, receiver, process):
        for i in versions:
            seconds = 4 * limits["seconds"]
            outcomes[i] = _received(receiver, process, seconds, copy, spliced[i], exercise)
    for i, one in enumerate(spliced):
        if i not in outcomes or (outcomes[i].right and one.text != whole):
            outcomes[i] = attempt(exercise, one, limits, options)
    return [outcomes[i] for i in range(len(texts))]


def _tests(exercise: Exercise, options: Sequence[str]) -> list[str]:
    return [*options, *(f"tests/{exercise.tests_path}::{name}" for name in exercise.tests)]


@contextlib.contextmanager
def _process(exercise: Exercise, text: str, task: str, *arguments):
    """A process that runs a function of trial.py in a copy of the library with this text of the module.

    -> the folder of the copy, the pipe that says what comes of it, and the process.
    """
    context = processes()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve()
        _lay_out(exercise, copy)
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


def _received(
    receiver, process, seconds: float, copy: Path, spliced: Spliced, exercise: Exercise
) -> Outcome:
    """What is sent of one version until it ends, or until its time is over."""
    collected, passed, failed, ended, status = [], set(), {}, None, None
    deadline = time.monotonic() + seconds
    with contextlib.suppress(EOFError, OSError, ValueError):
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            kind, *rest = json.loads(
                receiver.recv_bytes()
            )  # no pickle: who sends it is not trusted
            if kind == "collected":
                (collected,) = rest
            elif kind == "passed":
                passed.add(rest[0])
            elif kind == "skipped":
                collected.remove(rest[0])
            elif kind == "failed":
                failed.setdefault(*rest)
            elif kind == "ended":
                (ended,) = rest
                break
            elif kind == "gone":
                (status,) = rest
                break
    passed -= set(failed)
    if ended is None:
        late = time.monotonic() > deadline
        ended = _why_it_ended(process, late, status, copy, spliced, exercise)
    elif ended:
        ended = f"it changed {', '.join(ended[:3])}, on which the tests rely"
    elif not failed and (set(collected) != passed or not passed):
        ended = "not all of its tests ran, or none could"
    return Outcome(collected, passed, failed, ended or "")


def _why_it_ended(
    process, late: bool, status: int | None, copy: Path, spliced: Spliced, exercise: Exercise
) -> str:
    """Of a process that did not come to its last word."""
    stack = (copy / "stack").read_text() if (copy / "stack").exists() else ""
    if not stack and not late:
        if status is None:
            process.join(5)
            status = process.exitcode
        return f"the process ended before its tests had (exit status {status})"
    lines = re.findall(rf'mmscratch/{re.escape(str(exercise.path))}", line (\d+)', stack)
    place = ""
    for at in map(int, lines):
        for first, theirs, count in spliced.segments:
            if first <= at < first + count:
                place = place or f" in line {theirs + at - first}"
    return f"it was still running{place} when its time was over; does every loop come to an end?"


# -------------------------------------------------------------------------------------------------
# The verdict on a learner's code, and the hint that fits.


class Verdict(NamedTuple):
    """What is said of an exercise."""

    exercise: Exercise
    state: str  # "passed", "failed" or "not started"
    problem: str = ""  # why it was not tried, or why it ended before its time
    outcome: Outcome | None = None
    hint: str = ""

    @property
    def points(self) -> int:
        return self.exercise.points if self.state == "passed" else 0


def verdict(exercise: Exercise, theirs: str, limits: dict = LIMITS) -> Verdict:
    """Of the text of a learner's file, "" where there is none."""
    try:
        spliced = splice(exercise, theirs)
    except NotStarted:
        return Verdict(exercise, "not started")
    except SyntaxError as error:
        line = (error.text or "").strip()
        return Verdict(
            exercise,
            "failed",
            f"line {error.lineno} is not Python: {error.msg}" + (f": {line}" if line else ""),
        )
    except (ValueError, RecursionError, MemoryError) as error:
        return Verdict(exercise, "failed", f"the file cannot be read as Python: {error}")
    except Refused as error:
        return Verdict(exercise, "failed", str(error))
    outcome = attempt(exercise, spliced, limits)
    if outcome.right:
        return Verdict(exercise, "passed", outcome=outcome)
    return Verdict(exercise, "failed", outcome.ended, outcome, hint(exercise, outcome))


@functools.cache
def wrong_outcomes(exercise: Exercise) -> tuple[tuple[Wrong, Outcome], ...]:
    """How each of the wrong versions fails."""
    texts = [wrong_version(exercise, wrong) for wrong in exercise.wrong]
    return tuple(zip(exercise.wrong, attempt_versions(exercise, texts)))


def hint(exercise: Exercise, outcome: Outcome) -> str:
    """That of the wrong version which fails as this one does: in the same words and numbers, or else in the same tests."""

    def messages(outcome: Outcome) -> dict[str, str]:
        """Numbers are rounded: the same mistake may be computed in another order."""
        found = {name: failure["message"] for name, failure in outcome.failed.items()}
        found |= {"": re.sub(r" in line \d+", "", outcome.ended)} if outcome.ended else {}
        found = {name: re.sub(r" at 0x[0-9a-f]+", "", text) for name, text in found.items()}
        return {
            name: re.sub(r"\d+\.\d+(e[-+]\d+)?", lambda number: f"{float(number[0]):.3g}", text)
            for name, text in found.items()
        }

    def likeness(wrong: Outcome) -> tuple[float, float]:
        """The share of failures that are the same, and that of tests that fail in both."""
        theirs, same = messages(wrong), messages(outcome)
        both = len(same.keys() | theirs.keys())
        return len(same.items() & theirs.items()) / both, len(same.keys() & theirs.keys()) / both

    found = [(likeness(of_wrong), wrong.hint) for wrong, of_wrong in wrong_outcomes(exercise)]
    (same, as_many), best = max(found)
    raised = any(
        "line" in failure for failure in outcome.failed.values()
    )  # an error in their own lines speaks for itself
    if same == 0 and (
        as_many < 0.8 or raised or [likeness for likeness, _ in found].count((same, as_many)) > 1
    ):
        return ""
    return f"Hint: {best}" if same >= 0.5 else f"Hint, perhaps: {best}"


def described(verdict: Verdict, file: str = "") -> Iterator[str]:
    """What went wrong, in lines: the first expectation that does not hold, where, with which shapes, and the hint."""
    if verdict.problem:
        yield verdict.problem
    failed = list(verdict.outcome.failed.values()) if verdict.outcome else []
    if failed:
        first = failed[0]
        if verdict.outcome.collected:
            yield f"{len(failed)} of {len(verdict.outcome.collected)} tests fail. The first: {first['test']}"
        yield from [f"    {line}" for line in first["message"].splitlines() if line.strip()][:6]
        if "line" in first:
            yield f"in line {first['line']}{file and ' of ' + file}" + (
                f", where {first['shapes']}" if first["shapes"] else ""
            )
        elif "statement" in first:
            yield f"which asks: {first['statement']}"
            if first["given"]:
                yield f"    with {first['given']}"
        printed = first.get("printed", "").strip().splitlines()
        yield from (f"    it printed: {line}" for line in printed[:5])
    if verdict.hint:
        yield verdict.hint


MARKS = {"passed": "✓", "failed": "✗", "not started": "·"}


def verdicts(exercises: Sequence[Exercise], files: dict[str, tuple[str, str]]) -> Iterator[Verdict]:
    """In the order of the exercises, side by side."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(
            lambda exercise: verdict(exercise, files.get(exercise.module, ("", ""))[1]), exercises
        )


def show(verdict: Verdict, file: str = "") -> None:
    exercise = verdict.exercise
    points = {"passed": f"{exercise.points} points", "failed": f"0 of {exercise.points} points"}
    print(
        f"{MARKS[verdict.state]} {exercise.name}: {points.get(verdict.state, 'not started')}",
        flush=True,
    )
    width = max(60, shutil.get_terminal_size().columns - 4)
    for line in described(verdict, file):
        print(
            textwrap.indent(
                textwrap.fill(
                    line, width, subsequent_indent=" " * (len(line) - len(line.lstrip()))
                ),
                "    ",
            ),
            flush=True,
        )
