"""The metrics against published ones (sacrebleu, pycocoevalcap, …), by hand and brute force."""

import math
import random
import re
from collections import Counter
from copy import deepcopy
from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mmscratch.data.judge import judge_captions
from mmscratch.data.language import captions
from mmscratch.data.scenes import Scene
from mmscratch.metrics import (
    DocumentFrequencies,
    aligned_accuracy,
    answer_coverage,
    answer_table,
    attention_in_box,
    bleu,
    bleu_statistics,
    bootstrap,
    caption_scores,
    character_error_rate,
    cider_d,
    confusion_matrix,
    document_frequencies,
    edit_counts,
    error_statistics,
    exact_match,
    label_scores,
    median_rank,
    normalize_answer,
    pair_accuracy,
    recall_at,
    retrieval_ranks,
    rouge_l,
    sentence_bleu,
    shuffle_within,
    transcript_scores,
    vqa_accuracy,
    word_error_rate,
)
from mmscratch.text import tokenize


class Absent:
    """In place of a package that is not installed: tests that compare with it are skipped."""

    def __getattr__(self, name):
        if name.startswith("_"):  # pytest looks whether it is a fixture
            raise AttributeError(name)
        pytest.skip("the package to compare with is not installed")


try:
    import sacrebleu
except ImportError:
    sacrebleu = Absent()
try:
    import sklearn.metrics
except ImportError:
    sklearn = Absent()

SMOOTH_METHODS = ["exp", "floor", "add-k", "none"]  # of sacrebleu


def random_corpus(seed):
    """Hypotheses and references that overlap much, little or not at all; many short, some empty."""
    draw = random.Random(seed)
    words = "the a cat dog on in sat , . 猫 über".split()[: draw.choice([1, 2, 5, 11])]
    longest = draw.choice([1, 3, 7, 23])
    count = draw.choice([1, 2, 13])
    hypotheses = [draw.choices(words, k=draw.randint(0, longest)) for _ in range(count)]
    references = []
    for hypothesis in hypotheses:
        number = 100 if seed % 50 == 7 else draw.randint(1, 5)
        refs = [draw.choices(words + ["new"], k=draw.randint(0, longest)) for _ in range(number)]
        if draw.random() < 0.3:
            similar = hypothesis[draw.randint(0, 2) :] + draw.choices(words, k=draw.randint(0, 2))
            refs = [similar] + refs
        if draw.random() < 0.2:
            refs = [draw.choice(refs)] * len(refs)
        references.append(refs)
    return hypotheses, references


def sacrebleu_of(hypotheses, references, n_bootstrap=1, **options):
    """sacrebleu's score, from strings and columns of references, with None where one is missing."""
    width = max(map(len, references))
    columns = []
    for i in range(width):
        column = [" ".join(refs[i]) if i < len(refs) else None for refs in references]
        columns.append(column)
    metric = sacrebleu.BLEU(tokenize="none", force=True, **options)
    return metric.corpus_score([" ".join(h) for h in hypotheses], columns, n_bootstrap=n_bootstrap)


def assert_agrees(ours, theirs):
    assert list(ours.counts) == theirs.counts
    assert list(ours.totals) == theirs.totals
    assert (ours.sys_len, ours.ref_len) == (theirs.sys_len, theirs.ref_len)
    assert ours.bp == pytest.approx(theirs.bp, abs=1e-6)
    assert ours.precisions == pytest.approx(theirs.precisions, abs=1e-6)
    assert ours.score == ours.scores[-1] == pytest.approx(theirs.score, abs=1e-6)


@pytest.mark.parametrize("smooth_method", SMOOTH_METHODS)
def test_bleu_agrees_with_sacrebleu_on_random_corpora(smooth_method):
    for seed in range(800):
        hypotheses, references = random_corpus(seed)
        theirs = sacrebleu_of(hypotheses, references, smooth_method=smooth_method)
        assert_agrees(bleu(hypotheses, references, smooth_method), theirs)


@pytest.mark.parametrize("smooth_method", SMOOTH_METHODS)
def test_bleu_scores_of_every_order_agree_with_sacrebleu(smooth_method):
    for seed in range(150):
        hypotheses, references = random_corpus(seed)
        options = [{"smooth_method": smooth_method, "max_ngram_order": n} for n in (1, 2, 3, 4)]
        theirs = [sacrebleu_of(hypotheses, references, **each).score for each in options]
        assert bleu(hypotheses, references, smooth_method).scores == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("smooth_method", SMOOTH_METHODS)
def test_sentence_bleu_agrees_with_sacrebleu(smooth_method):
    for seed in range(600):
        [hypothesis, *_], [refs, *_] = random_corpus(seed)
        sentences = " ".join(hypothesis), [" ".join(ref) for ref in refs]
        theirs = sacrebleu.sentence_bleu(*sentences, smooth_method=smooth_method, tokenize="none")
        assert_agrees(sentence_bleu(hypothesis, refs, smooth_method), theirs)


def test_only_sentence_bleu_leaves_out_ngrams_longer_than_the_sentence():
    assert sentence_bleu(["a", "cat"], [["a", "cat"]]).scores == pytest.approx([100] * 4)
    assert bleu([["a", "cat"]], [[["a", "cat"]]]).scores == pytest.approx([100, 100, 0, 0])


@pytest.mark.parametrize(
    "smooth_method, fractions",
    [
        ("exp", [6 / 7, 2 / 6, 0.5 / 5, 0.25 / 4]),
        ("floor", [6 / 7, 2 / 6, 0.1 / 5, 0.1 / 4]),
        ("add-k", [6 / 7, 3 / 7, 1 / 6, 1 / 5]),
        ("coco", [6 / 7, 2 / 6, 1e-15 / 5, 1e-15 / 4]),
        ("none", [6 / 7, 2 / 6, 0, 0]),
    ],
)
def test_bleu_by_hand(smooth_method, fractions):
    hypothesis = list("abcdefg")
    refs = [list("abxcdyfezzz")]  # all words but g, two bigrams, no trigram
    short = math.exp(1 - 11 / 7)
    geometric = [math.prod(fractions[:n]) ** (1 / n) for n in (1, 2, 3, 4)]
    of_corpus = bleu([hypothesis], [refs], smooth_method)
    of_sentence = sentence_bleu(hypothesis, refs, smooth_method)
    for ours in (of_corpus, of_sentence):
        assert (ours.sys_len, ours.ref_len, ours.bp) == (7, 11, pytest.approx(short))
        assert ours.precisions == pytest.approx([100 * fraction for fraction in fractions])
        assert ours.scores == pytest.approx([100 * short * mean for mean in geometric])
        assert ours.score == ours.scores[-1]
    longer = bleu([list("abcdefg")], [[list("bcd")]], smooth_method)
    assert longer.bp == 1, "there is no reward for being longer"
    wrong = bleu([["x"] * 7, []], [[["a"] * 7], [["a"]]], smooth_method)
    assert wrong.scores == [0] * 4, "not a single word is right"


def test_random_corpora_cover_the_corner_cases():
    scores = [bleu(*random_corpus(seed), "none") for seed in range(400)]
    assert any(s.sys_len == 0 for s in scores) and any(s.ref_len == 0 < s.sys_len for s in scores)
    assert any(s.bp == 1 for s in scores) and any(0 < s.bp < 1 for s in scores)
    assert any(not any(s.counts) and all(s.totals) for s in scores)
    assert any(0 in s.totals and s.totals[0] for s in scores)
    assert any(s.counts[0] and 0 in s.counts and all(s.totals) for s in scores)
    assert sum(s.score > 1 for s in scores) > 50


def clips_differ(hypothesis, refs):
    """Does a word occur more often than in any reference, but not than in all together?"""
    most = Counter()
    together = Counter()
    for ref in refs:
        most = most | Counter(ref)
        together = together + Counter(ref)
    return any(most[word] < count <= together[word] for word, count in Counter(hypothesis).items())


def test_random_references_cover_the_corner_cases():
    for first in (0, 150):  # among those of the shortest test, and again beyond
        corpora = [random_corpus(seed) for seed in range(first, first + 150)]
        pairs = [pair for corpus in corpora for pair in zip(*corpus)]
        assert any(len(hypotheses) == 1 for hypotheses, _ in corpora)
        for n in (1, 2, 3):
            assert any(len(h) == n for h, _ in pairs)
        assert any(h and not any(refs) for h, refs in pairs)
        assert any(not h and not any(refs) for h, refs in pairs)
        some_empty = [h for h, refs in pairs if not all(refs) and any(refs)]
        assert any(some_empty), "some references are empty, some are not"
        assert any(not h and all(refs) for h, refs in pairs)
        assert {1, 2, 5, 100} <= {len(refs) for _, refs in pairs}
        assert any(len(refs) > 1 and all(ref == refs[0] for ref in refs) for _, refs in pairs)
        assert any(h in refs and len(h) > 3 for h, refs in pairs)
        assert sum(clips_differ(h, refs) for h, refs in pairs) > 50
        lengths = [(len(h), list(map(len, refs))) for h, refs in pairs]
        ties = []
        for h, refs in lengths:
            d = min(abs(h - ref) for ref in refs)
            if d and {h - d, h + d} <= {*refs}:
                ties.append((h - d, h + d))
        assert len(ties) > 5


@pytest.mark.parametrize("smooth_method", SMOOTH_METHODS)
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
        # counts are clipped by one reference, not by all together
        ("a b a b a b", ["a b x a b", "b a b a"]),
        ("A b c d e", ["a b c d e"]),  # capitals count
    ],
)
def test_bleu_agrees_with_sacrebleu_on_one_sentence(hypothesis, references, smooth_method):
    corpus = [hypothesis.split()], [[reference.split() for reference in references]]
    assert_agrees(bleu(*corpus, smooth_method), sacrebleu_of(*corpus, smooth_method=smooth_method))
    theirs = sacrebleu.sentence_bleu(
        hypothesis, references, smooth_method=smooth_method, tokenize="none"
    )
    assert_agrees(sentence_bleu(hypothesis.split(), corpus[1][0], smooth_method), theirs)


def test_corpus_bleu_is_not_the_mean_over_sentences():
    hypotheses = [list("abcdefg"), list("hijk")]
    references = [[list("abcdefg")], [list("hxyz")]]
    alone = [bleu([h], [r]).score for h, r in zip(hypotheses, references)]
    assert abs(bleu(hypotheses, references).score - sum(alone) / 2) > 1


