"""The metrics against the references that others wrote."""

import random

import pytest
from sacrebleu import corpus_bleu
from sacrebleu.metrics import BLEU

from mmscratch.metrics import bleu, exact_match


def random_corpus(seed):
    """Hypotheses and references that overlap a lot, a little or not at all; many are short, some are empty."""
    draw = random.Random(seed)
    words = "the a cat dog on in sat , . 猫 über".split()[: draw.choice([1, 2, 5, 11])]
    longest = draw.choice([1, 3, 7, 23])
    hypotheses = [draw.choices(words, k=draw.randint(0, longest)) for _ in range(draw.choice([1, 2, 13]))]
    references = []
    for hypothesis in hypotheses:
        refs = [draw.choices(words + ["new"], k=draw.randint(0, longest)) for _ in range(draw.randint(1, 5))]
        if draw.random() < 0.3:
            refs = [hypothesis[draw.randint(0, 2) :] + draw.choices(words, k=draw.randint(0, 2))] + refs
        if draw.random() < 0.2:
            refs = [draw.choice(refs)] * len(refs)
        references.append(refs)
    return hypotheses, references


def sacrebleu_of(hypotheses, references, **options):
    """sacrebleu takes strings, and for each column of references one for every hypothesis, or None."""
    width = max(map(len, references))
    columns = [[" ".join(refs[i]) if i < len(refs) else None for refs in references] for i in range(width)]
    return corpus_bleu([" ".join(h) for h in hypotheses], columns, tokenize="none", force=True, **options)


def assert_agrees(ours, theirs):
    assert ours.counts == theirs.counts
    assert ours.totals == theirs.totals
    assert (ours.sys_len, ours.ref_len) == (theirs.sys_len, theirs.ref_len)
    assert ours.bp == pytest.approx(theirs.bp, abs=1e-6)
    assert ours.precisions == pytest.approx(theirs.precisions, abs=1e-6)
    assert ours.score == pytest.approx(theirs.score, abs=1e-6)


@pytest.mark.parametrize("smooth_method", ["exp", "none"])
def test_bleu_agrees_with_sacrebleu_on_random_corpora(smooth_method):
    for seed in range(400):
        hypotheses, references = random_corpus(seed)
        theirs = sacrebleu_of(hypotheses, references, smooth_method=smooth_method)
        assert_agrees(bleu(hypotheses, references, smooth_method), theirs)


def test_the_random_corpora_reach_every_corner():
    scores = [bleu(*random_corpus(seed), "none") for seed in range(400)]
    assert any(s.sys_len == 0 for s in scores) and any(s.ref_len == 0 < s.sys_len for s in scores)
    assert any(s.bp == 1 for s in scores) and any(0 < s.bp < 1 for s in scores)
    assert any(not any(s.counts) and all(s.totals) for s in scores)
    assert any(0 in s.totals and s.totals[0] for s in scores)
    assert any(s.counts[0] and 0 in s.counts and all(s.totals) for s in scores)
    assert sum(s.score > 1 for s in scores) > 50


@pytest.mark.parametrize("smooth_method", ["exp", "none"])
@pytest.mark.parametrize(
    "hypothesis, references",
    [
        ("", ["a b c d e"]),
        ("", [""]),
        ("a", ["a"]),
        ("a", ["b"]),
        ("a b c", ["a b c"]),
        ("a b c d e f g", ["h i j k l"]),
        ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
        ("a b c d", ["a b c", "a b c d e"]),  # a tie: the shorter length counts
        ("a b c d", ["a b c d e", "a b c"]),
        ("a b c d e", ["a b c d e", "a b c d e", "a b c d e"]),
        ("a b a b a b", ["a b x a b", "b a b a"]),  # the clip is that of one reference, not of all together
        ("A b c d e", ["a b c d e"]),  # capitals count
    ],
)
def test_bleu_agrees_with_sacrebleu_on_one_sentence(hypothesis, references, smooth_method):
    corpus = [hypothesis.split()], [[reference.split() for reference in references]]
    assert_agrees(bleu(*corpus, smooth_method), sacrebleu_of(*corpus, smooth_method=smooth_method))


@pytest.mark.parametrize("max_order", [1, 2, 3, 5])
def test_bleu_agrees_with_sacrebleu_for_other_orders(max_order):
    hypotheses, references = [list("abcdef"), list("cdab")], [[list("abcdfe")], [list("cda")]]
    metric = BLEU(tokenize="none", force=True, max_ngram_order=max_order)
    theirs = metric.corpus_score([" ".join(h) for h in hypotheses], [[" ".join(r[0]) for r in references]])
    assert_agrees(bleu(hypotheses, references, max_order=max_order), theirs)


def test_bleu_of_a_corpus_is_not_the_mean_over_sentences():
    hypotheses, references = [list("abcdefg"), list("hijk")], [[list("abcdefg")], [list("hxyz")]]
    alone = [bleu([h], [r]).score for h, r in zip(hypotheses, references)]
    assert abs(bleu(hypotheses, references).score - sum(alone) / 2) > 1


def test_bleu_is_not_symmetric():
    short, long = ["a b c d e".split()], ["a b c d e f g h".split()]
    assert bleu(short, [long]).bp < 1 == bleu(long, [short]).bp


def test_bleu_takes_tuples_as_it_takes_lists():
    hypotheses, references = random_corpus(17)
    tuples = [tuple(h) for h in hypotheses], [tuple(map(tuple, refs)) for refs in references]
    assert bleu(*tuples) == bleu(hypotheses, references)


def test_bleu_refuses_another_smoothing():
    with pytest.raises(ValueError, match="floor"):
        bleu([["a"]], [[["a"]]], smooth_method="floor")


def test_exact_match():
    hypotheses = [["a", "cat"], ["a", "dog"], [], ["a"], ["cat", "a"]]
    references = [[["the", "cat"], ["a", "cat"]], [["a"], ["dog"]], [["a"], []], [["a", "a"]], [["a", "cat"]]]
    assert exact_match(hypotheses, references) == 2 / 5
    assert exact_match([("a", "cat")], [[["a", "cat"]]]) == 1
    assert exact_match([], []) == 0


@pytest.mark.parametrize("metric", [bleu, exact_match])
@pytest.mark.parametrize(
    "hypotheses, references, error, words",
    [
        ([["a"], ["b"]], [[["a"]]], ValueError, "2 hypotheses .* 1"),
        ([["a"], ["b"], ["c"]], [[["a"]], [["b"]], []], ValueError, "hypothesis 2 "),
        ([["a"], "b c"], [[["a"]], [["b", "c"]]], TypeError, "hypothesis 1 .*'b c'"),
        ([["a"], ["b"]], [[["a"]], "b"], TypeError, "hypothesis 1 "),
        ([["a"], ["b", "c"]], [[["a"]], ["b", "c"]], TypeError, "hypothesis 1 "),  # one reference, not a list of them
        ([["a"], ["b", "c"]], [[["a"]], [["b", "c"], "b c"]], TypeError, "hypothesis 1 "),
    ],
)
def test_wrong_use_is_refused(metric, hypotheses, references, error, words):
    with pytest.raises(error, match=words):
        metric(hypotheses, references)
