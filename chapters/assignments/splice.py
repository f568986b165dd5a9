"""Puts a learner's definitions into the library's module, in the place of the library's own."""

import ast
import builtins
import functools
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
    "__future__ abc bisect cmath collections contextlib copy dataclasses enum functools heapq itertools "
    "math numbers numpy random re statistics string torch typing unicodedata warnings".split()
)
BUILT_IN = set(  # functions that no exercise needs
    "breakpoint compile delattr eval exec exit getattr globals input locals open quit setattr vars "
    "__import__".split()
)
READY_MADE = set(  # torch's own versions of pieces that are written here
    "LSTM LSTMCell GRU RNN MultiheadAttention Transformer TransformerEncoder TransformerDecoder "
    "TransformerEncoderLayer TransformerDecoderLayer multi_head_attention_forward "
    "Conv1d Conv2d Conv3d ConvTranspose2d conv1d conv_transpose2d "
    "scaled_dot_product_attention conv2d convolution conv3d lstm lstm_cell cross_entropy "
    "CrossEntropyLoss nll_loss NLLLoss".split()
)
WAYS_OUT = set(  # names through which code could reach out of its exercise
    "builtins chapters cpp_extension cr_frame ctypes ctypeslib f_back f_builtins f_globals f_locals "
    "f2py from_file Formatter gc get_type_hints gi_frame hub importlib inspect io jit load "
    "multiprocessing ops os pathlib pickle pytest save serialization shutil socket subprocess sys "
    "tb_frame tb_next tempfile testing tests threading traceback".split()
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

    All other definitions stay the library's, including those of other exercises. What is taken are
    nodes of the syntax tree, and not lines: nothing else of the learner's file runs.
    Raises SyntaxError, NotStarted, or Refused for code that could reach out of its exercise.
    """
    tree = parse(library(exercise.module))
    their_tree = parse(theirs)
    known = definitions(tree)
    found = definitions(their_tree)
    missing = [part for part in exercise.parts if part not in found or is_stub(found[part])]
    if len(missing) == len(exercise.parts):
        raise NotStarted(exercise.name)
    if missing:
        raise Refused(f"{', '.join(missing)}: not written yet, and part of this exercise")

    owners = owners_of(exercise)
    taken = [found[part] for part in exercise.parts]
    for owner in owners:
        if isinstance(known[owner], ast.ClassDef):
            _check_class(known[owner], found[owner])
    inside = {owner: _added_members(known[owner], found[owner]) for owner in owners}
    taken += [node for nodes in inside.values() for node in nodes]
    added = list(_added(tree, their_tree, known, taken))
    taken += added
    needed = _names([known[part] for part in exercise.parts]) | {*exercise.needs}
    _refuse(taken, needed, tree)
    _refuse_left_out(taken, their_tree, tree)

    for part in exercise.parts:
        owner, _, _ = part.rpartition(".")
        body = known[owner].body if owner else tree.body
        body[body.index(known[part])] = found[part]
    for owner, nodes in inside.items():
        if nodes:
            body = known[owner].body
            first = min(
                body.index(found[part]) for part in exercise.parts if part.startswith(f"{owner}.")
            )
            body[first:first] = nodes
    names = [getattr(node, "name", "") for node in tree.body]
    first = min(map(names.index, owners))
    tree.body[first:first] = [node for node in added if not _is_future(node)]
    tree.body[1:1] = filter(_is_future, added)  # after the docstring
    ast.fix_missing_locations(tree)
    with PARSING:
        text = ast.unparse(tree)
    return Spliced(text, _segments(tree, parse(text), taken))


def _segments(tree: ast.Module, written: ast.Module, taken: list[ast.stmt]) -> list:
    """The lines of a written module that are the learner's: (line, line of their file, 1) each."""
    theirs = {id(node) for node in _walk(taken)}
    segments = []

    def compare(nodes: list, others: list) -> None:
        for node, other in zip(nodes, others):
            if id(node) in theirs and hasattr(node, "lineno"):  # a `case` has none
                segments.append((other.lineno, node.lineno, 1))
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                compare(getattr(node, field, []), getattr(other, field, []))

    compare(tree.body, written.body)
    return segments


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _check_class(ours: ast.ClassDef, theirs: ast.stmt) -> None:
    """Raise Refused if the learner's class has another base: only what is in it is taken."""
    if not isinstance(theirs, ast.ClassDef):
        raise Refused(f"line {theirs.lineno}: {theirs.name} must be a class")
    known = {"object", *(ast.unparse(base).rpartition(".")[2] for base in ours.bases)}
    for base in theirs.bases:
        name = ast.unparse(base)
        if name.rpartition(".")[2] not in known:  # torch.nn.Module and Module are nn.Module
            raise Refused(
                f"line {theirs.lineno}: the base class {name} of {theirs.name} is not taken along: "
                "put its methods into the class"
            )


def _added_members(ours: ast.stmt, theirs: ast.stmt) -> list[ast.stmt]:
    """The methods and constants that a learner has added to a class of the library."""
    if not isinstance(ours, ast.ClassDef):
        return []
    names = {getattr(node, "name", "") for node in ours.body}
    targets = {target for node in ours.body for target in _targets(node)}
    found = []
    for node in theirs.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name not in names:
            found.append(node)
        elif isinstance(node, ASSIGNMENTS) and not targets.intersection(_targets(node)):
            found.append(node)
    return found


def _refuse_left_out(taken: list[ast.stmt], their_tree: ast.Module, our_tree: ast.Module) -> None:
    """Raise Refused if the code that is taken uses a name that the rest of the file sets.

    It would end in a NameError: a loop, a branch or another statement at the top is not taken.
    """
    ours = {name for node in our_tree.body for name in _names_set(node)}
    kept = {name for node in taken for name in _names_set(node)}
    local = {node.arg for node in _walk(taken) if isinstance(node, ast.arg)}
    local |= {
        node.id
        for node in _walk(taken)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    used = {node.id for node in _walk(taken) if isinstance(node, ast.Name)} - local - ours - kept
    for node in their_tree.body:
        missing = sorted(used & _names_set(node))
        if missing and node not in taken and not hasattr(builtins, missing[0]):
            raise Refused(
                f"line {node.lineno}: {missing[0]} is set there, but of a file only imports, "
                "functions, classes and assignments at the left margin are taken"
            )


def _names_set(node: ast.stmt) -> set[str]:
    """The names that a statement at the top of a file sets."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, IMPORTS):
        return _bound_names(node)
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
        elif isinstance(inner, IMPORTS):
            names |= _bound_names(inner)
        elif isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
            names.add(inner.name)
    return names


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


def _names(nodes: list[ast.stmt]) -> set[str]:
    """The names and attributes in some code."""
    return {getattr(node, "id", getattr(node, "attr", "")) for node in _walk(nodes)} - {""}


def refusable_names(exercise: Exercise) -> set[str]:
    """The names in the library's version that a learner may use only because they are there."""
    known = definitions(library_tree(exercise.module))
    names = _names([known[part] for part in exercise.parts])
    hidden = {name for name in names if name.startswith("__") and name not in OWN_NAMES}
    return (names & (BUILT_IN | WAYS_OUT | READY_MADE)) | hidden


def _refuse(taken: list[ast.stmt], needed: set[str], our_tree: ast.Module) -> None:
    """Raise Refused for a name that could reach out of the exercise.

    needed  names that are allowed, since the library's version uses them as well
    """
    nodes = list(_walk(taken))
    imported = set()
    for node in [*our_tree.body, *nodes]:
        if isinstance(node, IMPORTS):
            imported |= _bound_names(node)
    own_methods = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    local = _local_names(taken)
    for node in nodes:
        line = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, IMPORTS):
            refused = _refused_imports(node, needed, is_inside=node not in taken)
            if refused:
                raise Refused(f"{line}: imports {refused[0]}, which this exercise does not need")
        elif isinstance(node, ast.Name) and node.id not in needed:
            is_built_in = node.id in BUILT_IN and id(node) not in local
            is_hidden = node.id.startswith("__") and node.id not in OWN_NAMES
            if is_built_in or is_hidden or node.id in WAYS_OUT & imported:
                raise Refused(
                    f"{line}: {node.id} is not allowed, and this exercise does not need it"
                )
        elif isinstance(node, ast.Attribute):
            own_method = node.attr in own_methods and not node.attr.endswith("__")
            root = node.value
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            is_imported = isinstance(root, ast.Name) and root.id in imported
            hidden = node.attr.startswith("__") and node.attr not in OWN_NAMES and not own_method
            hidden |= is_imported and node.attr.startswith("_")
            if (hidden or node.attr in WAYS_OUT | READY_MADE) and node.attr not in needed:
                raise Refused(
                    f"{line}: .{node.attr} is not allowed, and this exercise does not need it"
                )
            if is_imported and not isinstance(node.ctx, ast.Load):
                raise Refused(f"{line}: changes {ast.unparse(node)}, which is not its own")
        elif isinstance(node, ast.MatchClass):
            for name in node.kwd_attrs:  # `case object(name=x)` reads x.name
                if name.startswith("_") or name in WAYS_OUT | READY_MADE:
                    raise Refused(
                        f"{line}: .{name} is not allowed, and this exercise does not need it"
                    )


def _local_names(taken: list[ast.stmt]) -> set[int]:
    """The id() of each name that the function around it binds: a parameter or a variable.

    Its default values and decorators are evaluated outside of it.
    """
    found = set()

    def visit(node: ast.AST, bound: set[str]) -> None:
        if isinstance(node, ast.Name) and node.id in bound:
            found.add(id(node))
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            for child in ast.iter_child_nodes(node):
                visit(child, bound)
            return
        outside = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        outside += getattr(node, "decorator_list", [])
        for child in outside:
            visit(child, bound)
        inside = node.body if isinstance(node.body, list) else [node.body]
        inner = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
        inner |= {
            name.id
            for name in _walk(inside)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        for child in inside:
            visit(child, bound | inner)

    for node in taken:
        visit(node, set())
    return found


def _refused_imports(node: ast.stmt, needed: set, is_inside: bool) -> list[str]:
    """The forbidden names in an import statement; `is_inside`: in the body of a function."""
    refused = []
    forbidden = WAYS_OUT - needed
    if {name.partition(".")[0] for name in _imports(node)} != {"mmscratch"}:
        forbidden |= READY_MADE - needed  # mmscratch's LSTM is our own
    for name in [*_imports(node), *(alias.name for alias in node.names)]:
        if set(name.split(".")) & forbidden:
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
