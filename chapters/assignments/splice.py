"""Puts a learner's definitions into the library's module, in the place of the library's own."""

import ast
import builtins
import contextlib
import functools
import threading
from types import CodeType
from typing import NamedTuple

from .building_blocks import is_harmless
from .exercises import ROOT, Exercise, Wrong, path_of
from .names import IMPORTS, Needed, Reader, Refused, bound_names, defined_attributes, walk

LIBRARY = ROOT / "mmscratch"
PARSING = threading.Lock()
ASSIGNMENTS = (ast.Assign, ast.AnnAssign)

class NotStarted(Exception):
    """The exercise's part is missing, or still the stub."""


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
    members = [node for nodes in inside.values() for node in nodes]
    added = _added(tree, their_tree, [*taken, *members])
    classes = [_class_of(owner, nodes) for owner, nodes in inside.items() if nodes]
    _read(exercise, [*taken, *classes, *added])
    taken += [*members, *added]
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
    theirs = {id(node) for node in walk(taken)}
    segments = []

    def compare(nodes: list, others: list) -> None:
        for node, other in zip(nodes, others):
            if id(node) in theirs and hasattr(node, "lineno"):  # a case has none
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
    known = {ast.unparse(base).rpartition(".")[2] for base in ours.bases} | {"object"}
    for base in theirs.bases:
        name = ast.unparse(base)
        if name.rpartition(".")[2] not in known:
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


def _class_of(owner: str, members: list[ast.stmt]) -> ast.ClassDef:
    """A class with these members, to be read as one."""
    return ast.copy_location(ast.ClassDef(owner, [], [], members, []), members[0])


def _refuse_left_out(taken: list[ast.stmt], their_tree: ast.Module, our_tree: ast.Module) -> None:
    """Raise Refused if the code that is taken uses a name that the rest of the file sets.

    It would end in a NameError: a loop, a branch or another statement at the top is not taken.
    """
    ours = {name for node in our_tree.body for name in _names_set(node)}
    kept = {name for node in taken for name in _names_set(node)}
    local = {node.arg for node in walk(taken) if isinstance(node, ast.arg)}
    local |= {
        node.id
        for node in walk(taken)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    used = {node.id for node in walk(taken) if isinstance(node, ast.Name)} - local - ours - kept
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
        return bound_names(node)
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
        elif isinstance(inner, IMPORTS):
            names |= bound_names(inner)
        elif isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
            names.add(inner.name)
    return names


def _added(our_tree: ast.Module, their_tree: ast.Module, taken: list[ast.stmt]) -> list[ast.stmt]:
    """The learner's additions: imports, functions, classes and constants that the library lacks.

    Imports of names that no code uses are left out.
    """
    ours = {name for node in our_tree.body for name in _names_set(node)}
    imported = {name for node in our_tree.body if isinstance(node, IMPORTS)
                for name in bound_names(node)}  # fmt: skip
    our_imports = {ast.unparse(node) for node in our_tree.body if isinstance(node, IMPORTS)}
    found = []
    for node in their_tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name not in ours - imported:
            found.append(node)
        elif isinstance(node, ASSIGNMENTS) and not ours & _names_set(node):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(isinstance(target, (ast.Name, ast.Tuple)) for target in targets):
                found.append(node)
        elif isinstance(node, IMPORTS) and ast.unparse(node) not in our_imports:
            found.append(node)
    used = {name.id for name in walk([*taken, *found]) if isinstance(name, ast.Name)}
    used |= {"annotations"}  # from __future__
    used -= ours - imported
    return [kept for node in found if (kept := _without_unused(node, used))]


def _without_unused(node: ast.stmt, used: set[str]) -> ast.stmt | None:
    """An import statement without the names that are not used; other statements as they are."""
    if not isinstance(node, IMPORTS):
        return node
    names = []
    for alias in node.names:
        if (alias.asname or alias.name.partition(".")[0]) in used:
            names.append(alias)
    if not names:
        return None
    if isinstance(node, ast.Import):
        return ast.copy_location(ast.Import(names), node)
    return ast.copy_location(ast.ImportFrom(node.module, names, node.level), node)


def _targets(node: ast.stmt) -> list[str]:
    """The names to which a statement assigns, as they are written."""
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [ast.unparse(node.target)] if isinstance(node, ast.AnnAssign) else []


def needed_by(exercise: Exercise) -> Needed:
    """What a learner may use because the library's version of the exercise uses it, too.

    That includes the attributes in functions of its module which that version calls.
    """
    known = definitions(library_tree(exercise.module))
    parts = [known[part] for part in exercise.parts]
    needed = Needed.by(parts)
    called = Needed.by(_called(exercise, parts))
    names = {name for name in exercise.needs if not name.startswith(".")}
    attributes = {name.removeprefix(".") for name in exercise.needs} - names
    return Needed(needed.names | names, needed.attributes | called.attributes | attributes)


def refusable_names(exercise: Exercise) -> set[str]:
    """What a learner may use only because the library's version does: names and ".attributes"."""
    known = definitions(library_tree(exercise.module))
    parts = [known[part] for part in exercise.parts]
    found = _read(exercise, parts).relied_on
    for function in _called(exercise, parts):
        with contextlib.suppress(Refused):
            found |= _read(exercise, [function]).relied_on
    return found


def _called(exercise: Exercise, parts: list[ast.stmt]) -> list[ast.stmt]:
    """The functions of the library's module that some code calls."""
    known = definitions(library_tree(exercise.module))
    names = Needed.by(parts).names
    return [known[name] for name in names if isinstance(known.get(name), ast.FunctionDef)]


def _read(exercise: Exercise, taken: list[ast.stmt]) -> Reader:
    """Read code; raises Refused for the first name that the exercise does not need."""
    tree = library_tree(exercise.module)
    home = f"mmscratch.{exercise.module}"
    return Reader(taken, tree, needed_by(exercise), home, _defined_in, _other_attributes)


@functools.cache
def _defined_in(module: str) -> frozenset[str] | None:
    """The names that a module of mmscratch defines, by its full name; None if there is none."""
    package, _, name = module.partition(".")
    path = LIBRARY / path_of(name) if name else LIBRARY / "__init__.py"
    if package != "mmscratch" or not path.is_file():
        return None
    tree = library_tree(name) if name else parse(path.read_text(encoding="utf-8"))
    return frozenset(
        name for node in tree.body if not isinstance(node, IMPORTS) for name in _names_set(node)
    )


@functools.cache
def _other_attributes() -> frozenset[str]:
    """The attributes that the classes of the library define, and that reach nothing else."""
    trees = [parse(path.read_text(encoding="utf-8")) for path in LIBRARY.rglob("*.py")]
    found = defined_attributes(trees)
    return frozenset(name for name in found if name.startswith("_") or is_harmless(name))


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
