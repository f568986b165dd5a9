"""Attention: a sum over a memory, weighted by how well each position answers a query."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(NamedTuple):
    """What a decoder attends to: `tokens` (B, N, D), and `mask` (B, N) bool, False for padding."""

    tokens: Tensor
    mask: Tensor

    @classmethod
    def empty(cls, B: int, D: int, device: torch.device | None = None) -> "Memory":
        """B memories without positions; a decoder with nothing to attend to is a language model."""
        tokens = torch.zeros(B, 0, D, device=device)
        mask = torch.zeros(B, 0, dtype=torch.bool, device=device)
        return cls(tokens, mask)

    def mean(self) -> Tensor:
        """The average over the real positions, (B, D); zeros for a memory that has none.

        The memory itself does not change.
        """
        mask = self.mask.unsqueeze(-1).to(self.tokens.dtype)  # (B, N, 1)
        return (self.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)

    def repeat(self, K: int) -> "Memory":
        """Each memory K times in a row, (B·K, N, D): for K sentences about the same picture."""
        return Memory(self.tokens.repeat_interleave(K, 0), self.mask.repeat_interleave(K, 0))


def memory_index(index: Tensor, rows: int, memories: int) -> Tensor | None:
    """Which memories go with the sentences `index` (B',), for a decoder's `reorder`.

    In a beam search, `rows` sentences share `memories` memories: the first rows / memories
    sentences are the beams of picture 0 and attend to memory 0, and so on. The result is an index
    into the memories, as short as it can be, so that no memory is copied for each beam:

        None    all memories, in their old order: nothing to do
        (M,)    one entry for each group of beams, if all groups are of equal size
        (B',)   otherwise, one entry for each sentence
    """
    needed = index // (rows // memories)  # (B',)
    groups, sizes = needed.unique_consecutive(return_counts=True)  # each (M,)
    if (sizes != sizes[:1]).any():
        return needed
    if torch.equal(groups, torch.arange(memories, device=index.device)):
        return None
    return groups


def check_fusion(fusion: str) -> None:
    """Raise ValueError if decoders do not know this kind of fusion."""
    if fusion not in ("prefix", "cross_attention"):
        raise ValueError(f'fusion is "prefix" or "cross_attention", not {fusion!r}')


def causal_mask(T: int, N: int, device: torch.device | None = None) -> Tensor:
    """(T, N) bool: the queries are the last T of N positions; each sees itself and those before it.

    With T = N it is a triangle; one query over a longer cache (T = 1) sees all of it. `device`: where
    the mask is made.
    """
    return torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis, among the positions where `mask` is True.

    A fully masked row gets weights of 0.
    """
    if mask is None:
        return scores.softmax(-1)
    # the lowest finite number: with -inf, a fully masked row would become NaN
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
    """softmax(Q Kᵀ / √D) V, over the positions where `mask` is True.

    query (…, T, D), key (…, N, D), value (…, N, E) -> output (…, T, E).

    mask: bool, broadcast to (…, T, N). A fully masked query gets zeros.
    need_weights: return (output, weights), with weights (…, T, N) as they are before dropout;
        otherwise PyTorch's fused kernel computes the same output, where it is faster.
    causal: apply `causal_mask` as well.
    dropout: drop weights with this probability.

    Source: Vaswani et al. 2017, section 3.2.1.
    """
    T = query.size(-2)
    N = key.size(-2)
    # on a CPU its backward pass takes four times as long in bfloat16 as the formula
    kernel_is_slow = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    # the kernel makes a square triangle itself: no mask to build, and the hidden half is skipped
    use_causal_kernel = causal and mask is None and T == N and not need_weights
    use_causal_kernel = use_causal_kernel and not kernel_is_slow
    if causal and T > 1 and not use_causal_kernel:
        triangle = causal_mask(T, N, query.device)
        mask = triangle if mask is None else mask & triangle
    if need_weights or kernel_is_slow:
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))  # (…, T, N)
        weights = masked_softmax(scores, mask)
        output = F.dropout(weights, dropout) @ value  # (…, T, E)
        return (output, weights) if need_weights else output
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, None, dropout, use_causal_kernel)
    # a softmax over nothing is NaN: let a fully masked query see everything, then erase its output
    fully_masked = ~mask.any(-1, keepdim=True)  # (…, T, 1)
    mask = mask | fully_masked
    output = F.scaled_dot_product_attention(query, key, value, mask, dropout)  # (…, T, E)
    return output.masked_fill(fully_masked, 0.0)


