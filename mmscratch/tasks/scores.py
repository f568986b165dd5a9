"""What is printed of sentences: scores with their intervals; and the command `score`."""

import argparse
import json
from pathlib import Path

from ..data.translations import read_lines
from ..metrics import bleu, bleu_interval, bootstrap, caption_scores, exact_match
from ..text import caption_tokenize, tokenize

TOKENIZERS = {"caption": caption_tokenize, "words": tokenize, "none": str.split}


def score(args: argparse.Namespace) -> None:
    """Score the sentences in a text file against references in others."""
    split = TOKENIZERS[args.tokenize]
    hypotheses = read_lines(args.hypotheses)
    columns = [read_lines(path) for path in args.references]
    for path, column in zip(args.references, columns):
        if len(column) != len(hypotheses):
            raise ValueError(
                f"{args.hypotheses} has {len(hypotheses):,} lines, but {path} {len(column):,}"
            )
    references = [[split(line) for line in lines if line.strip()] for lines in zip(*columns)]
    if [] in references:
        files = ", ".join(map(str, args.references))
        raise ValueError(
            f"line {references.index([]) + 1} has no reference: it is empty in {files}"
        )
    print(
        f"{args.hypotheses}, {len(hypotheses):,} sentences; in brackets, what 95 % of a thousand resamples give"
    )
    print_scores([split(line) for line in hypotheses], references)


def print_scores(hypotheses: list[list[str]], references: list[list[list[str]]]) -> None:
    """What the field reports of sentences, each with its interval."""
    for name, (value, low, high) in caption_scores(hypotheses, references).items():
        digits = 1 if name.startswith("BLEU") else 3
        print(f"  {name:20} {value:.{digits}f}  ({low:.{digits}f} to {high:.{digits}f})")
    total = bleu(hypotheses, references)
    count = len(hypotheses)
    lengths = f"{total.sys_len / count:.1f}, closest references {total.ref_len / count:.1f}"
    print(f"  words a sentence     {lengths}; brevity penalty {total.bp:.3f}")
    print(f"  a reference exactly  {percentage(100 * exact_match(hypotheses, references), count)}")


def bleu_line(written: list[list[str]], references: list[list[list[str]]]) -> str:
    """BLEU with its interval, and how many sentences are one of their references."""
    score, low, high = bleu_interval(written, references)[-1]
    exact = percentage(100 * exact_match(written, references), len(written))
    return f"BLEU {score:.1f}  ({low:.1f} to {high:.1f}); exactly the reference {exact}"


def percentage(percent: float, count: int) -> str:
    """A percentage of `count` examples, with its interval."""
    right = round(percent * count / 100)
    low, high = bootstrap([100] * right + [0] * (count - right))
    return f"{percent:.1f} %  ({low:.1f} to {high:.1f})"


def write_rows(path: Path, **columns) -> None:
    """Write JSON lines, {name of a column: its value}, one for each example."""
    with path.open("w", encoding="utf-8") as file:
        for values in zip(*columns.values()):
            entry = dict(zip(columns, values))
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
