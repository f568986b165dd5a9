"""How good is what was written?"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .scenes import Scene, judge
from .text import detokenize

Tokens = Sequence[str]


class BleuScore(NamedTuple):
    """What `bleu` returns, by the names of sacrebleu's score object. All but `bp` and the counts are 0 to 100."""

    score: float
    counts: list[int]
    totals: list[int]
    precisions: list[float]
    bp: float
    sys_len: int
    ref_len: int


def bleu(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], smooth_method: str = "exp", max_order: int = 4
) -> BleuScore:
    """BLEU of a corpus, tokenized, each hypothesis with any number of references.

        BLEU = 100 · bp · exp(1/4 Σₙ log pₙ),   bp = min(1, exp(1 - ref_len / sys_len))

    pₙ is the share of n-grams of all hypotheses that stand in a reference, each counted at most as often as in the
    one reference that has most of it. ref_len adds up, for each hypothesis, the reference length closest to its own
    (the shorter on a tie). smooth_method "exp" takes 1/2, 1/4, … for the counts that are zero, "none" leaves them.
    Agrees with sacrebleu's corpus_bleu(tokenize="none"). Source: Papineni et al. 2002; Chen & Cherry 2014, method 3.
    """
    if smooth_method not in ("exp", "none"):
        raise ValueError(f'smooth_method is "exp" or "none", not {smooth_method!r}')
    _check(hypotheses, references)
    counts, totals, sys_len, ref_len = [0] * max_order, [0] * max_order, 0, 0
    for hypothesis, refs in zip(hypotheses, references):
        sys_len += len(hypothesis)
        ref_len += min((abs(len(ref) - len(hypothesis)), len(ref)) for ref in refs)[1]
        for n in range(1, max_order + 1):
            most = Counter()
            for ref in refs:
                most |= _ngrams(ref, n)  # the larger of both counts
            found = _ngrams(hypothesis, n)
            counts[n - 1] += sum((found & most).values())
            totals[n - 1] += max(len(hypothesis) - n + 1, 0)
    bp = 1.0 if sys_len >= ref_len else math.exp(1 - ref_len / sys_len) if sys_len else 0.0
    precisions, smooth = [], 1.0
    for count, total in zip(counts, totals):
        if total == 0:
            precisions.append(0.0)
        elif count == 0 and smooth_method == "exp" and any(counts):  # where nothing at all fits, nothing is smoothed
            smooth *= 2
            precisions.append(100 / (smooth * total))
        else:
            precisions.append(100 * count / total)
    if min(precisions) == 0:
        score = 0.0
    else:
        score = bp * math.exp(sum(map(math.log, precisions)) / max_order)
    return BleuScore(score, counts, totals, precisions, bp, sys_len, ref_len)


def _ngrams(tokens: Tokens, n: int) -> Counter:
    return Counter(zip(*(tokens[i:] for i in range(n))))


def attention_inside(weights: Tensor, box: tuple[int, int, int, int], size: int) -> tuple[float, float]:
    """How much of the attention lies within a box, and how much of the picture does: two shares, 0 to 1.

    weights (h, w) sum to 1, over the places of a picture of size × size pixels; box: left, top, right, bottom, in pixels.
    A place's weight is spread evenly over its pixels.
    """
    left, top, right, bottom = box

    def covered(places: int, low: int, high: int) -> Tensor:
        edges = torch.linspace(0, size, places + 1, device=weights.device).clamp(low, high)
        return edges.diff() * places / size  # (places,) the share of each that is between low and high

    inside = covered(weights.size(0), top, bottom).unsqueeze(1) * covered(weights.size(1), left, right)  # (h, w)
    return (weights * inside).sum().item(), inside.mean().item()


