"""Judging and training classifiers whose classes are rare, and whose probabilities matter."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .metrics import ConfidenceInterval
from .text import PAD

# -------------------------------------------------------------------------------------------------
# Is the order right?


def roc_auc(scores: Tensor, positive: Tensor) -> float:
    """The area under the ROC curve: how often a positive example scores above a negative one.

        (sum of the ranks of the positive ones - P (P + 1) / 2) / (P · N)

    with P positive and N negative examples; equal scores share their mean rank, so a tie counts as
    half. 0.5 is chance. It depends on the order of the scores only, and on no threshold.

    scores (M,), positive (M,) bool. Raises ValueError if all examples are of one kind.
    Agrees with scikit-learn's roc_auc_score. Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    positive = _check_positive(scores, positive)
    P = int(positive.sum())
    N = len(positive) - P
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)  # the largest rank of each value
    ranks = (last - (counts - 1) / 2)[inverse]  # (M,), from 1
    return ((ranks[positive].double().sum().item()) - P * (P + 1) / 2) / (P * N)


def macro_auc(probabilities: Tensor, labels: Tensor) -> float:
    """The mean over the classes of `roc_auc`, each class against all others.

    probabilities (M, K), labels (M,) from 0 to K - 1. A class of which there is no example has no
    AUC, and does not count. Raises ValueError if there is one class only.
    """
    areas = []
    for k in range(probabilities.size(1)):
        positive = labels == k
        if positive.any():
            areas.append(roc_auc(probabilities[:, k], positive))
    return sum(areas) / len(areas)


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """The area under the curve of precision over recall, as a sum over the thresholds:

        Σₙ (Rₙ - Rₙ₋₁) Pₙ

    Rₙ and Pₙ are recall and precision if the n-th largest score and all above it count as
    positive. Chance is the share of positive examples.

    scores (M,), positive (M,) bool. Raises ValueError if all examples are of one kind.
    Agrees with scikit-learn's average_precision_score.
    """
    positive = _check_positive(scores, positive)
    order = scores.argsort(descending=True)
    scores = scores[order]
    hits = positive[order].double().cumsum(0)  # (M,) true positives among the first
    is_last = torch.ones_like(positive)
    is_last[:-1] = scores[:-1] != scores[1:]  # equal scores are above the threshold together
    counts = torch.arange(1, len(scores) + 1, device=scores.device)
    precision = (hits / counts)[is_last]
    recall = (hits / hits[-1])[is_last]
    steps = recall.diff(prepend=recall.new_zeros(1))
    return (steps * precision).sum().item()


def _check_positive(scores: Tensor, positive: Tensor) -> Tensor:
    if scores.dim() != 1 or scores.shape != positive.shape or positive.dtype != torch.bool:
        shapes = f"{tuple(scores.shape)} and {tuple(positive.shape)} {positive.dtype}"
        raise ValueError(f"scores (M,) and positive (M,) bool were expected, not {shapes}")
    if positive.all() or not positive.any():
        raise ValueError("there must be positive and negative examples")
    return positive


# -------------------------------------------------------------------------------------------------
# Are rare classes found?


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """The mean of the recall of each class: the commonest answer alone gets 1 / classes.

    predicted, labels (M,) integers. Classes without an example do not count.
    Raises ValueError if there are no examples. Agrees with scikit-learn's balanced_accuracy_score.
    """
    if len(labels) == 0:
        raise ValueError("there are no examples")
    recalls = []
    for label in labels.unique():
        recalls.append((predicted[labels == label] == label).double().mean())
    return torch.stack(recalls).mean().item()


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """A weight for each class, (K,), with which all classes weigh the same: M / (K · count).

    labels (M,). A class that does not occur gets 0. With all, the mean weight of an example is 1.
    Agrees with scikit-learn's compute_class_weight("balanced").
    """
    counts = torch.bincount(labels, minlength=num_classes)  # (K,)
    weights = len(labels) / (num_classes * counts.clamp(min=1))
    return weights.masked_fill(counts == 0, 0.0)


