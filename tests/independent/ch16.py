"""Chapter 16 written by others: see tests/test_proofs.py."""

# %% 16 Schema.encode
import torch


def category_number(cell, values):
    for number, value in enumerate(values, start=1):
        if value.casefold() == cell.casefold():
            return number
    return OTHER


class Schema:
    def encode(self, row):
        encoded = torch.full((len(self.columns),), float("nan"))
        for i, column in enumerate(self.columns):
            cell = row[column.name] if column.name in row else ""
            cell = cell.strip()
            if is_missing(cell):
                continue
            if len(column.values) > 0:
                encoded[i] = category_number(cell, column.values)
                continue
            number = parse_number(cell)
            if number is None:
                raise ValueError(f"{column.name}: {cell!r} is not a number")
            encoded[i] = (number - column.mean) / column.scale
        return encoded


# %% 16 TableEncoder.forward
import torch
from torch import nn


class TableEncoder(nn.Module):
    def forward(self, rows):
        tokens, visible = [], []
        for place, column in enumerate(self.order):
            cells = rows[:, column]
            missing = torch.isnan(cells)
            cells = torch.where(missing, torch.zeros_like(cells), cells)
            if place < self.num_numbers:
                vector = cells[:, None] * self.weight[place]
            else:
                first = self.first[place - self.num_numbers]
                vector = self.embedding(first + cells.to(torch.int64))
            tokens.append(vector + self.bias[place])
            visible.append(~missing)
        mask = torch.stack(visible, dim=1)
        x = torch.stack(tokens, dim=1)
        for block in self.blocks:
            x, *_ = block(x, mask[:, None, :])
        return Memory(self.norm(x), mask)


# %% 16 split_groups
import random
from collections import Counter


def split_groups(groups, labels, shares, seed=0):
    label_counts = {}
    for group, label in zip(groups, labels):
        label_counts.setdefault(group, Counter())[label] += 1
    if len(label_counts) < len(shares):
        raise ValueError("there are more parts than groups")

    whole = sum(shares)
    in_all = Counter(labels)
    have = [Counter() for _ in shares]

    def lack(part, counts):
        """How many rows the part still needs, as a fraction of its share, for these labels."""
        total = 0.0
        for label, count in counts.items():
            share = in_all[label] * shares[part] / whole
            total += count * (share - have[part][label]) / share
        return total

    def order(group):
        return -sum(label_counts[group].values()), random.Random(f"{seed}/{group}").random()

    part_of = {}
    for group in sorted(label_counts, key=order):
        counts = label_counts[group]
        lacks = [lack(part, counts) for part in range(len(shares))]
        part_of[group] = lacks.index(max(lacks))
        have[part_of[group]] += counts
    return [part_of[group] for group in groups]


# %% 16 roc_auc
def roc_auc(scores, positive):
    if scores.shape != positive.shape or scores.dim() != 1:
        raise ValueError("scores and positive must be (M,)")
    examples = sorted(zip(scores.tolist(), positive.tolist()))
    P = sum(is_positive for _, is_positive in examples)
    N = len(examples) - P
    if P == 0 or N == 0:
        raise ValueError("positive and negative examples are needed")
    rank_sum = 0.0
    start = 0
    while start < len(examples):
        end = start
        positives = 0
        while end < len(examples) and examples[end][0] == examples[start][0]:
            positives += examples[end][1]
            end += 1
        rank_sum += positives * (start + 1 + end) / 2
        start = end
    return (rank_sum - P * (P + 1) / 2) / (P * N)


# %% 16 reliability_bins
def reliability_bins(confidence, right, bins=15):
    found = []
    for b in range(bins):
        members = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if b == 0:
            members |= confidence == 0
        count = int(members.sum())
        if count == 0:
            continue
        mean = sum(confidence[members].tolist()) / count
        accuracy = sum(right[members].tolist()) / count
        found.append(ReliabilityBin(confidence=mean, accuracy=accuracy, count=count))
    return found


def expected_calibration_error(confidence, right, bins=15):
    M = confidence.numel()
    table = reliability_bins(confidence, right, bins)
    return sum(count / M * abs(accuracy - mean) for mean, accuracy, count in table)


# %% 16 fit_temperature
import math

import torch

GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(log_probs, labels):
    logits = log_probs.to(torch.float64)
    rows = torch.arange(len(labels), device=labels.device)

    def loss(x):
        scaled = logits / math.exp(x)
        return float((scaled.logsumexp(1) - scaled[rows, labels]).mean())

    a, d = math.log(0.05), math.log(20)
    b, c = d - GOLDEN * (d - a), a + GOLDEN * (d - a)
    loss_b, loss_c = loss(b), loss(c)
    while d - a > 1e-10:
        if loss_b < loss_c:
            d, c, loss_c = c, b, loss_b
            b = d - GOLDEN * (d - a)
            loss_b = loss(b)
        else:
            a, b, loss_b = b, c, loss_c
            c = a + GOLDEN * (d - a)
            loss_c = loss(c)
    return math.exp((a + d) / 2)


# %% 16 ClassLoss.__call__
import torch
import torch.nn.functional as F


def focal_loss(log_probs, gamma=2.0):
    cross_entropy = -log_probs
    if gamma == 0:
        return cross_entropy
    p = torch.exp(log_probs)
    return (1 - p).pow(gamma) * cross_entropy


class ClassLoss:
    def __call__(self, model, batch):
        logits = model(batch).float()
        target = batch["target"].reshape(logits.shape[:2])
        log_probs = F.log_softmax(logits, dim=-1)
        log_probs = torch.take_along_dim(log_probs, target[..., None], -1)[..., 0]
        words = target.ne(PAD)
        if not model.training:
            return -log_probs[words].sum(), words.sum()
        weights = self.weights.to(logits.device)[target]
        return (weights * focal_loss(log_probs, self.gamma))[words].sum(), words.sum()


# %% 16 group_bootstrap
from __future__ import annotations

import random

import torch


def rows_by_group(groups) -> list[list[int]]:
    names = []
    for group in groups:
        if group not in names:
            names.append(group)
    return [[i for i, group in enumerate(groups) if group == name] for name in names]


def cut_off(scores, fraction):
    """The scores at both ends after this fraction is cut off at each."""
    scores = sorted(scores)
    cut = round(fraction * len(scores))
    return scores[cut], scores[len(scores) - 1 - cut]


def group_bootstrap(score, groups, draws=1000, seed=0) -> ConfidenceInterval:
    if len(groups) == 0:
        raise ValueError("no rows")
    overall = score(torch.arange(len(groups)))
    clusters = rows_by_group(groups)
    dice = random.Random(seed)
    scores = []
    while len(scores) < draws:
        indices = []
        for cluster in dice.choices(clusters, k=len(clusters)):
            indices += cluster
        try:
            scores.append(float(score(torch.tensor(indices))))
        except ValueError:
            pass
    low, high = cut_off(scores, 0.025)
    return ConfidenceInterval(overall, low, high)