def test_bleu_is_not_symmetric():
    short = ["a b c d e".split()]
    long = ["a b c d e f g h".split()]
    assert bleu(short, [long]).bp < 1 == bleu(long, [short]).bp


@pytest.mark.parametrize("smooth_method", ["floo", "add_k", "Exp", "", None])
def test_unknown_smooth_method_raises(smooth_method):
    for tokens in (["a"], []):
        with pytest.raises(ValueError, match=f'"coco" or "none", not {smooth_method!r}'):
            bleu([tokens], [[["a"]]], smooth_method=smooth_method)
        with pytest.raises(ValueError, match=f'"coco" or "none", not {smooth_method!r}'):
            sentence_bleu(tokens, [["a"]], smooth_method)


def coco(scorer, hypotheses, references):
    """(score, score of each hypothesis) by a scorer of the COCO evaluation."""
    hypotheses = {i: [" ".join(h)] for i, h in enumerate(hypotheses)}
    references = {i: [" ".join(ref) for ref in refs] for i, refs in enumerate(references)}
    return scorer.compute_score(references, hypotheses)


def test_bleu_agrees_with_the_coco_evaluation():
    theirs = pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu(4)
    for seed in range(400):
        corpus = random_corpus(seed)
        expected = [100 * score for score in coco(theirs, *corpus)[0]]
        assert bleu(*corpus, "coco").scores == pytest.approx(expected, abs=1e-4)  # of 100


def test_rouge_l_agrees_with_the_coco_evaluation():
    theirs = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge()
    for seed in range(400):
        corpus = random_corpus(seed)
        score, scores = coco(theirs, *corpus)
        ours = rouge_l(*corpus)
        assert ours.scores == pytest.approx(list(scores), abs=1e-6)
        assert ours.score == pytest.approx(score, abs=1e-6)


def test_cider_d_agrees_with_the_coco_evaluation():
    theirs = pytest.importorskip("pycocoevalcap.cider.cider").Cider()
    without_words, above_0 = 0, 0
    for seed in range(400):
        hypotheses, references = random_corpus(seed)
        ours = cider_d(hypotheses, references)
        if any(any(refs) for refs in references):
            score, scores = coco(theirs, hypotheses, references)
            assert ours.scores == pytest.approx(list(scores), abs=1e-6)
            assert ours.score == pytest.approx(score, abs=1e-6)
            above_0 += ours.score > 0.01
        else:  # theirs raises
            assert ours == (0, [0] * len(hypotheses))
            without_words += 1
    assert without_words > 3 and above_0 > 100


def test_rouge_l_by_hand():
    expected = (1 + 1.44) * 3 / 4 * 3 / 5 / (3 / 5 + 1.44 * 3 / 4)
    assert rouge_l([list("axbc")], [[list("abcyz")]]).score == pytest.approx(expected)
    # all of the hypothesis is in the first reference, all of the second in the hypothesis
    of_two = rouge_l([list("abcd")], [[list("abcdefgh"), list("a")]]).score
    assert of_two == pytest.approx(1)
    assert rouge_l([["b", "a"]], [[["a", "b"]]]).score == pytest.approx(1 / 2), "the order counts"
    assert rouge_l([[], [], ["a"]], [[[]], [["a"]], [[]]]).scores == [pytest.approx(1), 0, 0]


def subsequences(tokens):
    return {some for k in range(len(tokens) + 1) for some in combinations(tokens, k)}


def test_rouge_l_by_brute_force():
    draw = random.Random(0)
    for _ in range(200):
        count = draw.randint(2, 4)
        hypothesis, *refs = [draw.choices("abcd", k=draw.randint(1, 7)) for _ in range(count)]
        common = [max(map(len, subsequences(hypothesis) & subsequences(ref))) for ref in refs]
        p = max(common) / len(hypothesis)
        r = max(lcs / len(ref) for lcs, ref in zip(common, refs))
        expected = (1 + 1.44) * p * r / (r + 1.44 * p) if p else 0
        assert rouge_l([hypothesis], [refs]).score == pytest.approx(expected)


def all_ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def ngram_set(tokens):
    return {ngram for n in (1, 2, 3, 4) for ngram in all_ngrams(tokens, n)}


def slow_cider_d(hypothesis, refs, counts, documents):
    """The formula of cider_d, symbol by symbol, for one hypothesis."""

    def weights(tokens, n):
        ngrams = all_ngrams(tokens, n)
        idf = {w: math.log(documents / max(1, counts.get(w, 0))) for w in ngrams}
        return {w: ngrams.count(w) * idf[w] for w in ngrams}

    total = 0.0
    for ref in refs:
        for n in (1, 2, 3, 4):
            g_h, g_r = weights(hypothesis, n), weights(ref, n)
            norms = [math.sqrt(sum(value**2 for value in g.values())) for g in (g_h, g_r)]
            l_h, l_r = [max(len(tokens) - 1, 0) for tokens in (hypothesis, ref)]
            if all(norms):
                dot = sum(min(g_h[w], g_r[w]) * g_r[w] for w in g_h.keys() & g_r.keys())
                gaussian = math.exp(-((l_h - l_r) ** 2) / (2 * 6**2))
                total += dot / math.prod(norms) * gaussian / 4
    return 10 * total / len(refs)


def test_document_frequencies_by_hand():
    counts, documents = document_frequencies([[["a", "a", "cat"], ["a", "dog"]], [["a"]], [[]]])
    assert documents == 3
    expected = {"a": 2, "dog": 1, "a cat": 1, "a a cat": 1, "cat dog": 0}
    assert {words: counts[tuple(words.split())] for words in expected} == expected


def test_document_frequencies_by_brute_force():
    for seed in range(60):
        _, references = random_corpus(seed)
        counts, documents = document_frequencies(references)
        inside = [set().union(*map(ngram_set, refs)) for refs in references]
        assert documents == len(references)
        every = set().union(*inside)
        assert counts == {w: sum(w in ngrams for ngrams in inside) for w in every}


def test_cider_d_takes_the_frequencies_of_other_pictures():
    differ = 0
    for seed in range(120):
        hypotheses, references = random_corpus(seed)
        if seed % 50 == 7:
            references = [refs[:5] for refs in references]
        others = random_corpus(seed + 1000)[1] + random_corpus(seed + 2000)[1]
        own = cider_d(hypotheses, references)
        given = cider_d(hypotheses, references, document_frequencies(others))
        assert cider_d(hypotheses, references, document_frequencies(references)) == own
        for corpus, ours in ((references, own), (others, given)):
            frequencies = document_frequencies(corpus)
            before = dict(frequencies.counts)
            cider_d(hypotheses, references, frequencies)
            assert frequencies.counts == before  # not changed
            expected = [
                slow_cider_d(h, refs, *frequencies) for h, refs in zip(hypotheses, references)
            ]
            assert ours.scores == pytest.approx(expected, abs=1e-9)
            assert ours.score == pytest.approx(sum(expected) / len(expected), abs=1e-9)
        differ += any(abs(a - b) > 0.01 for a, b in zip(own.scores, given.scores))
    assert differ > 60


def test_cider_d_by_hand():
    counts = Counter({("a",): 8, ("cat",): 2, ("dog",): 4})  # log 1, log 4, log 2
    frequencies = DocumentFrequencies(counts, 8)
    score = cider_d([["a", "cat", "dog"]], [[["a", "cat"]]], frequencies).score
    unigrams = math.log(4) / math.hypot(math.log(4), math.log(2))
    bigrams = 1 / math.sqrt(2)  # neither is in any document
    assert score == pytest.approx(10 * (unigrams + bigrams) / 4 * math.exp(-1 / 72))
    for seed in range(50):
        hypotheses, references = random_corpus(seed)
        score = cider_d(hypotheses[:1], references[:1])
        assert score == (0, [0]), "with a single picture nothing is rare"
    score = cider_d([["a"]] * 2, [[["a"]]] * 2)
    assert score == (0, [0, 0]), "an n-gram in every picture is not rare"


def test_metrics_do_not_depend_on_the_order_of_references_and_pairs():
    moved = 0
    for seed in range(100):
        hypotheses, references = random_corpus(seed)
        shuffle = random.Random(seed).sample
        pairs = list(range(len(hypotheses)))
        moved_pairs = shuffle(pairs, len(pairs))
        moved += moved_pairs != pairs
        shuffled = (
            [hypotheses[i] for i in moved_pairs],
            [shuffle(references[i], len(references[i])) for i in moved_pairs],
        )
        for smooth_method in (*SMOOTH_METHODS, "coco"):
            assert bleu(*shuffled, smooth_method) == bleu(hypotheses, references, smooth_method)
        hypothesis, refs = shuffled[0][0], shuffled[1][0]
        same_refs = references[moved_pairs[0]]
        assert sentence_bleu(hypothesis, refs) == sentence_bleu(hypothesis, same_refs)
        for metric in (rouge_l, cider_d):
            before = metric(hypotheses, references)
            after = metric(*shuffled)
            assert after.score == pytest.approx(before.score, abs=1e-9)
            assert after.scores == pytest.approx([before.scores[i] for i in moved_pairs], abs=1e-9)
    assert moved > 20


def test_hypotheses_equal_to_a_reference_are_perfect():
    draw = random.Random(0)
    for _ in range(50):
        numbers = [
            [draw.choices(range(53), k=draw.randint(4, 23)) for _ in range(draw.randint(1, 5))]
            for _ in range(7)
        ]
        references = [[list(map(str, ref)) for ref in refs] for refs in numbers]
        hypotheses = list(map(draw.choice, references))
        for smooth_method in (*SMOOTH_METHODS, "coco"):
            assert bleu(hypotheses, references, smooth_method).scores == pytest.approx([100] * 4)
            one = sentence_bleu(hypotheses[0], references[0], smooth_method)
            assert one.scores == pytest.approx([100] * 4)
        assert rouge_l(hypotheses, references).scores == pytest.approx([1] * 7)
        alone = cider_d(hypotheses, [[h] for h in hypotheses]).scores
        assert alone == pytest.approx([10] * 7)


