"""The inside of the process in which the library's tests run on a learner's code.

`chapters.assignments.verdicts` starts it; a fork server has imported this file before, so that a process begins in an instant. What
is large is therefore imported here, and nothing of mmscratch: each process imports it anew, with the learner's code in it.
"""

import contextlib
import faulthandler
import gc
import importlib
import itertools
import json
import marshal
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from multiprocessing.connection import Connection
from pathlib import Path, PurePosixPath
from types import CodeType, ModuleType

import matplotlib.figure  # noqa: F401
import numpy
import PIL.Image  # noqa: F401
import pytest
import torch
import torch.nn.functional as F
import torch.utils.data
import torch.utils.flop_counter

with contextlib.suppress(Exception):  # mmscratch.images copes without it
    import torchvision.transforms.v2  # noqa: F401
for name in (
    "sacrebleu",
    "transformers",
    "hypothesis",
    "sklearn.metrics",
):  # what the tests compare with
    with contextlib.suppress(Exception):
        __import__(name)
with contextlib.suppress(ImportError):  # the parts of pytest, which it would import when it starts
    from _pytest.config import default_plugins

    for name in default_plugins:
        __import__(f"_pytest.{name}")
gc.freeze()  # what is here stays: no process need look through it

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = [
    str(ROOT / name) + os.sep for name in ("mmscratch", "chapters", "tests", ".git")
]  # where the solution is
FORBIDDEN = tuple(
    "os.exec os.fork os.kill os.posix_spawn os.spawn os.startfile os.system subprocess. socket.".split()
)
CHANGES = (
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
)
WATCHED = (
    torch,
    F,
    torch.nn,
    torch.testing,
    math,
    numpy,
    pytest,
    sys.modules["builtins"],
    torch.Tensor,
    torch.nn.Module,
)
NOT_NEEDED = (
    "cacheprovider doctest faulthandler junitxml threadexception unraisableexception".split()
)  # of pytest
WALL_CLOCK_FACTOR = (
    3  # so many seconds may pass on the clock for one of computing, on a busy machine or in a sleep
)
NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000  # of Linux


def run(
    folder: Path,
    module: PurePosixPath,
    segments: list[tuple[int, int, int]],
    tests: list[str],
    limits: dict,
    pipe: Connection,
) -> None:
    """Run `tests` of folder/tests with folder/mmscratch, and send what comes of each.

    module    its file, from mmscratch/ on: data/language.py
    segments  (first line in the module, first line in the learner's file, number of lines) of what
              is the learner's
    Sent are ("collected", names), ("passed", name), ("skipped", name) and ("failed", name, dict) for
    each test, and ("ended", what was changed).
    """
    _enclose(folder, limits)
    _set_clocks(folder, limits["seconds"])
    sys.addaudithook(_guard(str(folder) + os.sep))
    recorder = _Recorder(folder / "mmscratch" / module, segments, pipe)
    before = _attributes()
    _run_pytest(folder, tests, recorder)
    recorder.end(before)


def run_versions(
    folder: Path,
    module: str,
    versions: list[dict[str, bytes]],
    tests: list[str],
    limits: dict,
    pipe: Connection,
) -> None:
    """Collect `tests` once, and run them on each version of a module, in a fork for each.

    module    its name, from mmscratch on: data.language
    versions  "function" or "Class.method" -> the code, marshalled, that takes the place of its own
    Sent is for each version what `run` sends, or ("gone", exit status) in the place of "ended".
    """
    _enclose(folder, limits)
    sys.addaudithook(_guard(str(folder) + os.sep, allowed=("os.fork",)))
    recorder = _Recorder(None, [], pipe)
    forks = _Forks(folder, module, versions, limits, recorder)
    _run_pytest(folder, ["--tb=native", *tests], recorder, forks)
    os._exit(0)