def exact_match(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of hypotheses that are, word for word, one of their references."""
    _check(hypotheses, references)
    return sum(list(h) in map(list, refs) for h, refs in zip(hypotheses, references)) / max(len(hypotheses), 1)


class Truth(NamedTuple):
    """What `truth` returns."""

    shares: list[float]  # of true captions in %: of scenes with one thing, with two, with three, and of all
    faults: Counter  # of the others: how many captions have which


def truth(written: Sequence[Tokens], scenes: Sequence[Scene]) -> Truth:
    """How many captions, in English, are true of their scenes, and what is wrong in the others, by `scenes.judge`.

    A share of no scenes is 0. A caption with two faults of different kinds counts with each.
    """
    if len(written) != len(scenes):
        raise ValueError(f"{len(written)} captions but {len(scenes)} scenes")
    _check_tokens(written)
    judgements = [judge(detokenize(tokens), scene) for tokens, scene in zip(written, scenes)]
    shares = []
    for numbers in ((1,), (2,), (3,), (1, 2, 3)):
        true = [j.true for j, scene in zip(judgements, scenes) if len(scene.things) in numbers]
        shares.append(100 * sum(true) / max(len(true), 1))
    return Truth(shares, Counter(fault for j in judgements for fault in j.wrong))


class LabelScores(NamedTuple):
    """What `label_scores` returns, from 0 to 1: of each label (L,), or one number of all."""

    accuracy: Tensor
    precision: Tensor
    recall: Tensor
    f1: Tensor


def label_scores(predicted: Tensor, true: Tensor, average: str | None = None) -> LabelScores:
    """How well the labels of N things were found; predicted and true (N, L) bool.

        accuracy  = (tp + tn) / N           precision = tp / (tp + fp)
        f1 = 2 tp / (2 tp + fp + fn)        recall    = tp / (tp + fn)

    tp, fp, fn and tn count, for one label, the things where it is rightly and wrongly found, wrongly and rightly not
    found. A score whose denominator is 0 is 0. average "macro" is the mean over the labels, so rare ones count as much;
    "micro" adds up the counts of all labels first: its accuracy is the share of all N · L decisions that are right.
    Agrees with scikit-learn's precision_recall_fscore_support(zero_division=0) and accuracy_score.
    """
    if average not in (None, "macro", "micro"):
        raise ValueError(f'average is None, "macro" or "micro", not {average!r}')
    if (predicted.dtype, true.dtype) != (torch.bool, torch.bool):
        raise ValueError(f"bool tensors are needed, not {predicted.dtype} and {true.dtype}; of logits take logits > 0")
    if predicted.dim() != 2 or predicted.shape != true.shape or predicted.numel() == 0:
        shapes = f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(f"predicted and true must have the same shape (N, L), and no axis of 0, not {shapes}")
    if average == "micro":
        predicted, true = predicted.reshape(-1, 1), true.reshape(-1, 1)  # (N·L, 1): every decision is about one label
    found, there, tp = predicted.sum(0), true.sum(0), (predicted & true).sum(0)  # each (L,)
    accuracy = (predicted == true).float().mean(0)
    precision, recall, f1 = (n / of.clamp(min=1) for n, of in ((tp, found), (tp, there), (2 * tp, found + there)))
    scores = LabelScores(accuracy, precision, recall, f1)
    return LabelScores(*(score.mean() for score in scores)) if average else scores


def confusion_matrix(predicted: Tensor, true: Tensor, num_classes: int) -> Tensor:
    """(C, C) long: in row i, column j stands how many things of class i were taken for class j; both (N,) integers.

    Agrees with scikit-learn's confusion_matrix(true, predicted, labels=range(C)), which takes the true ones first.
    """
    if predicted.dim() != 1 or predicted.shape != true.shape:
        shapes = f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(f"predicted and true must have the same shape (N,), not {shapes}")
    for name, classes in (("predicted", predicted), ("true", true)):
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise ValueError(f"{name} must be integers, the numbers of classes, not {classes.dtype}")
        outside = classes[(classes < 0) | (classes >= num_classes)]
        if len(outside):
            raise ValueError(f"{name} has a class {outside[0]}, but {num_classes} classes are 0 to {num_classes - 1}")
    cells = true.long() * num_classes + predicted.long()  # (N,): the place in the matrix, row by row
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def _check(hypotheses, references):
    """A string where tokens are meant, or lists that do not fit together, give numbers that look like scores."""
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses but references for {len(references)}")
    _check_tokens(hypotheses)
    for i, refs in enumerate(references):
        if isinstance(refs, str) or any(isinstance(ref, str) for ref in refs):
            raise TypeError(f"the references of hypothesis {i} must be a list of lists of tokens")
        if len(refs) == 0:
            raise ValueError(f"hypothesis {i} has no reference")


def _check_tokens(hypotheses):
    for i, hypothesis in enumerate(hypotheses):
        if isinstance(hypothesis, str):
            raise TypeError(f"hypothesis {i} is a string, {hypothesis[:40]!r}; a list of tokens is needed")
