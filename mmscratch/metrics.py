"""Metrics of sentences and transcripts, with intervals; of answers, labels, attention, retrieval."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .text import caption_tokenize as caption_tokenize  # goes with these metrics

Tokens = Sequence[str]


class BleuScore(NamedTuple):
    """What `bleu` returns, named as in sacrebleu. Scores and precisions are from 0 to 100."""

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
    """Compute the BLEU-4 of a corpus.

        BLEU-N = 100 · bp · exp(1/N Σₙ log pₙ),   bp = min(1, exp(1 - ref_len / sys_len))

    pₙ = counts / totals is the fraction of the hypotheses' n-grams that occur in a reference. An
    n-gram counts at most as often as in the one reference that has most of it. ref_len adds up, for
    each hypothesis, the reference length closest to its own (the shorter on a tie).

    hypotheses: a list of tokens for each sentence.
    references: any number of lists of tokens for each hypothesis.
    smooth_method: keeps a single pₙ of 0 from making the whole score 0. "exp" replaces the counts
        that are 0 by 1/2, 1/4, …, "floor" by 0.1; "add-k" adds 1 to counts and totals from n = 2
        on; "coco" adds 1e-15 to counts and 1e-9 to totals; "none" changes nothing. If not a single
        word is right, the score is 0 with every method. As in sacrebleu, the counts and totals
        returned are those of "add-k", but otherwise the unsmoothed ones.

    Agrees with sacrebleu's corpus_bleu(tokenize="none"), and with "coco" with the COCO evaluation
    (pycocoevalcap), whose scores are from 0 to 1.
    Source: Papineni et al. 2002; Chen & Cherry 2014, methods 1 to 3.
    """
    statistics = bleu_statistics(hypotheses, references).sum(0)
    return _bleu(statistics.tolist(), smooth_method)


def sentence_bleu(
    hypothesis: Tokens, references: Sequence[Tokens], smooth_method: str = "exp"
) -> BleuScore:
    """Compute the BLEU of one sentence, from n-grams no longer than the sentence.

    hypothesis: a list of tokens.
    references: a list of tokens for each reference.
    smooth_method: as in `bleu`.

    The mean of these scores is not the corpus BLEU.
    Agrees with sacrebleu's sentence_bleu(tokenize="none").
    """
    statistics = bleu_statistics([hypothesis], [references])[0]
    return _bleu(statistics.tolist(), smooth_method, effective_order=True)


def bleu_statistics(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> np.ndarray:
    """Compute what BLEU adds up, (N, 10): each hypothesis' sys_len, ref_len, 4 counts and 4 totals.

        count = Σ over its n-grams of min(count in the hypothesis, largest count in one reference)
        total = number of its n-grams

    sys_len is the hypothesis' length, ref_len the closest reference length (the shorter on a tie).
    """
    _check(hypotheses, references)
    statistics = np.zeros((len(hypotheses), 10), dtype=int)
    for row, hypothesis, refs in zip(statistics, hypotheses, references):
        length = len(hypothesis)
        distances = [(abs(len(ref) - length), len(ref)) for ref in refs]
        _, ref_len = min(distances)  # the shorter on a tie
        row[0] = length
        row[1] = ref_len
        row[6:] = [max(length - n + 1, 0) for n in range(1, 5)]
        for n in range(1, 5):
            counts = Counter(_ngrams(hypothesis, n))
            most = dict.fromkeys(counts, 0)  # in one reference
            for ref in refs:
                for ngram, count in Counter(_ngrams(ref, n)).items():
                    if ngram in most and count > most[ngram]:
                        most[ngram] = count
            clipped = sum([min(count, most[ngram]) for ngram, count in counts.items()])
            if clipped == 0:
                break  # longer n-grams contain shorter ones, so no reference has them either
            row[1 + n] = clipped
    return statistics


def _bleu(statistics: list[int], smooth_method: str, effective_order: bool = False) -> BleuScore:
    """Compute BLEU from a row of `bleu_statistics`, or from the sum of several.

    effective_order: leave out each n for which the hypothesis has no n-grams.
    """
    if smooth_method not in ("exp", "floor", "add-k", "coco", "none"):
        methods = '"exp", "floor", "add-k", "coco" or "none"'
        raise ValueError(f"smooth_method must be {methods}, not {smooth_method!r}")
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
        smoothed = 1.0
        for n, (count, total) in enumerate(zip(counts, totals)):
            if smooth_method == "coco":
                count = count + 1e-15
                total = total + 1e-9
            elif smooth_method == "exp" and count == 0:
                smoothed /= 2
                count = smoothed
            elif smooth_method == "floor" and count == 0:
                count = 0.1
            if total:
                precisions[n] = 100 * count / total
            if total or not effective_order:
                included = precisions[: n + 1]
            if all(included):
                log_mean = sum(math.log(precision) for precision in included) / len(included)
                scores[n] = bp * math.exp(log_mean)
    return BleuScore(scores[-1], counts, totals, precisions, bp, sys_len, ref_len, scores)


def _ngrams(tokens: Tokens, n: int) -> Iterator[tuple[str, ...]]:
    """Yield all n-grams of the tokens in order, as tuples; repeated ones are yielded again."""
    return zip(*[tokens[i:] for i in range(n)])


class MeanScore(NamedTuple):
    """What `rouge_l`, `cider_d`, `vqa_accuracy` and `pair_accuracy` return."""

    score: float  # the mean
    scores: list[float]  # of each hypothesis, answer or pair


def rouge_l(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> MeanScore:
    """Compute ROUGE-L, 0 to 1: how much of a sentence occurs in a reference, in the same order?

        p = max over references of lcs / len(hypothesis)
        r = max over references of lcs / len(reference)
        score = (1 + β²) p r / (r + β² p),   β = 1.2

    lcs is the length of the longest common subsequence. p and r may come from different references.
    Two empty sentences are equal: p = r = 1.

    hypotheses: a list of tokens for each sentence.
    references: any number of lists of tokens for each hypothesis.

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
    """Compute its length, row by row: lcs[i][j] is that of the first i and the first j tokens."""
    row = [0] * (len(b) + 1)
    for token in a:
        above = row
        row = [0]
        for j, other in enumerate(b):
            if token == other:
                row.append(above[j] + 1)
            else:
                row.append(max(row[j], above[j + 1]))
    return row[-1]


