"""A learner's definitions in the library's place, the library's tests on them, and what is to be said of it."""

import ast
import contextlib
import functools
import importlib
import json
import os
import re
import shutil
import signal
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from ..chapter import ROOT
from .exercises import Exercise, Wrong

LIBRARY = ROOT / "mmscratch"
MOST_BYTES = 1 << 20  # of a learner's file
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}  # of all tests: sets are shown in the same order
STARTING, PARSING = threading.Lock(), threading.Lock()
LIMITS = {"seconds": 30, "bytes": 4 << 30}  # of one exercise: computing, and memory


# ---------------------------------------------------------------------------------------------------------------------
# A learner's definition in the library's place.

MODULES = set(
    "__future__ abc bisect collections contextlib copy dataclasses enum functools heapq itertools math numbers numpy "
    "random re statistics string torch typing unicodedata warnings".split()
)
BUILT_IN = set(
    "breakpoint compile delattr eval exec exit getattr globals input locals open quit setattr vars __import__".split()
)
READY_MADE = set(  # what is to be written here is not to be had from torch
    "LSTM LSTMCell GRU RNN MultiheadAttention Transformer TransformerEncoder TransformerDecoder TransformerEncoderLayer "
    "TransformerDecoderLayer multi_head_attention_forward scaled_dot_product_attention conv2d convolution conv3d lstm "
    "lstm_cell cross_entropy CrossEntropyLoss nll_loss NLLLoss".split()
)
WAYS_OUT = set(
    "builtins chapters cpp_extension cr_frame ctypes ctypeslib f_back f_builtins f_globals f_locals f2py gc gi_frame hub "
    "importlib inspect io jit load multiprocessing ops os pathlib pickle pytest save serialization shutil socket subprocess "
    "sys tb_frame tb_next tempfile tests threading traceback".split()
)
OWN_NAMES = set("__init__ __name__ __class__ __len__ __iter__ __next__ __getitem__ __call__ __enter__ __exit__ __doc__".split())


class NotStarted(Exception):
    """The exercise's part is missing, or is still the stub."""


class Refused(Exception):
    """A learner's code asks for what no exercise needs."""


class Spliced(NamedTuple):
    """The library's module with a learner's parts in it, and which of its lines are theirs (see `trial.run`)."""

    text: str
    segments: list[tuple[int, int, int]]


def parse(text: str) -> ast.Module:
    """ast.parse, one at a time: in Python 3.11 several threads at once disturb each other (SystemError)."""
    with PARSING:
        return ast.parse(text)


def library(module: str) -> str:
    """The text of a module of mmscratch."""
    return (LIBRARY / f"{module}.py").read_text(encoding="utf-8")


def definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Where each "function", "Class" and "Class.method" is defined."""
    found = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{inner.name}": inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def lines_in(text: str) -> list[str]:
    """As Python counts them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def lines_of(node: ast.stmt) -> tuple[int, int]:
    """(first line, counted from 0, line behind the last); decorators belong to it."""
    decorators = [decorator.lineno for decorator in getattr(node, "decorator_list", [])]
    return min([node.lineno, *decorators]) - 1, node.end_lineno


def excerpt(text: str, node: ast.stmt) -> str:
    """The lines of one definition."""
    return "\n".join(lines_in(text)[slice(*lines_of(node))])


def is_stub(node: ast.stmt) -> bool:
    """Does the function do nothing but to raise NotImplementedError?"""
    body = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    raised = [one for one in body if isinstance(one, ast.Raise) and "NotImplementedError" in ast.unparse(one)]
    return all(isinstance(one, ast.Pass) or one in raised for one in body)


