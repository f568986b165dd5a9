"""In a notebook: `from chapters.assignments import check`, then `check(my_function)`."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType

from .exercises import EXERCISES, Exercise
from .splice import definitions, library, parse
from .verdicts import assess, show


def check(piece: Callable | type) -> None:
    """Check a function or class that a cell defines, with the tests of the exercises of that name."""
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
    """The source of a piece, of the exercise's other parts, and of the notebook's names in them."""
    variables = getattr(piece, "__globals__", None) or vars(sys.modules[piece.__module__])
    texts = {}
    queue = [piece.__name__, *(part.partition(".")[0] for part in exercise.parts)]
    while queue:
        name = queue.pop()
        obj = variables.get(name)
        if name in texts or obj is None:
            continue
        if isinstance(obj, ModuleType):
            texts[name] = f"import {obj.__name__} as {name}"
        elif isinstance(obj, (int, float, str)):
            texts[name] = f"{name} = {obj!r}"
        elif getattr(obj, "__module__", None) == piece.__module__:
            texts[name] = _source(obj)
            nodes = ast.walk(parse(texts[name]))
            queue += {node.id for node in nodes if isinstance(node, ast.Name)}
        elif hasattr(obj, "__name__"):
            texts[name] = f"from {obj.__module__} import {obj.__name__} as {name}"
    known = definitions(parse(library(exercise.module)))
    kept = []
    for name, text in texts.items():
        is_of_library = text.startswith("from ") and name in known  # it is in the module already
        if not is_of_library:
            kept.append(text)
    return "\n\n".join(kept)


def _source(obj: Callable | type) -> str:
    """The source of a function, or of a class, method by method.

    inspect does not find the source of a notebook's class.
    """
    if not isinstance(obj, type):
        return textwrap.dedent(inspect.getsource(obj))
    methods = []
    for value in vars(obj).values():
        if inspect.isfunction(value):
            methods.append(textwrap.dedent(inspect.getsource(value)))
    body = "\n".join(methods) or "pass"
    return f"class {obj.__name__}:\n" + textwrap.indent(body, "    ")
