"""Runs the library's tests on a learner's code, inside a process of its own.

`chapters.assignments.verdicts` starts the process. A fork server imports this file beforehand, so
that processes start quickly; that is why the large packages are imported here. Nothing of mmscratch
is: each process imports it with the learner's code.
"""

import contextlib
import faulthandler
import functools
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
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
    NoneType,
)

import numpy
import pytest
import torch
import torch.nn.functional as F
import torch.utils.data

from .differences import describe, show_small
from .enclosure import CLONE, enter

SLOW = (  # to import, and needed by some tests only
    "PIL.Image",
    "hypothesis",
    "matplotlib.figure",
    "sacrebleu",
    "sklearn.metrics",
    "torch.utils.flop_counter",
    "torchvision.transforms.v2",
    "transformers",
)
PRELOAD = os.environ.get("MMSCRATCH_PRELOAD", "all").split()
for name in SLOW:
    if "all" in PRELOAD or name.partition(".")[0] in PRELOAD:
        with contextlib.suppress(Exception):  # it may be missing or broken
            __import__(name)
with contextlib.suppress(ImportError):  # the parts of pytest, which it would import when it starts
    from _pytest.config import default_plugins

    for name in default_plugins:
        __import__(f"_pytest.{name}")
with contextlib.suppress(AssertionError):  # to write its message it imports sympy, half a second
    torch.testing.assert_close(torch.ones(1), torch.zeros(1))
gc.freeze()  # the garbage collector of a process need not scan these objects

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = ("mmscratch", "chapters", "tests", ".git")  # where a learner could read them
PACKAGES = str(Path(torch.__file__).parents[1]) + os.sep  # where packages are installed
HIDDEN = tuple(str(ROOT / name) + os.sep for name in SOLUTIONS)
FORBIDDEN = (
    "os.exec",
    "os.fork",
    "os.kill",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "subprocess.",
    "socket.",
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
)
WATCHED_INSIDE = (  # modules whose classes are watched as well
    "torch.testing._comparison",
    type(pytest.approx(1.0)).__module__,
    getattr(pytest.raises, "__module__", ""),
    "_pytest.runner",
    "_pytest.python",
    "_pytest.outcomes",
    "_pytest.reports",
    "_pytest.assertion.util",
    "numpy.testing._private.utils",
)
# of builtins, but not to be found there
HIDDEN_TYPES = (NoneType, FunctionType, MethodType, BuiltinFunctionType, GeneratorType)
MAX_INNER = 200  # values of a list whose types are looked at
MAX_DEPTH = 5
NOT_NEEDED = (  # plugins of pytest
    "cacheprovider",
    "doctest",
    "faulthandler",
    "junitxml",
    "threadexception",
    "unraisableexception",
)
MAX_TEXT = 4000  # characters of a message, and of what was printed
MAX_FILE = 64 << 20  # bytes of a file, such as that with the output
# seconds on the clock for one of computing: machines are busy, code may sleep
WALL_CLOCK_FACTOR = 3


def run(
    folder: Path,
    module: PurePosixPath,
    segments: list[tuple[int, int, int]],
    known: tuple[list[str], list[str]],
    tests: list[str],
    limits: dict,
    pipe: Connection,
) -> None:
    """Run tests of folder/tests on folder/mmscratch, and send the results.

    module    its path relative to mmscratch: data/language.py
    segments  the learner's lines: (first line in the module, first line in their file, count)
    known     the parts of the exercise, and all definitions of the library's module
    tests     arguments of pytest
    limits    "seconds" of computing and "bytes" of memory
    pipe      where the results go: ("room", whether it is shut in), ("collected", names), then for each test ("passed", name),
              ("skipped", name) or ("failed", name, dict), and ("ended", names that were changed)
    """
    _enclose(folder, limits)
    _send(pipe, "room", enter(folder, [ROOT / name for name in SOLUTIONS]) or _leave_the_network())
    _set_clocks(folder, limits["seconds"])
    sys.addaudithook(_guard(str(folder) + os.sep))
    recorder = _Recorder(folder / "mmscratch" / module, segments, pipe)
    _check_results(".".join(module.with_suffix("").parts), *known)
    _run_pytest(folder, tests, recorder)
    recorder.end(recorder.changed or recorder.judge.changes())