def splice(exercise: Exercise, theirs: str) -> Spliced:
    """The library's module, in which the parts of the exercise, and what else the learner added, are theirs.

    All other pieces stay the library's, those of other exercises too. Nothing else of the learner's file runs.
    Raises SyntaxError, NotStarted, or Refused for code that could reach out of its exercise.
    """
    ours = library(exercise.module)
    our_tree, their_tree = parse(ours), parse(theirs)
    known, found = definitions(our_tree), definitions(their_tree)
    missing = [part for part in exercise.parts if part not in found or is_stub(found[part])]
    if len(missing) == len(exercise.parts):
        raise NotStarted(exercise.name)
    if missing:
        raise Refused(f"{', '.join(missing)}: still to be written, and a part of this exercise")
    lines, their_lines = lines_in(ours), lines_in(theirs)
    replaced, taken = {}, [found[part] for part in exercise.parts]  # line of ours -> (line behind, [(indentation, node)])
    for part in exercise.parts:
        start, end = lines_of(known[part])
        replaced[start] = end, [(known[part].col_offset, found[part])]
    owners = {part.partition(".")[0] for part in exercise.parts}
    anchor = min(lines_of(known[owner])[0] for owner in owners)  # before it stands what the learner added to the file
    for name, node in found.items():
        owner, _, method = name.partition(".")
        if method and owner in owners and name not in known:
            first = min(lines_of(known[part])[0] for part in exercise.parts if part.startswith(f"{owner}."))
            replaced[first] = replaced[first][0], [(known[owner].col_offset + 4, node), *replaced[first][1]]
            taken.append(node)
    added = [(0, node) for node in _added(our_tree, their_tree, known, taken)]
    taken += [node for _, node in added]
    _refuse(taken, [known[part] for part in exercise.parts], our_tree)
    end, nodes = replaced.get(anchor, (anchor, []))
    replaced[anchor] = end, [*added, *nodes]
    text, segments, i = [], [], 0
    while i <= len(lines):
        end, nodes = replaced.get(i, (i, []))
        for indentation, node in nodes:
            first, last = lines_of(node)
            segments.append((len(text) + 1, first + 1, last - first))
            block = their_lines[first:last]
            if node.col_offset != indentation:
                block = textwrap.indent(textwrap.dedent("\n".join(block)), " " * indentation).split("\n")
            text += block
        if end == i:
            text += lines[i : i + 1]
            end = i + 1
        i = end
    return Spliced("\n".join(text), segments)


