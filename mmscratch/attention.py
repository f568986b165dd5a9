"""Attention: a weighted sum of what is in the memory, weighted by how well each place answers a question."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(NamedTuple):
    """What a decoder may look at: `tokens` (B, N, D), and `mask` (B, N) bool, True = real, False = padding."""

    tokens: Tensor
    mask: Tensor

    @classmethod
    def of_nothing(cls, B: int, D: int, device: torch.device | None = None) -> "Memory":
        """B memories without any place: a decoder that looks at them is a language model."""
        return cls(torch.zeros(B, 0, D, device=device), torch.zeros(B, 0, dtype=torch.bool, device=device))

    def mean(self) -> Tensor:
        """The average of the real places, (B, D)."""
        mask = self.mask.unsqueeze(-1).to(self.tokens.dtype)  # (B, N, 1)
        return (self.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)


def owners(index: Tensor, rows: int, memories: int) -> Tensor | None:
    """For a decoder's `reorder`: which memories the sentences `index` (B',) need.

    There are `rows` sentences and `memories` memories: the first rows / memories sentences (the beams of one picture) look
    at the first memory, and so on. If, as in a beam search, those that are wanted share memories in the same way, each
    memory is named once, so that none is copied for every beam; and if all stay where they are, the answer is None.
    """
    owner = index // (rows // memories)  # (B',)
    shared, beams = owner.unique_consecutive(return_counts=True)
    if (beams != beams[:1]).any():
        return owner
    return None if torch.equal(shared, torch.arange(memories, device=index.device)) else shared


def check_fusion(fusion: str) -> None:
    """Of the decoders: may they look at the memory only at the start, or for every word?"""
    if fusion not in ("prefix", "cross_attention"):
        raise ValueError(f'fusion is "prefix" or "cross_attention", not {fusion!r}')


def causal_mask(T: int, N: int, device: torch.device | None = None) -> Tensor:
    """(T, N) bool: the queries are the last T of N places, and each sees itself and what stands before it.

    With T = N it is a triangle; one query over a longer cache (T = 1) sees all of it.
    """
    return torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis, among the places where `mask` is True; where none is, the weights are all 0."""
    if mask is None:
        return scores.softmax(-1)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # -inf would make a row of nothing NaN
    return scores.softmax(-1).masked_fill(~mask, 0.0)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = False,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(Q Kᵀ / √D) V, over the places where `mask` is True.

    query (…, T, D), key (…, N, D), value (…, N, E), mask bool, broadcast to (…, T, N) -> (…, T, E), and the weights
    (…, T, N) as well if `need_weights`. Without the weights, PyTorch's fused kernel computes the same. With `causal`,
    `causal_mask` holds besides. A query that may see nothing gets zeros. `dropout` drops weights.
    Source: Vaswani et al. 2017, section 3.2.1.
    """
    T, N = query.size(-2), key.size(-2)
    whole = causal and mask is None and T == N and not need_weights  # the kernel has a short cut for the triangle
    if causal and T > 1 and not whole:
        triangle = causal_mask(T, N, query.device)
        mask = triangle if mask is None else mask & triangle
    if need_weights:
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))  # (…, T, N)
        weights = masked_softmax(scores, mask)
        return F.dropout(weights, dropout) @ value, weights
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=whole)
    blind = ~mask.any(-1, keepdim=True)  # a softmax over nothing is NaN: let such a query see all, then erase it
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask | blind, dropout_p=dropout)
    return output.masked_fill(blind, 0.0)


class AdditiveAttention(nn.Module):
    """Attention whose score is a small network (Bahdanau et al. 2015), instead of a dot product:

        scoreₙ = vᵀ tanh(W query + U memoryₙ);  context = Σₙ softmax(score)ₙ memoryₙ

    With `gate`, as in Show, Attend and Tell (Xu et al. 2015, section 4.2.1), the query also says how much the picture
    matters now: context · sigmoid(wᵀ query + b). Query and memory may be of different width.
    """

    def __init__(self, query_dim: int, memory_dim: int, attention_dim: int, gate: bool = False):
        super().__init__()
        self.query = nn.Linear(query_dim, attention_dim)
        self.key = nn.Linear(memory_dim, attention_dim, bias=False)
        self.score = nn.Linear(attention_dim, 1, bias=False)
        self.gate = nn.Linear(query_dim, 1) if gate else None

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """query (B, T, Q), memory (B, N, D), mask broadcast to (B, T, N) -> context (B, T, D), weights (B, T, N)."""
        hidden = self.query(query).unsqueeze(2) + self.key(memory).unsqueeze(1)  # (B, T, N, A)
        weights = masked_softmax(self.score(hidden.tanh()).squeeze(-1), mask)  # (B, T, N)
        context = weights @ memory  # (B, T, D)
        if self.gate is not None:
            context = context * self.gate(query).sigmoid()
        return context, weights


def doubly_stochastic_penalty(weights: Tensor, words: Tensor, places: Tensor) -> Tensor:
    """Σₙ (1 - Σₜ weightsₜₙ)², the mean over the batch: small if, over the caption, every place is looked at once.

    weights (B, T, N), words (B, T) and places (B, N) bool, True = real. Added to the loss with a factor.
    Source: Show, Attend and Tell (Xu et al. 2015), section 4.2.1.
    """
    looked = (weights * words.unsqueeze(-1)).sum(1)  # (B, N)
    return ((1 - looked).square() * places).sum(1).mean()


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each in its own D/H of the D dimensions, and their results mixed:

        headₕ = attention(x Wᵩₕ, memory Wₖₕ, memory Wᵥₕ);  output = [head₁; …; head_H] Wₒ

    Self-attention if no memory is given, else cross-attention. Parameters are named as in torch.nn.MultiheadAttention
    (the three projections are one matrix, `in_proj_weight`), so its weights load here.
    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads cannot share {embed_dim} dimensions equally")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))  # rows: queries, keys, values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x (B, T, D), memory (B, N, D) -> (B, T, D), and the weights (B, H, T, N) if `need_weights`.

        mask: bool, (T, N), (B, T, N), (B, 1, N), or a mask a head, (B, H, T, N).
        """
        query, keys, values = self.project(x) if memory is None else (self.queries(x), *self.keys_values(memory))
        output, weights = self.attend(query, keys, values, mask, causal, need_weights)
        return (output, weights) if need_weights else output

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (B, T, D) -> its queries, keys and values, each (B, H, T, D/H), with one matrix product."""
        return self._split(self.in_proj(x, slice(None)), 3)

    def queries(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, H, T, D/H)."""
        return self._split(self.in_proj(x, slice(self.embed_dim)), 1)[0]

    def keys_values(self, memory: Tensor) -> tuple[Tensor, ...]:
        """memory (B, N, D) -> its keys and values, each (B, H, N, D/H)."""
        return self._split(self.in_proj(memory, slice(self.embed_dim, None)), 2)

    def in_proj(self, x: Tensor, rows: slice) -> Tensor:
        """What some rows of the joint matrix make of x (…, D); a `finetuning.LoRAAttention` adds its change here."""
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])

    def attend(self, query, keys, values, mask=None, causal=False, need_weights=False) -> tuple[Tensor, Tensor | None]:
        """Heads (B, H, ·, D/H) that are projected already -> (B, T, D), and the weights (B, H, T, N) or None."""
        if mask is not None and mask.dim() < 4:
            mask = mask.unsqueeze(-3)  # the same for all heads
        dropout = self.dropout if self.training else 0.0
        output = scaled_dot_product_attention(query, keys, values, mask, need_weights, causal, dropout)  # (B, H, T, D/H)
        output, weights = output if need_weights else (output, None)
        return self.out_proj(output.transpose(1, 2).flatten(2)), weights  # (B, T, D)

    def _split(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, T, parts · D) -> parts of (B, H, T, D/H)."""
        heads = projected.unflatten(-1, (parts, self.num_heads, -1))  # (B, T, parts, H, D/H)
        return heads.permute(2, 0, 3, 1, 4).unbind(0)