def _enclose(folder: Path, limits: dict) -> None:
    """Leave the project for the copy of it, in a group of processes that can be killed as a whole."""
    with contextlib.suppress(AttributeError):  # Windows has none
        os.setsid()
    _limit(limits["bytes"])  # before there is a second thread, that of faulthandler
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != ROOT]
    sys.path[:] = [str(folder), *elsewhere]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def _set_clocks(folder: Path, seconds: float) -> None:
    """End this process after `seconds` of computing, and write to folder/stack where it then was."""
    stack = open(folder / "stack", "w")  # the process ends with it open
    with contextlib.suppress(AttributeError):  # on Windows only the clock counts
        faulthandler.register(signal.SIGPROF, file=stack, chain=True)
        signal.setitimer(
            signal.ITIMER_PROF, seconds
        )  # of computing, whatever else the machine does
    faulthandler.dump_traceback_later(WALL_CLOCK_FACTOR * seconds, exit=True, file=stack)


def _run_pytest(folder: Path, tests: list[str], *plugins) -> None:
    options = ["-q", "--rootdir", str(folder), f"--basetemp={folder / 'temporary'}"]
    options += [f"-pno:{name}" for name in NOT_NEEDED]
    pytest.main([*options, *tests], plugins)


def _send(pipe: Connection, *message) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _limit(most: int) -> None:
    """So many bytes more than now, and no network, where the system lets us."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + most,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)


def _guard(folder: str, allowed: Collection[str] = ()):
    """Forbids other processes, the network, changing files outside the folder, and reading where the
    solution is; but not the events that are allowed."""

    def guard(event: str, args: tuple) -> None:
        if event.startswith(FORBIDDEN) and event not in allowed:
            raise PermissionError(f"{event} is not allowed in an exercise")
        if event == "open" or event in CHANGES:
            writes = event in CHANGES or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            for path in args[: 2 if event in ("os.link", "os.rename", "os.symlink") else 1]:
                path = (
                    folder
                    if isinstance(path, int)
                    else os.path.realpath(os.fsdecode(path)) + os.sep
                )
                if not path.startswith(folder) and (
                    writes and path != os.devnull + os.sep or path.startswith(tuple(HIDDEN))
                ):
                    raise PermissionError(
                        f"{path[:-1]}: an exercise may not {'change' if writes else 'read'} this file"
                    )

    return guard


def _attributes() -> dict[str, object]:
    """What the tests rely on, by name: a learner's code must leave it as it is."""
    return {
        f"{obj.__name__}.{name}": value
        for obj in WATCHED
        for name, value in vars(obj).items()
        if callable(value)
    }


class _Forks:
    """A plugin of pytest that runs what was collected on one version of a module after another.

    With -x, the tests that were the quickest on the first version come first on the others.
    """

    def __init__(
        self, folder: Path, module: str, versions: list[dict], limits: dict, recorder: "_Recorder"
    ):
        self.folder, self.module, self.versions = folder, module, versions
        self.limits, self.recorder = limits, recorder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session) -> bool:
        gc.collect()
        gc.freeze()
        quickest_first = session.config.getoption("maxfail") == 1
        for version in self.versions:
            child = os.fork()
            if child == 0:
                try:
                    self._run(version, session)
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            if status:
                _send(self.recorder.pipe, "gone", os.waitstatus_to_exitcode(status))
            if quickest_first and (self.folder / "seconds").exists():  # how long each test took
                seconds = json.loads((self.folder / "seconds").read_text())
                session.items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
                quickest_first = False
        return True  # pytest's own loop has nothing left to do

    def _run(self, version: dict[str, bytes], session) -> None:
        _set_clocks(self.folder, self.limits["seconds"])
        sys.addaudithook(_guard(str(self.folder) + os.sep))
        before = _attributes()
        module = importlib.import_module(f"mmscratch.{self.module}")
        for part, code in version.items():
            _replace_body(module, part, marshal.loads(code))
        self.recorder.pytest_collection_finish(session)
        seconds = {}
        for item, following in itertools.zip_longest(session.items, session.items[1:]):
            began = time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = time.process_time() - began
            if session.shouldfail:  # at the first failure, after -x
                break
        (self.folder / "seconds").write_text(json.dumps(seconds))
        self.recorder.end(before)