def test_tuples_work_like_lists_and_inputs_are_unchanged():
    for seed in range(20):
        hypotheses, references = corpus = random_corpus(seed)
        before = deepcopy(corpus)
        tuple_refs = tuple(tuple(map(tuple, refs)) for refs in references)
        tuples = (tuple(map(tuple, hypotheses)), tuple_refs)
        for smooth_method in (*SMOOTH_METHODS, "coco"):
            assert bleu(*tuples, smooth_method) == bleu(*corpus, smooth_method)
        one = sentence_bleu(hypotheses[0], references[0])
        assert sentence_bleu(tuples[0][0], tuples[1][0]) == one
        assert rouge_l(*tuples) == rouge_l(*corpus)
        frequencies = document_frequencies(random_corpus(seed + 1)[1])
        kept = deepcopy(frequencies)
        assert document_frequencies(tuples[1]) == document_frequencies(references)
        assert cider_d(*tuples) == cider_d(*corpus)
        assert cider_d(*tuples, frequencies) == cider_d(*corpus, frequencies)
        assert (corpus, frequencies) == (before, kept)
    corpus = random_corpus(3)
    before = deepcopy(corpus)
    assert caption_scores(*corpus).keys() and corpus == before
    statistics = bleu_statistics(*corpus)
    sums = statistics.sum(0).tolist()
    bootstrap(statistics, score_of)
    assert statistics.sum(0).tolist() == sums


def test_bleu_statistics_add_up():
    for seed in range(50):
        hypotheses, references = random_corpus(seed)
        statistics = bleu_statistics(hypotheses, references)
        whole = bleu(hypotheses, references)
        assert statistics.shape == (len(hypotheses), 10)
        lengths = [whole.sys_len, whole.ref_len]
        assert statistics.sum(0).tolist() == [*lengths, *whole.counts, *whole.totals]
        one = sentence_bleu(hypotheses[-1], references[-1])
        assert statistics[-1].tolist() == [one.sys_len, one.ref_len, *one.counts, *one.totals]


def test_bleu_statistics_by_brute_force():
    refs = [["a"] * length for length in (5, 2, 8, 3)]
    for length, ref_len in ((1, 2), (4, 3), (7, 8)):
        assert bleu_statistics([["a"] * length], [refs])[0, 1] == ref_len
    for seed in range(60):
        hypotheses, references = random_corpus(seed)
        before = deepcopy((hypotheses, references))
        statistics = bleu_statistics(hypotheses, references).tolist()
        assert (hypotheses, references) == before  # not changed
        for numbers, hypothesis, refs in zip(statistics, hypotheses, references):
            length = len(hypothesis)
            closest = min(map(len, refs), key=lambda other: (abs(other - length), other))
            assert numbers[:2] == [length, closest]
            for n in (1, 2, 3, 4):
                most = Counter()
                for ref in refs:
                    most |= Counter(all_ngrams(ref, n))
                assert numbers[1 + n] == (Counter(all_ngrams(hypothesis, n)) & most).total()
                assert numbers[5 + n] == len(all_ngrams(hypothesis, n))


def decent_corpus(count):
    """Hypotheses of 8 to 13 words, most of them right, with two references each."""
    draw = random.Random(count)
    words = [f"w{i}" for i in range(50)]
    references = []
    for _ in range(count):
        references.append([draw.choices(words, k=draw.randint(8, 13)) for _ in range(2)])
    hypotheses = []
    for first, _ in references:
        hypotheses.append([w if draw.random() < 0.8 else draw.choice(words) for w in first])
    return hypotheses, references


@pytest.mark.parametrize("count", [1, 2, 3, 47])
def test_the_interval_of_bleu_agrees_with_sacrebleu(count, monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)  # its default is ours
    hypotheses, references = decent_corpus(count)
    theirs = sacrebleu_of(hypotheses, references, n_bootstrap=1000)
    from_scores = caption_scores(hypotheses, references)["BLEU-4"]
    resampled = bootstrap(bleu_statistics(hypotheses, references), score_of)
    for low, high in (from_scores[1:], resampled):
        # of 100; theirs are of float32
        assert (high - low) / 2 == pytest.approx(theirs._ci, abs=1e-4)
    assert (theirs._ci > 1) == (count > 1)


def score_of(sums):
    """BLEU-4 from summed statistics, by sacrebleu."""
    sums = sums.tolist()
    return sacrebleu.BLEU.compute_bleu(sums[2:6], sums[6:], *sums[:2], smooth_method="exp").score


def test_an_interval_is_that_of_rescored_resampled_examples():
    hypotheses, references = decent_corpus(23)
    draw = np.random.default_rng(7)
    drawn = [draw.integers(23, size=23) for _ in range(1000)]
    statistics = bleu_statistics(hypotheses, references)
    scores = []
    for some in drawn:
        resampled = bleu([hypotheses[i] for i in some], [references[i] for i in some])
        scores.append(resampled.score)
    scores = sorted(scores)
    assert bootstrap(statistics, score_of, seed=7) == pytest.approx((scores[25], scores[974]))
    values = rouge_l(hypotheses, references).scores
    means = sorted(sum(values[i] for i in some) / 23 for some in drawn)
    assert bootstrap(values, seed=7) == pytest.approx((means[25], means[974]))
    # a neighbouring score would make a difference
    assert scores[24] < scores[25] < scores[26] and means[973] < means[974] < means[975]


def test_the_interval_comes_from_1000_scores_of_resampled_sums():
    statistics = np.stack([np.arange(37) % 7, np.ones(37)], axis=1)
    drawn = []

    def scores(sums):
        drawn.append(sums.tolist())
        return [sums[0] / sums[1], -sums[0]]

    low, high = bootstrap(statistics, scores)
    assert len(drawn) == 1000 and {count for _, count in drawn} == {37}, "37 of the 37 are drawn"
    means = sorted(total / 37 for total, _ in drawn)
    sums = sorted(-total for total, _ in drawn)
    assert len(set(means)) > 20, "some come twice, so others never"
    for i, ordered in enumerate((means, sums)):
        assert ordered[24] <= low[i] <= ordered[25] and ordered[974] <= high[i] <= ordered[975]


def test_the_interval_of_a_mean_is_close_to_the_normal_one():
    draw = np.random.default_rng(3)
    for values in (draw.normal(5, 2, 4000), draw.exponential(3, 4000), draw.random(4000) < 0.3):
        half = 1.96 * values.std() / math.sqrt(4000)
        low, high = bootstrap(values)
        assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
        assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
        assert bootstrap(values.tolist()) == pytest.approx((low, high))
        assert bootstrap(values.tolist()) == bootstrap(tuple(values.tolist()))


def test_no_examples_have_no_interval():
    for statistics in ([], np.zeros((0, 3))):
        with pytest.raises(ValueError):
            bootstrap(statistics)


def test_the_interval_leaves_the_global_random_numbers_alone():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    bootstrap([1.0, 2.0, 3.0])
    assert np.random.random() == expected


def test_95_percent_of_intervals_contain_the_true_mean():
    draw = np.random.default_rng(11)
    below, above, trials = 0, 0, 300
    for seed in range(trials):
        low, high = bootstrap(draw.normal(1, 3, 60), seed=seed)
        below = below + (high < 1)
        above = above + (low > 1)
    # 0.05 ± 0.013, and a little more because 60 examples are few
    assert 0.02 * trials < below + above < 0.09 * trials
    assert min(below, above) > 0.006 * trials, "missed on both sides"


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(31)
    assert bootstrap(values) == bootstrap(values, seed=12345) != bootstrap(values, seed=1)
    assert all(isinstance(end, float) for end in bootstrap(values))
    assert bootstrap([3.0]) == (3, 3) and bootstrap([2, 2, 2]) == (2, 2)


def test_an_interval_without_examples_raises():
    for empty in ([], np.zeros((0, 10))):
        with pytest.raises(ValueError, match="at least one example"):
            bootstrap(empty)
    with pytest.raises(ValueError, match="at least one example"):
        caption_scores([], [])


def test_caption_scores_agree_with_the_single_metrics():
    hypotheses, references = decent_corpus(41)
    found = caption_scores(hypotheses, references)
    scores = bleu(hypotheses, references).scores
    expected = {f"BLEU-{n}": score for n, score in enumerate(scores, 1)}
    expected["ROUGE-L"] = rouge_l(hypotheses, references).score
    expected["CIDEr-D"] = cider_d(hypotheses, references).score
    assert {name: score for name, (score, _, _) in found.items()} == pytest.approx(expected)
    assert list(found) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert all(low < score < high for score, low, high in found.values())
    assert 40 < found["BLEU-4"].score < 90
    assert len({round(score, 3) for score, _, _ in found.values()}) == 6
    for name, metric in (("ROUGE-L", rouge_l), ("CIDEr-D", cider_d)):
        assert found[name][1:] == bootstrap(metric(hypotheses, references).scores)

    def bleu_2(sums):
        sums = sums.tolist()
        counts, totals = sums[2:4], sums[6:8]
        bleu = sacrebleu.BLEU.compute_bleu(counts, totals, *sums[:2], "exp", max_ngram_order=2)
        return bleu.score

    expected = bootstrap(bleu_statistics(hypotheses, references), bleu_2)
    assert found["BLEU-2"][1:] == pytest.approx(expected)


