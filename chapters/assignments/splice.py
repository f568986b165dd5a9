"""Puts a learner's definitions into the library's module, in the place of the library's own."""

import ast
import functools
import textwrap
import threading
from collections.abc import Iterator
from types import CodeType
from typing import NamedTuple

from ..chapter import ROOT
from .exercises import Exercise, Wrong, path_of

LIBRARY = ROOT / "mmscratch"
PARSING = threading.Lock()
IMPORTS = (ast.Import, ast.ImportFrom)
ASSIGNMENTS = (ast.Assign, ast.AnnAssign)

MODULES = set(  # which a learner may import
    "__future__ abc bisect collections contextlib copy dataclasses enum functools heapq itertools "
    "math numbers numpy random re statistics string torch typing unicodedata warnings".split()
)
BUILT_IN = set(  # functions that no exercise needs
    "breakpoint compile delattr eval exec exit getattr globals input locals open quit setattr vars "
    "__import__".split()
)
READY_MADE = set(  # torch's own versions of pieces that are written here
    "LSTM LSTMCell GRU RNN MultiheadAttention Transformer TransformerEncoder TransformerDecoder "
    "TransformerEncoderLayer TransformerDecoderLayer multi_head_attention_forward "
    "scaled_dot_product_attention conv2d convolution conv3d lstm lstm_cell cross_entropy "
    "CrossEntropyLoss nll_loss NLLLoss".split()
)
WAYS_OUT = set(  # names through which code could reach out of its exercise
    "builtins chapters cpp_extension cr_frame ctypes ctypeslib f_back f_builtins f_globals f_locals "
    "f2py gc gi_frame hub importlib inspect io jit load multiprocessing ops os pathlib pickle pytest "
    "save serialization shutil socket subprocess sys tb_frame tb_next tempfile tests threading "
    "traceback".split()
)
OWN_NAMES = set(  # the names with underscores that are allowed
    "__init__ __name__ __class__ __len__ __iter__ __next__ __getitem__ __call__ __enter__ __exit__ "
    "__doc__".split()
)


class NotStarted(Exception):
    """The exercise's part is missing, or still the stub."""


class Refused(Exception):
    """The learner's code uses something that no exercise needs."""


class Spliced(NamedTuple):
    """The library's module with a learner's parts, and which of its lines are theirs."""

    text: str
    segments: list[tuple[int, int, int]]  # see `trial.run`


def parse(text: str) -> ast.Module:
    """ast.parse in one thread at a time: in Python 3.11 several raise SystemError."""
    with PARSING:
        return ast.parse(text)


def library(module: str) -> str:
    """The text of a module of mmscratch."""
    return (LIBRARY / path_of(module)).read_text(encoding="utf-8")


@functools.cache
def library_tree(module: str) -> ast.Module:
    """The syntax tree of a module of mmscratch. Do not change it: it is cached."""
    return parse(library(module))


def definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """The definition of each "function", "Class" and "Class.method"."""
    found = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    found[f"{node.name}.{inner.name}"] = inner
    return found