def _added(our_tree: ast.Module, their_tree: ast.Module, known: dict, taken: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What the learner wrote beside the library's definitions: imports, functions, classes and constants.

    What may not be imported, and `*`, is left out, and refused only where the code that is taken uses it.
    """
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    beside = [node for node in their_tree.body if isinstance(node, kinds) and getattr(node, "name", "") not in known]
    used = {node.id for one in [*taken, *beside] for node in ast.walk(one) if isinstance(node, ast.Name)}
    imported = {ast.unparse(node) for node in our_tree.body if isinstance(node, (ast.Import, ast.ImportFrom))}
    assigned = {
        ast.unparse(t) for node in our_tree.body if isinstance(node, (ast.Assign, ast.AnnAssign)) for t in _targets(node)
    }
    modules = {name for node in our_tree.body for name in _imports(node)}
    for node in their_tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and ast.unparse(node) not in imported:
            allowed = MODULES | modules | {"mmscratch"}
            strange = [name for name in _imports(node) if not {name, name.partition(".")[0]} & allowed]
            if not strange and all(alias.name != "*" for alias in node.names):
                yield node
            elif used & {alias.asname or alias.name.partition(".")[0] for alias in node.names}:
                raise Refused(f"line {node.lineno}: imports {strange[0]}, which this exercise does not need")
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name not in known:
            yield node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and not {ast.unparse(t) for t in _targets(node)} & assigned:
            if all(isinstance(target, (ast.Name, ast.Tuple)) for target in _targets(node)):
                yield node


def _targets(node: ast.stmt) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _imports(node: ast.stmt) -> list[str]:
    """The modules that a statement imports; those of the library, relative, as "mmscratch"."""
    if isinstance(node, ast.ImportFrom):
        return ["mmscratch"] if node.level else [node.module]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _refuse(taken: list[ast.stmt], ours: list[ast.stmt], our_tree: ast.Module) -> None:
    """Raise Refused for a name that could reach out of the exercise, unless the library's version uses it as well."""
    needed = {getattr(node, "id", getattr(node, "attr", None)) for one in ours for node in ast.walk(one)}
    nodes = [node for one in taken for node in ast.walk(one)]
    imported = {alias.asname or alias.name.partition(".")[0] for node in [*our_tree.body, *nodes]
                if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}  # fmt: skip
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        line = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [*_imports(node), *(alias.name for alias in node.names)]
            strange = [name for name in names if set(name.split(".")) & ((WAYS_OUT | READY_MADE) - needed)]
            if node not in taken:
                strange += [name for name in _imports(node) if name.partition(".")[0] not in MODULES | {"mmscratch"}]
            if strange:
                raise Refused(f"{line}: imports {strange[0]}, which this exercise does not need")
        elif isinstance(node, ast.Name) and node.id not in needed:
            if node.id in BUILT_IN - own or node.id in WAYS_OUT & imported:
                raise Refused(f"{line}: {node.id} is not allowed here: this exercise can do without")
        elif isinstance(node, ast.Attribute):
            hidden = node.attr.startswith("__") and node.attr not in OWN_NAMES
            if (hidden or node.attr in WAYS_OUT | READY_MADE) and node.attr not in needed:
                raise Refused(f"{line}: .{node.attr} is not allowed here: this exercise can do without")
            root = node.value
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            if not isinstance(node.ctx, ast.Load) and isinstance(root, ast.Name) and root.id in imported:
                raise Refused(f"{line}: changes {ast.unparse(node)}, which is not its own")


def wrong_version(exercise: Exercise, wrong: Wrong) -> str:
    """The library's module with this mistake in it; raises ValueError where its text is not found just once."""
    text = library(exercise.module)
    known, lines = definitions(parse(text)), [f"{line}\n" for line in lines_in(text)]
    places = sorted((lines_of(known[part]) for part in exercise.parts), reverse=True)
    pieces = {(start, end): "".join(lines[start:end]) for start, end in places}
    for old, new in ((wrong.old, wrong.new), *wrong.more):
        at = [place for place, piece in pieces.items() for _ in range(piece.count(old))]
        if len(at) != 1:
            raise ValueError(f"{exercise.name}: {old!r} occurs {len(at)} times in its parts, and not once")
        pieces[at[0]] = pieces[at[0]].replace(old, new)
    for (start, end), piece in pieces.items():  # from the end, so that the places stay right
        lines[start:end] = [piece]
    return "".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
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


def _enter(*arguments) -> None:
    """The first thing that the process does; what it imports here is large, and the fork server has it already."""
    importlib.import_module("chapters.assignments.trial").run(*arguments)


def processes():
    """How processes start: from a server that has imported what is large, where the system can."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["chapters.assignments.trial"])
    return context


def attempt(exercise: Exercise, spliced: Spliced, limits: dict = LIMITS, options: Sequence[str] = ()) -> Outcome:
    """Run the exercise's tests on a module in a copy of the library, in a process with limits of time and memory.

    `options` are pytest's.
    """
    context = processes()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve()
        file = exercise.test_file or f"test_{exercise.module}.py"
        shutil.copytree(LIBRARY, copy / "mmscratch", ignore=shutil.ignore_patterns(f"{exercise.module}.*"))
        (copy / "mmscratch" / f"{exercise.module}.py").write_text(spliced.text, encoding="utf-8")
        (copy / "tests" / "__pycache__").mkdir(parents=True)
        for path in (path for name in (file, "conftest.py", "helpers.py") for path in (ROOT / "tests").rglob(f"{name[:-3]}.*")):
            shutil.copy2(path, copy / path.relative_to(ROOT))  # with what is compiled already
        tests = [*options, *(f"tests/{file}::{name}" for name in exercise.tests.split())]
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_enter, args=(copy, exercise.module, spliced.segments, tests, limits, sender), daemon=True
        )
        with STARTING, patch.dict(os.environ, ENVIRONMENT):
            process.start()
        sender.close()
        try:
            return _received(receiver, process, time.monotonic() + 4 * limits["seconds"], copy, spliced, exercise)
        finally:
            with contextlib.suppress(OSError, AttributeError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()


def _received(receiver, process, deadline: float, copy: Path, spliced: Spliced, exercise: Exercise) -> Outcome:
    """What the process sends until it ends, or until its time is over."""
    collected, passed, failed, ended = [], set(), {}, None
    with contextlib.suppress(EOFError, OSError, ValueError):
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            kind, *rest = json.loads(receiver.recv_bytes())  # no pickle: who sends it is not trusted
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
    passed -= set(failed)
    if ended is None:
        stack = (copy / "stack").read_text() if (copy / "stack").exists() else ""
        if stack or time.monotonic() > deadline:
            at = [int(n) for n in re.findall(rf'mmscratch/{exercise.module}\.py", line (\d+)', stack)]
            place = next((f" in line {theirs + line - first}" for line in at for first, theirs, count in spliced.segments
                          if first <= line < first + count), "")  # fmt: skip
            ended = f"it was still running{place} when its time was over; does every loop come to an end?"
        else:
            process.join(5)
            ended = f"the process ended before its tests had (exit status {process.exitcode})"
    elif ended:
        ended = f"it changed {', '.join(ended[:3])}, on which the tests rely"
    elif not failed and (set(collected) != passed or not passed):
        ended = "not all of its tests ran, or none could"
    return Outcome(collected, passed, failed, ended or "")


# ---------------------------------------------------------------------------------------------------------------------
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
        return Verdict(exercise, "failed", f"line {error.lineno} is not Python: {error.msg}" + (f": {line}" if line else ""))
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
    return tuple((wrong, attempt(exercise, splice(exercise, wrong_version(exercise, wrong)))) for wrong in exercise.wrong)


def hint(exercise: Exercise, outcome: Outcome) -> str:
    """That of the wrong version which fails as this one does: in the same words and numbers, or else in the same tests."""

    def messages(outcome: Outcome) -> dict[str, str]:
        """Numbers are rounded: the same mistake may be computed in another order."""
        found = {name: failure["message"] for name, failure in outcome.failed.items()}
        found |= {"": re.sub(r" in line \d+", "", outcome.ended)} if outcome.ended else {}
        found = {name: re.sub(r" at 0x[0-9a-f]+", "", text) for name, text in found.items()}
        return {
            name: re.sub(r"\d+\.\d+(e[-+]\d+)?", lambda number: f"{float(number[0]):.3g}", text) for name, text in found.items()
        }

    def likeness(wrong: Outcome) -> tuple[float, float]:
        """The share of failures that are the same, and that of tests that fail in both."""
        theirs, same = messages(wrong), messages(outcome)
        both = len(same.keys() | theirs.keys())
        return len(same.items() & theirs.items()) / both, len(same.keys() & theirs.keys()) / both

    found = [(likeness(of_wrong), wrong.hint) for wrong, of_wrong in wrong_outcomes(exercise)]
    (same, as_many), best = max(found)
    raised = any("line" in failure for failure in outcome.failed.values())  # an error in their own lines speaks for itself
    if same == 0 and (as_many < 0.8 or raised or [likeness for likeness, _ in found].count((same, as_many)) > 1):
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
            yield f"in line {first['line']}{file and ' of ' + file}" + (f", where {first['shapes']}" if first["shapes"] else "")
        elif "statement" in first:
            yield f"which asks: {first['statement']}"
            if first["given"]:
                yield f"    with {first['given']}"
        printed = first.get("printed", "").strip().splitlines()
        yield from (f"    it printed: {line}" for line in printed[:5])
    if verdict.hint:
        yield verdict.hint
