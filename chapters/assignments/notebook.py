"""In a notebook: `from chapters.assignments import check`, then `check(my_function)`."""

import ast
import builtins
import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .exercises import EXERCISES, Exercise
from .splice import ASSIGNMENTS, IMPORTS, definitions, excerpt, library, parse
from .verdicts import assess, show


def check(piece: Callable | type) -> None:
    """Check a function or class that a cell defines, with the tests of the exercises of that name."""
    piece = inspect.unwrap(piece)  # the function under @torch.no_grad()
    exercises = []
    for exercise in EXERCISES:
        if any(part.partition(".")[0] == piece.__name__ for part in exercise.parts):
            exercises.append(exercise)
    if not exercises:
        raise ValueError(
            f"there is no exercise {piece.__name__}: python -m chapters.assignments lists them"
        )
    for exercise in exercises:
        show(assess(exercise, _source_with_names(piece, exercise)))


def _source_with_names(piece: Callable | type, exercise: Exercise) -> str:
    """The source of a piece, of the exercise's other parts, and of the notebook's names in them.

    All is taken as it is written in the cells. Raises ValueError for a name that no plain statement
    of a cell defines.
    """
    variables = vars(sys.modules[piece.__module__])
    written = _statements(variables)
    module = {*definitions(parse(library(exercise.module)))}
    taken = {}
    queue = [piece.__name__, *(part.partition(".")[0] for part in exercise.parts)]
    seen = set()
    while queue:
        name = queue.pop()
        if name in seen or name not in variables:
            continue
        seen.add(name)
        if name not in written:
            if hasattr(builtins, name):
                continue
            raise ValueError(
                f"{name} is defined in another cell and cannot be taken along: define it there by "
                "an assignment, a def, a class or an import of its own"
            )
        place, text, node = written[name]
        if isinstance(node, ast.ImportFrom) and name in module:
            continue  # it is in the module already
        taken[place] = text
        queue += [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]
    return "\n\n".join(taken[place] for place in sorted(taken))


def _statements(variables: dict) -> dict[str, tuple[tuple, str, ast.stmt]]:
    """The last statement that defines each name in the cells: {name: (place, text, node)}."""
    found = {}
    for number, cell in enumerate(_cells(variables)):
        try:
            tree = parse(cell)
        except SyntaxError:  # it did not run either
            continue
        for node in tree.body:
            if isinstance(node, IMPORTS):
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    text = _import_of(node, alias)
                    found[name] = ((0, number, node.lineno, name), text, node)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[node.name] = ((1, number, node.lineno, ""), excerpt(cell, node), node)
            elif isinstance(node, ASSIGNMENTS):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for inner in (one for target in targets for one in ast.walk(target)):
                    if isinstance(inner, ast.Name):
                        place = (1, number, node.lineno, "")
                        found[inner.id] = (place, ast.unparse(node), node)
    return found


def _import_of(node: ast.stmt, alias: ast.alias) -> str:
    """An import statement for one of the names of a statement."""
    only = [ast.alias(alias.name, alias.asname)]
    if isinstance(node, ast.Import):
        return ast.unparse(ast.Import(only))
    return ast.unparse(ast.ImportFrom(node.module, only, node.level))


def _cells(variables: dict) -> Iterator[str]:
    """The cells of a notebook in the order in which they ran; of a script, its text."""
    if "In" not in variables:
        path = variables.get("__file__")
        if path:
            yield Path(path).read_text(encoding="utf-8")
        return
    transform = str
    with contextlib.suppress(ImportError):
        from IPython.core.inputtransformer2 import TransformerManager

        transform = TransformerManager().transform_cell  # %magics and !commands
    for cell in variables["In"]:
        yield transform(cell)