def focal_loss(log_probs: Tensor, gamma: float = 2.0) -> Tensor:
    """The cross-entropy of examples, less for those that are right already: -(1 - p)^γ log p.

    log_probs: of the true class of each example, any shape; the same shape is returned. With γ = 0
    it is the cross-entropy. Source: Lin et al. 2017.
    """
    return -((1 - log_probs.exp()) ** gamma) * log_probs


class ClassLoss:
    """A loss for an `EncoderDecoder` that writes one word: its class, which may be rare.

    The cross-entropy of each word is multiplied by the weight of the word and, if γ > 0, by
    (1 - p)^γ, as in `focal_loss`. In eval mode it is the plain cross-entropy.

    weights: of each word of the vocabulary, (V,).
    gamma: γ.
    """

    def __init__(self, weights: Tensor, gamma: float = 0.0):
        self.weights = weights
        self.gamma = gamma

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        target = batch["target"].flatten()  # (B · T,)
        log_probs = model(batch).float().flatten(0, 1).log_softmax(-1)  # (B · T, V)
        chosen = log_probs.gather(1, target.unsqueeze(1)).squeeze(1)  # (B · T,)
        losses = -chosen
        if model.training:
            losses = focal_loss(chosen, self.gamma) * self.weights.to(target.device)[target]
        is_word = target != PAD
        return losses[is_word].sum(), is_word.sum()


def choose_threshold(scores: Tensor, positive: Tensor, cost: float) -> float:
    """The threshold with the least cost: an example with this score or more counts as positive.

    A false alarm costs 1, a miss `cost`. Choose it on examples that are neither for training nor
    for testing. Of several best thresholds it is the highest; if it is best that nothing counts as
    positive, it is infinite. With probabilities that are right, it is about 1 / (1 + cost).

    scores (M,), positive (M,) bool.
    """
    candidates = torch.cat([scores.unique(), scores.new_tensor([math.inf])]).flip(0)
    best = None
    for threshold in candidates.tolist():
        called = scores >= threshold
        alarms = (called & ~positive).sum().item()
        misses = (~called & positive).sum().item()
        total = alarms + cost * misses
        if best is None or total < best[0]:
            best = total, threshold
    return best[1]


# -------------------------------------------------------------------------------------------------
# Are the probabilities right?


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """The mean squared distance of the probabilities from the truth: Σₖ (pₖ - [k = label])².

    probabilities (M, K), labels (M,). 0 is best; it punishes a wrong order as well as a wrong
    confidence. Source: Brier 1950, whose sum over all classes is twice that over one of two.
    """
    truth = F.one_hot(labels, probabilities.size(1))  # (M, K)
    return ((probabilities - truth) ** 2).sum(1).double().mean().item()


class ReliabilityBin(NamedTuple):
    """Examples of similar confidence: their mean confidence, the share that is right, the number."""

    confidence: float
    accuracy: float
    count: int


def reliability_bins(confidence: Tensor, right: Tensor, bins: int = 15) -> list[ReliabilityBin]:
    """How often are predictions of each confidence right? Examples in bins of equal width.

    confidence (M,) from 0 to 1, right (M,) bool. Bin b holds b/bins < confidence <= (b+1)/bins, and
    the first one also 0. Bins without an example are left out.
    """
    number = (confidence * bins).ceil().long().clamp(1, bins) - 1  # (M,)
    found = []
    for b in range(bins):
        inside = number == b
        if inside.any():
            mean = confidence[inside].double().mean().item()
            accuracy = right[inside].double().mean().item()
            found.append(ReliabilityBin(mean, accuracy, int(inside.sum())))
    return found


def expected_calibration_error(confidence: Tensor, right: Tensor, bins: int = 15) -> float:
    """The mean distance of confidence and accuracy: Σ_bins count / M · |accuracy - confidence|.

    confidence (M,) of the predicted class, right (M,) bool: see `reliability_bins`.
    Source: Naeini et al. 2015; Guo et al. 2017.
    """
    gaps = 0.0
    for each in reliability_bins(confidence, right, bins):
        gaps += each.count * abs(each.accuracy - each.confidence)
    return gaps / len(confidence)


