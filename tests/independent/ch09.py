"""Chapter 9 written by others: see tests/test_proofs.py."""

# %% 9 exact_match
def exact_match(hypotheses, references):
    right = [
        any(len(ref) == len(hyp) and all(a == b for a, b in zip(hyp, ref)) for ref in refs)
        for hyp, refs in zip(hypotheses, references)
    ]
    if not right:
        return 0.0
    return sum(right) / len(right)


# %% 9 _ngrams
def _ngrams(tokens, n):
    last_start = len(tokens) - n
    start = 0
    while start <= last_start:
        yield tuple(tokens[start : start + n])
        start += 1


# %% 9 bleu_statistics
from __future__ import annotations

import numpy as np

ORDERS = (1, 2, 3, 4)


def count_ngrams(words, n) -> dict[tuple, int]:
    table = {}
    for position in range(len(words) - n + 1):
        key = tuple(words[position : position + n])
        table[key] = table.get(key, 0) + 1
    return table


def clipped_matches(words, refs, n) -> int:
    reference_tables = [count_ngrams(ref, n) for ref in refs]
    matches = 0
    for key, count in count_ngrams(words, n).items():
        matches += min(count, max(table.get(key, 0) for table in reference_tables))
    return matches


def closest_length(length, refs) -> int:
    best = len(refs[0])
    for ref in refs[1:]:
        gap, best_gap = abs(len(ref) - length), abs(best - length)
        if gap < best_gap or (gap == best_gap and len(ref) < best):
            best = len(ref)
    return best


def bleu_statistics(hypotheses: list[list[str]], references: list[list[list[str]]]) -> np.ndarray:
    rows = []
    for hypothesis, refs in zip(hypotheses, references):
        size = len(hypothesis)
        row = [size, closest_length(size, refs)]
        row += [clipped_matches(hypothesis, refs, n) for n in ORDERS]
        row += [max(0, size + 1 - n) for n in ORDERS]
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(len(rows), 10)


# %% 9 bleu
import math


def brevity_penalty(sys_len, ref_len):
    if sys_len == 0:
        return 1.0 if ref_len == 0 else 0.0
    return min(1.0, math.exp(1.0 - ref_len / sys_len))


def smooth(counts, totals, method):
    """The pairs (count, total) that the precisions are computed from."""
    pairs = []
    zeros = 0
    for n, (count, total) in enumerate(zip(counts, totals), start=1):
        if method == "add-k" and n > 1:
            count, total = count + 1, total + 1
        elif method == "coco":
            count, total = count + 1e-15, total + 1e-9
        elif method == "floor" and count == 0:
            count = 0.1
        elif method == "exp" and count == 0 and total > 0:
            zeros += 1
            count = 0.5**zeros
        pairs.append((count, total))
    return pairs


def geometric_mean(numbers):
    if min(numbers) == 0:
        return 0.0
    return math.prod(number ** (1 / len(numbers)) for number in numbers)


def _bleu(statistics, smooth_method, effective_order=False):
    if smooth_method not in {"exp", "floor", "add-k", "coco", "none"}:
        raise ValueError(f"unknown smoothing method: {smooth_method}")
    sys_len, ref_len, *rest = statistics
    counts, totals = rest[:4], rest[4:]
    bp = brevity_penalty(sys_len, ref_len)
    if sum(counts) == 0:
        return BleuScore(0.0, counts, totals, [0.0] * 4, bp, sys_len, ref_len, [0.0] * 4)
    pairs = smooth(counts, totals, smooth_method)
    if smooth_method == "add-k":
        counts, totals = map(list, zip(*pairs))
    precisions = [100 * count / total if total else 0.0 for count, total in pairs]
    scores = []
    for n in range(1, 5):
        used = precisions[:n]
        if effective_order:
            used = [p for p, (_, total) in zip(used, pairs) if total > 0]
        scores.append(bp * geometric_mean(used))
    return BleuScore(scores[3], counts, totals, precisions, bp, sys_len, ref_len, scores)


def bleu(hypotheses, references, smooth_method="exp"):
    per_sentence = bleu_statistics(hypotheses, references)
    sums = [int(per_sentence[:, column].sum()) for column in range(10)]
    return _bleu(sums, smooth_method)


def sentence_bleu(hypothesis, references, smooth_method="exp"):
    (row,) = bleu_statistics([hypothesis], [references])
    return _bleu([int(number) for number in row], smooth_method, True)


# %% 9 _longest_common_subsequence
def _longest_common_subsequence(a, b):
    rows, columns = len(a), len(b)
    table = [[0] * (columns + 1) for _ in range(rows + 1)]  # of the suffixes
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            if a[i] == b[j]:
                table[i][j] = 1 + table[i + 1][j + 1]
            else:
                table[i][j] = max(table[i + 1][j], table[i][j + 1])
    return table[0][0]


