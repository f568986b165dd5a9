"""Printing and saving the results of a measurement; and the command `score`."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import DataSet
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
    median_rank,
    recall_at,
    retrieval_ranks,
    transcript_scores,
    word_error_rate,
)
from ..plots import retrieval_sheet
from ..text import Vocabulary, caption_tokenize, detokenize, printable, tokenize

TOKENIZERS = {"caption": caption_tokenize, "words": tokenize, "none": str.split}
SCORES = "scores-{}.txt"  # in a run's folder: what its measurement on a split printed
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


def print_transcript_scores(hypotheses: list[list[str]], references: list[list[list[str]]]) -> None:
    """Print the error rates of transcripts, each with its interval.

    Punctuation is left out: nobody hears it.
    """
    hypotheses = [_without_punctuation(words) for words in hypotheses]
    references = [[_without_punctuation(words) for words in refs] for refs in references]
    for name, (value, low, high) in transcript_scores(hypotheses, references).items():
        print(f"  {name:20} {100 * value:.1f} %  ({100 * low:.1f} to {100 * high:.1f})")
    rate = word_error_rate(hypotheses, references)
    wrong = f"{rate.substitutions:,} substituted, {rate.insertions:,} inserted"
    print(f"  words                {rate.hits:,} right, {wrong}, {rate.deletions:,} deleted")
    exact = percentage(100 * exact_match(hypotheses, references), len(hypotheses))
    print(f"  exact match          {exact}")


def _without_punctuation(tokens: list[str]) -> list[str]:
    """The tokens that have a letter or a digit."""
    return [token for token in tokens if any(map(str.isalnum, token))]


def percentage(percent: float, count: int) -> str:
    """A percentage of `count` examples, with its interval."""
    right = round(percent * count / 100)
    return mean_percentage([1] * right + [0] * (count - right))


def mean_percentage(scores: Sequence[float], groups: Sequence[int] = ()) -> str:
    """The mean of scores from 0 to 1 as a percentage, with its interval.

    groups: the group of each score, if the scores of a group are not independent of each other: a
        pair of questions (see `QuestionData`), the captions of a picture. The interval then comes
        from resampling groups.
    """
    percentages = 100 * np.asarray(scores)
    if len(groups):
        _, number = np.unique(groups, return_inverse=True)
        sums = np.bincount(number, percentages)  # (groups,)
        counts = np.bincount(number)  # (groups,)
        statistics = np.stack([sums, counts], axis=1)  # (groups, 2)
        low, high = bootstrap(statistics, lambda total: total[0] / total[1])
    else:
        low, high = bootstrap(percentages)
    return f"{percentages.mean():.1f} %  ({low:.1f} to {high:.1f})"


def print_retrieval(data: DataSet, scores: Tensor, relevant: Tensor) -> None:
    """Print recall and median rank of caption -> picture and of picture -> caption.

    scores, relevant: (Q, G), of each caption and each picture (see `retrieval_ranks`).

    If some captions fit several pictures, as in scenes, the others are also measured alone.
    """
    Q, G = scores.shape
    counts = torch.tensor([len(texts) for texts in data.texts])  # (G,)
    pictures = torch.arange(G).repeat_interleave(counts)  # (Q,), one for each caption
    ranks = retrieval_ranks(scores, relevant)  # (Q,)
    fits_one = relevant.sum(1) == 1  # (Q,)
    several = Q - int(fits_one.sum())
    among = f"among {G:,} pictures"
    heading = f"caption to picture: {Q:,} captions"
    if several:
        left_out = f"{several:,} that fit several pictures are left out"
        print(f"caption to picture: {Q - several:,} captions; {left_out}")
        _print_ranks(ranks[fits_one], pictures[fits_one], among)
        heading += "; any picture that fits is right"
    print(heading)
    _print_ranks(ranks, pictures, among)
    print(f"picture to caption: {G:,} pictures; any caption that fits is right")
    _print_ranks(retrieval_ranks(scores.T, relevant.T), torch.arange(G), f"among {Q:,} captions")


def _print_ranks(ranks: Tensor, pictures: Tensor, among: str) -> None:
    """Print recall and median of the ranks (Q,), with intervals from resampling pictures (Q,)."""
    groups = pictures.tolist()
    for k in (1, 5, 10):
        name = f"recall at {k}"
        print(f"  {name:20} {mean_percentage(recall_at(ranks, k), groups)} {among}")
    median, low, high = median_rank(ranks, groups)
    print(f"  median rank          {median:g}  ({low:g} to {high:g}) {among}")


def save_retrieval(run: Path, split: str, data: DataSet, scores: Tensor, relevant: Tensor) -> None:
    """Write each caption's rank and best picture to the run's folder, and draw some of them.

    scores, relevant: (Q, G), of each caption and each picture of the data.
    """
    captions = []
    names = []
    first = []  # the first caption of each picture
    for name, texts in zip(data.names, data.texts):
        first.append(len(captions))
        captions += texts
        names += [name] * len(texts)
    ranks = retrieval_ranks(scores, relevant).tolist()
    best = scores.topk(min(5, len(data))).indices  # (Q, 5)
    found = [data.names[i] for i in best[:, 0].tolist()]
    path = run / f"retrieval-{split}.jsonl"
    write_rows(path, picture=names, caption=captions, rank=ranks, found=found)
    labels = []
    pictures = []
    right = []
    for i in first[:8]:
        labels.append(f"{captions[i]} (rank {ranks[i]:,})")
        pictures.append([data[j]["image"] for j in best[i].tolist()])
        right.append(relevant[i, best[i]].tolist())
    retrieval_sheet(labels, pictures, right).savefig(run / f"retrieval-{split}.png")


def print_answers(question: str, ranked: list[tuple[list[str], float]]) -> None:
    """Print a question and its most probable answers, (words, probability) each."""
    found = []
    for words, probability in ranked:
        found.append(f"{detokenize(words) or '(nothing)'} {100 * probability:.0f} %")
    print(printable(f"{question} {', '.join(found)}"), flush=True)


def print_unknown(words: list[str], vocabulary: Vocabulary) -> None:
    """Name on standard error the words that the model does not know."""
    unknown = [word for word in dict.fromkeys(words) if word not in vocabulary.index]
    if unknown:
        words = printable(", ".join(unknown))
        print(f"not in the model's vocabulary: {words}", file=sys.stderr)


def write_rows(path: Path, **columns) -> None:
    """Write JSON lines: {column: value, …} for each example."""
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for values in zip(*columns.values()):
            row = dict(zip(columns, values))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
