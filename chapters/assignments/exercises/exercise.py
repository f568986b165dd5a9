"""The exercises: which pieces of the library a learner writes anew, and how people get them wrong.

Each names its tests. Each has wrong versions, made from the library's by replacing text that occurs once in its parts. They
prove that the tests notice, and where a learner's code fails as one of them does, its hint is the one that fits.
"""

from pathlib import PurePosixPath
from typing import NamedTuple


class Wrong(NamedTuple):
    """A mistake that people make: what to think about, and what makes it of the library's version."""

    hint: str
    old: str
    new: str
    more: tuple[tuple[str, str], ...] = ()  # further (old, new)


def path_of(module: str) -> PurePosixPath:
    """The file of a module, from mmscratch/ on: data/language.py for "data.language"."""
    return PurePosixPath(*module.split(".")).with_suffix(".py")


class Exercise(NamedTuple):
    """A piece to write anew."""

    chapter: int
    module: str  # of mmscratch: "attention", or "data.language"
    parts: tuple[str, ...]  # "function" or "Class.method": what is stubbed, and what is taken from the learner
    title: str
    points: int
    minutes: int
    difficulty: str  # "easy", "medium" or "hard"
    tests: tuple[str, ...]  # names of test functions in `tests_path`
    wrong: tuple[Wrong, ...]
    test_file: str = ""  # if it isn't test_<module>.py

    @property
    def name(self) -> str:
        """What a learner calls it: the first of its parts."""
        return self.parts[0]

    @property
    def path(self) -> PurePosixPath:
        """The module's file, from mmscratch/ on: data/language.py."""
        return path_of(self.module)

    @property
    def file(self) -> str:
        """What the learner's file is called: language.py."""
        return self.path.name

    @property
    def tests_path(self) -> PurePosixPath:
        """The file of its tests, from tests/ on: data/test_language.py."""
        return self.path.with_name(self.test_file or f"test_{self.file}")