def fit_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """The temperature T with which softmax(log_probs / T) is most probable for the labels.

    log_probs (M, K), or logits, of examples that the model was not trained on; labels (M,). T
    changes how sure the model is, but not which class it names. It is searched from 0.05 to 20, by
    golden sections of its logarithm, in which the loss has one minimum.
    Source: Guo et al. 2017.
    """
    log_probs = log_probs.double()

    def loss(log_temperature: float) -> float:
        scaled = log_probs / math.exp(log_temperature)
        return F.cross_entropy(scaled, labels).item()

    low, high = math.log(0.05), math.log(20.0)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left = high - ratio * (high - low)
        right = low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


# -------------------------------------------------------------------------------------------------
# Numbers, and intervals.


def mean_absolute_percentage_error(predicted: Tensor, true: Tensor) -> float:
    """The mean of |predicted - true| / |true|, as a fraction: 0.2 is 20 %.

    predicted, true (M,). Raises ValueError if a true value is 0.
    Agrees with scikit-learn's mean_absolute_percentage_error.
    """
    if (true == 0).any():
        raise ValueError("the percentage error of a true value of 0 is not defined")
    return ((predicted - true).abs() / true.abs()).double().mean().item()


def number_of_brackets(probabilities: Tensor, medians: Sequence[float]) -> Tensor:
    """Read a number from the probabilities of its brackets: exp(Σₖ pₖ log medianₖ), (M,).

    probabilities (M, K); medians of the brackets' training values, positive numbers. If one is not
    positive, it is their mean without logarithms, Σₖ pₖ medianₖ.
    """
    values = torch.tensor(medians, dtype=torch.float64)
    probabilities = probabilities.double()
    if (values <= 0).any():
        return probabilities @ values
    return (probabilities @ values.log()).exp()


def r_squared(predicted: Tensor, true: Tensor) -> float:
    """R², the share of the variance that is explained: 1 - Σ (true - predicted)² / Σ (true - mean)².

    predicted, true (M,). Agrees with scikit-learn's r2_score.
    """
    true = true.double()
    residual = ((true - predicted) ** 2).sum()
    return (1 - residual / ((true - true.mean()) ** 2).sum()).item()


def group_bootstrap(
    score: Callable[[Tensor], float], groups: Sequence[Hashable], draws: int = 1000, seed: int = 0
) -> ConfidenceInterval:
    """A score with its 95 % interval, from drawing whole groups with replacement.

    Rows of one group (a patient, a lesion) are alike, so they are not as many observations as there
    are rows: an interval from rows would be too narrow.

    score: computes it from the indices (M,) of rows, some several times, some never. A draw for
        which it raises ValueError, since it has one class only, is drawn again.
    groups: of each row.

    Raises ValueError if there are no rows, or if `score` raises it for all rows together.
    Source: Efron 1979; Field & Welsh 2007.
    """
    members = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    rows = [torch.tensor(each) for each in members.values()]
    if not rows:
        raise ValueError("a confidence interval needs at least one example")
    overall = score(torch.arange(len(groups)))
    rng = np.random.default_rng(seed)
    scores = []
    while len(scores) < draws:
        drawn = rng.integers(len(rows), size=len(rows))
        try:
            scores.append(score(torch.cat([rows[i] for i in drawn])))
        except ValueError:
            continue
    low, high = np.quantile(scores, [0.025, 0.975]).tolist()
    return ConfidenceInterval(overall, low, high)


# -------------------------------------------------------------------------------------------------
# Privacy.


def exposure(log_probs: Tensor, secret: int) -> float:
    """How much of a secret a model gives away, in bits: log₂ candidates - log₂ rank.

    log_probs (K,): how probable the model finds each of K secrets that might have been planted in
    its training data; `secret` is the one that was. Its rank is 1 if it is the most probable: then
    all log₂ K bits are exposed. Equal ones share their mean rank. A model that has not seen it
    exposes log₂ e = 1.44 bits on average, if there are many candidates.
    Source: Carlini et al. 2019.
    """
    above = (log_probs > log_probs[secret]).sum().item()
    equal = (log_probs == log_probs[secret]).sum().item()
    return math.log2(len(log_probs)) - math.log2(above + (equal + 1) / 2)
