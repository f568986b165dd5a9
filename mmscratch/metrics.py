"""How good is what was written?"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .text import caption_tokenize as caption_tokenize  # the field's, for the metrics here

Tokens = Sequence[str]


class BleuScore(NamedTuple):
    """What `bleu` returns, by the names of sacrebleu's score object. Scores and precisions are 0 to 100."""

    score: float
    counts: list[int]
    totals: list[int]
    precisions: list[float]
    bp: float
    sys_len: int
    ref_len: int
    scores: list[float]  # BLEU-1, BLEU-2, … up to `score`


def bleu(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], smooth_method: str = "exp", max_order: int = 4
) -> BleuScore:
    """BLEU of a corpus, tokenized, each hypothesis with any number of references.

        BLEU-N = 100 · bp · exp(1/N Σₙ log pₙ),   bp = min(1, exp(1 - ref_len / sys_len))

    pₙ is the share of n-grams of all hypotheses that stand in a reference, each counted at most as often as in the
    one reference that has most of it: counts / totals. ref_len adds up, for each hypothesis, the reference length closest
    to its own (the shorter on a tie). So that one pₙ of 0 does not make it all 0, smooth_method "exp" takes 1/2, 1/4, … for
    the counts that are 0, "floor" 0.1, "add-k" adds 1 to counts and totals from n = 2 on, "coco" adds 1e-15 and 1e-9 to
    them; "none" leaves them. Where not even a word is right, the score is 0 with each.
    Agrees with sacrebleu's corpus_bleu(tokenize="none"), and with "coco" with the COCO evaluation (pycocoevalcap), which
    counts from 0 to 1. Source: Papineni et al. 2002; Chen & Cherry 2014, methods 1 to 3.
    """
    return _bleu(bleu_statistics(hypotheses, references, max_order).sum(0).tolist(), smooth_method)


def sentence_bleu(
    hypothesis: Tokens, references: Sequence[Tokens], smooth_method: str = "exp", max_order: int = 4
) -> BleuScore:
    """BLEU of one sentence; of n-grams longer than it, there are none to count, so they are left out.

    Their mean is not the BLEU of a corpus. Agrees with sacrebleu's sentence_bleu(tokenize="none").
    """
    return _bleu(bleu_statistics([hypothesis], [references], max_order)[0].tolist(), smooth_method, effective_order=True)


def bleu_statistics(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], max_order: int = 4) -> np.ndarray:
    """What BLEU adds up, of each hypothesis: sys_len, ref_len, then its counts, then its totals, (N, 2 + 2 · max_order)."""
    _check(hypotheses, references)
    if max_order < 1:
        raise ValueError(f"max_order is 1 or more, not {max_order}")
    statistics = np.zeros((len(hypotheses), 2 + 2 * max_order), dtype=int)
    for row, hypothesis, refs in zip(statistics, hypotheses, references):
        length = len(hypothesis)
        row[:2] = length, min((abs(len(ref) - length), len(ref)) for ref in refs)[1]
        row[2 + max_order :] = [max(length - n, 0) for n in range(max_order)]
        for n in range(1, max_order + 1):
            ngrams = list(_ngrams(hypothesis, n))
            right = set(ngrams).intersection(chain.from_iterable(_ngrams(ref, n) for ref in refs))
            if not right:
                break  # nor can a longer one be
            row[1 + n] = len(right)
            if len(set(ngrams)) < len(ngrams):  # what is written twice counts twice only if a reference has it twice
                for ngram, count in Counter(ngrams).items():
                    if count > 1 and ngram in right:
                        row[1 + n] += min(count, max(list(_ngrams(ref, n)).count(ngram) for ref in refs)) - 1
    return statistics


def _bleu(statistics: list[int], smooth_method: str, effective_order: bool = False) -> BleuScore:
    """From what was added up over a corpus, or of one sentence."""
    if smooth_method not in ("exp", "floor", "add-k", "coco", "none"):
        raise ValueError(f'smooth_method is "exp", "floor", "add-k", "coco" or "none", not {smooth_method!r}')
    max_order = len(statistics) // 2 - 1
    sys_len, ref_len, counts, totals = *statistics[:2], statistics[2 : 2 + max_order], statistics[2 + max_order :]
    bp = 1.0 if sys_len >= ref_len else math.exp(1 - ref_len / sys_len) if sys_len else 0.0
    precisions, scores, halved = [0.0] * max_order, [0.0] * max_order, 1.0
    if any(counts):
        if smooth_method == "add-k":
            counts, totals = ([first, *(number + 1 for number in rest)] for first, *rest in (counts, totals))
        for n, (count, total) in enumerate(zip(counts, totals)):
            if smooth_method == "coco":
                count, total = count + 1e-15, total + 1e-9
            elif count == 0 and smooth_method in ("exp", "floor"):
                halved /= 2
                count = halved if smooth_method == "exp" else 0.1
            precisions[n] = 100 * count / total if total else 0.0
            if total or not effective_order:
                known = precisions[: n + 1]
            scores[n] = bp * math.exp(sum(map(math.log, known)) / len(known)) if all(known) else 0.0
    return BleuScore(scores[-1], counts, totals, precisions, bp, sys_len, ref_len, scores)


