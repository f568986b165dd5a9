"""Chapter 13 written by others: see tests/test_proofs.py."""

# %% 13 AttentionPooling.forward
import torch
from torch import nn


class AttentionPooling(nn.Module):
    def forward(self, memory):
        vectors, is_real = memory.tokens, memory.mask
        D = vectors.size(-1)
        scores = torch.einsum("bnd,d->bn", vectors, self.query) / D**0.5
        scores = torch.where(is_real, scores, torch.full_like(scores, -1e30))
        weights = scores.softmax(dim=-1) * is_real
        return torch.einsum("bn,bnd->bd", weights, vectors)


# %% 13 contrastive_loss
import math

import torch


def one_direction(logits, ignore):
    """-log softmax of the diagonal, over each row, (B,)."""
    losses = []
    for i in range(len(logits)):
        rivals = logits[i][~ignore[i]]
        losses.append(torch.logsumexp(rivals, dim=0) - logits[i, i])
    return torch.stack(losses)


def _contrastive_losses(a, b, log_scale, same):
    B = a.shape[0]
    ignore = torch.zeros(B, B, dtype=torch.bool, device=a.device)
    if same is not None:
        ignore = same.clone()
        ignore.fill_diagonal_(False)
    temperature = 1 / torch.clamp(log_scale, max=math.log(100)).exp()
    logits = torch.einsum("id,jd->ij", a, b) / temperature
    return 0.5 * one_direction(logits, ignore) + 0.5 * one_direction(logits.T, ignore.T)


def contrastive_loss(a, b, log_scale, same=None):
    losses = _contrastive_losses(a, b, log_scale, same)
    return losses.sum() / len(losses)


# %% 13 hardest_negative_loss
import torch


def _hardest_negative_losses(a, b, same, margin=0.2):
    B = len(a)
    s = a @ b.transpose(0, 1)
    is_negative = ~torch.eye(B, dtype=torch.bool, device=a.device)
    if same is not None:
        is_negative = is_negative & ~same
    losses = []
    for i in range(B):
        loss = 0 * s[i, i]
        for scores in (s[i, is_negative[i]], s[is_negative[:, i], i]):
            if scores.numel() > 0:
                loss = loss + torch.relu(margin + scores.max() - s[i, i])
        losses.append(loss)
    return torch.stack(losses)


def hardest_negative_loss(a, b, same=None, margin=0.2):
    return torch.mean(_hardest_negative_losses(a, b, same, margin=margin))


# %% 13 sentence_fingerprint
import torch


def sentence_fingerprint(tokens):
    B, T = tokens.shape
    number = torch.zeros(B, dtype=torch.int64, device=tokens.device)
    for t in range(T - 1, -1, -1):  # Horner's scheme
        number = (number + tokens[:, t]) * HASH_BASE
    return number


# %% 13 DualEncoder.embed
from torch import nn


class DualEncoder(nn.Module):
    def embed(self, modality, *inputs):
        tower, pool, project = (
            part[modality] for part in (self.encoders, self.pooling, self.projection)
        )
        x = project(pool(tower(*inputs)))
        length = (x * x).sum(dim=-1, keepdim=True).sqrt()
        return x / length.clamp(min=1e-12)


# %% 13 retrieval_ranks
import math

import torch


def rank_of(scores, relevant):
    best = -math.inf
    for score, is_relevant in zip(scores, relevant):
        if is_relevant and score > best:
            best = score
    rank = 1
    for score, is_relevant in zip(scores, relevant):
        if not is_relevant and not score < best:
            rank += 1
    return rank


def retrieval_ranks(scores, relevant):
    if not torch.is_floating_point(scores) or relevant.dtype is not torch.bool:
        raise ValueError("scores must be floats, and relevant bool")
    if scores.ndim != 2 or tuple(scores.shape) != tuple(relevant.shape):
        raise ValueError("scores and relevant must both be (Q, G)")
    ranks = []
    for row, answers in zip(scores.tolist(), relevant.tolist()):
        if True not in answers:
            raise ValueError(f"nothing is relevant to query {len(ranks)}")
        ranks.append(rank_of(row, answers))
    return torch.tensor(ranks, dtype=torch.int64, device=scores.device)


# %% 13 recall_at
def recall_at(ranks, k):
    if not k >= 1:
        raise ValueError(f"k is {k}, but must be at least 1")
    return [1.0 if rank <= k else 0.0 for rank in ranks.tolist()]


# %% 13 median_rank
import random
from statistics import median


def median_rank(ranks, pictures):
    ranks = [int(rank) for rank in ranks]
    if len(ranks) != len(pictures):
        raise ValueError("the picture of each query is needed")
    if not ranks:
        raise ValueError("there are no queries")
    ranks_of = {}
    for rank, picture in zip(ranks, pictures):
        ranks_of.setdefault(picture, []).append(rank)
    groups = list(ranks_of.values())
    dice = random.Random(2024)
    medians = []
    for _ in range(1000):
        drawn = dice.choices(groups, k=len(groups))
        medians.append(float(median([rank for group in drawn for rank in group])))
    medians.sort()
    return ConfidenceInterval(score=float(median(ranks)), low=medians[25], high=medians[-26])


# %% 13 search
import numpy as np
import torch


def _largest(scores, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    order.sort(axis=1)
    return np.take_along_axis(scores, order, axis=1), order


def as_numpy(x):
    if isinstance(x, torch.Tensor):
        return x.detach().cpu().float().numpy()
    return np.array(x, dtype=np.float32)


def search(queries, vectors, k, chunk_size=16384):
    if queries.ndim != 2 or vectors.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise ValueError("queries (Q, D) and vectors (N, D) do not fit together")
    if k < 1 or chunk_size < 1:
        raise ValueError("k and chunk_size start at 1")
    asked = as_numpy(queries)
    total = vectors.shape[0]
    best = [[] for _ in asked]  # of each query: (-score, index)
    for start in range(0, total, chunk_size):
        scores = asked @ as_numpy(vectors[start : min(start + chunk_size, total)]).T
        if np.isnan(scores).any():
            raise ValueError("NaN among the scores")
        values, places = _largest(scores, k)
        for found, row, where in zip(best, values.tolist(), places.tolist()):
            found += [(-score, start + place) for score, place in zip(row, where)]
            found.sort()
            del found[k:]
    shape = len(best), min(k, total)
    scores = torch.tensor([[-score for score, _ in found] for found in best], dtype=torch.float32)
    indices = torch.tensor([[index for _, index in found] for found in best], dtype=torch.int64)
    return scores.reshape(shape).to(queries.device), indices.reshape(shape).to(queries.device)


# %% 13 true_pairs
from collections import Counter

import torch


def true_pairs(captions, scenes, language="en"):
    if language not in ("en", "de", "zh"):
        raise ValueError(f"no captions are written in {language!r}")
    nouns_of = [Counter(obj.noun for obj in scene.objects) for scene in scenes]
    rows = []
    for caption in captions:
        reading = _well_formed_reading(caption, language)
        row = [False] * len(scenes)
        if reading:
            named = Counter(mention.noun for mention in reading.mentions)
            for j, nouns in enumerate(nouns_of):
                if nouns == named:
                    row[j] = len(_compare(reading.mentions, scenes[j].objects, reading.claim)) == 0
        rows.append(row)
    return torch.tensor(rows, dtype=torch.bool).reshape(len(captions), len(scenes))