def run_versions(
    folder: Path,
    module: str,
    versions: list[dict[str, bytes]],
    tests: list[str],
    limits: dict,
    pipe: Connection,
) -> None:
    """Collect the tests once, and run them on each version of a module, in a fork for each.

    module    its name: data.language
    versions  {"function" or "Class.method": the marshalled code that replaces it}
    Sends for each version what `run` sends, or ("gone", exit status) instead of "ended".
    """
    _enclose(folder, limits)
    sys.addaudithook(_guard(str(folder) + os.sep, allowed=("os.fork",)))
    recorder = _Recorder(None, [], pipe)
    forks = _Forks(folder, module, versions, limits, recorder)
    _run_pytest(folder, ["--tb=native", *tests], recorder, forks)
    os._exit(0)


def _enclose(folder: Path, limits: dict) -> None:
    """Move into the copy of the project, in a process group that can be killed as one."""
    with contextlib.suppress(AttributeError):  # Windows has none
        os.setsid()
    _limit(limits["bytes"])  # before faulthandler starts a second thread
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != ROOT]
    sys.path[:] = [str(folder), *elsewhere]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    tempfile.tempdir = str(folder)
    os.environ["TMPDIR"] = str(folder)


def _set_clocks(folder: Path, seconds: float) -> None:
    """End this process after `seconds` of computing, and write its stack to folder/stack."""
    stack = open(folder / "stack", "w")  # never closed: the process ends first
    with contextlib.suppress(AttributeError):  # on Windows only the clock counts
        faulthandler.register(signal.SIGPROF, file=stack, chain=True)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # counts computing time only
    faulthandler.dump_traceback_later(WALL_CLOCK_FACTOR * seconds, exit=True, file=stack)


def _run_pytest(folder: Path, tests: list[str], *plugins) -> None:
    options = ["-q", "--rootdir", str(folder), f"--basetemp={folder / 'temporary'}"]
    options += [f"-pno:{name}" for name in NOT_NEEDED]
    pytest.main([*options, *tests], plugins)


def _send(pipe: Connection, *message) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _limit(max_bytes: int) -> None:
    """Allow this much more memory than now, if the system supports it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize() + max_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))


def _leave_the_network() -> bool:
    """Where there is no room, at least have no network, if the system allows that. Returns False."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).unshare(CLONE["user"] | CLONE["net"])
    return False


