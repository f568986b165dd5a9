"""All exercises, chapter by chapter."""

from . import ch01, ch02, ch03, ch04, ch05, ch06, ch07, ch08, ch09, ch10, ch11
from .exercise import Exercise as Exercise
from .exercise import Wrong as Wrong
from .exercise import path_of as path_of

CHAPTERS = (ch01, ch02, ch03, ch04, ch05, ch06, ch07, ch08, ch09, ch10, ch11)
EXERCISES = tuple(exercise for chapter in CHAPTERS for exercise in chapter.EXERCISES)


def of_chapter(number: int, name: str | None = None) -> list[Exercise]:
    """Its exercises, or the one that is asked for, by its name or a part of it."""
    found = [exercise for exercise in EXERCISES if exercise.chapter == number]
    if not found:
        numbers = sorted({exercise.chapter for exercise in EXERCISES})
        raise ValueError(f"chapter {number} has no exercises: choose one of {', '.join(map(str, numbers))}")
    if name is None:
        return found
    chosen = [exercise for exercise in found if name == exercise.name] or [e for e in found if name.lower() in e.name.lower()]
    if len(chosen) != 1:
        raise ValueError(f"{name}: choose one of {', '.join(exercise.name for exercise in chosen or found)}")
    return chosen