def _replace_body(module: ModuleType, part: str, code: CodeType) -> None:
    """Give a function or method another body, wherever it is known, behind its decorators too."""
    owner, _, name = part.rpartition(".")
    obj = vars(getattr(module, owner) if owner else module)[name]
    obj = getattr(obj, "fget", obj)  # of a property
    while hasattr(obj, "__wrapped__"):
        if hasattr(obj, "cache_clear"):  # what the other body computed
            obj.cache_clear()
        obj = obj.__wrapped__
    obj.__code__ = code


class _Recorder:
    """A plugin of pytest that sends what comes of each test.

    path      the module that is tried; None where the message of a failure is enough
    segments  see `run`
    """

    def __init__(self, path: Path | None, segments: list[tuple[int, int, int]], pipe: Connection):
        self.path, self.segments, self.pipe = path, segments, pipe

    def end(self, before: dict[str, object]) -> None:
        """The last word, and the end of the process."""
        after = _attributes()
        changed = [name for name, value in before.items() if after.get(name) is not value]
        _send(self.pipe, "ended", changed)
        os._exit(0)

    def pytest_collectreport(self, report):
        if report.failed:
            message = getattr(
                getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr)
            )
            _send(
                self.pipe,
                "failed",
                "",
                {"test": "the file can be imported", "message": message.strip()},
            )

    def pytest_collection_finish(self, session):
        _send(self.pipe, "collected", [item.nodeid for item in session.items])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        if report.failed:
            _send(self.pipe, "failed", item.nodeid, self._failure(item, call, report))
        elif report.when == "call" and report.passed:
            _send(self.pipe, "passed", item.nodeid)
        elif report.skipped:
            _send(self.pipe, "skipped", item.nodeid)

    def _failure(self, item, call, report) -> dict:
        """What was expected, in words, where it went wrong, and which shapes were there."""
        name, _, parameters = item.name.partition("[")
        words = name.removeprefix("test_").replace("_", " ") + (
            f" [{parameters}" if parameters else ""
        )
        message = getattr(
            getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr)
        )
        failure = {"test": words, "message": message, "printed": report.capstdout}
        if self.path is None:
            return failure
        for entry in reversed(call.excinfo.traceback):
            path, line = Path(str(entry.path)), entry.lineno + 1
            if path == self.path and "line" not in failure:
                for first, theirs, count in self.segments:
                    if first <= line < first + count:
                        failure |= {
                            "line": theirs + line - first,
                            "shapes": _shapes(entry.frame.f_locals),
                        }
            if path.name.startswith("test_") and "statement" not in failure:
                failure |= {
                    "statement": " ".join(str(entry.statement).split()),
                    "given": _shapes(entry.frame.f_locals),
                }
        return failure


def _shapes(variables: dict) -> str:
    """Of the tensors and numbers among the variables: "query (2, 5, 11), mask (2, 7) bool, state [(5, 11), (5, 11)]"."""
    shown = []
    for name, value in variables.items():
        if name.startswith("@"):  # of pytest
            continue
        if isinstance(value, torch.Tensor):
            kind = (
                "" if value.is_floating_point() else " " + str(value.dtype).removeprefix("torch.")
            )
            shown.append(f"{name} {tuple(value.shape)}{kind}")
        elif isinstance(value, (bool, int, float)):
            shown.append(f"{name} = {value}" if isinstance(value, bool) else f"{name} = {value:g}")
        elif (
            isinstance(value, (tuple, list))
            and value
            and all(isinstance(one, torch.Tensor) for one in value)
        ):
            shown.append(f"{name} {[tuple(one.shape) for one in value]}")
    return ", ".join(shown)