class DocumentFrequencies(NamedTuple):
    """How common n-grams are, from `document_frequencies`."""

    counts: Counter  # n-gram -> number of pictures with a reference that contains it
    documents: int  # number of all pictures


def document_frequencies(references: Sequence[Sequence[Tokens]]) -> DocumentFrequencies:
    """Count, for each n-gram of 1 to 4 tokens, the pictures with a reference that contains it.

    references: any number of lists of tokens for each picture.
    """
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
    """Compute CIDEr-D, 0 to 10: the similarity of captions, with more weight on rare n-grams.

        g(ngram) = count · log(documents / max(1, document frequency of the ngram))
        score = 10 · mean over references, and over n = 1 to 4, of
                exp(-(l_h - l_r)² / 2σ²) · Σ min(g_h, g_r) · g_r / (‖g_h‖ ‖g_r‖),   σ = 6

    g_h and g_r are the tf-idf weights of the n-grams of a hypothesis and of a reference, l_h and
    l_r their numbers of bigrams.

    hypotheses: a list of tokens for each sentence.
    references: any number of lists of tokens for each hypothesis.
    frequencies: from `document_frequencies`; by default, those of the references. Those of a single
        picture are useless: all scores are 0.

    Agrees with pycocoevalcap; papers often print it times 100. Source: Vedantam et al. 2015.
    """
    _check(hypotheses, references)
    if frequencies is None:
        frequencies = document_frequencies(references)
    counts, documents = frequencies
    max_idf = math.log(max(documents, 1))
    idf = {ngram: max_idf - math.log(max(1, count)) for ngram, count in counts.items()}

    scores = []
    for hypothesis, refs in zip(hypotheses, references):
        weights = [_tf_idf(list(_ngrams(hypothesis, n)), idf, max_idf) for n in range(1, 5)]
        total = 0.0
        for ref in refs:
            similarity = 0.0
            for n, g_h in enumerate(weights, 1):
                ngrams = list(_ngrams(ref, n))
                shared = g_h.keys() & ngrams
                if not shared:
                    break  # longer n-grams contain shorter ones, so none is shared either
                g_r = _tf_idf(ngrams, idf, max_idf)
                dot = sum([min(g_h[ngram], g_r[ngram]) * g_r[ngram] for ngram in shared])
                if dot:
                    norms = math.hypot(*g_h.values()) * math.hypot(*g_r.values())
                    similarity += dot / norms
            l_h = max(len(hypothesis) - 1, 0)
            l_r = max(len(ref) - 1, 0)
            gaussian = math.exp(-((l_h - l_r) ** 2) / (2 * 6.0**2))
            total += gaussian * similarity / 4
        scores.append(10 * total / len(refs))
    return _mean_score(scores)


def _tf_idf(ngrams: list[tuple], idf: dict[tuple, float], max_idf: float) -> dict[tuple, float]:
    """Weigh each n-gram by its count times its idf, which is `max_idf` if no reference has it."""
    g = {ngram: idf.get(ngram, max_idf) for ngram in ngrams}
    if len(g) < len(ngrams):  # some occur more than once
        for ngram, count in Counter(ngrams).items():
            g[ngram] = count * idf.get(ngram, max_idf)
    return g


