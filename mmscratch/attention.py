"""Attention: a weighted sum over the memory; a place weighs as much as it answers the question."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(NamedTuple):
    """What a decoder may look at: `tokens` (B, N, D), and `mask` (B, N) bool, False for padding."""

    tokens: Tensor
    mask: Tensor

    @classmethod
    def empty(cls, B: int, D: int, device: torch.device | None = None) -> "Memory":
        """B memories without any place: a decoder that looks at them is a language model."""
        tokens = torch.zeros(B, 0, D, device=device)
        mask = torch.zeros(B, 0, dtype=torch.bool, device=device)
        return cls(tokens, mask)

    def mean(self) -> Tensor:
        """The average of the real places, (B, D)."""
        mask = self.mask.unsqueeze(-1).to(self.tokens.dtype)  # (B, N, 1)
        return (self.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)


def memory_index(index: Tensor, rows: int, memories: int) -> Tensor | None:
    """For a decoder's `reorder`: which memories the sentences `index` (B',) need.

    There are `rows` sentences and `memories` memories: the first rows / memories sentences (the
    beams of one picture) look at the first memory, and so on. If, as in a beam search, those that
    are wanted share memories in the same way, each memory is named once, so that none is copied for
    every beam; and if all stay where they are, the answer is None.
    """
    owner = index // (rows // memories)  # (B',)
    shared, beams = owner.unique_consecutive(return_counts=True)
    if (beams != beams[:1]).any():
        return owner
    if torch.equal(shared, torch.arange(memories, device=index.device)):
        return None
    return shared


def check_fusion(fusion: str) -> None:
    """Of the decoders: may they look at the memory only at the start, or for every word?"""
    if fusion not in ("prefix", "cross_attention"):
        raise ValueError(f'fusion is "prefix" or "cross_attention", not {fusion!r}')


def causal_mask(T: int, N: int, device: torch.device | None = None) -> Tensor:
    """(T, N) bool: the queries are the last T of N places; each sees itself and those before it.

    With T = N it is a triangle; one query over a longer cache (T = 1) sees all of it.
    """
    return torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis, among the places where `mask` is True.

    A row in which no place is True gets weights of 0.
    """
    if mask is None:
        return scores.softmax(-1)
    # the lowest finite number: with -inf, a row that is fully masked would become NaN
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
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

    query (…, T, D), key (…, N, D), value (…, N, E), mask bool, broadcast to (…, T, N)
    -> (…, T, E), and the weights (…, T, N) as well if `need_weights`. Without the weights,
    PyTorch's fused kernel computes the same. With `causal`, `causal_mask` holds besides.
    A query that may see nothing gets zeros. `dropout` drops weights.
    Source: Vaswani et al. 2017, section 3.2.1.
    """
    T, N = query.size(-2), key.size(-2)
    # the kernel skips the hidden half of a square triangle by itself: no mask to build and to read
    use_causal_kernel = causal and mask is None and T == N and not need_weights
    if causal and T > 1 and not use_causal_kernel:
        triangle = causal_mask(T, N, query.device)
        mask = triangle if mask is None else mask & triangle
    if need_weights:
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))  # (…, T, N)
        weights = masked_softmax(scores, mask)
        return F.dropout(weights, dropout) @ value, weights
    options = {"dropout_p": dropout, "is_causal": use_causal_kernel}
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, **options)
    # a softmax over nothing is NaN: let such a query see everything, then erase what it saw
    fully_masked = ~mask.any(-1, keepdim=True)  # (…, T, 1)
    mask = mask | fully_masked
    output = F.scaled_dot_product_attention(query, key, value, mask, **options)  # (…, T, E)
    return output.masked_fill(fully_masked, 0.0)


class AdditiveAttention(nn.Module):
    """Attention whose score is a small network (Bahdanau et al. 2015), instead of a dot product:

        scoreₙ = vᵀ tanh(W query + U memoryₙ);  context = Σₙ softmax(score)ₙ memoryₙ

    With `gate`, as in Show, Attend and Tell (Xu et al. 2015, section 4.2.1), the query also says
    how much the picture matters now: context · sigmoid(wᵀ query + b). Query and memory may be of
    different width.
    """

    def __init__(self, query_dim: int, memory_dim: int, attention_dim: int, gate: bool = False):
        super().__init__()
        self.query = nn.Linear(query_dim, attention_dim)
        self.key = nn.Linear(memory_dim, attention_dim, bias=False)
        self.score = nn.Linear(attention_dim, 1, bias=False)
        self.gate = nn.Linear(query_dim, 1) if gate else None

    def forward(
        self, query: Tensor, memory: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """query (B, T, Q), memory (B, N, D), mask broadcast to (B, T, N)
        -> context (B, T, D), weights (B, T, N).
        """
        hidden = self.query(query).unsqueeze(2) + self.key(memory).unsqueeze(1)  # (B, T, N, A)
        weights = masked_softmax(self.score(hidden.tanh()).squeeze(-1), mask)  # (B, T, N)
        context = weights @ memory  # (B, T, D)
        if self.gate is not None:
            context = context * self.gate(query).sigmoid()
        return context, weights


def doubly_stochastic_penalty(weights: Tensor, words: Tensor, places: Tensor) -> Tensor:
    """Σₙ (1 - Σₜ weightsₜₙ)², the mean over the batch.

    It is small if, over the caption, every place is looked at once.
    weights (B, T, N), words (B, T) and places (B, N) bool, True = real. Added to the loss with a
    factor.
    Source: Show, Attend and Tell (Xu et al. 2015), section 4.2.1.
    """
    looked = (weights * words.unsqueeze(-1)).sum(1)  # (B, N)
    return ((1 - looked).square() * places).sum(1).mean()


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each in its own D/H of the D dimensions, and their results mixed:

        headₕ = attention(x Wᵩₕ, memory Wₖₕ, memory Wᵥₕ);  output = [head₁; …; head_H] Wₒ

    Self-attention if no memory is given, else cross-attention. Parameters are named as in
    torch.nn.MultiheadAttention (the three projections are one matrix, `in_proj_weight`), so its
    weights load here.
    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads cannot share {embed_dim} dimensions equally")
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        # rows: first those of all queries, then of all keys, then of all values
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
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
        """x (B, T, D), memory (B, N, D) -> (B, T, D); with `need_weights`, weights (B, H, T, N) too.

        mask: bool, (T, N), (B, T, N), (B, 1, N), or a mask a head, (B, H, T, N).
        """
        if memory is None:
            query, keys, values = self.project(x)  # each (B, H, T, D/H)
        else:
            query = self.queries(x)  # (B, H, T, D/H)
            keys, values = self.keys_values(memory)  # each (B, H, N, D/H)
        output, weights = self.attend(query, keys, values, mask, causal, need_weights)
        return (output, weights) if need_weights else output

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> its queries, keys and values, with one matrix product."""
        query, keys, values = self.in_proj(x, slice(None)).chunk(3, dim=-1)  # each (B, T, D)
        return self._heads(query), self._heads(keys), self._heads(values)  # each (B, H, T, D/H)

    def queries(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> its queries."""
        query = self.in_proj(x, slice(self.embed_dim))  # (B, T, D)
        return self._heads(query)  # (B, H, T, D/H)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory (B, N, D) -> its keys and values."""
        keys, values = self.in_proj(memory, slice(self.embed_dim, None)).chunk(2, dim=-1)
        return self._heads(keys), self._heads(values)  # each (B, H, N, D/H)

    def in_proj(self, x: Tensor, rows: slice) -> Tensor:
        """What some rows of the joint matrix make of x (…, D).

        A `finetuning.LoRAAttention` adds its change here.
        """
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])

    def _heads(self, x: Tensor) -> Tensor:
        """D dimensions side by side -> H heads, each of D/H neighbouring dimensions."""
        x = x.unflatten(-1, (self.num_heads, -1))  # (B, T, H, D/H)
        return x.transpose(1, 2)  # (B, H, T, D/H)

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Projected heads, (B, H, ·, D/H) -> (B, T, D), and the weights (B, H, T, N) or None."""
        if mask is not None and mask.dim() < 4:
            mask = mask.unsqueeze(-3)  # the same for all heads
        dropout = self.dropout if self.training else 0.0
        output = scaled_dot_product_attention(
            query, keys, values, mask, need_weights, causal, dropout
        )  # (B, H, T, D/H)
        output, weights = output if need_weights else (output, None)
        output = output.transpose(1, 2).flatten(2)  # (B, T, D)
        return self.out_proj(output), weights
