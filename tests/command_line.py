"""Helpers of the tests of commands: run one, and read what it printed."""

import atexit
import contextlib
import functools
import io
import re
import shutil
import tempfile

import pytest

from mmscratch.__main__ import main
from mmscratch.metrics import bootstrap, caption_scores
from mmscratch.tasks import captioning


def parse_scores(out) -> dict:
    """The lines with a score and its interval: name -> score, low and high, as printed."""
    lines = re.findall(
        r"^  ([\w-]+(?: \w+)*) {2,}([\d.]+)(?: %)?  \(([\d.]+) to ([\d.]+)\)(;.*)?$", out, re.M
    )
    return {name: numbers for name, *numbers, _ in lines}


def expected_scores(hypotheses, references) -> dict:
    """What `parse_scores` should return for these tokens."""
    scores = {}
    for name, interval in caption_scores(hypotheses, references).items():
        digits = 1 if "BLEU" in name else 3
        scores[name] = [f"{x:.{digits}f}" for x in interval]
    exact = sum(hypothesis in refs for hypothesis, refs in zip(hypotheses, references))
    return scores | {"exact match": fraction(exact, len(hypotheses))}


def fraction(right, count) -> list[str]:
    """The fraction of right ones in %, and its interval."""
    low, high = bootstrap([100] * right + [0] * (count - right))
    return [f"{x:.1f}" for x in (100 * right / count, low, high)]


def measured(out) -> str:
    """What `evaluate` printed, without the last line, which names the report."""
    text, _, last = out.rstrip("\n").rpartition("\n")
    assert last.endswith("report.html in a browser")
    return text + "\n"


def error_of(capsys) -> str:
    """The one line that a failing command prints."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def parts(out):
    """The printed table: part -> (parameters, percent trained)."""
    table = out.split("parameters   trained\n")[1]
    rows = {}
    for name, count, percent in re.findall(r"^(\S+) +([\d,]+) +([\d.]+) %$", table, re.M):
        rows[name] = (int(count.replace(",", "")), float(percent))
    return rows


def run_command(command):
    """Run a command: its exit status and what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(command.split())
    return status, out.getvalue()


def train_tiny_captioner(folder, seed=0) -> None:
    """Save in `folder` a captioner of 32-pixel scenes, barely trained: each process trains it once."""
    shutil.copytree(_tiny_captioner(seed), folder)


@functools.cache
def _tiny_captioner(seed):
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data = "--layout scenes --scenes 53 --image-size 32"
    training = f"--batch-size 7 --precision float32 --seed {seed}"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(captioning, "TEST_SCENES", 13)
        monkeypatch.setattr(captioning, "VALIDATION_SCENES", 3)
        status, _ = run_command(f"train {data} {training} --to {folder}/run")
    assert status == 0
    return f"{folder}/run"