def lines_in(text: str) -> list[str]:
    """The lines of a text as Python counts them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def lines_of(node: ast.stmt) -> tuple[int, int]:
    """The slice of lines of a definition, with its decorators: (start, end), counted from 0."""
    decorators = [decorator.lineno for decorator in getattr(node, "decorator_list", [])]
    return min([node.lineno, *decorators]) - 1, node.end_lineno


def excerpt(text: str, node: ast.stmt) -> str:
    """The lines of one definition."""
    return "\n".join(lines_in(text)[slice(*lines_of(node))])


def owners_of(exercise: Exercise) -> list[str]:
    """The names of the functions and classes at the top of the module that hold its parts."""
    return sorted({part.partition(".")[0] for part in exercise.parts})


def bodies(exercise: Exercise, text: str) -> tuple[dict[str, CodeType], list]:
    """The compiled body of each part, and a description of everything around the bodies.

    If two versions have equal descriptions, they differ only in the bodies.
    """
    tree = parse(text)
    known = definitions(tree)
    owners = [known[owner] for owner in owners_of(exercise)]
    with PARSING:
        module = compile(ast.Module(owners, []), "<a version>", "exec")
    codes = {}
    around = [len(tree.body), *(len(owner.body) for owner in owners)]
    for part in exercise.parts:
        code = module
        for name in part.split("."):
            inner = [one for one in code.co_consts if isinstance(one, CodeType)]
            [code] = [one for one in inner if one.co_name == name]
        codes[part] = code
        node = known[part]
        around += [ast.dump(node.args), *map(ast.dump, node.decorator_list), code.co_freevars]
    return codes, around


def is_stub(node: ast.stmt) -> bool:
    """Whether a function has no body but a docstring, `pass`, or `raise NotImplementedError`."""
    for statement in node.body:
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        is_raise = isinstance(statement, ast.Raise)
        if is_raise and "NotImplementedError" in ast.unparse(statement):
            continue
        if not (is_text or isinstance(statement, ast.Pass)):
            return False
    return True


def splice(exercise: Exercise, theirs: str) -> Spliced:
    """The library's module with a learner's parts of the exercise and the code that they added.

    All other definitions stay the library's, including those of other exercises. Nothing else of
    the learner's file runs.
    Raises SyntaxError, NotStarted, or Refused for code that could reach out of its exercise.
    """
    ours = library(exercise.module)
    our_tree = library_tree(exercise.module)
    their_tree = parse(theirs)
    known = definitions(our_tree)
    found = definitions(their_tree)
    missing = [part for part in exercise.parts if part not in found or is_stub(found[part])]
    if len(missing) == len(exercise.parts):
        raise NotStarted(exercise.name)
    if missing:
        raise Refused(f"{', '.join(missing)}: not written yet, and part of this exercise")

    taken = [found[part] for part in exercise.parts]
    replaced = {}  # first line of ours -> (end, [(indentation, the learner's node)])
    for part in exercise.parts:
        start, end = lines_of(known[part])
        replaced[start] = end, [(known[part].col_offset, found[part])]

    owners = owners_of(exercise)
    for name, node in found.items():  # methods that the learner added
        owner, _, method = name.partition(".")
        if method and owner in owners and name not in known:
            parts = [part for part in exercise.parts if part.startswith(f"{owner}.")]
            first = min(lines_of(known[part])[0] for part in parts)
            end, nodes = replaced[first]
            replaced[first] = end, [(known[owner].col_offset + 4, node), *nodes]
            taken.append(node)

    added = list(_added(our_tree, their_tree, known, taken))
    taken += added
    _refuse(taken, [known[part] for part in exercise.parts], our_tree)
    first = min(lines_of(known[owner])[0] for owner in owners)  # added code goes before it
    end, nodes = replaced.get(first, (first, []))
    replaced[first] = end, [*((0, node) for node in added), *nodes]
    return _weave(lines_in(ours), lines_in(theirs), replaced)


def _weave(lines: list[str], their_lines: list[str], replaced: dict) -> Spliced:
    """The library's lines, with the learner's in the place of those in `replaced`."""
    text = []
    segments = []
    i = 0
    while i <= len(lines):
        end, nodes = replaced.get(i, (i, []))
        for indentation, node in nodes:
            first, last = lines_of(node)
            segments.append((len(text) + 1, first + 1, last - first))
            block = their_lines[first:last]
            if node.col_offset != indentation:
                block = textwrap.dedent("\n".join(block))
                block = textwrap.indent(block, " " * indentation).split("\n")
            text += block
        if end == i:
            text += lines[i : i + 1]
            end = i + 1
        i = end
    return Spliced("\n".join(text), segments)


def _added(
    our_tree: ast.Module, their_tree: ast.Module, known: dict, taken: list[ast.stmt]
) -> Iterator[ast.stmt]:
    """The learner's additions: imports, functions, classes and constants that the library lacks.

    Forbidden imports and `*` are left out, and refused only if the code that is taken uses them.
    """
    candidates = []
    for node in their_tree.body:
        is_new = getattr(node, "name", "") not in known
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, *ASSIGNMENTS)) and is_new:
            candidates.append(node)
    used = {name.id for name in _walk([*taken, *candidates]) if isinstance(name, ast.Name)}
    our_imports = {ast.unparse(node) for node in our_tree.body if isinstance(node, IMPORTS)}
    our_targets = {target for node in our_tree.body for target in _targets(node)}
    allowed = MODULES | {"mmscratch"} | {name for node in our_tree.body for name in _imports(node)}
    for node in their_tree.body:
        if isinstance(node, IMPORTS) and ast.unparse(node) not in our_imports:
            refused = []
            for name in _imports(node):
                if name not in allowed and name.partition(".")[0] not in allowed:
                    refused.append(name)
            if not refused and all(alias.name != "*" for alias in node.names):
                yield node
            elif used & _bound_names(node):
                line = f"line {node.lineno}"
                raise Refused(f"{line}: imports {refused[0]}, which this exercise does not need")
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name not in known:
            yield node
        elif isinstance(node, ASSIGNMENTS) and not our_targets.intersection(_targets(node)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(isinstance(target, (ast.Name, ast.Tuple)) for target in targets):
                yield node


def _walk(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from ast.walk(node)


def _bound_names(node: ast.stmt) -> set[str]:
    """The names that an import statement binds."""
    return {alias.asname or alias.name.partition(".")[0] for alias in node.names}


def _targets(node: ast.stmt) -> list[str]:
    """The names to which a statement assigns, as they are written."""
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [ast.unparse(node.target)] if isinstance(node, ast.AnnAssign) else []


def _imports(node: ast.stmt) -> list[str]:
    """The modules that a statement imports; relative ones count as "mmscratch"."""
    if isinstance(node, ast.ImportFrom):
        return ["mmscratch"] if node.level else [node.module]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _refuse(taken: list[ast.stmt], ours: list[ast.stmt], our_tree: ast.Module) -> None:
    """Raise Refused for a name that could reach out of the exercise.

    Names that the library's version uses as well are allowed.
    """
    needed = {getattr(node, "id", getattr(node, "attr", None)) for node in _walk(ours)}
    nodes = list(_walk(taken))
    imported = set()
    for node in [*our_tree.body, *nodes]:
        if isinstance(node, IMPORTS):
            imported |= _bound_names(node)
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    for node in nodes:
        line = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, IMPORTS):
            refused = _refused_imports(node, needed, is_inside=node not in taken)
            if refused:
                raise Refused(f"{line}: imports {refused[0]}, which this exercise does not need")
        elif isinstance(node, ast.Name) and node.id not in needed:
            if node.id in BUILT_IN - own or node.id in WAYS_OUT & imported:
                raise Refused(
                    f"{line}: {node.id} is not allowed, and this exercise does not need it"
                )
        elif isinstance(node, ast.Attribute):
            hidden = node.attr.startswith("__") and node.attr not in OWN_NAMES
            if (hidden or node.attr in WAYS_OUT | READY_MADE) and node.attr not in needed:
                raise Refused(
                    f"{line}: .{node.attr} is not allowed, and this exercise does not need it"
                )
            root = node.value
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            is_imported = isinstance(root, ast.Name) and root.id in imported
            if is_imported and not isinstance(node.ctx, ast.Load):
                raise Refused(f"{line}: changes {ast.unparse(node)}, which is not its own")


def _refused_imports(node: ast.stmt, needed: set, is_inside: bool) -> list[str]:
    """The forbidden names in an import statement; `is_inside`: in the body of a function."""
    refused = []
    for name in [*_imports(node), *(alias.name for alias in node.names)]:
        if set(name.split(".")) & ((WAYS_OUT | READY_MADE) - needed):
            refused.append(name)
    if is_inside:
        for name in _imports(node):
            if name.partition(".")[0] not in MODULES | {"mmscratch"}:
                refused.append(name)
    return refused


def wrong_version(exercise: Exercise, wrong: Wrong) -> str:
    """The library's module with this mistake.

    Raises ValueError unless the text to replace occurs exactly once in the exercise's parts.
    """
    lines = [f"{line}\n" for line in lines_in(library(exercise.module))]
    known = definitions(library_tree(exercise.module))
    places = sorted((lines_of(known[part]) for part in exercise.parts), reverse=True)
    pieces = {(start, end): "".join(lines[start:end]) for start, end in places}
    for old, new in ((wrong.old, wrong.new), *wrong.more):
        found = [place for place, piece in pieces.items() for _ in range(piece.count(old))]
        if len(found) != 1:
            raise ValueError(
                f"{exercise.name}: {old!r} occurs {len(found)} times in its parts instead of once"
            )
        [place] = found
        pieces[place] = pieces[place].replace(old, new)
    for (start, end), piece in pieces.items():  # last lines first, so that the places stay right
        lines[start:end] = [piece]
    return "".join(lines)