def test_exact_match():
    hypotheses = [["a", "cat"], ["a", "dog"], [], ["a"], ["cat", "a"]]
    references = [
        [["the", "cat"], ["a", "cat"]],
        [["a"], ["dog"]],
        [["a"], []],
        [["a", "a"]],
        [["a", "cat"]],
    ]
    assert exact_match(hypotheses, references) == 2 / 5
    assert exact_match([("a", "cat")], [[["a", "cat"]]]) == 1
    assert exact_match([], []) == 0


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider_d, exact_match, caption_scores])
@pytest.mark.parametrize("hypotheses, references, error, words", [
    ([["a"], ["b"]], [[["a"]]], ValueError, "2 hypotheses but references for 1"),
    ([["a"]], [[["a"]], [["b"]]], ValueError, "1 hypotheses but references for 2"),
    ([["a"], ["b"], ["c"]], [[["a"]], [["b"]], []], ValueError, "hypothesis 2 has no reference"),
    ([["a"], "b"], [[["a"]], [["b"]]], TypeError, "hypothesis 1 is a string, 'b'; a list of"),
    ("b c", [[["b"]]] * 3, TypeError, "hypothesis 0 is a string, 'b c'; a list of tokens"),
    # one hypothesis, not a list of them
    (["b", "c"], [[["b", "c"]]], TypeError, "hypothesis 0 is a string, 'b'"),
    ([["a"], ["b"]], [[["a"]], "b"], TypeError, "of hypothesis 1 must be a list of lists"),
    ([["a"]], "a", TypeError, "the references are a string"),
    ([["a"]], [""], TypeError, "of hypothesis 0 must be a list of lists"),
    # one reference, not a list of them
    ([["a"], ["b", "c"]], [[["a"]], ["b", "c"]], TypeError, "hypothesis 1 "),
    ([["a"], ["b", "c"]], [[["a"]], [["b", "c"], "b c"]], TypeError, "hypothesis 1 "),
    ([[["a"]], [["b"], ["c"]]], [["a"], ["b"]], TypeError, "hypothesis 0 .* hypotheses come first"),
    ([[], [("a",)]], [["a"], ["b"]], TypeError, "hypothesis 1 .* the hypotheses come first"),
])  # fmt: skip
def test_strings_and_mismatched_lists_raise(metric, hypotheses, references, error, words):
    with pytest.raises(error, match=words):
        metric(hypotheses, references)
    if metric is cider_d:
        with pytest.raises(error, match=words):
            cider_d(hypotheses, references, document_frequencies([[["a"]], [["b"]]]))


@pytest.mark.parametrize(
    "hypothesis, references, error, words",
    [
        ("a b", [["a", "b"]], TypeError, "'a b'; a list of tokens"),
        (["a", "b"], ["a", "b"], TypeError, "must be a list of lists"),
        (["a", "b"], [["a"], "a b"], TypeError, "must be a list of lists"),
        (["a", "b"], "a b", TypeError, "must be a list of lists"),
        (["a", "b"], [], ValueError, "no reference"),
        ([["a", "b"]], ["a", "b"], TypeError, "the hypotheses come first"),
    ],
)
def test_strings_and_missing_references_of_sentence_bleu_raise(
    hypothesis, references, error, words
):
    with pytest.raises(error, match=words):
        sentence_bleu(hypothesis, references)


def test_error_messages_shorten_long_strings():
    with pytest.raises(TypeError, match=re.escape(f"{'word ' * 8!r};")):
        bleu(["word " * 1000], [[["word"]]])


def test_judge_captions_by_hand():
    row = "from left to right:"
    column = "from top to bottom:"
    judged = [  # (number of a scene, caption, its faults)
        (7, "a small blue umbrella left of a big blue telephone", []),
        (1, "a small white cat in the middle", []),
        (10, f"{row} a small blue sun, a big orange horse and a big black cloud", ["noun"]),
        (3, "a small purple monkey on the left", ["place"]),
        (4, "a big blue airplane in the bottom left corner", ["colour", "size"]),
        (2, "a snowman", ["grammar"]),
        (9, "a big green mouse is left of a small white clover", ["place"]),
        (5, f"{column} a big white wheel, a big yellow heart and a small white wheel", []),
        (6, "tower tower tower", ["grammar"]),
        (8, "", ["grammar"]),
        (0, "two big white pencils", []),
    ]  # fmt: skip
    scenes = [Scene(number) for number, _, _ in judged]
    assert [len(scene.objects) for scene in scenes] == [2, 1, 3, 1, 1, 1, 2, 3, 3, 1, 2]
    tokens = [tokenize(sentence) for _, sentence, _ in judged]
    fractions, faults = judge_captions(tokens, scenes)
    assert fractions == pytest.approx([100 / 5, 200 / 3, 100 / 3, 400 / 11])
    assert faults == Counter(fault for _, _, wrong in judged for fault in wrong)
    assert judge_captions(list(map(tuple, tokens)), tuple(scenes)) == (fractions, faults)


def test_judge_captions_of_true_swapped_and_no_captions():
    scenes = [Scene(number) for number in range(103)]
    for which in range(5):
        written = [tokenize(captions(scene)[which]) for scene in scenes]
        assert judge_captions(written, scenes) == ([100] * 4, {})
        # no two neighbours are alike
        assert judge_captions(written[1:] + written[:1], scenes).percentages == [0] * 4
    # scenes of one object only
    assert judge_captions(written[1:4], scenes[1:4]) == ([100, 0, 0, 100], {})
    assert judge_captions([], []) == ([0] * 4, {})


@pytest.mark.parametrize(
    "written, error, words",
    [
        ([["a", "cat"]], ValueError, "1 captions but 2 scenes"),
        ([["a", "cat"]] * 3, ValueError, "3 captions but 2 scenes"),
        (
            [["a", "cat"], "a small yellow snowman"],
            TypeError,
            "hypothesis 1 .*'a small yellow snowman",
        ),
    ],
)
def test_judge_captions_of_mismatched_inputs_raises(written, error, words):
    with pytest.raises(error, match=words):
        judge_captions(written, [Scene(1), Scene(2)])


def random_labels(seed):
    """predicted and true (N, L) bool: label 0 never true, label 1 never predicted, label 2 rare."""
    generator = torch.Generator().manual_seed(seed)
    objects, labels = random.Random(seed).choice([(1, 5), (2, 3), (17, 7), (101, 13)])
    fraction = torch.rand(labels, generator=generator)
    fraction[2] = 0.02
    true = torch.rand(objects, labels, generator=generator) < fraction
    predicted = torch.rand(objects, labels, generator=generator) < fraction
    true[:, 0] = False
    predicted[:, 1] = False
    return predicted, true


@pytest.mark.parametrize("average", [None, "micro"])
def test_label_scores_agree_with_scikit_learn(average):
    for seed in range(100):
        predicted, true = random_labels(seed)
        ours = label_scores(predicted, true, average)
        predicted, true = predicted.numpy(), true.numpy()
        precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
            true, predicted, average=average, zero_division=0
        )
        accuracy_score = sklearn.metrics.accuracy_score
        if average == "micro":
            accuracy = accuracy_score(true.flatten(), predicted.flatten())
        else:
            accuracy = [accuracy_score(t, p) for t, p in zip(true.T, predicted.T)]
        for score, expected in zip(ours, (accuracy, precision, recall, f1)):
            assert_close(score, torch.tensor(expected, dtype=torch.float32))


def test_random_labels_cover_the_corner_cases():
    drawn = [random_labels(seed) for seed in range(100)]
    assert any((~p & ~t).all(0).any() for p, t in drawn), "f1 is 0 / 0"
    assert any((~p.any(0) & t.any(0)).any() for p, t in drawn), "precision is 0 / 0, recall is not"
    assert any((p.any(0) & ~t.any(0)).any() for p, t in drawn), "recall is 0 / 0, precision is not"
    assert any(not (p & t).any() for p, t in drawn) and any((p & t).any() for p, t in drawn)
    means = torch.stack([torch.stack(label_scores(*d)).mean(1) for d in drawn])
    micro = torch.stack([torch.stack(label_scores(*d, "micro")) for d in drawn])
    assert ((means - micro)[:, 1:].abs().amax(1) > 0.01).sum() > 50


def test_attention_in_box_is_that_of_its_pixels():
    torch.manual_seed(0)
    for _ in range(50):
        h, w, scale = (int(torch.randint(1, 7, ())) for _ in range(3))
        size = h * w * scale
        weights = torch.rand(h, w).flatten().softmax(0).view(h, w)
        rows, columns = size // h, size // w  # of pixels in a position
        pixels = weights.repeat_interleave(rows, 0).repeat_interleave(columns, 1) / rows / columns
        left, right = sorted(torch.randint(size + 1, (2,)).tolist())
        top, bottom = sorted(torch.randint(size + 1, (2,)).tolist())
        inside, area = attention_in_box(weights, (left, top, right, bottom), size)
        assert inside == pytest.approx(pixels[top:bottom, left:right].sum().item(), abs=1e-6)
        assert area == pytest.approx((bottom - top) * (right - left) / size**2, abs=1e-6)
    # a position need not be a whole number of pixels: here it is 10 / 3 wide and 2.5 high
    weights = torch.tensor([[0.0, 0.5, 0.0]] + [[0.0, 0.0, 0.0]] * 2 + [[0.0, 0.0, 0.5]])
    inside, area = attention_in_box(weights, (5, 0, 10, 9), 10)
    assert (inside, area) == pytest.approx((0.5 / 2 + 0.5 * 1.5 / 2.5, 45 / 100))


def test_label_scores_by_hand():
    predicted = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 0]]).bool()
    true = torch.tensor([[1, 1], [0, 0], [0, 0], [1, 0]]).bool()
    scores = label_scores(predicted, true)
    assert scores.accuracy.tolist() == [0.25, 0.75]
    assert scores.precision.tolist() == [pytest.approx(1 / 3), 0]
    assert scores.recall.tolist() == [0.5, 0]
    assert scores.f1.tolist() == [pytest.approx(0.4), 0]
    micro = label_scores(predicted, true, "micro")
    assert [s.item() for s in micro] == pytest.approx([4 / 8, 1 / 3, 1 / 3, 1 / 3])
    never_there = label_scores(torch.tensor([[True, False]]), torch.tensor([[False, False]]))
    assert [s.tolist() for s in never_there] == [[0, 1], [0, 0], [0, 0], [0, 0]]
    # 2 true positives, 2 false positives, 1 false negative: no two scores are equal
    predicted = torch.tensor([[1, 1, 1], [0, 1, 0]]).bool()
    micro = label_scores(predicted, torch.tensor([[1, 1, 0], [1, 0, 0]]).bool(), "micro")
    assert [s.item() for s in micro] == pytest.approx([3 / 6, 2 / 4, 2 / 3, 4 / 7])


INVALID_LABELS = pytest.mark.parametrize(
    "predicted, true, average, words",
    [
        (torch.ones(5, 3).bool(), torch.ones(5, 3).bool(), "macro", "'macro'"),
        (torch.ones(5, 3), torch.ones(5, 3).bool(), None, "torch.float32 and torch.bool"),
        (torch.ones(5, 3).bool(), torch.ones(5, 3).long(), None, "torch.bool and torch.int64"),
        (torch.ones(5, 3).bool(), torch.ones(3, 5).bool(), None, r"\(5, 3\) and \(3, 5\)"),
        (torch.ones(5, 3).bool(), torch.ones(5, 1).bool(), "micro", r"\(5, 3\) and \(5, 1\)"),
        (torch.ones(5).bool(), torch.ones(5).bool(), None, r"\(5,\) and \(5,\)"),
        (torch.ones(0, 3).bool(), torch.ones(0, 3).bool(), None, r"\(0, 3\)"),
        (torch.ones(5, 0).bool(), torch.ones(5, 0).bool(), "micro", r"\(5, 0\)"),
    ],
)


