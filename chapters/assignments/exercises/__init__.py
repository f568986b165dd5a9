"""All exercises, chapter by chapter."""

from . import ch01, ch02, ch03, ch04, ch05, ch06, ch07, ch08, ch09, ch10, ch11, ch12, ch13, ch14
from . import ch15, ch16, ch17
from .exercise import ROOT as ROOT
from .exercise import Exercise as Exercise
from .exercise import Wrong as Wrong
from .exercise import path_of as path_of

CHAPTERS = (
    ch01,
    ch02,
    ch03,
    ch04,
    ch05,
    ch06,
    ch07,
    ch08,
    ch09,
    ch10,
    ch11,
    ch12,
    ch13,
    ch14,
    ch15,
    ch16,
    ch17,
)
EXERCISES = tuple(exercise for chapter in CHAPTERS for exercise in chapter.EXERCISES)


def of_chapter(number: int, name: str | None = None) -> list[Exercise]:
    """The exercises of a chapter, or only the one with this name, which may be shortened."""
    exercises = [exercise for exercise in EXERCISES if exercise.chapter == number]
    if not exercises:
        numbers = sorted({exercise.chapter for exercise in EXERCISES})
        listed = ", ".join(map(str, numbers))
        raise ValueError(f"chapter {number} has no exercises: choose one of {listed}")
    if name is None:
        return exercises
    chosen = [exercise for exercise in exercises if exercise.name == name]
    if not chosen:
        chosen = [exercise for exercise in exercises if name.lower() in exercise.name.lower()]
    if len(chosen) != 1:
        listed = ", ".join(exercise.name for exercise in chosen or exercises)
        raise ValueError(f"{name}: choose one of {listed}")
    return chosen
