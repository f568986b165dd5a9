"""The metrics against the references that others wrote."""

import random
from collections import Counter

import pytest
import sklearn.metrics
import torch
from sacrebleu import corpus_bleu
from sacrebleu.metrics import BLEU
from torch.testing import assert_close

from mmscratch.metrics import attention_inside, bleu, confusion_matrix, exact_match, label_scores, truth
from mmscratch.scenes import Scene, captions
from mmscratch.text import tokenize


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


def test_truth_of_captions_by_hand():
    judged = [  # the number of a scene, a caption, and what is wrong in it
        (7, "a small blue umbrella left of a big blue telephone", []),
        (1, "a small white cat in the middle", []),
        (10, "from left to right: a small blue sun, a big orange horse and a big black cloud", ["noun"]),
        (3, "a small purple monkey on the left", ["place"]),
        (4, "a big blue airplane in the bottom left corner", ["colour", "size"]),
        (2, "a snowman", ["grammar"]),
        (9, "a big green mouse is left of a small white clover", ["place"]),
        (5, "from top to bottom: a big white wheel, a big yellow heart and a small white wheel", []),
        (6, "tower tower tower", ["grammar"]),
        (8, "", ["grammar"]),
        (0, "two big white pencils", []),
    ]
    scenes = [Scene(number) for number, _, _ in judged]
    assert [len(scene.things) for scene in scenes] == [2, 1, 3, 1, 1, 1, 2, 3, 3, 1, 2]
    shares, faults = truth([tokenize(sentence) for _, sentence, _ in judged], scenes)
    assert shares == pytest.approx([100 / 5, 200 / 3, 100 / 3, 400 / 11])
    assert faults == Counter(fault for _, _, wrong in judged for fault in wrong)
    assert truth([tuple(tokenize(sentence)) for _, sentence, _ in judged], tuple(scenes)) == (shares, faults)


def test_truth_of_true_captions_of_others_and_of_none():
    scenes = [Scene(number) for number in range(103)]
    for which in range(5):
        written = [tokenize(captions(scene)[which]) for scene in scenes]
        assert truth(written, scenes) == ([100] * 4, {})
        assert truth(written[1:] + written[:1], scenes).shares == [0] * 4  # no two neighbours are alike
    assert truth(written[1:4], scenes[1:4]) == ([100, 0, 0, 100], {})  # scenes of one thing only
    assert truth([], []) == ([0] * 4, {})


@pytest.mark.parametrize(
    "written, error, words",
    [
        ([["a", "cat"]], ValueError, "1 captions but 2 scenes"),
        ([["a", "cat"]] * 3, ValueError, "3 captions but 2 scenes"),
        ([["a", "cat"], "a small yellow snowman on the right"], TypeError, "hypothesis 1 .*'a small yellow snowman"),
    ],
)
def test_truth_refuses_what_does_not_fit(written, error, words):
    with pytest.raises(error, match=words):
        truth(written, [Scene(1), Scene(2)])


def random_labels(seed):
    """predicted and true (N, L) bool: label 0 is never there, label 1 never predicted, label 2 rare, others mixed."""
    generator = torch.Generator().manual_seed(seed)
    things, labels = random.Random(seed).choice([(1, 5), (2, 3), (17, 7), (101, 13)])
    share = torch.rand(labels, generator=generator)
    share[2] = 0.02
    true, predicted = (torch.rand(things, labels, generator=generator) < share for _ in range(2))
    true[:, 0], predicted[:, 1] = False, False
    return predicted, true


@pytest.mark.parametrize("average", [None, "macro", "micro"])
def test_label_scores_agree_with_scikit_learn(average):
    for seed in range(100):
        predicted, true = random_labels(seed)
        ours = label_scores(predicted, true, average)
        theirs = sklearn.metrics.precision_recall_fscore_support(
            true.numpy(), predicted.numpy(), average=average, zero_division=0
        )[:3]
        accuracy = [sklearn.metrics.accuracy_score(t.numpy(), p.numpy()) for t, p in zip(true.T, predicted.T)]
        if average == "macro":
            accuracy = sum(accuracy) / len(accuracy)
        elif average == "micro":
            accuracy = sklearn.metrics.accuracy_score(true.flatten().numpy(), predicted.flatten().numpy())
        for score, expected in zip(ours, (accuracy, *theirs)):
            assert_close(score, torch.tensor(expected, dtype=torch.float32))