@INVALID_LABELS
def test_label_scores_of_invalid_inputs_raise(predicted, true, average, words):
    with pytest.raises(ValueError):
        label_scores(predicted, true, average)


@INVALID_LABELS
def test_label_scores_says_what_is_invalid(predicted, true, average, words):
    with pytest.raises(ValueError, match=words):
        label_scores(predicted, true, average)


@pytest.mark.parametrize("dtype", [torch.long, torch.uint8])
def test_confusion_matrix_counts_every_pair(dtype):
    true = torch.tensor([0, 21, 21, 21, 7, 0, 21], dtype=dtype)
    predicted = torch.tensor([0, 7, 7, 21, 21, 13, 7], dtype=dtype)
    expected = torch.zeros(23, 23, dtype=torch.long)
    for i, j in zip(true.tolist(), predicted.tolist()):
        expected[i, j] += 1
    assert_close(confusion_matrix(predicted, true, 23), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.long, torch.uint8])
def test_confusion_matrix_agrees_with_scikit_learn(dtype):
    for seed in range(50):
        draw = random.Random(seed)
        classes = draw.choice([2, 7, 23])
        objects = draw.choice([1, 3, 101])
        present = draw.randint(1, classes)  # the last classes may be absent
        true = torch.tensor(draw.choices(range(present), k=objects), dtype=dtype)
        predicted = torch.tensor(draw.choices(range(classes), k=objects), dtype=dtype)
        ours = confusion_matrix(predicted, true, classes)
        expected = sklearn.metrics.confusion_matrix(true, predicted, labels=range(classes))
        assert_close(ours, torch.from_numpy(expected).long(), rtol=0, atol=0)
    # rows are the true classes
    assert confusion_matrix(torch.tensor([1]), torch.tensor([0]), 2).tolist() == [[0, 1], [0, 0]]
    assert confusion_matrix(true[:0], true[:0], 3).tolist() == [[0] * 3] * 3


INVALID_CLASSES = pytest.mark.parametrize(
    "predicted, true, words",
    [
        ([0, 5, 1], [0, 1, 2], "predicted has class 5, but 5 classes are 0 to 4"),
        ([0, 1, 2], [0, -1, 2], "true has class -1"),
        ([0, 1, 2], [0, 1], r"\(3,\) and \(2,\)"),
        ([[0, 1]], [[0, 1]], r"\(1, 2\)"),
        ([0.0, 1.0], [0, 1], "predicted must be integers.*float32"),
        ([0, 1], [False, True], "true must be integers.*bool"),
    ],
)


@INVALID_CLASSES
def test_confusion_matrix_of_invalid_inputs_raises(predicted, true, words):
    with pytest.raises(ValueError):
        confusion_matrix(torch.tensor(predicted), torch.tensor(true), 5)


@INVALID_CLASSES
def test_confusion_matrix_says_what_is_invalid(predicted, true, words):
    with pytest.raises(ValueError, match=words):
        confusion_matrix(torch.tensor(predicted), torch.tensor(true), 5)


@pytest.mark.parametrize(
    "hypothesis, reference, right",
    [
        ("a red star and a blue cat", "a red star left of a blue cat", [True, True]),
        # swapped
        ("a blue star and a red cat", "a red star and a blue cat", [False, False]),
        ("a red star and a cat", "a red star and a blue cat", [True, False]),
        ("a blue cat", "a red star and a blue cat", [False, False]),
        # a synonym; extra words
        ("a scarlet star , red , red and blue", "a red star", [True]),
        ("a blue blue star", "a red star and a blue cat", [False, True]),
        ("red blue", "a star", []),
        ("", "a red star", [False]),
        ("", "", []),
    ],
)
def test_aligned_accuracy_by_hand(hypothesis, reference, right):
    meaning = {"red": "red", "scarlet": "red", "blue": "blue"}.get
    references = [[reference.split(), ["blue"] * 5]]
    assert aligned_accuracy([hypothesis.split()], references, meaning) == right


def test_aligned_accuracy_of_several_sentences_in_order():
    hypotheses = [["red"], [], ["blue", "red"]]
    references = [[["red"]], [["blue"]], [["blue", "blue"]]]
    right = aligned_accuracy(hypotheses, references, {"red": "red", "blue": "blue"}.get)
    assert right == [True, False, True, False]
    assert aligned_accuracy([], [], str) == []
    with pytest.raises(ValueError):
        aligned_accuracy([["red"]], [], str)


# -------------------------------------------------------------------------------------------------
# Transcripts.


def random_transcripts(seed):
    """Hypotheses with a reference each: similar ones and others, some empty, of few words or many."""
    draw = random.Random(seed)
    words = "the cat a dog ein café 猫 one".split()[: draw.choice([1, 2, 3, 8])]
    hypotheses = []
    references = []
    for _ in range(draw.choice([1, 2, 13])):
        reference = draw.choices(words, k=draw.choice([0, 1, 5, 12]))
        hypothesis = draw.choices(words, k=draw.choice([0, 1, 5, 12]))
        if draw.random() < 0.5:
            cut = draw.randint(0, 5)
            hypothesis = reference[:cut] + draw.choices(words, k=2) + reference[cut + 1 :]
        hypotheses.append(hypothesis)
        references.append([reference])
    return hypotheses, references


def assert_agrees_with_jiwer(ours, theirs, score):
    assert ours[1:] == (theirs.substitutions, theirs.insertions, theirs.deletions, theirs.hits)
    assert ours.score == pytest.approx(score, abs=1e-12)


def test_error_rates_agree_with_jiwer():
    jiwer = pytest.importorskip("jiwer")
    several_ways = 0
    for seed in range(600):
        hypotheses, references = random_transcripts(seed)
        sentences = [" ".join(ref) for [ref] in references], [" ".join(h) for h in hypotheses]
        words = jiwer.process_words(*sentences)
        assert_agrees_with_jiwer(word_error_rate(hypotheses, references), words, words.wer)
        characters = jiwer.process_characters(*sentences)
        ours = character_error_rate(hypotheses, references)
        assert_agrees_with_jiwer(ours, characters, characters.cer)
        several_ways += any(
            len(shortest_ways(h, ref)) > 1 for h, [ref] in zip(hypotheses, references)
        )
    assert several_ways > 50, "equally short ways with other counts must occur"


def shortest_ways(hypothesis, reference):
    """The counts of all ways with the fewest edits, from a table of sets of counts."""
    ways = {}
    for i in range(len(reference) + 1):
        for j in range(len(hypothesis) + 1):
            found = set() if i or j else {(0, 0, 0, 0)}
            if j:
                found |= {(s, i_ + 1, d, h) for s, i_, d, h in ways[i, j - 1]}
            if i:
                found |= {(s, i_, d + 1, h) for s, i_, d, h in ways[i - 1, j]}
            if i and j:
                hit = int(reference[i - 1] == hypothesis[j - 1])
                diagonal = ways[i - 1, j - 1]
                found |= {(s + 1 - hit, i_, d, h + hit) for s, i_, d, h in diagonal}
            fewest = min(sum(way[:3]) for way in found)
            ways[i, j] = {way for way in found if sum(way[:3]) == fewest}
    return ways[len(reference), len(hypothesis)]


def test_edits_are_fewest_by_brute_force():
    for hypothesis in short_words():
        for reference in short_words():
            ways = shortest_ways(hypothesis, reference)
            assert tuple(edit_counts(hypothesis, reference)) in ways


def short_words():
    return ["".join(letters) for k in range(5) for letters in product("ab", repeat=k)] + ["abcab"]


@pytest.mark.parametrize(
    "hypothesis, reference, expected",
    [
        ("kitten", "sitting", (2, 0, 1, 4)),
        ("", "abc", (0, 0, 3, 0)),
        ("abc", "", (0, 3, 0, 0)),
        ("", "", (0, 0, 0, 0)),
        ("xaby", "ab", (0, 2, 0, 2)),
        ("aa", "a", (0, 1, 0, 1)),
        ("bc", "ab", (2, 0, 0, 0)),  # not a deletion, a hit and an insertion, as short
        ("acb", "cab", (0, 1, 1, 2)),  # not two substitutions and a hit
        ("abcd", "abXcd", (0, 0, 1, 4)),
    ],
)
def test_edit_counts_by_hand(hypothesis, reference, expected):
    assert edit_counts(list(hypothesis), list(reference)) == expected


def distance(a, b):
    return sum(edit_counts(a, b)[:3])


def test_edit_distance_is_a_metric_and_counts_add_up():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    sentences = st.lists(st.sampled_from("abc"), max_size=9)

    @hypothesis.given(sentences, sentences, sentences)
    @hypothesis.settings(max_examples=150, deadline=None)
    def check(a, b, c):
        counts = edit_counts(a, b)
        assert counts.hits + counts.substitutions + counts.insertions == len(a)
        assert counts.hits + counts.substitutions + counts.deletions == len(b)
        assert distance(a, b) == distance(b, a) == distance(a[::-1], b[::-1])
        assert (distance(a, b) == 0) == (a == b)
        assert distance(a, c) <= distance(a, b) + distance(b, c)
        assert abs(len(a) - len(b)) <= distance(a, b) <= max(len(a), len(b))

    check()


def test_error_rate_of_a_corpus_is_not_the_mean_over_its_sentences():
    hypotheses = [["a"], "a b c d e".split()]
    references = [[["b"]], ["a b c d e".split()]]
    assert word_error_rate(hypotheses, references) == (1 / 6, 1, 0, 0, 5)


def test_error_rate_exceeds_1_with_many_insertions():
    assert word_error_rate([list("xyabz")], [[["a", "b"]]]) == (3 / 2, 0, 3, 0, 2)


def test_error_rates_of_empty_references_are_numbers():
    assert word_error_rate([[]], [[[]]]) == (0, 0, 0, 0, 0)
    assert word_error_rate([["a", "b"]], [[[]]]) == (2, 0, 2, 0, 0)
    assert word_error_rate([["a"], ["b"]], [[[]], [["b"]]]) == (1, 0, 1, 0, 1)
    assert character_error_rate([["ab"]], [[[]]]) == (2, 0, 2, 0, 0)
    assert word_error_rate([], []) == character_error_rate([], []) == (0, 0, 0, 0, 0)