def _ngrams(tokens: Tokens, n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(tokens[i:] for i in range(n)))


class MeanScore(NamedTuple):
    """What `rouge_l` and `cider_d` return: a corpus' score, which is the mean, and that of each hypothesis."""

    score: float
    scores: list[float]


def rouge_l(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> MeanScore:
    """ROUGE-L as in the COCO evaluation, from 0 to 1: how much of a sentence stands in a reference, in the same order?

        p = max over references of lcs / len(hypothesis),   r = max over references of lcs / len(reference)
        score = (1 + β²) p r / (r + β² p),   β = 1.2

    lcs is the length of the longest common subsequence. p and r may come from different references. Two sentences without
    words are equal. Agrees with pycocoevalcap. Source: Lin 2004; Chen et al. 2015.
    """
    _check(hypotheses, references)
    scores = []
    for hypothesis, refs in zip(hypotheses, references):
        common = [_longest_common_subsequence(hypothesis, ref) if hypothesis or ref else 1 for ref in refs]
        p = max(common) / max(len(hypothesis), 1)
        r = max(lcs / max(len(ref), 1) for lcs, ref in zip(common, refs))
        scores.append((1 + 1.2**2) * p * r / (r + 1.2**2 * p) if p else 0.0)
    return _mean_score(scores)


def _longest_common_subsequence(a: Tokens, b: Tokens) -> int:
    """The length of it, row by row of the table lcs[i][j] of the first i and the first j tokens."""
    row = [0] * (len(b) + 1)
    for token in a:
        above, row = row, [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if token == other else max(row[j], above[j + 1]))
    return row[-1]


class DocumentFrequencies(NamedTuple):
    """In the references of how many pictures, of all `documents`, an n-gram stands."""

    counts: Counter
    documents: int


def document_frequencies(references: Sequence[Sequence[Tokens]]) -> DocumentFrequencies:
    """Of all n-grams of one to four tokens: what `cider_d` takes for common and for rare."""
    counts = Counter()
    for refs in references:
        counts.update(set(chain.from_iterable(_ngrams(ref, n) for ref in refs for n in range(1, 5))))
    return DocumentFrequencies(counts, len(references))


def cider_d(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], frequencies: DocumentFrequencies | None = None
) -> MeanScore:
    """CIDEr-D, from 0 to 10: how alike are a sentence and its references in what is rare in other pictures' references?

        g(ngram) = count · log(documents / max(1, the ngram's document frequency))
        score = 10 · mean over references, and over n = 1 to 4, of
                exp(-(l_h - l_r)² / 2σ²) · Σ min(g_h, g_r) · g_r / (‖g_h‖ ‖g_r‖),   σ = 6

    g_h and g_r are those of all n-grams of the hypothesis and of a reference, l_h and l_r how many bigrams each has. The
    frequencies come from the references unless they are given; of a single picture they are of no use, and all scores 0.
    Agrees with pycocoevalcap; papers often print it times 100. Source: Vedantam et al. 2015.
    """
    _check(hypotheses, references)
    counts, documents = frequencies or document_frequencies(references)
    rarest = math.log(max(documents, 1))
    rarity = defaultdict(lambda: rarest, ((ngram, rarest - math.log(max(count, 1))) for ngram, count in counts.items()))

    def weigh(ngrams: list[tuple]) -> tuple[dict, float]:
        """The counts of n-grams, and the norm of g."""
        counts = dict.fromkeys(ngrams, 1)
        if len(counts) < len(ngrams):  # which is rare, and Counter slow
            counts = Counter(ngrams)
        return counts, math.hypot(*[count * rarity[ngram] for ngram, count in counts.items()])

    scores = []
    for hypothesis, refs in zip(hypotheses, references):
        total, ours = 0.0, [weigh(list(_ngrams(hypothesis, n))) for n in range(1, 5)]
        for ref in refs:
            alike = 0.0
            for n, (c_h, norm_h) in enumerate(ours, 1):
                ngrams = list(_ngrams(ref, n))
                shared = c_h.keys() & ngrams
                if not shared:
                    break  # nor is a longer one shared
                c_r, norm_r = weigh(ngrams)
                if norm_h and norm_r:
                    dot = sum([min(c_h[ngram], c_r[ngram]) * c_r[ngram] * rarity[ngram] ** 2 for ngram in shared])
                    alike += dot / (norm_h * norm_r)
            apart = max(len(hypothesis) - 1, 0) - max(len(ref) - 1, 0)
            total += alike / 4 * math.exp(-(apart**2) / (2 * 6.0**2))
        scores.append(10 * total / len(refs))
    return _mean_score(scores)


