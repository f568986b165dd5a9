"""An exercise: a piece of the library that a learner writes, and the mistakes that people make in it.

The wrong versions are made from the library's by replacing text that occurs exactly once in the
parts of the exercise. They prove that the tests notice each mistake, and if a learner's code fails
like one of them, its hint fits.
"""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]  # not from chapters.chapter, which takes longer to import


class Wrong(NamedTuple):
    """A mistake: what to think about, and the replacement that makes it."""

    hint: str
    old: str
    new: str
    more: tuple[tuple[str, str], ...] = ()  # further (old, new)


def path_of(module: str) -> PurePosixPath:
    """The path of a module relative to mmscratch: data/language.py for "data.language"."""
    return PurePosixPath(*module.split(".")).with_suffix(".py")


class Exercise(NamedTuple):
    """A piece for a learner to write."""

    chapter: int
    module: str  # of mmscratch: "attention", or "data.language"
    parts: tuple[
        str, ...
    ]  # "function" or "Class.method": replaced by stubs, taken from the learner
    title: str
    points: int
    minutes: int
    difficulty: str  # "easy", "medium" or "hard"
    tests: tuple[str, ...]  # names of test functions in `tests_path`
    wrong: tuple[Wrong, ...]
    test_file: str = ""  # if it isn't test_<module>.py
    needs: tuple[str, ...] = ()  # allowed names that the library's version, or its stub, lacks

    @property
    def name(self) -> str:
        """The first of its parts."""
        return self.parts[0]

    @property
    def path(self) -> PurePosixPath:
        """The module's path relative to mmscratch: data/language.py."""
        return path_of(self.module)

    @property
    def file(self) -> str:
        """The name of the learner's file: language.py."""
        return self.path.name

    @property
    def tests_path(self) -> PurePosixPath:
        """The path of its tests relative to tests: data/test_language.py."""
        return self.path.with_name(self.test_file or f"test_{self.file}")