def test_characters_are_those_of_the_words_and_the_spaces_between():
    assert character_error_rate([["on", "e"]], [[["one"]]]) == (1 / 3, 0, 1, 0, 3)
    assert character_error_rate([["a", "b"]], [[["a", "c"]]]) == (1 / 3, 1, 0, 0, 2)


def test_the_reference_with_the_fewest_edits_counts():
    refs = [list("abcdef"), list("abx"), list("aby"), list("abyc")]
    assert word_error_rate([list("abc")], [refs]) == (1 / 3, 1, 0, 0, 2)
    assert word_error_rate([list("abyc")], [refs]) == (0, 0, 0, 0, 4)
    assert error_statistics([list("abc")] * 2, [refs, refs[:1]]).tolist() == [
        [1, 0, 0, 2],
        [0, 0, 3, 3],
    ]


def test_intervals_of_error_rates_are_those_of_rescored_resampled_sentences():
    hypotheses, references = decent_corpus(23)
    intervals = transcript_scores(hypotheses, references)
    draw = np.random.default_rng(12345)
    drawn = [draw.integers(23, size=23) for _ in range(1000)]
    for name, rate in (("WER", word_error_rate), ("CER", character_error_rate)):
        rows = [rate([h], [refs]) for h, refs in zip(hypotheses, references)]
        errors = np.array([sum(row[1:4]) for row in rows])
        lengths = np.array([row.substitutions + row.deletions + row.hits for row in rows])
        scores = sorted(errors[some].sum() / lengths[some].sum() for some in drawn)
        expected = (rate(hypotheses, references).score, scores[25], scores[974])
        assert intervals[name] == pytest.approx(expected)
        assert scores[24] < scores[25] and scores[974] < scores[975]


@pytest.mark.parametrize("rate", [word_error_rate, character_error_rate, transcript_scores])
def test_error_rates_of_strings_and_of_lists_that_do_not_fit_raise(rate):
    with pytest.raises(TypeError, match="hypothesis 0 is a string, 'a b'; a list of tokens"):
        rate(["a b"], [[["a", "b"]]])
    with pytest.raises(TypeError, match="references of hypothesis 0 must be a list of lists"):
        rate([["a", "b"]], [["a", "b"]])
    with pytest.raises(ValueError, match="1 hypotheses but references for 2"):
        rate([["a"]], [[["a"]], [["b"]]])
    with pytest.raises(ValueError, match="hypothesis 1 has no reference"):
        rate([["a"], ["b"]], [[["a"]], []])


# -------------------------------------------------------------------------------------------------
# Answers. The expected values of the tables are the output of the published vqaEval.py.

NORMALIZED = {
    "spaces": {
        "": "",
        " ": "",
        "  red  car ": "red car",
        "red\ncar": "red car",
        "red\tcar\n": "red car",
        "red\n,car": "red car",
        "\n,x": "x",
        "x,\n": "x",
    },
    "punctuation": {
        "t-shirt": "t shirt",
        "black/white": "black white",
        "(left)": "left",
        "what?!": "what",
        "p/-q-r": "p q r",
        "yes, no": "yes no",
        "red ,green,blue": "red greenblue",
        "big-red -car": "bigred car",
        "red/blue - t-shirt": "red blue tshirt",
        "a+b = c+d": "b c d",
        "'quoted'": "'quoted'",
        "50% & #1: $2 *3* ^4~|5|": "50% & #1: $2 *3* ^4~|5|",
    },
    "commas": {
        "1,000": "1000",
        "1,000,000": "1000000",
        "1,2,3": "123",
        "red,blue": "red blue",
        "7,": "7",
        "7,x": "7 x",
        "x,7": "x 7",
        "1,000 t-shirts": "1000 tshirts",
        "(1,5)-(2,7)": "1527",
        "1, 2-3": "1 2 3",
    },
    "periods": {
        "yes.": "yes",
        "p.m.": "pm",
        "u.s.a. today": "usa today",
        "3.5": "3.5",
        "7.": "7",
        ".5": ".5",
        "no. 5": "no 5",
        "v.2.x": "v.2x",
        "1.5.": "1.5",
        "x...": "x",
        "...": "",
        "1.-2": "1 2",
        "1.- 2": "1 2",
        "1,2.(3": "12.3",
        "." * 31 + "x": "x",
        "." * 32 + "x": "x",
        "." * 33 + "x": ".x",
        "y" + "." * 37: "y.....",
    },
    "articles": {
        "a": "",
        "a cat and an owl in the tree": "cat and owl in tree",
        "the": "",
        "The End": "end",
        "A.": "",
        "an-apple": "apple",
        "athena": "athena",
        "'a'": "'a'",
    },
    "numbers": {
        "none zero one two three four five": "0 0 1 2 3 4 5",
        "six seven eight nine ten": "6 7 8 9 10",
        "Two": "2",
        "eleven twenty-one 10": "eleven twenty 1 10",
        "one.": "1",
        "someone": "someone",
        "nine,ten": "9 10",
    },
    "capitals": {
        "YES": "yes",
        "New York": "new york",
        "DONT": "don't",
        "NONE": "0",
    },
    "contractions": {
        "i dont know": "i don't know",
        "dont.": "don't",
        "it isnt a dog": "it isn't dog",
        "somebody'd": "somebodyd",
        "lets shes im ive i'd've couldntve yalldve": "lets shes im ive i'd've couldntve yalldve",
        "Im Ive Id've I'dve": "im ive id've i'dve",
        "can't let's she's i'm": "can't let's she's i'm",
        "undone cants dont't": "undone cants dont't",
    },
    "unicode": {
        "Käse": "käse",
        "ÜBER 5°": "über 5°",
        "猫": "猫",
        "猫，犬。": "猫，犬。",
        "don’t": "don’t",
        "x–y": "x–y",
        "x\u00a0y": "x y",
        "\u2003x": "x",
        "x,\u00a0y-z": "x y z",
        "٣.٥": "٣٥",
        "٣,٥-x": "٣ ٥ x",
    },
}  # fmt: skip

CONTRACTIONS = """
    'ow'sat:'ow's'at 'ows'at:'ow's'at aint:ain't arent:aren't cant:can't couldn'tve:couldn't've
    couldnt:couldn't couldnt've:couldn't've couldve:could've didnt:didn't doesnt:doesn't
    dont:don't hadn'tve:hadn't've hadnt:hadn't hadnt've:hadn't've hasnt:hasn't havent:haven't
    he'dve:he'd've hed:he'd hed've:he'd've hes:he's howd:how'd howll:how'll hows:how's isnt:isn't
    it'dve:it'd've itd:it'd itd've:it'd've itll:it'll let's:let's maam:ma'am
    mightn'tve:mightn't've mightnt:mightn't mightnt've:mightn't've mightve:might've mustnt:mustn't
    mustve:must've neednt:needn't notve:not've oclock:o'clock oughtnt:oughtn't ow's'at:'ow's'at
    shant:shan't she'dve:she'd've she's:she's shed've:she'd've shouldn'tve:shouldn't've
    shouldnt:shouldn't shouldnt've:shouldn't've shouldve:should've somebody'd:somebodyd
    somebody'dve:somebody'd've somebodyd've:somebody'd've somebodyll:somebody'll
    somebodys:somebody's someone'dve:someone'd've someoned:someone'd someoned've:someone'd've
    someonell:someone'll someones:someone's something'dve:something'd've somethingd:something'd
    somethingd've:something'd've somethingll:something'll thats:that's there'dve:there'd've
    thered:there'd thered've:there'd've therere:there're theres:there's they'dve:they'd've
    theyd:they'd theyd've:they'd've theyll:they'll theyre:they're theyve:they've twas:'twas
    wasnt:wasn't we'dve:we'd've wed've:we'd've werent:weren't weve:we've whatll:what'll
    whatre:what're whats:what's whatve:what've whens:when's whered:where'd wheres:where's
    whereve:where've who'dve:who'd've whod:who'd whod've:who'd've wholl:who'll whos:who's
    whove:who've whyll:why'll whyre:why're whys:why's wont:won't wouldn'tve:wouldn't've
    wouldnt:wouldn't wouldnt've:wouldn't've wouldve:would've y'all'dve:y'all'd've
    y'alld've:y'all'd've y'allll:y'all'll yall:y'all yall'd've:y'all'd've yall'll:y'all'll
    you'dve:you'd've youd:you'd youd've:you'd've youll:you'll youre:you're youve:you've
"""

# prediction, people's answers, score
VQA_ACCURACIES = [
    ("yes", ["yes"] * 10, 1),
    ("yes", ["no"] * 10, 0),
    ("yes", ["yes"] + ["no"] * 9, 3 / 10),
    ("yes", ["yes"] * 2 + ["no"] * 8, 3 / 5),
    ("yes", ["yes"] * 3 + ["no"] * 7, 9 / 10),
    ("yes", ["yes"] * 4 + ["no"] * 6, 1),
    ("yes", ["yes"] * 9 + ["no"], 1),
    ("no", ["yes"] * 3 + ["no"] + ["maybe"] * 6, 3 / 10),
    ("dog", ["cat"] * 5 + ["cow"] * 5, 0),
    ("Yes", ["yes"] * 10, 0),
    ("yes", ["Yes"] * 10, 0),
    ("Yes.", ["Yes."] * 10, 1),
    ("yes", ["Yes."] * 10, 0),
    ("yes\n", ["\tyes "] * 10, 1),
    ("yes", ["Yes."] * 9 + ["yes"], 1),
    ("YES!", ["yes"] * 3 + ["Yes"] * 4 + ["no"] * 3, 1),
    ("two", ["2"] * 2 + ["two"] + ["Two."] + ["three"] * 6, 1),
    ("a cat", ["cat"] * 2 + ["the cat"] + ["dog"] * 7, 9 / 10),
    ("dont know", ["don't know"] * 3 + ["no"] * 7, 9 / 10),
    ("1000", ["1,000"] * 2 + ["1000"] * 2 + ["many"] * 6, 1),
    ("t-shirt", ["t shirt"] * 2 + ["tshirt"] * 8, 3 / 5),
    ("", ["a"] * 2 + ["the"] * 2 + ["x"] * 6, 1),
    ("", [""] * 10, 1),
    ("red", ["red"] + ["blue"] * 3, 1 / 4),
    ("red", ["red"] * 2 + ["blue"] * 2, 1 / 2),
    ("red", ["red"] * 3 + ["blue"], 3 / 4),
    ("red", ["red"] * 2 + ["blue"] * 3, 8 / 15),
    ("red", ["red"] * 4 + ["blue"], 1),
    ("red", ["red"] * 2 + ["blue"] * 5, 4 / 7),
    ("red", ["red"] * 3 + ["blue"] * 4, 6 / 7),
    ("red", ["red"] * 2 + ["blue"] * 11, 8 / 13),
    ("red", ["red"] * 3 + ["blue"] * 10, 12 / 13),
]  # fmt: skip


