"""Metrics and losses of classifiers: against scikit-learn, torch, and by enumeration."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.testing import assert_close

from mmscratch.classification import (
    ClassLoss,
    average_precision,
    balanced_accuracy,
    brier_score,
    choose_threshold,
    class_weights,
    expected_calibration_error,
    r_squared,
    exposure,
    fit_temperature,
    focal_loss,
    group_bootstrap,
    macro_auc,
    mean_absolute_percentage_error,
    number_of_brackets,
    reliability_bins,
    roc_auc,
)

# (score, is positive): few different scores, so that many are equal
PAIRS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30)


def tensors_of(pairs):
    scores = torch.tensor([float(score) for score, _ in pairs])
    return scores, torch.tensor([positive for _, positive in pairs])


@settings(deadline=None)
@given(PAIRS)
def test_auc_and_average_precision_are_those_of_scikit_learn(pairs):
    scores, positive = tensors_of(pairs)
    if positive.all() or not positive.any():
        for metric in (roc_auc, average_precision):
            with pytest.raises(ValueError):
                metric(scores, positive)
        return
    given_ = positive.numpy(), scores.numpy()
    assert roc_auc(scores, positive) == pytest.approx(sklearn.metrics.roc_auc_score(*given_))
    expected = sklearn.metrics.average_precision_score(*given_)
    assert average_precision(scores, positive) == pytest.approx(expected)


def test_auc_is_the_share_of_pairs_in_the_right_order():
    scores = torch.tensor([0.1, 0.4, 0.4, 0.8, 0.3])
    positive = torch.tensor([False, True, False, True, False])
    won = 0.0
    for a in scores[positive]:
        for b in scores[~positive]:
            won += 1.0 if a > b else 0.5 if a == b else 0.0
    assert roc_auc(scores, positive) == pytest.approx(won / 6)
    assert roc_auc(-scores, positive) == pytest.approx(1 - won / 6)
    assert roc_auc(scores.exp(), positive) == pytest.approx(won / 6)  # the order is all


def test_auc_of_a_million_examples_is_exact():
    scores = torch.arange(1_000_001).float() // 2
    positive = torch.arange(1_000_001) % 3 == 0
    expected = sklearn.metrics.roc_auc_score(positive.numpy(), scores.numpy())
    assert roc_auc(scores, positive) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "scores, positive",
    [
        (torch.zeros(3), torch.zeros(4, dtype=torch.bool)),
        (torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.bool)),
        (torch.zeros(3), torch.zeros(3)),
    ],
)
def test_shapes_and_types_are_checked(scores, positive):
    with pytest.raises(ValueError):
        roc_auc(scores, positive)


def random_predictions(count=200, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    logits += 1.5 * F.one_hot(labels, classes)
    return logits, labels


def test_macro_auc_is_that_of_scikit_learn():
    logits, labels = random_predictions()
    probabilities = logits.double().softmax(1)
    expected = sklearn.metrics.roc_auc_score(
        labels.numpy(), probabilities.numpy(), multi_class="ovr", average="macro"
    )
    assert macro_auc(probabilities, labels) == pytest.approx(expected)


def test_a_class_without_examples_does_not_count_in_the_macro_auc():
    logits, labels = random_predictions()
    kept = labels != 3
    areas = [roc_auc(logits[kept, k], labels[kept] == k) for k in (0, 1, 2, 4)]
    assert macro_auc(logits[kept], labels[kept]) == pytest.approx(sum(areas) / 4)
    with pytest.raises(ValueError, match="positive and negative"):
        macro_auc(logits[:3], torch.zeros(3, dtype=torch.long))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_balanced_accuracy_is_that_of_scikit_learn(pairs):
    predicted, labels = torch.tensor(pairs).unbind(1)
    present = np.unique(labels.numpy())
    expected = sklearn.metrics.recall_score(
        labels.numpy(), predicted.numpy(), labels=present, average="macro", zero_division=0
    )
    assert balanced_accuracy(predicted, labels) == pytest.approx(expected)


def test_balanced_accuracy_of_the_commonest_answer_is_chance():
    labels = torch.tensor([0] * 90 + [1] * 7 + [2] * 3)
    assert balanced_accuracy(torch.zeros_like(labels), labels) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="no examples"):
        balanced_accuracy(labels[:0], labels[:0])


# -------------------------------------------------------------------------------------------------
# Losses.


def test_class_weights_are_those_of_scikit_learn():
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 3])
    weights = class_weights(labels, 5)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels.numpy())
    assert_close(weights[[0, 1, 3]].double() * 5 / 3, torch.from_numpy(expected))
    assert weights[2] == weights[4] == 0


def test_focal_loss_of_two_classes_is_that_of_torchvision():
    logits = torch.randn(50, dtype=torch.double)
    targets = (torch.rand(50) < 0.3).double()
    log_probs = torch.where(targets > 0, F.logsigmoid(logits), F.logsigmoid(-logits))
    for gamma in (0.0, 0.5, 2.0):
        expected = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma)
        assert_close(focal_loss(log_probs, gamma), expected)


def test_focal_loss_with_gamma_zero_is_the_cross_entropy():
    log_probs = torch.randn(3, 4).log_softmax(-1)
    assert_close(focal_loss(log_probs, 0.0), -log_probs)
    easy = focal_loss(torch.tensor([0.99]).log())
    assert easy < 1e-3 * -math.log(0.99)


class Fixed(torch.nn.Module):
    """A model that returns logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, batch):
        return self.logits