class AdditiveAttention(nn.Module):
    """Attention whose score is a small network (Bahdanau et al. 2015) instead of a dot product:

        scoreₙ = vᵀ tanh(W query + U memoryₙ);  context = Σₙ softmax(score)ₙ memoryₙ

    With `gate`, as in Show, Attend and Tell (Xu et al. 2015, section 4.2.1), the query also decides
    how much the picture matters: context · sigmoid(wᵀ query + b). Query and memory may differ in
    width.
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
        scores = self.score(hidden.tanh()).squeeze(-1)  # (B, T, N)
        weights = masked_softmax(scores, mask)
        context = weights @ memory  # (B, T, D)
        if self.gate is not None:
            context = context * self.gate(query).sigmoid()
        return context, weights


def doubly_stochastic_penalty(weights: Tensor, word_mask: Tensor, memory_mask: Tensor) -> Tensor:
    """Σₙ (1 - Σₜ weightsₜₙ)², averaged over the batch.

    It is 0 if each position receives a total weight of 1 over the caption's words.
    weights (B, T, N); word_mask (B, T) and memory_mask (B, N) bool, False for padding.
    Multiply it by a factor and add it to the loss.
    Source: Show, Attend and Tell (Xu et al. 2015), section 4.2.1.
    """
    total = (weights * word_mask.unsqueeze(-1)).sum(1)  # (B, N)
    return ((1 - total).square() * memory_mask).sum(1).mean()


class MultiHeadAttention(nn.Module):
    """H attentions in parallel, each in its own D/H of the D dimensions; Wₒ mixes their outputs:

        headₕ = attention(x Wᵩₕ, memory Wₖₕ, memory Wᵥₕ);  output = [head₁; …; head_H] Wₒ

    Self-attention without a memory, cross-attention with one. Parameters are named as in
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
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        # the rows: D for the queries, D for the keys, D for the values
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
        """x (B, T, D), memory (B, N, D) -> output (B, T, D), with `need_weights` also weights
        (B, H, T, N).

        mask: bool, (T, N), (B, T, N), (B, 1, N), or one mask per head, (B, H, T, N).
        """
        if memory is None:
            q, k, v = self.project(x)  # each (B, H, T, D/H)
        else:
            q = self.queries(x)  # (B, H, T, D/H)
            k, v = self.keys_values(memory)  # each (B, H, N, D/H)
        output, weights = self.attend(q, k, v, mask, causal, need_weights)
        return (output, weights) if need_weights else output

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> its queries, keys and values, each (B, H, T, D/H), in one product."""
        B, T, D = x.shape
        q, k, v = self.in_proj(x, slice(0, 3 * D)).chunk(3, dim=-1)  # each (B, T, D)
        q = q.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, T, D/H)
        k = k.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, T, D/H)
        v = v.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, T, D/H)
        return q, k, v

    def queries(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> its queries, (B, H, T, D/H)."""
        B, T, D = x.shape
        q = self.in_proj(x, slice(0, D))  # (B, T, D)
        return q.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, T, D/H)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory (B, N, D) -> its keys and values, each (B, H, N, D/H)."""
        B, N, D = memory.shape
        k, v = self.in_proj(memory, slice(D, 3 * D)).chunk(2, dim=-1)  # each (B, N, D)
        k = k.view(B, N, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, N, D/H)
        v = v.view(B, N, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, N, D/H)
        return k, v

    def in_proj(self, x: Tensor, rows: slice) -> Tensor:
        """Project x (…, D) with these rows of the joint matrix.

        `finetuning.LoRAAttention` overrides this to add its low-rank change.
        """
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """q (B, H, T, D/H), k and v (B, H, N, D/H) -> output (B, T, D), and weights (B, H, T, N)
        with `need_weights`, else None.
        """
        if mask is not None and mask.dim() < 4:
            mask = mask.unsqueeze(-3)  # the same for all heads
        dropout = self.dropout if self.training else 0.0
        output = scaled_dot_product_attention(q, k, v, mask, need_weights, causal, dropout)
        weights = None
        if need_weights:
            output, weights = output  # (B, H, T, D/H), (B, H, T, N)
        output = output.transpose(1, 2).flatten(2)  # (B, T, D)
        return self.out_proj(output), weights