def _mean_score(scores: list[float]) -> MeanScore:
    return MeanScore(sum(scores) / max(len(scores), 1), scores)


class ConfidenceInterval(NamedTuple):
    """A corpus score and the ends of its 95 % confidence interval, from `bootstrap`."""

    score: float
    low: float
    high: float


def bootstrap(
    statistics: np.ndarray | Sequence[float],
    score: Callable[[np.ndarray], float | list[float]] | None = None,
    seed: int = 12345,
) -> tuple[float, float] | tuple[list[float], list[float]]:
    """Compute the 95 % confidence interval of a corpus score: its lower and its upper end.

    Would other examples have given another score? 1,000 times, N of the N examples are drawn with
    replacement and scored; 2.5 % of the 1,000 scores are cut off at each end.

    statistics: (N,) or (N, S): each example's terms of the sums.
    score: computes a score, or a list of several, from the sums (S,). By default it is the mean.
    seed: of the random draws; numpy's global generator is left alone.

    Raises ValueError if there are no examples.
    Agrees with sacrebleu's confidence for BLEU. Source: Efron 1979; Koehn 2004.
    """
    statistics = np.asarray(statistics)
    N = len(statistics)
    if N == 0:
        raise ValueError("a confidence interval needs at least one example")
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(1000):
        drawn = rng.integers(N, size=N)
        total = statistics[drawn].sum(0)  # (S,)
        if score is None:
            scores.append(total / N)
        else:
            scores.append(score(total))
    scores = np.sort(scores, axis=0)
    return scores[25].tolist(), scores[-26].tolist()


