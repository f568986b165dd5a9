"""A learner's definitions in the library's place: the library's module with their parts in it."""

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
OWN_NAMES = set(
    "__init__ __name__ __class__ __len__ __iter__ __next__ __getitem__ __call__ __enter__ __exit__ __doc__".split()
)


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
    return (LIBRARY / path_of(module)).read_text(encoding="utf-8")


@functools.cache
def library_tree(module: str) -> ast.Module:
    """A module of mmscratch, parsed; to be looked at only."""
    return parse(library(module))


def definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Where each "function", "Class" and "Class.method" is defined."""
    found = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
            if isinstance(node, ast.ClassDef):
                found |= {
                    f"{node.name}.{inner.name}": inner
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef)
                }
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


def bodies(exercise: Exercise, text: str) -> tuple[dict[str, CodeType], list]:
    """part -> what is compiled of it, and what is around the bodies: two versions for which that is
    the same differ in nothing but the bodies.
    """
    tree = parse(text)
    known = definitions(tree)
    memory_index = {part.partition(".")[0] for part in exercise.parts}
    with PARSING:
        parts_only = ast.Module([known[owner] for owner in sorted(memory_index)], [])
        whole = compile(parts_only, "<a version>", "exec")
    codes, around = (
        {},
        [len(tree.body), *(len(known[owner].body) for owner in sorted(memory_index))],
    )
    for part in exercise.parts:
        code, node = whole, known[part]
        for name in part.split("."):
            inner = [one for one in code.co_consts if isinstance(one, CodeType)]
            [code] = [one for one in inner if one.co_name == name]
        codes[part] = code
        around += [ast.dump(node.args), *map(ast.dump, node.decorator_list), code.co_freevars]
    return codes, around


def is_stub(node: ast.stmt) -> bool:
    """Does the function do nothing but to raise NotImplementedError?"""
    body = [
        one
        for one in node.body
        if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
    ]
    raised = [
        one
        for one in body
        if isinstance(one, ast.Raise) and "NotImplementedError" in ast.unparse(one)
    ]
    return all(isinstance(one, ast.Pass) or one in raised for one in body)


def splice(exercise: Exercise, theirs: str) -> Spliced:
    """The library's module, in which the parts of the exercise, and what else the learner added, are theirs.

    All other pieces stay the library's, those of other exercises too. Nothing else of the learner's file runs.
    Raises SyntaxError, NotStarted, or Refused for code that could reach out of its exercise.
    """
    ours = library(exercise.module)
    our_tree, their_tree = library_tree(exercise.module), parse(theirs)
    known, found = definitions(our_tree), definitions(their_tree)
    missing = [part for part in exercise.parts if part not in found or is_stub(found[part])]
    if len(missing) == len(exercise.parts):
        raise NotStarted(exercise.name)
    if missing:
        raise Refused(f"{', '.join(missing)}: still to be written, and a part of this exercise")
    taken = [found[part] for part in exercise.parts]
    replaced = {}  # line of ours -> (the line behind it, [(indentation, what stands there instead)])
    for part in exercise.parts:
        start, end = lines_of(known[part])
        replaced[start] = end, [(known[part].col_offset, found[part])]
    memory_index = {part.partition(".")[0] for part in exercise.parts}
    for name, node in found.items():  # methods of their own
        owner, _, method = name.partition(".")
        if method and owner in memory_index and name not in known:
            parts = [part for part in exercise.parts if part.startswith(f"{owner}.")]
            first = min(lines_of(known[part])[0] for part in parts)
            end, nodes = replaced[first]
            replaced[first] = end, [(known[owner].col_offset + 4, node), *nodes]
            taken.append(node)
    added = [(0, node) for node in _added(our_tree, their_tree, known, taken)]
    taken += [node for _, node in added]
    _refuse(taken, [known[part] for part in exercise.parts], our_tree)
    anchor = min(
        lines_of(known[owner])[0] for owner in memory_index
    )  # what they added stands before it
    end, nodes = replaced.get(anchor, (anchor, []))
    replaced[anchor] = end, [*added, *nodes]
    return _weave(lines_in(ours), lines_in(theirs), replaced)


def _weave(lines: list[str], their_lines: list[str], replaced: dict) -> Spliced:
    """Our lines, with what `replaced` names in the place of some."""
    text, segments, i = [], [], 0
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
    """What the learner wrote beside the library's definitions: imports, functions, classes and constants.

    What may not be imported, and `*`, is left out, and refused only where the code that is taken uses it.
    """
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    beside = [
        node
        for node in their_tree.body
        if isinstance(node, kinds) and getattr(node, "name", "") not in known
    ]
    used = {
        node.id for one in [*taken, *beside] for node in ast.walk(one) if isinstance(node, ast.Name)
    }
    imported = {
        ast.unparse(node)
        for node in our_tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assigned = {
        ast.unparse(t)
        for node in our_tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for t in _targets(node)
    }
    modules = {name for node in our_tree.body for name in _imports(node)}
    for node in their_tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and ast.unparse(node) not in imported:
            allowed = MODULES | modules | {"mmscratch"}
            strange = [
                name for name in _imports(node) if not {name, name.partition(".")[0]} & allowed
            ]
            if not strange and all(alias.name != "*" for alias in node.names):
                yield node
            elif used & {alias.asname or alias.name.partition(".")[0] for alias in node.names}:
                raise Refused(
                    f"line {node.lineno}: imports {strange[0]}, which this exercise does not need"
                )
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name not in known:
            yield node
        elif (
            isinstance(node, (ast.Assign, ast.AnnAssign))
            and not {ast.unparse(t) for t in _targets(node)} & assigned
        ):
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
    needed = {
        getattr(node, "id", getattr(node, "attr", None)) for one in ours for node in ast.walk(one)
    }
    nodes = [node for one in taken for node in ast.walk(one)]
    imported = {alias.asname or alias.name.partition(".")[0] for node in [*our_tree.body, *nodes]
                if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}  # fmt: skip
    own = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        line = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [*_imports(node), *(alias.name for alias in node.names)]
            strange = [
                name for name in names if set(name.split(".")) & ((WAYS_OUT | READY_MADE) - needed)
            ]
            if node not in taken:
                strange += [
                    name
                    for name in _imports(node)
                    if name.partition(".")[0] not in MODULES | {"mmscratch"}
                ]
            if strange:
                raise Refused(f"{line}: imports {strange[0]}, which this exercise does not need")
        elif isinstance(node, ast.Name) and node.id not in needed:
            if node.id in BUILT_IN - own or node.id in WAYS_OUT & imported:
                raise Refused(
                    f"{line}: {node.id} is not allowed here: this exercise can do without"
                )
        elif isinstance(node, ast.Attribute):
            hidden = node.attr.startswith("__") and node.attr not in OWN_NAMES
            if (hidden or node.attr in WAYS_OUT | READY_MADE) and node.attr not in needed:
                raise Refused(
                    f"{line}: .{node.attr} is not allowed here: this exercise can do without"
                )
            root = node.value
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            if (
                not isinstance(node.ctx, ast.Load)
                and isinstance(root, ast.Name)
                and root.id in imported
            ):
                raise Refused(f"{line}: changes {ast.unparse(node)}, which is not its own")


def wrong_version(exercise: Exercise, wrong: Wrong) -> str:
    """The library's module with this mistake in it; raises ValueError where its text is not found just once."""
    text = library(exercise.module)
    known = definitions(library_tree(exercise.module))
    lines = [f"{line}\n" for line in lines_in(text)]
    places = sorted((lines_of(known[part]) for part in exercise.parts), reverse=True)
    pieces = {(start, end): "".join(lines[start:end]) for start, end in places}
    for old, new in ((wrong.old, wrong.new), *wrong.more):
        at = [place for place, piece in pieces.items() for _ in range(piece.count(old))]
        if len(at) != 1:
            raise ValueError(
                f"{exercise.name}: {old!r} occurs {len(at)} times in its parts, and not once"
            )
        pieces[at[0]] = pieces[at[0]].replace(old, new)
    for (start, end), piece in pieces.items():  # from the end, so that the places stay right
        lines[start:end] = [piece]
    return "".join(lines)