def test_the_random_labels_reach_every_corner():
    drawn = [random_labels(seed) for seed in range(100)]
    assert any((~p & ~t).all(0).any() for p, t in drawn), "f1 is 0 / 0"
    assert any((~p.any(0) & t.any(0)).any() for p, t in drawn), "precision is 0 / 0, recall is not"
    assert any((p.any(0) & ~t.any(0)).any() for p, t in drawn), "recall is 0 / 0, precision is not"
    assert any(not (p & t).any() for p, t in drawn) and any((p & t).any() for p, t in drawn)
    macro, micro = (torch.stack([torch.stack(label_scores(*d, average)) for d in drawn]) for average in ("macro", "micro"))
    assert ((macro - micro)[:, 1:].abs().amax(1) > 0.01).sum() > 50


def test_attention_inside_a_box_is_that_of_its_pixels():
    torch.manual_seed(0)
    for _ in range(50):
        h, w, scale = (int(torch.randint(1, 7, ())) for _ in range(3))
        size = h * w * scale
        weights = torch.rand(h, w).flatten().softmax(0).view(h, w)
        pixels = weights.repeat_interleave(size // h, 0).repeat_interleave(size // w, 1) / (size // h) / (size // w)
        (left, right), (top, bottom) = (sorted(torch.randint(size + 1, (2,)).tolist()) for _ in range(2))
        inside, area = attention_inside(weights, (left, top, right, bottom), size)
        assert inside == pytest.approx(pixels[top:bottom, left:right].sum().item(), abs=1e-6)
        assert area == pytest.approx((bottom - top) * (right - left) / size**2, abs=1e-6)


def test_label_scores_by_hand():
    predicted = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 0]]).bool()
    true = torch.tensor([[1, 1], [0, 0], [0, 0], [1, 0]]).bool()
    scores = label_scores(predicted, true)
    assert [s.tolist() for s in scores] == [[0.25, 0.75], [pytest.approx(1 / 3), 0], [0.5, 0], [pytest.approx(0.4), 0]]
    micro = label_scores(predicted, true, "micro")
    assert [s.item() for s in micro] == pytest.approx([4 / 8, 1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize(
    "predicted, true, average, words",
    [
        (torch.ones(5, 3).bool(), torch.ones(5, 3).bool(), "weighted", "'weighted'"),
        (torch.ones(5, 3), torch.ones(5, 3).bool(), None, "torch.float32 and torch.bool"),
        (torch.ones(5, 3).bool(), torch.ones(5, 3).long(), None, "torch.bool and torch.int64"),
        (torch.ones(5, 3).bool(), torch.ones(3, 5).bool(), None, r"\(5, 3\) and \(3, 5\)"),
        (torch.ones(5, 3).bool(), torch.ones(5, 1).bool(), "micro", r"\(5, 3\) and \(5, 1\)"),
        (torch.ones(5).bool(), torch.ones(5).bool(), None, r"\(5,\) and \(5,\)"),
        (torch.ones(0, 3).bool(), torch.ones(0, 3).bool(), "macro", r"\(0, 3\)"),
        (torch.ones(5, 0).bool(), torch.ones(5, 0).bool(), "micro", r"\(5, 0\)"),
    ],
)
def test_label_scores_refuse_what_does_not_fit(predicted, true, average, words):
    with pytest.raises(ValueError, match=words):
        label_scores(predicted, true, average)


@pytest.mark.parametrize("dtype", [torch.long, torch.uint8])
def test_confusion_matrix_agrees_with_scikit_learn(dtype):
    for seed in range(50):
        draw = random.Random(seed)
        classes, things = draw.choice([2, 7, 23]), draw.choice([1, 3, 101])
        true = torch.tensor(draw.choices(range(draw.randint(1, classes)), k=things), dtype=dtype)  # the last may be absent
        predicted = torch.tensor(draw.choices(range(classes), k=things), dtype=dtype)
        expected = sklearn.metrics.confusion_matrix(true.numpy(), predicted.numpy(), labels=range(classes))
        assert_close(confusion_matrix(predicted, true, classes), torch.from_numpy(expected).long(), rtol=0, atol=0)
    assert confusion_matrix(torch.tensor([1]), torch.tensor([0]), 2).tolist() == [[0, 1], [0, 0]]  # rows are the true ones
    assert confusion_matrix(true[:0], true[:0], 3).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize(
    "predicted, true, words",
    [
        ([0, 5, 1], [0, 1, 2], "predicted has a class 5, but 5 classes are 0 to 4"),
        ([0, 1, 2], [0, -1, 2], "true has a class -1"),
        ([0, 1, 2], [0, 1], r"\(3,\) and \(2,\)"),
        ([[0, 1]], [[0, 1]], r"\(1, 2\)"),
        ([0.0, 1.0], [0, 1], "predicted must be integers.*float32"),
        ([0, 1], [False, True], "true must be integers.*bool"),
    ],
)
def test_confusion_matrix_refuses_what_does_not_fit(predicted, true, words):
    with pytest.raises(ValueError, match=words):
        confusion_matrix(torch.tensor(predicted), torch.tensor(true), 5)