def _mean_score(scores: list[float]) -> MeanScore:
    return MeanScore(sum(scores) / max(len(scores), 1), scores)


class Estimate(NamedTuple):
    """A score of a corpus, and from where to where it lies with 95 % confidence (see `bootstrap`)."""

    score: float
    low: float
    high: float


def bootstrap(
    statistics: np.ndarray | Sequence[float],
    score: Callable[[np.ndarray], float | list[float]] | None = None,
    seed: int = 12345,
) -> tuple[float, float] | tuple[list[float], list[float]]:
    """Between which two values a corpus' score lies with 95 % confidence: would other examples have given another score?

    statistics (N,) or (N, S): what is added up, of each example; `score` makes a score, or a list of several, of the sums
    (S,). Without it, the score is the mean. 1,000 times, N of the N examples are drawn, with repetition, and scored; of the
    1,000 scores, 2.5 % are cut off at each end. Agrees with sacrebleu's confidence for BLEU. Source: Efron 1979; Koehn 2004.
    """
    statistics = np.asarray(statistics)
    if len(statistics) == 0:
        raise ValueError("a confidence interval needs at least one example")
    N, draw = len(statistics), np.random.default_rng(seed)
    score = score or (lambda total: total / N)
    scores = np.sort([score(statistics[draw.integers(N, size=N)].sum(0)) for _ in range(1000)], axis=0)
    return scores[25].tolist(), scores[-26].tolist()


def bleu_estimates(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[Estimate]:
    """BLEU-1, BLEU-2, BLEU-3 and BLEU-4 (0 to 100), each with its interval."""

    def scores(sums: np.ndarray) -> list[float]:
        return _bleu(sums.tolist(), "exp").scores

    statistics = bleu_statistics(hypotheses, references)
    return [Estimate(*estimate) for estimate in zip(scores(statistics.sum(0)), *bootstrap(statistics, scores))]


def caption_scores(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, Estimate]:
    """By name: BLEU-1 to BLEU-4 (0 to 100), ROUGE-L (0 to 1) and CIDEr-D (0 to 10), each with its interval."""
    found = {f"BLEU-{n}": estimate for n, estimate in enumerate(bleu_estimates(hypotheses, references), 1)}
    for name, (score, scores) in (("ROUGE-L", rouge_l(hypotheses, references)), ("CIDEr-D", cider_d(hypotheses, references))):
        found[name] = Estimate(score, *bootstrap(scores))
    return found


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


def words_right(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], meaning: Callable[[str], str | None]
) -> list[bool]:
    """Of certain words of the first references, say the colours: is each in the hypothesis as well?

    `meaning` gives the words that count a name and all others None: `scenes.colour_of`. The n-th of them in a reference
    is right if the n-th of them in the hypothesis has the same name, so that of two colours that have changed places
    neither is right.
    """
    _check(hypotheses, references)
    right = []
    for hypothesis, refs in zip(hypotheses, references):
        written, wanted = ([name for token in tokens if (name := meaning(token))] for tokens in (hypothesis, refs[0]))
        right += [name == other for name, other in zip_longest(wanted, written[: len(wanted)])]
    return right


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
    _check_tokens(hypotheses)
    if isinstance(references, str):
        raise TypeError(f"the references are a string, {references[:40]!r}; lists of lists of tokens are needed")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses but references for {len(references)}")
    for i, refs in enumerate(references):
        if isinstance(refs, str) or any(isinstance(ref, str) for ref in refs):
            raise TypeError(f"the references of hypothesis {i} must be a list of lists of tokens, even if there is only one")
        if len(refs) == 0:
            raise ValueError(f"hypothesis {i} has no reference")


def _check_tokens(hypotheses):
    for i, hypothesis in enumerate([hypotheses] if isinstance(hypotheses, str) else hypotheses):
        if isinstance(hypothesis, str):
            raise TypeError(f"hypothesis {i} is a string, {hypothesis[:40]!r}; a list of tokens is needed")
        if any(isinstance(token, (list, tuple)) for token in hypothesis):
            raise TypeError(f"hypothesis {i} holds lists instead of tokens: the hypotheses come first, then the references")