@pytest.mark.parametrize("rule", NORMALIZED)
def test_normalized_answers_agree_with_the_vqa_evaluation(rule):
    for answer, expected in NORMALIZED[rule].items():
        assert normalize_answer(answer) == expected, repr(answer)


@pytest.mark.parametrize("mark", ';/[]"{}()=+\\_-><@`,?!')
def test_a_punctuation_mark_becomes_a_space_or_is_deleted(mark):
    assert normalize_answer(f"p{mark}q{mark}{mark}r") == "p q r"
    assert normalize_answer(f"p{mark}q {mark}r") == "pq r", "a space before one of them"
    assert normalize_answer(f"p{mark}q{mark} r") == "pq r", "a space after one of them"
    assert normalize_answer(f"p{mark}q{mark}") == "p q", "none at an end"
    assert normalize_answer(f"p{mark}q 1,2") == "pq 12", "a comma between digits"


def test_missing_apostrophes_agree_with_the_vqa_evaluation():
    pairs = [pair.split(":") for pair in CONTRACTIONS.split()]
    assert len(pairs) == 116
    for misspelt, contraction in pairs:
        assert normalize_answer(misspelt) == contraction
        assert normalize_answer(f"No, {misspelt.upper()}.") == f"no {contraction}"


def test_vqa_accuracy_agrees_with_the_vqa_evaluation():
    predictions, answers, expected = zip(*VQA_ACCURACIES)
    ours = vqa_accuracy(predictions, answers)
    assert ours.scores == pytest.approx(list(expected), abs=1e-9)
    assert ours.score == pytest.approx(sum(expected) / len(expected))


def test_vqa_accuracy_by_brute_force():
    seen = set()
    for seed in range(300):
        draw = random.Random(seed)
        given = draw.choices(["red", "blue", "green"], k=draw.choice([2, 3, 4, 5, 7, 10, 11]))
        prediction = draw.choice(["red", "blue"])
        scores = []
        for others in combinations(given, len(given) - 1):
            agreeing = sum(other == prediction for other in others)
            scores.append(min(agreeing / min(3, len(others)), 1))
        expected = sum(scores) / len(scores)
        assert vqa_accuracy([prediction], [given]).scores == [pytest.approx(expected)]
        seen.add(round(expected, 6))
    assert len(seen) > 10


@pytest.mark.parametrize(
    "prediction, answers, score",
    [
        ("Yes.", ["yes"], 1),
        ("the cat", ["A Cat"], 1),
        ("no", ["yes"], 0),
        ("cat", ["cats"], 0),
        ("", ["a"], 1),
        ("red", ["red", "blue"], 1 / 2),
        ("red", ["Red!", "red"], 1),
        ("red", ["red", "blue", "green"], (1 / 2 + 1 / 2 + 0) / 3),
        ("red", ["red", "blue", "Red"], (1 / 2 + 1 + 1 / 2) / 3),
    ],
)
def test_vqa_accuracy_with_fewer_than_four_answers_by_hand(prediction, answers, score):
    assert vqa_accuracy([prediction], [answers]).score == pytest.approx(score)


def test_unanimous_answers_are_compared_as_written():
    given = [["Yes"] * 10, ["Yes "] * 5 + ["\tYes"] * 5, ["Yes"] * 9 + ["yes"]]
    for prediction, expected in (("Yes", [1, 1, 1]), ("Yes\n", [1, 1, 1]), ("yes", [0, 0, 1])):
        assert vqa_accuracy([prediction] * 3, given).scores == expected
    assert vqa_accuracy(["yes"], [["Yes", "Yes"]]).score == 0


def test_vqa_accuracy_takes_tuples_and_no_questions_and_keeps_its_inputs():
    predictions, answers = ["The dog", "two"], [["dog", "cat", " a dog"], ["2", "Two "]]
    before = deepcopy((predictions, answers))
    score = vqa_accuracy(predictions, answers)
    assert (predictions, answers) == before
    assert vqa_accuracy(tuple(predictions), tuple(map(tuple, answers))) == score
    assert vqa_accuracy([], []) == (0, [])


@pytest.mark.parametrize(
    "predictions, answers, error, words",
    [
        (["x", "y"], [["x"]], ValueError, "2 predictions but answers to 1 questions"),
        (["x"], [["x"], ["y"]], ValueError, "1 predictions but answers to 2 questions"),
        (["x", "y", "z"], [["x"], ["y"], []], ValueError, "question 2 has no answer"),
        ("yes", [["x"]] * 3, TypeError, "the predictions are a string, 'yes'; a list of"),
        (["x"], "y", TypeError, "the answers are a string, 'y'; a list of"),
        (["x", "y"], [["x"], "y"], TypeError, "answers to question 1 must be a list of strings"),
        (["x", ["y"]], [["x"], ["y"]], TypeError, r"must be a string, not \['y'\]"),
        (["x"], [["x", 7]], TypeError, "must be a string, not 7"),
    ],
)
def test_vqa_accuracy_of_invalid_inputs_raises(predictions, answers, error, words):
    with pytest.raises(error, match=words):
        vqa_accuracy(predictions, answers)


def test_vqa_accuracy_refuses_lists_that_do_not_fit():
    for predictions in (["x", "y"], [], "x"):
        with pytest.raises((TypeError, ValueError)):
            vqa_accuracy(predictions, [["x"]])
    for answers in ("x", ["x"], [[]]):
        with pytest.raises((TypeError, ValueError)):
            vqa_accuracy(["x"], answers)


def test_pair_accuracy_by_hand():
    scores = [1, 0.3, 1, 1, 0, 0.6, 1]
    pairs = [5, 3, 5, 2, 2, 3, 5]
    assert pair_accuracy(scores, pairs) == (pytest.approx((1 + 0.3 + 0) / 3), [1, 0.3, 0])
    assert pair_accuracy([0, 0], [0, 0]) == (0, [0])
    assert pair_accuracy([True, True], [7, 7]) == (1, [1])
    assert pair_accuracy([], []) == (0, [])


def test_pair_accuracy_by_brute_force():
    for seed in range(50):
        draw = random.Random(seed)
        pairs = draw.sample([*range(17), *range(17)], 34)
        scores = draw.choices([0, 1 / 3, 2 / 3, 1], k=34)
        expected = {}
        for pair in pairs:
            expected[pair] = min(score for score, other in zip(scores, pairs) if other == pair)
        score = sum(expected.values()) / 17
        assert pair_accuracy(scores, pairs) == (pytest.approx(score), list(expected.values()))


@pytest.mark.parametrize(
    "scores, pairs, words",
    [
        ([1, 1, 0], [2, 2], "3 scores but 2 numbers of pairs"),
        ([1], [2, 2], "1 scores but 2 numbers of pairs"),
        ([1, 0, 1], [5, 7, 5], "pair 7 has a single example, number 1"),
    ],
)
def test_pair_accuracy_of_invalid_inputs_raises(scores, pairs, words):
    with pytest.raises(ValueError):
        pair_accuracy(scores, pairs)


def test_answer_table_by_hand():
    questions = ["colour?", "how many?", "colour?", "how many?", "colour?", "where?", "how many?"]
    answers = ["red", "2", "blue", "3", "blue", "left", "3"]
    table = answer_table(questions, answers)
    assert table == {"colour?": "blue", "how many?": "3", "where?": "left", "": "blue"}
    assert table.get("is there a cat?", table[""]) == "blue"
    # on a tie the one that comes first, not the first to come twice
    tied = answer_table(["q"] * 5, ["blue", "3", "3", "blue", "7"])
    assert tied == {"q": "blue", "": "blue"}
    assert answer_table(["", "q", "q"], ["x", "y", "y"]) == {"": "y", "q": "y"}


def test_answer_table_by_brute_force():
    for seed in range(60):
        draw = random.Random(seed)
        count = draw.choice([1, 2, 7, 53])
        questions = draw.choices(["p?", "q?", "r?"], k=count)
        answers = draw.choices(["red", "Red", "blue", "2", "yes"], k=count)
        table = answer_table(questions, answers)
        assert table.keys() == {*questions, ""}
        for question, answer in table.items():
            given = [a for q, a in zip(questions, answers) if question in (q, "")]
            most = max(map(given.count, given))
            assert answer == next(a for a in given if given.count(a) == most), "the first on a tie"