# %% 9 rouge_l
from typing import NamedTuple

BETA = 1.2


class Overlap(NamedTuple):
    precision: float
    recall: float

    def f_score(self):
        p, r = self
        if p == 0 or r == 0:
            return 0.0
        return (1 + BETA**2) * p * r / (r + BETA**2 * p)


def overlap(hypothesis, ref):
    if len(hypothesis) == 0 and len(ref) == 0:
        return Overlap(1.0, 1.0)
    if len(hypothesis) == 0 or len(ref) == 0:
        return Overlap(0.0, 0.0)
    common = _longest_common_subsequence(hypothesis, ref)
    return Overlap(common / len(hypothesis), common / len(ref))


def rouge_l(hypotheses, references):
    scores = []
    for hypothesis, refs in zip(hypotheses, references):
        overlaps = [overlap(hypothesis, ref) for ref in refs]
        best_p = max((one.precision for one in overlaps), default=0.0)
        best_r = max((one.recall for one in overlaps), default=0.0)
        scores.append(Overlap(best_p, best_r).f_score())
    mean = sum(scores) / len(scores) if scores else 0.0
    return MeanScore(score=mean, scores=scores)


# %% 9 document_frequencies
from collections import Counter

MAX_ORDER = 4


def document_frequencies(references):
    pictures_with = {}
    for number, refs in enumerate(references):
        for ref in refs:
            for start in range(len(ref)):
                for end in range(start + 1, min(start + MAX_ORDER, len(ref)) + 1):
                    pictures_with.setdefault(tuple(ref[start:end]), set()).add(number)
    sizes = {ngram: len(pictures) for ngram, pictures in pictures_with.items()}
    return DocumentFrequencies(Counter(sizes), len(references))


# %% 9 cider_d
import math

SIGMA = 6.0


def _tf_idf(ngrams, idf, max_idf):
    weights = {}
    for ngram in ngrams:
        weights[ngram] = weights.get(ngram, 0.0) + idf.get(ngram, max_idf)
    return weights


def norm(weights):
    return math.sqrt(sum(w * w for w in weights.values()))


def similarity(g_h, g_r):
    """Cosine of two bags of weights, in which those of the hypothesis are clipped."""
    lengths = norm(g_h) * norm(g_r)
    if lengths == 0:
        return 0.0
    return sum(min(g_h.get(key, 0.0), weight) * weight for key, weight in g_r.items()) / lengths


def cider_d(hypotheses, references, frequencies=None):
    if frequencies is None:
        frequencies = document_frequencies(references)
    log_documents = math.log(frequencies.documents) if frequencies.documents > 0 else 0.0
    idf = {}
    for ngram, count in frequencies.counts.items():
        idf[ngram] = log_documents - math.log(max(1, count))

    def bags(words):
        return [_tf_idf(list(_ngrams(words, n)), idf, log_documents) for n in (1, 2, 3, 4)]

    scores = []
    for hypothesis, refs in zip(hypotheses, references):
        own = bags(hypothesis)
        per_reference = []
        for ref in refs:
            difference = max(len(hypothesis) - 1, 0) - max(len(ref) - 1, 0)
            factor = math.exp(-(difference**2) / (2 * SIGMA**2))
            cosines = [similarity(g_h, g_r) for g_h, g_r in zip(own, bags(ref))]
            per_reference.append(factor * sum(cosines) / 4)
        scores.append(10 * sum(per_reference) / len(per_reference))
    return MeanScore(sum(scores) / len(scores) if scores else 0.0, scores)


# %% 9 bootstrap
import numpy as np


def bootstrap(statistics, score=None, seed=12345):
    table = np.asarray(statistics, dtype=float)
    N = len(table)
    if N == 0:
        raise ValueError("no examples, no interval")
    if score is None:

        def score(sums):
            return sums / N

    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(N, [1 / N] * N, size=1000)  # how often each example is drawn
    scores = np.array([score(times @ table) for times in times_drawn])
    low, high = np.percentile(scores, [2.5, 97.5], axis=0)
    return low, high


# %% 9 caption_tokenize
BRACKETS = {"(": "-lrb-", ")": "-rrb-", " ": "\N{NO-BREAK SPACE}"}


def normalized(token):
    token = token.lower()
    if token in _TOKEN_REPLACEMENTS:
        return _TOKEN_REPLACEMENTS[token]
    return "".join(BRACKETS.get(character, character) for character in token)


def caption_tokenize(text):
    for entity in _TEXT_REPLACEMENTS:
        text = text.replace(entity, _TEXT_REPLACEMENTS[entity])
    words = map(normalized, (match.group() for match in _PTB_TOKEN.finditer(text)))
    return [word for word in words if word not in _PUNCTUATION]