def test_the_class_loss_of_an_improbable_word_is_finite():
    model = Fixed(torch.tensor([[[1000.0, 0.0, -1000.0]]]))
    batch = {"target": torch.tensor([[2]])}
    for training in (True, False):
        loss, _ = ClassLoss(torch.ones(3), 2.0)(model.train(training), batch)
        assert_close(loss, torch.tensor(2000.0))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_class_loss_weighs_words_and_ignores_padding(gamma):
    torch.manual_seed(0)
    model = Fixed(torch.randn(3, 2, 7))
    batch = {"target": torch.tensor([[5, 2], [6, 2], [4, 0]])}
    weights = torch.tensor([9.0, 9, 1, 1, 2, 0.5, 3])
    loss, count = ClassLoss(weights, gamma)(model, batch)
    log_probs = model.logits.log_softmax(-1)
    expected = 0.0
    for i, t, word in [(0, 0, 5), (0, 1, 2), (1, 0, 6), (1, 1, 2), (2, 0, 4)]:
        p = log_probs[i, t, word].exp()
        expected -= weights[word] * (1 - p) ** gamma * log_probs[i, t, word]
    assert count == 5
    assert_close(loss, expected)
    plain, count = ClassLoss(weights, gamma)(model.eval(), batch)
    target = batch["target"].flatten()
    assert_close(
        plain, F.cross_entropy(model.logits.flatten(0, 1), target, reduction="sum", ignore_index=0)
    )


@settings(deadline=None)
@given(PAIRS, st.sampled_from([0.25, 1.0, 7.0]))
def test_no_threshold_costs_less(pairs, cost):
    scores, positive = tensors_of(pairs)
    threshold = choose_threshold(scores, positive, cost)

    def total(threshold):
        called = scores >= threshold
        return (called & ~positive).sum().item() + cost * (~called & positive).sum().item()

    candidates = [*scores.tolist(), math.inf]
    best = min(total(each) for each in candidates)
    assert total(threshold) == pytest.approx(best)
    assert threshold == max(each for each in candidates if total(each) <= best + 1e-9)


# -------------------------------------------------------------------------------------------------
# Calibration.


def test_brier_score_of_two_classes_is_twice_that_of_scikit_learn():
    p = torch.rand(40, dtype=torch.double)
    labels = (torch.rand(40) < p).long()
    expected = sklearn.metrics.brier_score_loss(labels.numpy(), p.numpy())
    assert brier_score(torch.stack([1 - p, p], 1), labels) == pytest.approx(2 * expected)


def test_bins_hold_their_upper_edge_and_the_error_is_their_mean_gap():
    confidence = torch.tensor([0.0, 0.1, 0.2, 0.21, 0.95, 1.0], dtype=torch.double)
    right = torch.tensor([True, False, False, True, True, True])
    bins = reliability_bins(confidence, right, bins=5)
    assert [each.count for each in bins] == [3, 1, 2]
    assert bins[0].confidence == pytest.approx(0.1) and bins[0].accuracy == pytest.approx(1 / 3)
    expected = (3 * (1 / 3 - 0.1) + (1 - 0.21) + 2 * (1 - 0.975)) / 6
    assert expected_calibration_error(confidence, right, bins=5) == pytest.approx(expected)


