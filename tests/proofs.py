"""A record of the exercises whose proof holds, so that it need not be repeated.

    python -m tests.proofs        proves all exercises anew, and writes tests/proofs.json

The proof of an exercise, in tests/test_proofs.py, is that the library's solution and an independent
one pass its tests, and that each wrong version fails. The record has a digest of what this depends
on: the exercise, its module, its tests, its independent solution, the checker, and what all tests
share. While that is as it was, the suite skips the proof.
"""

import hashlib
import json
import os
import re
import sys
from pathlib import Path

import pytest

from chapters.assignments.exercises import EXERCISES, Exercise
from chapters.assignments.splice import library

TESTS = Path(__file__).resolve().parent
RECORD = TESTS / "proofs.json"
SHARED = [
    *sorted((TESTS.parent / "chapters/assignments").glob("*.py")),
    *(TESTS / name for name in ("conftest.py", "helpers.py", "reference.py", "command_line.py")),
    *(TESTS / "data" / name for name in ("conftest.py", "grey_pictures.py")),
]
HEADER = re.compile(r"^# %% (\d+) (\S+)\n", re.MULTILINE)


def independent_solutions(path: Path) -> dict[tuple[int, str], str]:
    """The solutions in a file: {(chapter, name of the exercise): text}."""
    before, *pieces = HEADER.split(path.read_text(encoding="utf-8"))
    assert "def " not in before, f"{path.name}: code before the first # %% line"
    found = {}
    for number, name, text in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        key = int(number), name
        assert key not in found, f"{path.name}: {number} {name} stands there twice"
        found[key] = text
    return found


SOLUTIONS = {}
for file in sorted((TESTS / "independent").glob("ch*.py")):
    SOLUTIONS |= independent_solutions(file)


def digest(exercise: Exercise) -> str:
    """A name for all that the proof of an exercise depends on: 12 hexadecimal digits."""
    texts = [
        repr(exercise),
        library(exercise.module),
        (TESTS / exercise.tests_path).read_text(encoding="utf-8"),
        SOLUTIONS.get((exercise.chapter, exercise.name), ""),
        *(path.read_text(encoding="utf-8") for path in SHARED),
    ]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def is_proved(exercise: Exercise) -> bool:
    """Whether the record holds the proof. With MMSCRATCH_PROVE set, none counts."""
    if os.environ.get("MMSCRATCH_PROVE") or not RECORD.exists():
        return False
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    return recorded.get(key_of(exercise)) == digest(exercise)


def key_of(exercise: Exercise) -> str:
    """What an exercise is called in the record: its chapter and name."""
    return f"{exercise.chapter} {exercise.name}"


def main() -> int:
    """Prove all exercises anew; write the record if all proofs hold."""
    os.environ["MMSCRATCH_PROVE"] = "1"
    status = pytest.main(["-q", "-n", str(os.cpu_count()), str(TESTS / "test_proofs.py")])
    if status == 0:
        digests = {key_of(exercise): digest(exercise) for exercise in EXERCISES}
        RECORD.write_text(json.dumps(digests, indent=0) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
