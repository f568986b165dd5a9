"""Printing and saving the results of a measurement; and the command `score`."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..data.judge import JudgeReport
from ..data.language import colour_of
from ..data.translations import read_lines
from ..metrics import (
    aligned_accuracy,
    bleu,
    bleu_interval,
    bootstrap,
    caption_scores,
    exact_match,
)
from ..text import Vocabulary, caption_tokenize, tokenize

TOKENIZERS = {"caption": caption_tokenize, "words": tokenize, "none": str.split}
INTERVALS = "in brackets: 95 % bootstrap intervals, from 1,000 resamples"


def score(args: argparse.Namespace) -> None:
    """Score the sentences in a text file against the references in others."""
    split = TOKENIZERS[args.tokenize]
    hypotheses = read_lines(args.hypotheses)
    columns = [read_lines(path) for path in args.references]
    for path, column in zip(args.references, columns):
        if len(column) != len(hypotheses):
            lengths = f"{len(hypotheses):,} lines, but {path} {len(column):,}"
            raise ValueError(f"{args.hypotheses} has {lengths}")
    references = [[split(line) for line in lines if line.strip()] for lines in zip(*columns)]
    if [] in references:
        files = ", ".join(map(str, args.references))
        number = references.index([]) + 1
        raise ValueError(f"line {number} has no reference: it is empty in {files}")
    print(f"{args.hypotheses}, {len(hypotheses):,} sentences; {INTERVALS}")
    print_scores([split(line) for line in hypotheses], references)


def print_scores(hypotheses: list[list[str]], references: list[list[list[str]]]) -> None:
    """Print the usual scores of sentences, each with its interval."""
    for name, (value, low, high) in caption_scores(hypotheses, references).items():
        digits = 1 if name.startswith("BLEU") else 3
        print(f"  {name:20} {value:.{digits}f}  ({low:.{digits}f} to {high:.{digits}f})")
    total = bleu(hypotheses, references)
    count = len(hypotheses)
    lengths = f"{total.sys_len / count:.1f}, closest references {total.ref_len / count:.1f}"
    print(f"  words per sentence   {lengths}; brevity penalty {total.bp:.3f}")
    print(f"  exact match          {percentage(100 * exact_match(hypotheses, references), count)}")


def print_judgement(report: JudgeReport, count: int) -> None:
    """Print the percentages of true captions among `count`, and the faults of the others."""
    one, two, three, every = report.percentages
    by_objects = f"one object {one:.0f} %, two {two:.0f} %, three {three:.0f} %"
    print(f"  true by judge        {percentage(every, count)}; {by_objects}")
    faults = ", ".join(f"{fault} {number}" for fault, number in report.faults.most_common())
    print(f"  wrong in the others  {faults or 'nothing'}")


def translation_scores(
    hypotheses: list[list[str]],
    references: list[list[list[str]]],
    language: str | None = None,
) -> str:
    """BLEU and the percentages of exact matches and, given a language, of right colours."""
    value, low, high = bleu_interval(hypotheses, references)[-1]
    exact = percentage(100 * exact_match(hypotheses, references), len(hypotheses))
    text = f"BLEU {value:.1f}  ({low:.1f} to {high:.1f}); exact match {exact}"
    if language:
        colour = partial(colour_of, language=language)
        right = aligned_accuracy(hypotheses, references, colour)
        text += f"; colours right {percentage(100 * sum(right) / len(right), len(right))}"
    return text


def percentage(percent: float, count: int) -> str:
    """A percentage of `count` examples, with its interval."""
    right = round(percent * count / 100)
    return mean_percentage([1] * right + [0] * (count - right))


def mean_percentage(scores: Sequence[float], pairs: Sequence[int] = ()) -> str:
    """The mean of scores from 0 to 1 as a percentage, with its interval.

    The two examples of a pair (see `QuestionData`) are not independent of each other, so the
    interval comes from resampling pairs.
    """
    percentages = 100 * np.asarray(scores)
    if len(pairs):
        _, number = np.unique(pairs, return_inverse=True)
        percentages = np.bincount(number, percentages) / np.bincount(number)  # (pairs,)
    low, high = bootstrap(percentages)
    return f"{percentages.mean():.1f} %  ({low:.1f} to {high:.1f})"


def print_unknown(words: list[str], vocabulary: Vocabulary) -> None:
    """Name on standard error the words that the model does not know."""
    unknown = [word for word in dict.fromkeys(words) if word not in vocabulary.index]
    if unknown:
        print(f"not in the model's vocabulary: {', '.join(unknown)}", file=sys.stderr)


def write_rows(path: Path, **columns) -> None:
    """Write JSON lines: {column: value, …} for each example."""
    with path.open("w", encoding="utf-8") as file:
        for values in zip(*columns.values()):
            row = dict(zip(columns, values))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
