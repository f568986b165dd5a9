"""How good is what was written?"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

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


def exact_match(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of hypotheses that are, word for word, one of their references."""
    _check(hypotheses, references)
    return sum(list(h) in map(list, refs) for h, refs in zip(hypotheses, references)) / max(len(hypotheses), 1)


def _check(hypotheses, references):
    """A string where tokens are meant, or lists that do not fit together, give numbers that look like scores."""
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses but references for {len(references)}")
    for i, (hypothesis, refs) in enumerate(zip(hypotheses, references)):
        if isinstance(hypothesis, str):
            raise TypeError(f"hypothesis {i} is a string, {hypothesis[:40]!r}; a list of tokens is needed")
        if isinstance(refs, str) or any(isinstance(ref, str) for ref in refs):
            raise TypeError(f"the references of hypothesis {i} must be a list of lists of tokens")
        if len(refs) == 0:
            raise ValueError(f"hypothesis {i} has no reference")
