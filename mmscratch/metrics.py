"""How good is what was written?"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .text import caption_tokenize as caption_tokenize  # the field's, for the metrics here

Tokens = Sequence[str]


class BleuScore(NamedTuple):
    """What `bleu` returns, by the names of sacrebleu's score object.

    Scores and precisions are 0 to 100.
    """

    score: float
    counts: list[int]
    totals: list[int]
    precisions: list[float]
    bp: float
    sys_len: int
    ref_len: int
    scores: list[float]  # BLEU-1, BLEU-2, BLEU-3 and BLEU-4, which is `score`


def bleu(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    smooth_method: str = "exp",
) -> BleuScore:
    """BLEU-4 of a corpus.

        BLEU-N = 100 · bp · exp(1/N Σₙ log pₙ),   bp = min(1, exp(1 - ref_len / sys_len))

    pₙ = counts / totals is the share of n-grams of all hypotheses that stand in a reference, each
    counted at most as often as in the one reference that has most of it. ref_len adds up, for each
    hypothesis, the reference length closest to its own (the shorter on a tie).

    hypotheses: a list of tokens for each sentence.
    references: any number of lists of tokens for each hypothesis.
    smooth_method: what keeps one pₙ of 0 from making the whole score 0. "exp" takes 1/2, 1/4, …
        for the counts that are 0, "floor" 0.1, "add-k" adds 1 to counts and totals from n = 2 on,
        "coco" adds 1e-15 and 1e-9 to them; "none" leaves them. Where not even a word is right, the
        score is 0 with each.

    Agrees with sacrebleu's corpus_bleu(tokenize="none"), and with "coco" with the COCO evaluation
    (pycocoevalcap), which counts from 0 to 1.
    Source: Papineni et al. 2002; Chen & Cherry 2014, methods 1 to 3.
    """
    statistics = bleu_statistics(hypotheses, references).sum(0)
    return _bleu(statistics.tolist(), smooth_method)


def sentence_bleu(
    hypothesis: Tokens, references: Sequence[Tokens], smooth_method: str = "exp"
) -> BleuScore:
    """BLEU of one sentence; of n-grams longer than it, there are none to count: they are left out.

    hypothesis: its tokens.
    references: a list of tokens for each reference.
    smooth_method: as in `bleu`.

    The mean of these scores is not the BLEU of a corpus.
    Agrees with sacrebleu's sentence_bleu(tokenize="none").
    """
    statistics = bleu_statistics([hypothesis], [references])[0]
    return _bleu(statistics.tolist(), smooth_method, effective_order=True)


def bleu_statistics(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> np.ndarray:
    """What BLEU adds up, (N, 10): sys_len, ref_len, four counts and four totals of each hypothesis.

    count = Σ over its n-grams of min(times written, most times in one reference)
    total = how many n-grams it has
    """
    _check(hypotheses, references)
    statistics = np.zeros((len(hypotheses), 10), dtype=int)
    for row, hypothesis, refs in zip(statistics, hypotheses, references):
        length = len(hypothesis)
        row[0] = length
        row[1] = min((abs(len(ref) - length), len(ref)) for ref in refs)[1]
        row[6:] = [max(length - n + 1, 0) for n in range(1, 5)]
        for n in range(1, 5):
            written = Counter(_ngrams(hypothesis, n))
            most = dict.fromkeys(written, 0)
            for ref in refs:
                for ngram, count in Counter(_ngrams(ref, n)).items():
                    if ngram in most and count > most[ngram]:
                        most[ngram] = count
            clipped = sum([min(count, most[ngram]) for ngram, count in written.items()])
            if clipped == 0:
                break  # a longer n-gram holds shorter ones, so it is not in a reference either
            row[1 + n] = clipped
    return statistics


def _bleu(statistics: list[int], smooth_method: str, effective_order: bool = False) -> BleuScore:
    """BLEU of a row of `bleu_statistics`, or of the sum of such rows.

    effective_order: leave out the n-grams of which there are none.
    """
    if smooth_method not in ("exp", "floor", "add-k", "coco", "none"):
        known = '"exp", "floor", "add-k", "coco" or "none"'
        raise ValueError(f"smooth_method is {known}, not {smooth_method!r}")
    sys_len = statistics[0]
    ref_len = statistics[1]
    counts = statistics[2:6]
    totals = statistics[6:]
    if sys_len >= ref_len:
        bp = 1.0
    elif sys_len == 0:
        bp = 0.0
    else:
        bp = math.exp(1 - ref_len / sys_len)
    precisions = [0.0] * 4
    scores = [0.0] * 4
    if any(counts):
        if smooth_method == "add-k":
            counts = [counts[0]] + [count + 1 for count in counts[1:]]
            totals = [totals[0]] + [total + 1 for total in totals[1:]]
        halved = 1.0
        for n, (count, total) in enumerate(zip(counts, totals)):
            if smooth_method == "coco":
                count = count + 1e-15
                total = total + 1e-9
            elif smooth_method == "exp" and count == 0:
                halved /= 2
                count = halved
            elif smooth_method == "floor" and count == 0:
                count = 0.1
            if total:
                precisions[n] = 100 * count / total
            if total or not effective_order:
                known = precisions[: n + 1]
            if all(known):
                log_mean = sum(math.log(precision) for precision in known) / len(known)
                scores[n] = bp * math.exp(log_mean)
    return BleuScore(scores[-1], counts, totals, precisions, bp, sys_len, ref_len, scores)


def _ngrams(tokens: Tokens, n: int) -> Iterator[tuple[str, ...]]:
    return zip(*[tokens[i:] for i in range(n)])


class MeanScore(NamedTuple):
    """What `rouge_l` and `cider_d` return.

    A corpus' score, which is the mean, and that of each hypothesis.
    """

    score: float
    scores: list[float]


def rouge_l(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> MeanScore:
    """ROUGE-L, 0 to 1: how much of a sentence stands in a reference, in the same order?

        p = max over references of lcs / len(hypothesis)
        r = max over references of lcs / len(reference)
        score = (1 + β²) p r / (r + β² p),   β = 1.2

    lcs is the length of the longest common subsequence. p and r may come from different references.
    Two sentences without words are equal.
    Agrees with pycocoevalcap (the COCO evaluation). Source: Lin 2004; Chen et al. 2015.
    """
    _check(hypotheses, references)
    scores = []
    for hypothesis, refs in zip(hypotheses, references):
        p = 0.0
        r = 0.0
        for ref in refs:
            if hypothesis or ref:
                lcs = _longest_common_subsequence(hypothesis, ref)
            else:
                lcs = 1
            p = max(p, lcs / max(len(hypothesis), 1))
            r = max(r, lcs / max(len(ref), 1))
        if p:
            scores.append((1 + 1.2**2) * p * r / (r + 1.2**2 * p))
        else:
            scores.append(0.0)
    return _mean_score(scores)


def _longest_common_subsequence(a: Tokens, b: Tokens) -> int:
    """The length of it, row by row of the table lcs[i][j] of the first i and the first j tokens."""
    row = [0] * (len(b) + 1)
    for token in a:
        above = row
        row = [0]
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
        ngrams = set()
        for ref in refs:
            for n in range(1, 5):
                ngrams.update(_ngrams(ref, n))
        counts.update(ngrams)
    return DocumentFrequencies(counts, len(references))


def cider_d(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    frequencies: DocumentFrequencies | None = None,
) -> MeanScore:
    """CIDEr-D, 0 to 10: how alike are two captions in what is rare in other pictures' captions?

        g(ngram) = count · log(documents / max(1, the ngram's document frequency))
        score = 10 · mean over references, and over n = 1 to 4, of
                exp(-(l_h - l_r)² / 2σ²) · Σ min(g_h, g_r) · g_r / (‖g_h‖ ‖g_r‖),   σ = 6

    g_h and g_r are those of all n-grams of the hypothesis and of a reference, l_h and l_r how many
    bigrams each has.

    hypotheses: a list of tokens for each sentence.
    references: any number of lists of tokens for each hypothesis.
    frequencies: from `document_frequencies`; those of the references unless they are given. Of a
        single picture they are of no use, and all scores 0.

    Agrees with pycocoevalcap; papers often print it times 100. Source: Vedantam et al. 2015.
    """
    _check(hypotheses, references)
    counts, documents = frequencies or document_frequencies(references)
    rarest = math.log(max(documents, 1))
    rarity = {ngram: rarest - math.log(max(1, count)) for ngram, count in counts.items()}

    scores = []
    for hypothesis, refs in zip(hypotheses, references):
        weighed = [_weigh(list(_ngrams(hypothesis, n)), rarity, rarest) for n in range(1, 5)]
        total = 0.0
        for ref in refs:
            similarity = 0.0
            for n, g_h in enumerate(weighed, 1):
                ngrams = list(_ngrams(ref, n))
                shared = g_h.keys() & ngrams
                if not shared:
                    break  # a longer n-gram holds shorter ones, so none of them is shared either
                g_r = _weigh(ngrams, rarity, rarest)
                dot = sum([min(g_h[ngram], g_r[ngram]) * g_r[ngram] for ngram in shared])
                if dot:
                    similarity += dot / (math.hypot(*g_h.values()) * math.hypot(*g_r.values()))
            l_h = max(len(hypothesis) - 1, 0)
            l_r = max(len(ref) - 1, 0)
            gaussian = math.exp(-((l_h - l_r) ** 2) / (2 * 6.0**2))
            total += gaussian * similarity / 4
        scores.append(10 * total / len(refs))
    return _mean_score(scores)


def _weigh(ngrams: list[tuple], rarity: dict[tuple, float], rarest: float) -> dict[tuple, float]:
    """g of each n-gram: how often it comes, times its rarity, which is `rarest` if not given."""
    g = {ngram: rarity.get(ngram, rarest) for ngram in ngrams}
    if len(g) < len(ngrams):  # some come more than once
        for ngram, count in Counter(ngrams).items():
            g[ngram] = count * rarity.get(ngram, rarest)
    return g


def _mean_score(scores: list[float]) -> MeanScore:
    return MeanScore(sum(scores) / max(len(scores), 1), scores)


class ConfidenceInterval(NamedTuple):
    """A score of a corpus, and between which two it lies with 95 % confidence (see `bootstrap`)."""

    score: float
    low: float
    high: float


def bootstrap(
    statistics: np.ndarray | Sequence[float],
    score: Callable[[np.ndarray], float | list[float]] | None = None,
    seed: int = 12345,
) -> tuple[float, float] | tuple[list[float], list[float]]:
    """Between which two values a corpus' score lies with 95 % confidence.

    Would other examples have given another score? 1,000 times, N of the N examples are drawn, with
    repetition, and scored; of the 1,000 scores, 2.5 % are cut off at each end.

    statistics: (N,) or (N, S): what is added up, of each example.
    score: makes a score, or a list of several, of the sums (S,). Without it, the score is the mean.
    seed: where chance begins.

    Raises ValueError where there is no example.
    Agrees with sacrebleu's confidence for BLEU. Source: Efron 1979; Koehn 2004.
    """
    statistics = np.asarray(statistics)
    N = len(statistics)
    if N == 0:
        raise ValueError("a confidence interval needs at least one example")
    draw = np.random.default_rng(seed)
    scores = []
    for _ in range(1000):
        total = statistics[draw.integers(N, size=N)].sum(0)  # (S,)
        scores.append(score(total) if score else total / N)
    scores = np.sort(scores, axis=0)
    return scores[25].tolist(), scores[-26].tolist()


def bleu_interval(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> list[ConfidenceInterval]:
    """BLEU-1, BLEU-2, BLEU-3 and BLEU-4 (0 to 100), each with its interval."""

    def scores(sums: np.ndarray) -> list[float]:
        return _bleu(sums.tolist(), "exp").scores

    statistics = bleu_statistics(hypotheses, references)
    lows, highs = bootstrap(statistics, scores)
    return [ConfidenceInterval(*each) for each in zip(scores(statistics.sum(0)), lows, highs)]


def caption_scores(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> dict[str, ConfidenceInterval]:
    """By name: BLEU-1 to BLEU-4 (0 to 100), ROUGE-L (0 to 1) and CIDEr-D (0 to 10).

    Each has its interval.
    """
    found = {}
    for n, estimate in enumerate(bleu_interval(hypotheses, references), 1):
        found[f"BLEU-{n}"] = estimate
    rouge = rouge_l(hypotheses, references)
    found["ROUGE-L"] = ConfidenceInterval(rouge.score, *bootstrap(rouge.scores))
    cider = cider_d(hypotheses, references)
    found["CIDEr-D"] = ConfidenceInterval(cider.score, *bootstrap(cider.scores))
    return found


def attention_in_box(
    weights: Tensor, box: tuple[int, int, int, int], size: int
) -> tuple[float, float]:
    """How much of the attention lies within a box, and how much of the picture does: two shares.

    A position's weight is spread evenly over its pixels. Both shares are 0 to 1.

    weights: (h, w), which sum to 1, over a picture of size × size pixels.
    box: left, top, right, bottom, in pixels.
    size: of a side of the picture, in pixels.
    """
    left, top, right, bottom = box

    def covered(positions: int, low: int, high: int) -> Tensor:
        """(positions,): the share of each that is between low and high."""
        edges = torch.linspace(0, size, positions + 1, device=weights.device)
        return edges.clamp(low, high).diff() * positions / size

    rows = covered(weights.size(0), top, bottom)
    columns = covered(weights.size(1), left, right)
    inside = rows.unsqueeze(1) * columns  # (h, w)
    return (weights * inside).sum().item(), inside.mean().item()


def exact_match(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of hypotheses that are, word for word, one of their references."""
    _check(hypotheses, references)
    equal = [list(h) in map(list, refs) for h, refs in zip(hypotheses, references)]
    return sum(equal) / max(len(hypotheses), 1)


def aligned_accuracy(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    meaning: Callable[[str], str | None],
) -> list[bool]:
    """Of certain words of the first references, say the colours: is each in the hypothesis as well?

    The n-th of them in a reference is right if the n-th of them in the hypothesis has the same
    name, so that of two colours that have changed places neither is right.

    hypotheses: a list of tokens for each sentence.
    references: any number of lists of tokens for each hypothesis, of which the first counts.
    meaning: gives the words that count a name and all others None: `scenes.colour_of`.
    """
    _check(hypotheses, references)
    right = []
    for hypothesis, refs in zip(hypotheses, references):
        written = [meaning(token) for token in hypothesis if meaning(token)]
        wanted = [meaning(token) for token in refs[0] if meaning(token)]
        for name, other in zip_longest(wanted, written[: len(wanted)]):
            right.append(name == other)
    return right


class LabelScores(NamedTuple):
    """What `label_scores` returns, from 0 to 1: of each label (L,), or one number of all."""

    accuracy: Tensor
    precision: Tensor
    recall: Tensor
    f1: Tensor


def label_scores(predicted: Tensor, true: Tensor, average: str | None = None) -> LabelScores:
    """How well the labels of N things were found.

        accuracy  = (tp + tn) / N           precision = tp / (tp + fp)
        f1 = 2 tp / (2 tp + fp + fn)        recall    = tp / (tp + fn)

    tp, fp, fn and tn count, for one label, the things where it is rightly and wrongly found,
    wrongly and rightly not found. A score whose denominator is 0 is 0.

    predicted, true: (N, L) bool.
    average: None scores each label by itself, (L,). "micro" adds up the counts of all labels first,
        which gives one number: its accuracy is the share of all N · L decisions that are right.

    Raises ValueError where the shapes or types do not fit.
    Agrees with scikit-learn's precision_recall_fscore_support(zero_division=0) and accuracy_score.
    """
    if average not in (None, "micro"):
        raise ValueError(f'average is None or "micro", not {average!r}')
    if (predicted.dtype, true.dtype) != (torch.bool, torch.bool):
        types = f"{predicted.dtype} and {true.dtype}"
        raise ValueError(f"bool tensors are needed, not {types}; of logits take logits > 0")
    if predicted.dim() != 2 or predicted.shape != true.shape or predicted.numel() == 0:
        wanted = "the same shape (N, L), and no axis of 0"
        shapes = f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(f"predicted and true must have {wanted}, not {shapes}")
    if average == "micro":
        predicted = predicted.flatten()  # (N·L,): every decision is about one label
        true = true.flatten()  # (N·L,)
    tp = (predicted & true).sum(0)  # (L,), or () if micro; so are all that follow
    found = predicted.sum(0)  # tp + fp
    there = true.sum(0)  # tp + fn
    accuracy = (predicted == true).float().mean(0)
    precision = tp / found.clamp(min=1)
    recall = tp / there.clamp(min=1)
    f1 = 2 * tp / (found + there).clamp(min=1)
    return LabelScores(accuracy, precision, recall, f1)


def confusion_matrix(predicted: Tensor, true: Tensor, num_classes: int) -> Tensor:
    """(C, C) long: in row i, column j stands how many things of class i were taken for class j.

    predicted, true: (N,) integers, 0 to num_classes - 1.
    num_classes: C; classes that never occur have their rows and columns too.

    Raises ValueError where a shape, a type or a class does not fit.
    Agrees with scikit-learn's confusion_matrix(true, predicted, labels=range(C)), which takes the
    true ones first.
    """
    if predicted.dim() != 1 or predicted.shape != true.shape:
        shapes = f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(f"predicted and true must have the same shape (N,), not {shapes}")
    for name, classes in (("predicted", predicted), ("true", true)):
        if classes.is_floating_point() or classes.dtype == torch.bool:
            wanted = "integers, the numbers of classes"
            raise ValueError(f"{name} must be {wanted}, not {classes.dtype}")
        outside = classes[(classes < 0) | (classes >= num_classes)]
        if len(outside):
            known = f"{num_classes} classes are 0 to {num_classes - 1}"
            raise ValueError(f"{name} has a class {outside[0]}, but {known}")
    cells = true.long() * num_classes + predicted.long()  # (N,): the cell, row by row
    counts = torch.bincount(cells, minlength=num_classes**2)  # (C·C,)
    return counts.view(num_classes, num_classes)  # (C, C)


def _check(hypotheses, references):
    """A string where tokens are meant, or lists that do not fit together, give numbers that look
    like scores: raises TypeError or ValueError.
    """
    check_tokens(hypotheses)
    if isinstance(references, str):
        wanted = "lists of lists of tokens are needed"
        raise TypeError(f"the references are a string, {references[:40]!r}; {wanted}")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses but references for {len(references)}")
    for i, refs in enumerate(references):
        if isinstance(refs, str) or any(isinstance(ref, str) for ref in refs):
            wanted = "a list of lists of tokens, even if there is only one"
            raise TypeError(f"the references of hypothesis {i} must be {wanted}")
        if len(refs) == 0:
            raise ValueError(f"hypothesis {i} has no reference")


def check_tokens(hypotheses: Sequence[Tokens]) -> None:
    """Raises TypeError where a hypothesis is a string, or holds lists, instead of tokens."""
    if isinstance(hypotheses, str):
        hypotheses = [hypotheses]
    for i, hypothesis in enumerate(hypotheses):
        if isinstance(hypothesis, str):
            wanted = "a list of tokens is needed"
            raise TypeError(f"hypothesis {i} is a string, {hypothesis[:40]!r}; {wanted}")
        if any(isinstance(token, (list, tuple)) for token in hypothesis):
            order = "the hypotheses come first, then the references"
            raise TypeError(f"hypothesis {i} holds lists instead of tokens: {order}")