def _guard(folder: str, allowed: Collection[str] = ()):
    """An audit hook that forbids processes, the network, and files outside of the folder.

    Outside, files may be read but not changed, and solutions may not be read. Events in `allowed`
    are allowed.
    """
    null_device = os.devnull + os.sep

    def check_path(path: str | int, writes: bool) -> None:
        if isinstance(path, int):  # an open file, whose path was checked
            return
        path = os.path.realpath(os.fsdecode(path)) + os.sep
        if path.startswith(folder):
            return
        if writes and path != null_device:
            raise PermissionError(f"{path[:-1]}: an exercise may not change this file")
        if path.startswith(HIDDEN):
            verb = "change" if writes else "read"
            raise PermissionError(f"{path[:-1]}: an exercise may not {verb} this file")

    def guard(event: str, args: tuple) -> None:
        if event.startswith(FORBIDDEN) and event not in allowed:
            raise PermissionError(f"{event} is not allowed in an exercise")
        if event == "open":
            flags = args[2] or 0
            check_path(args[0], bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
        elif event in CHANGES:
            paths = args[:2] if event in ("os.link", "os.rename", "os.symlink") else args[:1]
            for path in paths:
                check_path(path, writes=True)

    return guard


class Judge:
    """Whether the tests can still tell right from wrong: tested while they run.

    All that it uses is from before the learner's code was loaded.
    """

    def __init__(self):
        self.one = torch.tensor([1.0])
        self.two = torch.tensor([2.0])
        self.assert_close = torch.testing.assert_close
        self.approx = pytest.approx
        self.raises = pytest.raises
        self.state = self._state()
        self.attributes = _attributes()
        self.classes = {obj.__name__ for obj in _watched_classes()}

    def faults(self) -> list[str]:
        """What is wrong with the comparisons, or has been left on."""
        faults = []
        try:
            for name, is_equal in self._comparisons().items():
                if is_equal(self.one, self.two) or not is_equal(self.one, self.one.clone()):
                    faults.append(name)
        except Exception as error:
            faults.append(f"a comparison, which raises {type(error).__name__}")
        state = self._state()
        faults += [name for name, value in self.state.items() if state[name] != value]
        return faults

    def changes(self) -> list[str]:
        """The functions that the tests rely on and that have been changed: they, or their code."""
        after = _attributes()
        before = self.attributes
        names = [name for name in before if after.get(name) != before[name]]
        added = [name for name in after if name not in before]  # they may hide an inherited one
        for name in added:
            code = next(iter(after[name][1]), None)
            of_a_package = code is not None and PACKAGES in code.co_filename  # as transformers does
            if name.partition(".")[0] in self.classes and not of_a_package:
                names.append(name)
        return names + self.faults()

    def _comparisons(self) -> dict:
        """Ways of comparing tensors: (a, b) -> whether they are equal."""
        return {
            "assert_close": self._close,
            "torch.equal": torch.equal,
            "torch.allclose": torch.allclose,
            "==": lambda a, b: bool((a == b).all()),
            "tolist": lambda a, b: a.tolist() == b.tolist(),
            "approx": lambda a, b: a.item() == self.approx(b.item()),
            "isclose": lambda a, b: math.isclose(a.item(), b.item()),
            "numpy": lambda a, b: numpy.array_equal(a.numpy(), b.numpy()),
            "pytest.raises": self._raises,
        }

    def _close(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        try:
            self.assert_close(a, b)
        except AssertionError:
            return False
        return True

    def _raises(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        """Whether pytest.raises notices that an error was raised, if a equals b, and if not."""
        try:
            with self.raises(ValueError):
                if torch.equal(a, b):
                    raise ValueError("known")
        except BaseException as error:
            return type(error).__name__ != "Failed"
        return True

    @staticmethod
    def _state() -> dict[str, object]:
        """What code can leave switched on, and would change what the tests see."""
        hooks = [
            value for name, value in vars(torch.nn.modules.module).items() if "_global_" in name
        ]
        return {
            "the stack of function modes": torch._C._len_torch_function_stack(),
            "the stack of dispatch modes": torch._C._len_torch_dispatch_stack(),
            "the default device": str(torch.get_default_device()),
            "the default dtype": torch.get_default_dtype(),
            "whether gradients are computed": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "hooks of all modules": [len(hook) for hook in hooks if isinstance(hook, dict)],
            "the trace function": sys.gettrace(),
            "the profile function": sys.getprofile(),
        }


def _attributes() -> dict[str, object]:
    """The functions that the tests rely on, with their code, by name."""
    found = {}
    watched = [*WATCHED, *_watched_classes()]
    for obj in [*watched, *(sys.modules[name] for name in WATCHED_INSIDE if name in sys.modules)]:
        for name, value in list(vars(obj).items()):
            key = f"{obj.__name__}.{name}"
            if callable(value):
                found[key] = id(value), _code_of(value)
            is_its_own = getattr(value, "__module__", "") == obj.__name__ in WATCHED_INSIDE
            if isinstance(value, type) and is_its_own:
                for inner, method in vars(value).items():
                    if callable(method):
                        found[f"{key}.{inner}"] = id(method), _code_of(method)
    return found


def _watched_classes() -> list[type]:
    """The classes of torch that tests compare with, whose methods are watched."""
    layers = [kind for kind in vars(torch.nn).values() if isinstance(kind, type)]
    return [torch.Tensor, *layers]


def _code_of(function) -> tuple:
    """What a Python function does: its code and its defaults."""
    code = getattr(function, "__code__", None)
    defaults = getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)
    return (code, *map(repr, defaults)) if code is not None else ()


def _check_results(module_name: str, parts: list[str], known: list[str]) -> None:
    """Let each part of the exercise raise an AssertionError unless what it returns is plain.

    An object that is equal to everything would pass every test. If the module cannot be imported,
    the tests will say so.
    """
    try:
        module = importlib.import_module(f"mmscratch.{module_name}")
    except BaseException:
        return
    for part in parts:
        owner_name, _, name = part.rpartition(".")
        owner = getattr(module, owner_name, None) if owner_name else module
        found = vars(owner).get(name) if owner is not None else None
        is_function = isinstance(found, FunctionType)
        if isinstance(found, (staticmethod, classmethod)):
            setattr(owner, name, type(found)(_checked(found.__func__, module, known)))
        elif is_function:
            setattr(owner, name, _checked(found, module, known))


def _checked(function, module: ModuleType, known: list[str]):
    @functools.wraps(function)
    def call(*args, **options):
        result = function(*args, **options)
        strange = _strange_type(result, module, known)
        if strange is not None:
            raise AssertionError(
                f"{function.__name__} returns {strange.__name__!r:.50}, a type of its own: "
                "return tensors, numbers, strings, lists, tuples, dicts or the library's types"
            )
        return result

    return call


def _strange_type(value, module: ModuleType, known: list[str], depth: int = 0) -> type | None:
    """A type in a value that neither Python, nor a package, nor the library has defined."""
    kind = type(value)
    home = sys.modules.get(kind.__module__)
    found = home
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    is_learners = home is module and kind.__qualname__.partition(".")[0] not in known
    if kind.__module__ == "builtins":
        if found is not kind and not isinstance(value, HIDDEN_TYPES):
            return kind
    elif found is not kind or is_learners:
        return kind
    inner = []
    if isinstance(value, (list, tuple, set, frozenset)):
        inner = list(value)[:MAX_INNER]
    elif isinstance(value, dict):
        inner = [*list(value)[:MAX_INNER], *list(value.values())[:MAX_INNER]]
    if depth < MAX_DEPTH:
        for one in inner:
            strange = _strange_type(one, module, known, depth + 1)
            if strange is not None:
                return strange
    return None


class _Forks:
    """A plugin of pytest that runs the collected tests on one version of a module after another.

    With -x, the tests that were fastest on the first version run first on the others.
    """

    def __init__(
        self, folder: Path, module: str, versions: list[dict], limits: dict, recorder: "_Recorder"
    ):
        self.folder = folder
        self.module = module
        self.versions = versions
        self.limits = limits
        self.recorder = recorder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session) -> bool:
        gc.collect()
        gc.freeze()
        fastest_first = session.config.getoption("maxfail") == 1
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
            if fastest_first and (self.folder / "seconds").exists():  # of each test
                seconds = json.loads((self.folder / "seconds").read_text())
                session.items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
                fastest_first = False
        return True  # so that pytest does not run them again

    def _run(self, version: dict[str, bytes], session) -> None:
        _set_clocks(self.folder, self.limits["seconds"])
        sys.addaudithook(_guard(str(self.folder) + os.sep))
        module = importlib.import_module(f"mmscratch.{self.module}")
        for part, code in version.items():
            _replace_body(module, part, marshal.loads(code))
        self.recorder.pytest_collection_finish(session)
        seconds = {}
        for item, following in itertools.zip_longest(session.items, session.items[1:]):
            began = time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = time.process_time() - began
            if session.shouldfail:  # with -x, after the first failure
                break
        (self.folder / "seconds").write_text(json.dumps(seconds))
        self.recorder.end(self.recorder.changed)  # our own version changes nothing on purpose


def _replace_body(module: ModuleType, part: str, code: CodeType) -> None:
    """Give a function or method another body, under its decorators too."""
    owner, _, name = part.rpartition(".")
    obj = vars(getattr(module, owner) if owner else module)[name]
    obj = getattr(obj, "fget", obj)  # of a property
    while hasattr(obj, "__wrapped__"):
        if hasattr(obj, "cache_clear"):  # results of the other body
            obj.cache_clear()
        obj = obj.__wrapped__
    obj.__code__ = code


class _Recorder:
    """A plugin of pytest that sends the result of each test.

    path      the module under test; None if the message of a failure is enough
    segments  see `run`
    """

    def __init__(self, path: Path | None, segments: list[tuple[int, int, int]], pipe: Connection):
        self.path = path
        self.segments = segments
        self.pipe = pipe
        self.compared = None  # (actual, expected) of the last comparison that failed
        self._watch_comparisons()
        self.judge = Judge()
        self.changed = []

    def _watch_comparisons(self) -> None:
        """Remember what `assert_close` has compared, if it fails."""
        original = torch.testing.assert_close

        @functools.wraps(original)
        def assert_close(*args, **options):
            __tracebackhide__ = True
            try:
                original(*args, **options)
            except AssertionError:
                self.compared = args[:2]
                raise

        torch.testing.assert_close = assert_close

    def end(self, changed: list[str]) -> None:
        """Send the last message, with what was changed, and end the process."""
        _send(self.pipe, "ended", changed)
        os._exit(0)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self):
        self.compared = None
        self.changed += self.judge.faults()
        yield
        self.changed += self.judge.faults()

    def pytest_collectreport(self, report):
        if report.failed:
            message = _message(report).strip()[:MAX_TEXT]
            failure = {"test": "the file can be imported", "message": message}
            _send(self.pipe, "failed", "", failure)

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
        """The failed expectation in words, the line that failed, and the shapes there."""
        name, _, parameters = item.name.partition("[")
        test = name.removeprefix("test_").replace("_", " ")
        if parameters:
            test += f" [{parameters}"
        message = _message(report)[:MAX_TEXT]
        failure = {"test": test[:MAX_TEXT], "message": message}
        failure["printed"] = report.capstdout[:MAX_TEXT]
        if self.path is None:
            return failure
        for entry in reversed(call.excinfo.traceback):
            path = Path(str(entry.path))
            variables = entry.frame.f_locals
            if path == self.path and "line" not in failure:
                line = self._learners_line(entry.lineno + 1)
                if line:
                    failure |= {"line": line, "shapes": _shapes(variables)[:MAX_TEXT]}
            if path.name.startswith("test_") and "statement" not in failure:
                statement = " ".join(str(entry.statement).split())
                given = _shapes(variables)[:MAX_TEXT]
                failure |= {"statement": statement[:MAX_TEXT], "given": given}
                failure["difference"] = self._difference(variables)[:MAX_TEXT]
        return failure

    def _difference(self, variables: dict) -> str:
        """How the result differs from what the test expected, if there is something plain to say."""
        compared = self.compared or (variables.get("got"), variables.get("expected"))
        if len(compared) < 2:
            return ""
        masks = {}
        for name, value in variables.items():
            if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
                masks[name] = value
        with contextlib.suppress(Exception):  # nothing depends on it
            return describe(*compared, masks)
        return ""

    def _learners_line(self, line: int) -> int | None:
        """The line in the learner's file of a line in the module; None if it is not theirs."""
        for first, theirs, count in self.segments:
            if first <= line < first + count:
                return theirs + line - first
        return None


def _message(report) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return getattr(crash, "message", str(report.longrepr))


def _shapes(variables: dict) -> str:
    """The tensors and numbers in words: "query (2, 5, 11), mask (2, 7) bool, state [(5, 11), (5, 11)]"."""
    shown = []
    for name, value in variables.items():
        if name.startswith("@"):  # of pytest
            continue
        is_list = isinstance(value, (tuple, list)) and len(value) > 0
        if isinstance(value, torch.Tensor):
            dtype = "" if value.is_floating_point() else f" {value.dtype}".replace("torch.", "")
            numbers = f" {show_small(value)}".rstrip()
            shown.append(f"{name} {tuple(value.shape)}{dtype}{numbers}")
        elif isinstance(value, bool):
            shown.append(f"{name} = {value}")
        elif isinstance(value, (int, float)):
            shown.append(f"{name} = {value:g}")
        elif is_list and all(isinstance(x, torch.Tensor) for x in value):
            shown.append(f"{name} {[tuple(x.shape) for x in value]}")
    return ", ".join(shown)
