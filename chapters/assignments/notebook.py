"""In a notebook: `from chapters.assignments import check`, and then `check(my_function)`."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType

from .exercises import EXERCISES, Exercise
from .splice import definitions, library, parse
from .verdicts import show, verdict


def check(piece: Callable | type) -> None:
    """In a notebook: check one function, or a class, that a cell defines, by the tests of the exercises of that name."""
    exercises = [
        e
        for e in EXERCISES
        if any(part == piece.__name__ or part.startswith(f"{piece.__name__}.") for part in e.parts)
    ]
    if not exercises:
        raise ValueError(
            f"there is no exercise {piece.__name__}: python -m chapters.assignments lists them"
        )
    for exercise in exercises:
        show(verdict(exercise, _written_with(piece, exercise)))


def _written_with(piece: Callable | type, exercise: Exercise) -> str:
    """The source of a function or class, of the exercise's other parts, and of what they use of the notebook."""
    names = getattr(piece, "__globals__", None) or vars(sys.modules[piece.__module__])
    texts, wanted = {}, [piece.__name__, *(part.partition(".")[0] for part in exercise.parts)]
    while wanted:
        name = wanted.pop()
        obj = names.get(name)
        if name in texts or obj is None:
            continue
        if isinstance(obj, ModuleType):
            texts[name] = f"import {obj.__name__} as {name}"
        elif isinstance(obj, (int, float, str)):
            texts[name] = f"{name} = {obj!r}"
        elif getattr(obj, "__module__", None) != piece.__module__:
            texts[name] = (
                f"from {obj.__module__} import {obj.__name__} as {name}"
                if hasattr(obj, "__name__")
                else ""
            )
        else:
            texts[name] = _source(obj)
            wanted += {
                node.id for node in ast.walk(parse(texts[name])) if isinstance(node, ast.Name)
            }
    ours = definitions(parse(library(exercise.module)))
    given = [
        name for name in texts if texts[name].startswith("from ") and name in ours
    ]  # the library's, which is there
    return "\n\n".join(text for name, text in texts.items() if name not in given)


def _source(obj: Callable | type) -> str:
    """Of a class method by method, as inspect cannot find the classes of a notebook."""
    if not isinstance(obj, type):
        return textwrap.dedent(inspect.getsource(obj))
    methods = [
        textwrap.dedent(inspect.getsource(m)) for m in vars(obj).values() if inspect.isfunction(m)
    ]
    return f"class {obj.__name__}:\n" + textwrap.indent("\n".join(methods) or "pass", "    ")