def bleu_interval(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> list[ConfidenceInterval]:
    """Compute BLEU-1 to BLEU-4 (0 to 100), each with its confidence interval."""

    def scores(sums: np.ndarray) -> list[float]:
        return _bleu(sums.tolist(), "exp").scores

    statistics = bleu_statistics(hypotheses, references)
    corpus_scores = scores(statistics.sum(0))
    lows, highs = bootstrap(statistics, scores)
    return [ConfidenceInterval(*each) for each in zip(corpus_scores, lows, highs)]


def caption_scores(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> dict[str, ConfidenceInterval]:
    """Compute BLEU-1 to BLEU-4 (0 to 100), ROUGE-L (0 to 1) and CIDEr-D (0 to 10), by name.

    Each has its confidence interval.
    """
    intervals = {}
    for n, interval in enumerate(bleu_interval(hypotheses, references), 1):
        intervals[f"BLEU-{n}"] = interval
    rouge = rouge_l(hypotheses, references)
    intervals["ROUGE-L"] = ConfidenceInterval(rouge.score, *bootstrap(rouge.scores))
    cider = cider_d(hypotheses, references)
    intervals["CIDEr-D"] = ConfidenceInterval(cider.score, *bootstrap(cider.scores))
    return intervals


def attention_in_box(
    weights: Tensor, box: tuple[int, int, int, int], size: int
) -> tuple[float, float]:
    """Compute which fraction of the attention lies inside a box, and which of the picture's area.

    The weight of a position is spread evenly over its pixels. It is size / w pixels wide and size / h
    high, which need not be whole numbers.

    weights: (h, w), with sum 1, over a picture of size × size pixels.
    box: left, top, right and bottom, in pixels.
    size: side of the picture, in pixels.
    """
    left, top, right, bottom = box

    def covered(positions: int, low: int, high: int) -> Tensor:
        """Which fraction of each position lies between low and high: (positions,)."""
        edges = torch.linspace(0, size, positions + 1, device=weights.device)
        return edges.clamp(low, high).diff() * positions / size

    rows = covered(weights.size(0), top, bottom)
    columns = covered(weights.size(1), left, right)
    inside = rows.unsqueeze(1) * columns  # (h, w)
    return (weights * inside).sum().item(), inside.mean().item()


def exact_match(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Compute the fraction of hypotheses equal to one of their references, 0 if there are none."""
    _check(hypotheses, references)
    matches = 0
    for hypothesis, refs in zip(hypotheses, references):
        if list(hypothesis) in [list(ref) for ref in refs]:
            matches += 1
    return matches / max(len(hypotheses), 1)


def aligned_accuracy(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    meaning: Callable[[str], str | None],
) -> list[bool]:
    """Check certain words, say colours: is each one in the first reference also in the hypothesis?

    The n-th such word of the reference is right if the n-th one of the hypothesis has the same
    name. So of two swapped colours neither is right. Extra words of the hypothesis do not count.

    hypotheses: a list of tokens for each sentence.
    references: any number of lists of tokens for each hypothesis; only the first is used.
    meaning: maps the words to check to names, and all others to None: `data.language.colour_of`.

    Returns one bool for each word to check, through all references in order. Raises ValueError for
    another number of references than hypotheses.
    """
    _check(hypotheses, references)

    def names_in(tokens: Tokens) -> list[str]:
        names = [meaning(token) for token in tokens]
        return [name for name in names if name]

    right = []
    for hypothesis, refs in zip(hypotheses, references):
        expected = names_in(refs[0])
        found = names_in(hypothesis)[: len(expected)]
        for name, other in zip_longest(expected, found):
            right.append(name == other)
    return right


class LabelScores(NamedTuple):
    """What `label_scores` returns, from 0 to 1: one score per label, (L,), or one for all."""

    accuracy: Tensor
    precision: Tensor
    recall: Tensor
    f1: Tensor


def label_scores(predicted: Tensor, true: Tensor, average: str | None = None) -> LabelScores:
    """Compute how well the labels of N examples were predicted.

        accuracy  = (tp + tn) / N           precision = tp / (tp + fp)
        f1 = 2 tp / (2 tp + fp + fn)        recall    = tp / (tp + fn)

    tp, fp, fn and tn count one label's true positives, false positives, false negatives and true
    negatives. A score whose denominator is 0 is 0.

    predicted, true: (N, L) bool.
    average: None scores each label by itself, (L,). "micro" first adds up the counts of all labels,
        which gives one score: its accuracy is the fraction of right ones among all N · L decisions.

    Raises ValueError unless both are bool and of the same shape (N, L), N and L above 0, and for any
    other average.
    Agrees with scikit-learn's precision_recall_fscore_support(zero_division=0) and accuracy_score.
    """
    if average not in (None, "micro"):
        raise ValueError(f'average must be None or "micro", not {average!r}')
    if (predicted.dtype, true.dtype) != (torch.bool, torch.bool):
        types = f"{predicted.dtype} and {true.dtype}"
        raise ValueError(f"predicted and true must be bool, not {types}; pass logits > 0")
    if predicted.dim() != 2 or predicted.shape != true.shape or predicted.numel() == 0:
        shapes = f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(f"predicted and true need the same non-empty shape (N, L), not {shapes}")
    if average == "micro":
        predicted = predicted.flatten()  # (N·L,): every decision counts as one example
        true = true.flatten()  # (N·L,)
    tp = (predicted & true).sum(0)  # (L,), or () if micro, as all that follow
    pred_sum = predicted.sum(0)  # tp + fp
    true_sum = true.sum(0)  # tp + fn
    accuracy = (predicted == true).float().mean(0)
    precision = tp / pred_sum.clamp(min=1)
    recall = tp / true_sum.clamp(min=1)
    f1 = 2 * tp / (pred_sum + true_sum).clamp(min=1)
    return LabelScores(accuracy, precision, recall, f1)


def confusion_matrix(predicted: Tensor, true: Tensor, num_classes: int) -> Tensor:
    """Count in row i, column j the examples of class i predicted as class j: (C, C) long.

    predicted, true: (N,) integers, 0 to num_classes - 1.
    num_classes: C; classes that never occur have rows and columns, too.

    Raises ValueError if a shape, a type or a class does not fit.
    Agrees with scikit-learn's confusion_matrix(true, predicted, labels=range(C)), which takes the
    true classes first.
    """
    if predicted.dim() != 1 or predicted.shape != true.shape:
        shapes = f"{tuple(predicted.shape)} and {tuple(true.shape)}"
        raise ValueError(f"predicted and true must have the same shape (N,), not {shapes}")
    for name, classes in (("predicted", predicted), ("true", true)):
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise ValueError(f"{name} must be integers, not {classes.dtype}")
        outside = classes[(classes < 0) | (classes >= num_classes)]
        if len(outside):
            known = f"{num_classes} classes are 0 to {num_classes - 1}"
            raise ValueError(f"{name} has class {outside[0]}, but {known}")
    cells = true.long() * num_classes + predicted.long()  # (N,) cells numbered row by row
    counts = torch.bincount(cells, minlength=num_classes**2)  # (C·C,)
    return counts.view(num_classes, num_classes)  # (C, C)


def _check(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Raise TypeError for strings instead of tokens, ValueError for lists that do not fit together.

    Either would give numbers that look like scores.
    """
    check_tokens(hypotheses)
    if isinstance(references, str):
        hint = "lists of lists of tokens are needed"
        raise TypeError(f"the references are a string, {references[:40]!r}; {hint}")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses but references for {len(references)}")
    for i, refs in enumerate(references):
        if isinstance(refs, str) or any(isinstance(ref, str) for ref in refs):
            expected = "a list of lists of tokens, even if there is only one"
            raise TypeError(f"the references of hypothesis {i} must be {expected}")
        if len(refs) == 0:
            raise ValueError(f"hypothesis {i} has no reference")


def check_tokens(hypotheses: Sequence[Tokens]) -> None:
    """Raise TypeError if a hypothesis is a string, or contains lists instead of tokens."""
    if isinstance(hypotheses, str):
        hypotheses = [hypotheses]
    for i, hypothesis in enumerate(hypotheses):
        if isinstance(hypothesis, str):
            hint = "a list of tokens is needed"
            raise TypeError(f"hypothesis {i} is a string, {hypothesis[:40]!r}; {hint}")
        if any(isinstance(token, (list, tuple)) for token in hypothesis):
            hint = "the hypotheses come first, then the references"
            raise TypeError(f"hypothesis {i} contains lists instead of tokens: {hint}")


# -------------------------------------------------------------------------------------------------
# Transcripts: which words of a recording were misheard?


class EditCounts(NamedTuple):
    """The edits that turn a reference into a hypothesis, and the tokens that need none."""

    substitutions: int
    insertions: int
    deletions: int
    hits: int


class ErrorRate(NamedTuple):
    """What `word_error_rate` and `character_error_rate` return, named as in jiwer."""

    score: float  # may exceed 1
    substitutions: int
    insertions: int
    deletions: int
    hits: int


def edit_counts(hypothesis: Tokens, reference: Tokens) -> EditCounts:
    """Count the edits of a shortest way from the reference to the hypothesis.

    An edit substitutes, inserts or deletes one token. Several ways may be equally short, say two
    substitutions, or a deletion, a hit and an insertion. This one starts at the end of both, and
    deletes where it can, and substitutes rather than inserts where both would do.

    Agrees with jiwer, also where several ways are equally short.
    Source: Levenshtein 1966; Wagner & Fischer 1974.
    """
    start = 0
    shorter = min(len(hypothesis), len(reference))
    while start < shorter and hypothesis[start] == reference[start]:
        start += 1
    end = 0
    while end < shorter - start and hypothesis[-1 - end] == reference[-1 - end]:
        end += 1
    hits = start + end  # what both begin or end with
    hypothesis = hypothesis[start : len(hypothesis) - end]
    reference = reference[start : len(reference) - end]

    distances = _edit_distances(hypothesis, reference)
    substitutions = 0
    insertions = 0
    deletions = 0
    i = len(reference)
    j = len(hypothesis)
    while i or j:
        if i and distances[i][j] == distances[i - 1][j] + 1:
            deletions += 1
            i -= 1
        elif i == 0 or distances[i][j - 1] < distances[i - 1][j - 1]:
            insertions += 1
            j -= 1
        else:
            i -= 1
            j -= 1
            if reference[i] == hypothesis[j]:
                hits += 1
            else:
                substitutions += 1
    return EditCounts(substitutions, insertions, deletions, hits)


def _edit_distances(hypothesis: Tokens, reference: Tokens) -> list[list[int]]:
    """Compute the table of edit distances, row by row.

    distances[i][j] is the smallest number of edits between the first i tokens of the reference and
    the first j of the hypothesis.
    """
    row = list(range(len(hypothesis) + 1))  # insertions only
    distances = [row]
    for token in reference:
        above = row
        left = above[0] + 1  # deletions only
        row = [left]
        for other, diagonal, up in zip(hypothesis, above, above[1:]):
            if token == other:
                left = diagonal  # a hit
            else:
                if diagonal < left:
                    left = diagonal  # a substitution
                if up < left:
                    left = up  # a deletion, else an insertion
                left += 1
            row.append(left)
        distances.append(row)
    return distances


def error_statistics(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> np.ndarray:
    """Compute what an error rate adds up, (N, 4): the `edit_counts` of each hypothesis.

    Where there are several references, the one with the fewest edits counts, the first on a tie.
    """
    _check(hypotheses, references)
    statistics = np.zeros((len(hypotheses), 4), dtype=int)
    for row, hypothesis, refs in zip(statistics, hypotheses, references):
        counts = [edit_counts(hypothesis, ref) for ref in refs]
        row[:] = min(counts, key=lambda count: sum(count[:3]))
    return statistics


def _error_rate(statistics: np.ndarray) -> float:
    """Compute the error rate from a row of `error_statistics`, or from the sum of several."""
    substitutions, insertions, deletions, hits = statistics.tolist()
    edits = substitutions + insertions + deletions
    return edits / max(substitutions + deletions + hits, 1)


def word_error_rate(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> ErrorRate:
    """Compute the word error rate of a corpus: its edits for each word of the references.

        score = (substitutions + insertions + deletions) / (substitutions + deletions + hits)

    The denominator is the number of words of the references; 0 counts as 1, so empty hypotheses of
    empty references have score 0. Both sums run over the whole corpus: the score is not the mean
    over its sentences. With many insertions it is above 1.

    hypotheses: a list of tokens for each sound.
    references: any number of lists of tokens for each hypothesis; the closest one counts.

    Agrees with jiwer's process_words.
    """
    sums = error_statistics(hypotheses, references).sum(0)
    return ErrorRate(_error_rate(sums), *sums.tolist())


def character_error_rate(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> ErrorRate:
    """Compute the character error rate: as `word_error_rate`, with characters in place of words.

    The characters are those of the tokens joined by single spaces, which count as well.

    Agrees with jiwer's process_characters.
    """
    _check(hypotheses, references)
    return word_error_rate(*_characters(hypotheses, references))


def _characters(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> tuple[list[str], list[list[str]]]:
    """Split each list of tokens into characters and spaces."""
    characters = [list(" ".join(hypothesis)) for hypothesis in hypotheses]
    others = [[list(" ".join(ref)) for ref in refs] for refs in references]
    return characters, others


def transcript_scores(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> dict[str, ConfidenceInterval]:
    """Compute the word and the character error rate, "WER" and "CER", with confidence intervals."""
    _check(hypotheses, references)
    statistics = {
        "WER": error_statistics(hypotheses, references),
        "CER": error_statistics(*_characters(hypotheses, references)),
    }
    intervals = {}
    for name, counts in statistics.items():
        interval = bootstrap(counts, _error_rate)
        intervals[name] = ConfidenceInterval(_error_rate(counts.sum(0)), *interval)
    return intervals


# -------------------------------------------------------------------------------------------------
# Answers to questions about pictures.

_NUMBER_WORDS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_ARTICLES = ("a", "an", "the")
_ANSWER_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_MAX_PERIODS = 32  # the published code passes re.UNICODE, which is 32, where the count belongs
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
    you've
""".split()


def _missing_apostrophes() -> dict[str, str]:
    """Map the spellings of each contraction with one apostrophe missing to the right one.

    {"cant": "can't", "couldnt've": "couldn't've", "couldn'tve": "couldn't've", …}
    """
    corrections = {"somebody'd": "somebodyd"}  # this way round in the published code
    for contraction in _CONTRACTIONS:
        for i, character in enumerate(contraction):
            if character == "'":
                misspelt = contraction[:i] + contraction[i + 1 :]
                corrections[misspelt] = contraction
    return corrections


_CORRECTIONS = _missing_apostrophes()


def normalize_answer(answer: str) -> str:
    """Bring an answer to the form in which the VQA evaluation compares answers.

    1. Newlines and tabs become spaces; spaces at both ends are removed.
    2. Each mark of `_ANSWER_PUNCTUATION` becomes a space: "t-shirt" -> "t shirt". It is deleted
       instead if the answer has it next to a space somewhere, or has a comma between two of the
       digits 0 to 9: "1,000" -> "1000".
    3. Periods that are not followed by one of these digits are deleted, but at most 32: "p.m." ->
       "pm", while "3.5" stays.
    4. Letters become lower-case, number words from "none" to "ten" digits. The articles a, an, the
       are removed.
    5. Contractions get a missing apostrophe: "dont" -> "don't".

    Agrees with the published evaluation of VQA (vqaEval.py). Source: Antol et al. 2015.
    """
    answer = _strip_answer(answer)
    has_digit_comma = re.search(r"[0-9],[0-9]", answer)
    replacements = {}
    for mark in _ANSWER_PUNCTUATION:
        if has_digit_comma or f"{mark} " in answer or f" {mark}" in answer:
            replacements[mark] = ""
        else:
            replacements[mark] = " "
    answer = answer.translate(str.maketrans(replacements))
    answer = re.sub(r"\.(?![0-9])", "", answer, count=_MAX_PERIODS)

    words = []
    for word in answer.lower().split():
        word = _NUMBER_WORDS.get(word, word)
        if word not in _ARTICLES:
            words.append(_CORRECTIONS.get(word, word))
    return " ".join(words)


def _strip_answer(answer: str) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"an answer must be a string, not {answer!r}")
    return answer.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> MeanScore:
    """Compute the VQA accuracy, 0 to 1: do at least three people give the predicted answer?

        score = mean over the n people of min(agreeing others / min(3, n - 1), 1)

    "agreeing others" counts, among the other n - 1 people, those whose answer is the prediction.
    Answers are compared after `normalize_answer`. But if several people all gave the same answer,
    the prediction must equal it as written, apart from spaces at both ends.
    For a question with a single answer (n = 1), the score is 1 if the prediction equals it after
    `normalize_answer`, else 0.

    predictions: an answer for each question.
    answers: any number of people's answers to each question.

    Raises TypeError or ValueError for lists that do not fit together, or strings in their place.
    Agrees with the published evaluation of VQA (vqaEval.py) for n >= 4. That one always divides by
    3, so with fewer answers its score cannot reach 1. Source: Antol et al. 2015.
    """
    _check_no_string("predictions", predictions)
    _check_answers(answers)
    if len(predictions) != len(answers):
        raise ValueError(f"{len(predictions)} predictions but answers to {len(answers)} questions")
    scores = []
    for prediction, given in zip(predictions, answers):
        given = [_strip_answer(answer) for answer in given]
        prediction = _strip_answer(prediction)
        if len(given) == 1 or len(set(given)) > 1:
            given = [normalize_answer(answer) for answer in given]
            prediction = normalize_answer(prediction)
        scores.append(_leave_one_out(prediction, given))
    return _mean_score(scores)


def _leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    """Score one prediction against each choice of all answers but one, and return the mean."""
    if len(answers) == 1:
        return float(prediction == answers[0])
    enough = min(3, len(answers) - 1)
    total = 0.0
    for i in range(len(answers)):
        others = answers[:i] + answers[i + 1 :]
        total += min(others.count(prediction) / enough, 1)
    return total / len(answers)


def pair_accuracy(scores: Sequence[float], pairs: Sequence[int]) -> MeanScore:
    """Compute the accuracy on balanced pairs, 0 to 1: are both pictures' answers right?

    A balanced pair is one question about two pictures with different answers, so a model that
    ignores the pictures gets no pair right. A pair's score is the lowest of its examples' scores.

    scores: of each example, say from `vqa_accuracy`.
    pairs: each example's pair, as a number.

    Returns the pairs' scores in the order in which they first occur.
    Raises ValueError if the lengths differ, or if a pair has a single example.
    Source: Zhang et al. 2016; Goyal et al. 2017.
    """
    if len(scores) != len(pairs):
        raise ValueError(f"{len(scores)} scores but {len(pairs)} numbers of pairs")
    pair_scores = []
    for pair, members in _group_members(pairs).items():
        if len(members) == 1:
            raise ValueError(f"pair {pair} has a single example, number {members[0]}")
        pair_scores.append(min(scores[i] for i in members))
    return _mean_score(pair_scores)


def _group_members(groups: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """List the indices of each group's members: [7, 5, 7] -> {7: [0, 2], 5: [1]}."""
    members = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    return members


def answer_table(questions: Sequence[str], answers: Sequence[str]) -> dict[str, str]:
    """Find each training question's most frequent answer: a baseline that sees no picture.

    For questions that training does not have, "" maps to the most frequent answer of all:

        table.get(question, table[""])

    On a tie, the answer that comes first counts.

    questions, answers: of the training examples.

    Raises ValueError if there are no examples or the lengths differ, TypeError for a string instead
    of a list.
    Source: as the "per Q-type prior" of Antol et al. 2015, which groups questions by first words.
    """
    _check_no_string("questions", questions)
    _check_no_string("answers", answers)
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions but {len(answers)} answers")
    if len(questions) == 0:
        raise ValueError("a table of answers needs at least one example")
    counts = defaultdict(Counter)
    for question, answer in zip(questions, answers):
        counts[question][answer] += 1
    counts[""] = Counter(answers)
    table = {}
    for question, answer_counts in counts.items():
        [(answer, _)] = answer_counts.most_common(1)
        table[question] = answer
    return table


def answer_coverage(training: Iterable[str], answers: Sequence[Sequence[str]]) -> float:
    """Compute the fraction of questions with an answer that also occurs in training.

    A model that chooses among the training answers can answer no other question. Answers are
    compared after `normalize_answer`; without questions the fraction is 0.

    training: the training answers.
    answers: any number of people's answers to each test question.

    Raises TypeError or ValueError for strings instead of lists, or a question without an answer.
    """
    _check_no_string("training answers", training)
    _check_answers(answers)
    known = {normalize_answer(answer) for answer in training}
    covered = 0
    for given in answers:
        if any(normalize_answer(answer) in known for answer in given):
            covered += 1
    return covered / max(len(answers), 1)


def shuffle_within(groups: Sequence[Hashable], seed: int = 0) -> list[int]:
    """Shuffle examples within groups: a control that exchanges pictures within the same question.

    Returns the index of the example that takes each example's place, as Python's ints: always one
    of the same group. In a group of two or more no example keeps its place, and each of the others
    is equally probable.

    groups: each example's group, say its question.
    seed: of the random draws; the global generators are left alone.
    """
    rng = np.random.default_rng(seed)
    order = list(range(len(groups)))
    for members in _group_members(groups).values():
        circle = rng.permutation(members).tolist()
        for i, member in enumerate(circle):
            order[member] = circle[i - 1]  # the one before it; circle[-1] is the last
    return order


def _check_answers(answers: Sequence[Sequence[str]]) -> None:
    """Raise TypeError for strings instead of lists, ValueError for a question without an answer."""
    _check_no_string("answers", answers)
    for i, given in enumerate(answers):
        if isinstance(given, str):
            expected = "a list of strings, even if there is only one"
            raise TypeError(f"the answers to question {i} must be {expected}")
        if len(given) == 0:
            raise ValueError(f"question {i} has no answer")


def _check_no_string(name: str, strings: Iterable[str]) -> None:
    if isinstance(strings, str):
        raise TypeError(f"the {name} are a string, {strings[:40]!r}; a list of strings is needed")


# -------------------------------------------------------------------------------------------------
# Retrieval: which of many pictures does this sentence describe, and which sentence this picture?


def retrieval_ranks(scores: Tensor, relevant: Tensor) -> Tensor:
    """Compute the rank of each query's best relevant item among all irrelevant ones: (Q,) long.

        rank = 1 + number of irrelevant items whose score is not below that of the best relevant one

    So a tie counts against the model, and the rank does not depend on how a sort breaks ties. Every
    comparison with NaN is a tie. Other relevant items are never in the way: with five captions, a
    picture's rank is that of its best one.

    scores: (Q, G) floating point, of each query's similarity with each item of the gallery. For the
        other direction, pass both arguments transposed.
    relevant: (Q, G) bool: whether the item is a right answer to the query.

    Raises ValueError if shapes or types do not fit, or if a query has no relevant item.
    Source: Hodosh et al. 2013; the ranks, from 1, of Faghri et al. 2018 (VSE++).
    """
    if not scores.is_floating_point() or relevant.dtype != torch.bool:
        types = f"{scores.dtype} and {relevant.dtype}"
        raise ValueError(f"scores must be floating point and relevant bool, not {types}")
    if scores.dim() != 2 or scores.shape != relevant.shape:
        shapes = f"{tuple(scores.shape)} and {tuple(relevant.shape)}"
        raise ValueError(f"scores and relevant need the same shape (Q, G), not {shapes}")
    has_answer = relevant.any(1)  # (Q,)
    if not has_answer.all():
        query = has_answer.tolist().index(False)
        raise ValueError(f"query {query} has no relevant item, so it has no rank")
    if len(scores) == 0:
        return torch.zeros(0, dtype=torch.long, device=scores.device)
    candidates = scores.masked_fill(~relevant | scores.isnan(), -math.inf)
    best = candidates.amax(1, keepdim=True)  # (Q, 1), -inf if all relevant scores are NaN
    ahead = ~(scores < best) & ~relevant  # NaN is not below anything
    return 1 + ahead.sum(1)


def recall_at(ranks: Tensor, k: int) -> list[float]:
    """Check for each query whether a relevant item is among the k best: 1.0 or 0.0.

        recall at k = mean over the queries of [rank <= k]

    ranks: (Q,), from `retrieval_ranks`.
    k: at least 1, or ValueError is raised.

    Source: as R@K of Hodosh et al. 2013: one relevant item among the first k is enough.
    """
    if k < 1:
        raise ValueError(f"recall is measured at 1 or more, not at {k}")
    return (ranks <= k).float().tolist()


def median_rank(ranks: Tensor, pictures: Sequence[Hashable]) -> ConfidenceInterval:
    """Compute the median of the ranks, with its confidence interval.

    The captions of one picture are not independent of each other, so the interval comes from
    resampling pictures, each with all its queries. An even number of queries has two middle ranks:
    the median is their mean.

    ranks: (Q,), from `retrieval_ranks`.
    pictures: the picture of each query, as a number or a name.

    Raises ValueError if there are no queries or the lengths differ.
    """
    if len(ranks) != len(pictures):
        raise ValueError(f"{len(ranks)} ranks but {len(pictures)} pictures")
    values, columns = np.unique(ranks.cpu().numpy(), return_inverse=True)
    members = _group_members(pictures)
    counts = np.zeros((len(members), len(values)), dtype=int)  # how often a picture has a rank
    for row, queries in zip(counts, members.values()):
        np.add.at(row, columns[queries], 1)

    def median(sums: np.ndarray) -> float:
        ordered = sums.cumsum()  # numbers of queries with at most this rank
        total = ordered[-1]
        middle = np.searchsorted(ordered, [(total - 1) // 2, total // 2], side="right")
        return float(values[middle].mean())

    low, high = bootstrap(counts, median)
    return ConfidenceInterval(median(counts.sum(0)), low, high)
