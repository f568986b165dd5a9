"""Attention: a weighted sum of what is in the memory, weighted by how well each place answers a question."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Memory(NamedTuple):
    """What a decoder may look at: `tokens` (B, N, D), and `mask` (B, N) bool, True = real, False = padding."""

    tokens: Tensor
    mask: Tensor

    def mean(self) -> Tensor:
        """The average of the real places, (B, D)."""
        mask = self.mask.unsqueeze(-1).to(self.tokens.dtype)  # (B, N, 1)
        return (self.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, need_weights: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(Q Kᵀ / √D) V, over the places where `mask` is True.

    query (…, T, D), key (…, N, D), value (…, N, E), mask bool, broadcast to (…, T, N) -> (…, T, E), and the weights
    (…, T, N) as well if `need_weights`. Without the weights, PyTorch's fused kernel computes the same. A query that
    may see nothing gets zeros. Source: Vaswani et al. 2017, section 3.2.1.
    """
    if mask is not None:
        blind = ~mask.any(-1, keepdim=True)  # a softmax over nothing is NaN: let such a query see all, then erase it
        mask = mask | blind
    if need_weights:
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))  # (…, T, N)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = weights.masked_fill(blind, 0.0)
        return weights @ value, weights
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return output if mask is None else output.masked_fill(blind, 0.0)