def test_bins_are_those_of_scikit_learn():
    from sklearn.calibration import calibration_curve

    confidence = torch.rand(300, dtype=torch.double)
    right = torch.rand(300) < confidence
    accuracy, mean = calibration_curve(right.numpy(), confidence.numpy(), n_bins=15)
    bins = reliability_bins(confidence, right)
    assert [each.accuracy for each in bins] == pytest.approx(accuracy.tolist())
    assert [each.confidence for each in bins] == pytest.approx(mean.tolist())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_is_found(temperature):
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000, 4)
    labels = logits.softmax(1).multinomial(1).squeeze(1)
    found = fit_temperature(temperature * logits, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    loss = F.cross_entropy(temperature * logits.double() / found, labels)
    for other in (0.99, 1.01):
        assert loss <= F.cross_entropy(temperature * logits.double() / (other * found), labels)


def test_fitting_a_temperature_does_not_change_the_logits():
    logits, labels = random_predictions(classes=3)
    logits = logits.double()
    before = logits.clone()
    found = fit_temperature(logits, labels)
    assert fit_temperature(logits + 7, labels) == pytest.approx(found, rel=1e-4)
    assert torch.equal(logits, before)


def test_scaling_changes_confidence_and_not_the_class():
    logits, labels = random_predictions(classes=3)
    logits = 5 * logits  # far too sure
    scaled = logits / fit_temperature(logits, labels)
    assert torch.equal(scaled.argmax(1), logits.argmax(1))

    def error(values):
        confidence, predicted = values.softmax(1).max(1)
        return expected_calibration_error(confidence, predicted == labels)

    assert error(scaled) < 0.5 * error(logits)


# -------------------------------------------------------------------------------------------------
# Numbers, intervals, secrets.


def test_errors_of_numbers_are_those_of_scikit_learn():
    true = torch.tensor([3.0, -2.0, 7.0, 5.0])
    predicted = torch.tensor([2.5, -2.0, 8.0, 4.0])
    given_ = true.numpy(), predicted.numpy()
    assert mean_absolute_percentage_error(predicted, true) == pytest.approx(
        sklearn.metrics.mean_absolute_percentage_error(*given_)
    )
    assert r_squared(predicted, true) == pytest.approx(sklearn.metrics.r2_score(*given_))
    with pytest.raises(ValueError, match="true value of 0"):
        mean_absolute_percentage_error(predicted, torch.zeros(4))


def test_a_number_is_the_geometric_mean_of_its_brackets():
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75], [0.0, 0.0, 1.0]])
    numbers = number_of_brackets(probabilities, (1.0, 4.0, 16.0))
    assert numbers.tolist() == pytest.approx([2.0, 2 ** (0.25 * 2 + 0.75 * 4), 16.0])
    assert number_of_brackets(probabilities[:1], (-1.0, 4.0, 16.0)).tolist() == [1.5]


def test_the_group_bootstrap_of_single_rows_is_like_that_of_examples():
    torch.manual_seed(0)
    values = torch.rand(100, dtype=torch.double)
    interval = group_bootstrap(lambda rows: values[rows].mean().item(), range(100), draws=10_000)
    half = 1.96 * values.std(unbiased=False).item() / 10
    assert interval.score == pytest.approx(values.mean().item())
    # of 10,000 draws, whichever they are, the quantile's standard deviation is 0.0008
    assert interval.low == pytest.approx(interval.score - half, abs=0.004)
    assert interval.high == pytest.approx(interval.score + half, abs=0.004)


def test_rows_of_a_group_are_drawn_together():
    """Ten copies of a row are one observation, and the interval is as wide as without them."""
    torch.manual_seed(0)
    values = torch.rand(30, dtype=torch.double)
    copies = values.repeat_interleave(10)
    groups = torch.arange(30).repeat_interleave(10).tolist()
    single = group_bootstrap(lambda rows: values[rows].mean().item(), range(30))
    grouped = group_bootstrap(lambda rows: copies[rows].mean().item(), groups)
    assert grouped == pytest.approx(single)
    by_row = group_bootstrap(lambda rows: copies[rows].mean().item(), range(300))
    assert by_row.high - by_row.low < 0.5 * (grouped.high - grouped.low)


def test_drawing_groups_leaves_the_global_random_numbers_alone():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    group_bootstrap(lambda rows: rows.double().mean().item(), "aabbc", draws=5)
    assert np.random.random() == expected


def test_a_draw_with_one_class_only_is_drawn_again():
    scores = torch.tensor([0.1, 0.9, 0.4])
    positive = torch.tensor([False, True, False])
    interval = group_bootstrap(lambda rows: roc_auc(scores[rows], positive[rows]), "abc")
    assert interval == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError):
        group_bootstrap(lambda rows: roc_auc(scores[rows], scores[rows] > 2), "abc")
    with pytest.raises(ValueError):
        group_bootstrap(lambda rows: 0.0, [])


def test_exposure_is_the_rank_in_bits():
    log_probs = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    assert [exposure(log_probs, i) for i in range(4)] == pytest.approx(
        [0.0, 2.0, 2 - math.log2(3), 1.0]
    )
    equal = torch.zeros(7)
    assert exposure(equal, 3) == pytest.approx(math.log2(7) - 2)


def test_what_was_never_seen_exposes_one_and_a_half_bits():
    log_probs = torch.randn(100_000)
    mean = sum(exposure(log_probs[:1000], i) for i in range(1000)) / 1000
    assert mean == pytest.approx(math.log2(math.e), abs=0.02)


def test_the_class_loss_takes_the_place_of_the_cross_entropy():
    from helpers import tiny_config

    from mmscratch.model import build_model

    model = build_model(tiny_config(9))
    model.objective = lambda model, batch: ("loss", SimpleNamespace(of=batch))
    loss, count = model.loss({"target": 1})
    assert loss == "loss" and count.of == {"target": 1}