def test_the_question_alone_answers_no_balanced_pair():
    draw = random.Random(0)
    questions = []
    answers = []
    for i in range(101):
        questions += [f"question {i % 7}"] * 2
        answers += draw.sample(["red", "blue", "green", "yes", "no"], 2)
    table = answer_table(questions, answers)
    predictions = [table[question] for question in questions]
    scores = vqa_accuracy(predictions, [[answer] for answer in answers])
    pairs = [i // 2 for i in range(202)]
    assert 0.2 < scores.score <= 0.5
    assert pair_accuracy(scores.scores, pairs) == (0, [0] * 101)


@pytest.mark.parametrize(
    "questions, answers, error, words",
    [
        (["q"], ["x", "y"], ValueError, "1 questions but 2 answers"),
        (["q", "r"], ["x"], ValueError, "2 questions but 1 answers"),
        ([], [], ValueError, "at least one example"),
        ("qr", ["x", "y"], TypeError, "the questions are a string, 'qr'"),
        (["q", "r"], "xy", TypeError, "the answers are a string, 'xy'"),
    ],
)
def test_answer_table_of_invalid_inputs_raises(questions, answers, error, words):
    with pytest.raises(error, match=words):
        answer_table(questions, answers)


def test_answer_table_refuses_lists_that_do_not_fit():
    for questions, answers in (([], []), (["q", "r"], ["x"])):
        with pytest.raises(ValueError):
            answer_table(questions, answers)
    for questions, answers in (("qr", ["x", "y"]), (["q", "r"], "xy")):
        with pytest.raises(TypeError):
            answer_table(questions, answers)


def test_answer_coverage_by_hand():
    training = ["Two", "red.", "red", "a dog"]
    answers = [["2"], ["blue", "RED"], ["blue"], ["dogs", "cat"], ["the dog", "x"]]
    assert answer_coverage(training, answers) == 3 / 5
    assert answer_coverage((answer for answer in training), answers) == 3 / 5
    assert answer_coverage([], answers) == 0
    assert answer_coverage(training, []) == 0


@pytest.mark.parametrize(
    "training, answers, error, words",
    [
        ("red", [["red"]], TypeError, "the training answers are a string, 'red'"),
        (["red"], ["red"], TypeError, "answers to question 0 must be a list of strings"),
        (["red"], "red", TypeError, "the answers are a string"),
        (["red"], [["red"], []], ValueError, "question 1 has no answer"),
        ([7], [["red"]], TypeError, "must be a string, not 7"),
    ],
)
def test_answer_coverage_of_invalid_inputs_raises(training, answers, error, words):
    with pytest.raises(error, match=words):
        answer_coverage(training, answers)


def test_shuffling_within_groups_moves_every_example_inside_its_group():
    for seed in range(100):
        draw = random.Random(seed)
        groups = draw.choices("abcdefg", k=draw.choice([0, 1, 2, 13, 53]))
        order = shuffle_within(groups, seed)
        assert sorted(order) == list(range(len(groups)))
        for i, source in enumerate(order):
            assert groups[source] == groups[i]
            assert (source == i) == (groups.count(groups[i]) == 1)
            assert type(source) is int


def test_shuffling_within_groups_reaches_every_other_place_equally_often():
    groups = [3, 7, 3, 3, 7, 3, 5]
    counts = Counter()
    for seed in range(600):
        counts.update(enumerate(shuffle_within(groups, seed)))
    for i, group in enumerate(groups):
        others = [j for j, other in enumerate(groups) if other == group and j != i] or [i]
        for j in others:
            # within 5 standard deviations
            expected = 600 / len(others)
            assert abs(counts[i, j] - expected) <= 5 * math.sqrt(expected * (1 - 1 / len(others)))


def test_shuffling_with_the_same_seed_gives_the_same_order():
    groups = ["what?", "where?"] * 23
    before = list(groups)
    order = shuffle_within(groups, seed=7)
    assert order == shuffle_within(groups, seed=7) == shuffle_within(tuple(groups), 7)
    assert order != shuffle_within(groups, seed=11)
    assert shuffle_within(groups) == shuffle_within(groups, seed=0)
    assert groups == before


def test_shuffling_leaves_the_global_random_numbers_alone():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    shuffle_within(["what?", "where?"] * 23, seed=7)
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.get_rng_state().tolist() == states[2]


def brute_force_rank(scores, relevant):
    """1 + the irrelevant items that are not surely behind the best relevant one."""
    right = [score for score, is_right in zip(scores, relevant) if is_right]
    best = max([score for score in right if score == score], default=-math.inf)
    rank = 1
    for score, is_right in zip(scores, relevant):
        if not is_right and (score != score or score >= best):
            rank += 1
    return rank


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_retrieval_ranks_by_brute_force(dtype):
    """Ties, NaN, infinite scores, and one to five right answers to a query."""
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0])
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randint(-2, 3, (17, 13), generator=generator).to(dtype)
        chosen = torch.rand(17, 13, generator=generator) < 0.1
        scores[chosen] = special[torch.randint(5, (17, 13), generator=generator)].to(dtype)[chosen]
        relevant = torch.rand(17, 13, generator=generator) < 0.2
        relevant[range(17), torch.randint(13, (17,), generator=generator)] = True
        before = scores.clone(), relevant.clone()
        ranks = retrieval_ranks(scores, relevant)
        expected = [brute_force_rank(*row) for row in zip(scores.tolist(), relevant.tolist())]
        assert ranks.tolist() == expected and ranks.dtype == torch.long
        assert_close((scores, relevant), before, rtol=0, atol=0, equal_nan=True)


def test_ranks_of_both_directions_with_several_captions_by_hand():
    scores = torch.tensor(
        [
            [0.9, 0.1, 0.3],  # caption of picture 0
            [0.2, 0.5, 0.4],  # of picture 0
            [0.6, 0.7, 0.1],  # of picture 1
            [0.8, 0.6, 0.2],  # of picture 1
            [0.9, 0.8, 0.4],  # of picture 2
        ]
    )
    relevant = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]).bool()
    assert retrieval_ranks(scores, relevant).tolist() == [1, 3, 1, 2, 3]
    # A caption of picture 2 scores as high as the best one of picture 0.
    assert retrieval_ranks(scores.T, relevant.T).tolist() == [2, 2, 1 + 1]


def test_a_model_that_scores_all_items_alike_is_last():
    relevant = torch.eye(7).bool()
    for value in (0.0, math.nan, -math.inf, math.inf):
        assert retrieval_ranks(torch.full((7, 7), value), relevant).tolist() == [7] * 7


def test_ranks_without_queries_or_irrelevant_items():
    for items in (0, 5):
        none = retrieval_ranks(torch.zeros(0, items), torch.zeros(0, items).bool())
        assert none.tolist() == [] and none.dtype == torch.long
        assert recall_at(none, 1) == []
    assert retrieval_ranks(torch.randn(3, 2), torch.ones(3, 2).bool()).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "scores, relevant, words",
    [
        (torch.zeros(3, 2), torch.tensor([[1, 0], [0, 0], [0, 0]]).bool(), "query 1 has no rel"),
        (torch.zeros(3, 0), torch.zeros(3, 0).bool(), "query 0 has no relevant item"),
        (torch.zeros(3, 2), torch.ones(2, 3).bool(), r"not \(3, 2\) and \(2, 3\)"),
        (torch.zeros(3), torch.ones(3).bool(), r"not \(3,\) and \(3,\)"),
        (torch.zeros(3, 2), torch.ones(3, 2), "not torch.float32 and torch.float32"),
        (torch.zeros(3, 2).long(), torch.ones(3, 2).bool(), "not torch.int64 and torch.bool"),
    ],
)
def test_ranks_of_invalid_inputs_raise(scores, relevant, words):
    with pytest.raises(ValueError, match=words):
        retrieval_ranks(scores, relevant)


def test_recall_counts_ranks_up_to_k():
    ranks = torch.tensor([1, 5, 2, 11, 10, 5])
    assert recall_at(ranks, 1) == [1, 0, 0, 0, 0, 0]
    assert recall_at(ranks, 5) == [1, 1, 1, 0, 0, 1]
    assert recall_at(ranks, 10) == [1, 1, 1, 0, 1, 1]


def test_ranks_need_fitting_shapes_types_and_a_relevant_item():
    for scores, relevant in (
        (torch.zeros(3, 2), torch.tensor([[1, 0], [0, 0], [0, 0]]).bool()),
        (torch.zeros(3, 2), torch.ones(2, 3).bool()),
        (torch.zeros(3, 2), torch.ones(3, 2)),
        (torch.zeros(3, 2).long(), torch.ones(3, 2).bool()),
    ):
        with pytest.raises(ValueError):
            retrieval_ranks(scores, relevant)


def test_recall_at_less_than_one_raises():
    with pytest.raises(ValueError):
        recall_at(torch.tensor([1, 2]), 0)


@pytest.mark.parametrize("captions_each", [1, 2, 5])
def test_recall_at_agrees_with_scikit_learn_where_one_item_is_right(captions_each):
    generator = torch.Generator().manual_seed(captions_each)
    scores = torch.randn(11 * captions_each, 11, generator=generator)
    picture = torch.arange(11).repeat_interleave(captions_each)
    relevant = picture.unsqueeze(1) == torch.arange(11)
    ranks = retrieval_ranks(scores, relevant)
    for k in (1, 5, 10):
        accuracy = sklearn.metrics.top_k_accuracy_score(picture, scores, k=k, labels=range(11))
        assert np.mean(recall_at(ranks, k)) == pytest.approx(accuracy)


@pytest.mark.parametrize("queries", [41, 42])
def test_median_rank_is_that_of_numpy_and_resamples_whole_pictures(queries):
    draw = np.random.default_rng(queries)
    ranks = draw.integers(1, 30, size=queries)
    pictures = [f"picture {number}" for number in draw.integers(7, size=queries)]
    groups = [[r for r, name in zip(ranks, pictures) if name == p] for p in dict.fromkeys(pictures)]
    assert len({len(group) for group in groups}) > 1, "unequal numbers of captions"
    found = median_rank(torch.tensor(ranks), pictures)
    assert found.score == np.median(ranks) and isinstance(found.score, float)
    draw = np.random.default_rng(12345)
    medians = []
    for _ in range(1000):
        drawn = draw.integers(len(groups), size=len(groups))
        medians.append(np.median(np.concatenate([groups[i] for i in drawn])))
    medians = sorted(medians)
    # other draws are as right: of 1,000, the 25th is the 25th ± 7 of these
    assert medians[0] <= found.low <= medians[60] and medians[939] <= found.high <= medians[999]
    assert found.low < found.score < found.high


@pytest.mark.parametrize("ranks, median", [([7, 1], 4), ([2, 11, 1, 5], 3.5), ([5, 1, 3], 3)])
def test_median_of_an_even_number_of_ranks_is_the_mean_of_the_two_in_the_middle(ranks, median):
    assert median_rank(torch.tensor(ranks), range(len(ranks))).score == median


def test_median_rank_of_captions_alike_is_as_uncertain_as_that_of_one_caption():
    ranks = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])
    once = median_rank(ranks, range(11))
    assert median_rank(ranks.repeat_interleave(5), [i // 5 for i in range(55)]) == once


def test_median_rank_of_invalid_inputs_raises():
    with pytest.raises(ValueError):
        median_rank(torch.zeros(0).long(), [])
    with pytest.raises(ValueError):
        median_rank(torch.tensor([1, 2, 3]), [0, 1])
