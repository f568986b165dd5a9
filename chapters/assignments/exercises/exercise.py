"""The exercises: which pieces of the library a learner writes anew, and how people get them wrong.

Each names its tests. Each has wrong versions, made from the library's by replacing text that occurs once in its parts. They
prove that the tests notice, and where a learner's code fails as one of them does, its hint is the one that fits.
"""

from typing import NamedTuple


class Wrong(NamedTuple):
    """A mistake that people make: what to think about, and what makes it of the library's version."""

    hint: str
    old: str
    new: str
    more: tuple[tuple[str, str], ...] = ()  # further (old, new)


class Exercise(NamedTuple):
    """A piece to write anew."""

    chapter: int
    module: str  # of mmscratch
    parts: tuple[str, ...]  # "function" or "Class.method": what is stubbed, and what is taken from the learner
    title: str
    points: int
    minutes: int
    difficulty: str  # "easy", "medium" or "hard"
    tests: str  # names of test functions of tests/test_<module>.py, with spaces between
    wrong: tuple[Wrong, ...]
    test_file: str = ""  # if it isn't tests/test_<module>.py

    @property
    def name(self) -> str:
        """What a learner calls it: the first of its parts."""
        return self.parts[0]
