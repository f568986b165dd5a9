"""What the tests of commands share: what a command printed, and what it should have."""

import contextlib
import io
import re

from mmscratch.__main__ import main
from mmscratch.metrics import bootstrap, caption_scores


def printed(out) -> dict:
    """Every line that is a name and a score with its interval, as it stands there."""
    lines = re.findall(
        r"^  ([\w-]+(?: \w+)*) {2,}([\d.]+)(?: %)?  \(([\d.]+) to ([\d.]+)\)(;.*)?$", out, re.M
    )
    return {name: numbers for name, *numbers, _ in lines}


def expected(hypotheses, references) -> dict:
    """The same, of tokens."""
    scores = {name: [f"{x:.1f}" if "BLEU" in name else f"{x:.3f}" for x in estimate]
              for name, estimate in caption_scores(hypotheses, references).items()}  # fmt: skip
    return scores | {
        "exact match": fraction(
            sum(h in refs for h, refs in zip(hypotheses, references)), len(hypotheses)
        )
    }


def fraction(right, count) -> list[str]:
    """That of so many right ones, in %, and its interval."""
    return [
        f"{x:.1f}" for x in (100 * right / count, *bootstrap([100] * right + [0] * (count - right)))
    ]


def error_of(capsys) -> str:
    """The one line that a failing command prints."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def parts(out):
    """The printed table: part -> (parameters, percent trained)."""
    rows = re.findall(
        r"^(\S+) +([\d,]+) +([\d.]+) %$", out.split("parameters   trained\n")[1], re.MULTILINE
    )
    return {name: (int(count.replace(",", "")), float(fraction)) for name, count, fraction in rows}


def quietly(command):
    """Its exit status and what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(command.split())
    return status, out.getvalue()


def train_tiny_captioner(folder, seed=0) -> None:
    """A captioner of drawn scenes of 32 pixels that has hardly learned anything, at `folder`."""
    command = f"train --layout scenes --scenes 53 --image-size 32 --batch-size 7 --precision float32 --seed {seed} --to {folder}"
    status, _ = quietly(command)
    assert status == 0
