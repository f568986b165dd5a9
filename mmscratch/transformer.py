"""The Transformer: its block, an encoder of sentences, and a decoder that attends to a memory."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory, MultiHeadAttention, check_fusion, memory_index
from .text import PAD

KeyValueCache = tuple[Tensor, Tensor]  # each (B, H, N, D/H)


class TransformerBlock(nn.Module):
    """Attention, then a small network for each position by itself; each adds its output to x.

        pre-norm (GPT-2, ViT):   x = x + attention(norm(x));  x = x + mlp(norm(x))
        post-norm (BERT):        x = norm(x + attention(x));  x = norm(x + mlp(x))

    where mlp(x) = W₂ gelu(W₁ x).

    cross_attention: between the two, attend to a memory in the same way, with a norm of its own.
    mlp_dim: the width of the small network, W₁ being (mlp_dim, D); 4 D by default.
    approximate: "none" for the exact GELU, "tanh" for GPT-2's approximation.

    Parameters are named as in torch's TransformerEncoderLayer and, with cross-attention,
    TransformerDecoderLayer, so their weights load here.
    Source: Vaswani et al. 2017; GELU: Hendrycks & Gimpel 2016.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        pre_norm: bool = True,
        cross_attention: bool = False,
        mlp_dim: int | None = None,
        approximate: str = "none",
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        mlp_dim = mlp_dim or 4 * embed_dim
        self.pre_norm = pre_norm
        self.dropout = dropout
        self.approximate = approximate
        self.self_attn = MultiHeadAttention(embed_dim, num_heads, dropout)
        self.multihead_attn = None
        if cross_attention:
            self.multihead_attn = MultiHeadAttention(embed_dim, num_heads, dropout)
        self.linear1 = nn.Linear(embed_dim, mlp_dim)
        self.linear2 = nn.Linear(mlp_dim, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim, norm_eps)
        self.norm2 = nn.LayerNorm(embed_dim, norm_eps)
        self.norm3 = nn.LayerNorm(embed_dim, norm_eps) if cross_attention else None

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        past: KeyValueCache | None = None,
        memory: KeyValueCache | None = None,
        memory_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, KeyValueCache, Tensor | None]:
        """x (B, T, D) -> the new x (B, T, D), the keys and values for the next call, the weights.

        mask: over past and x together, broadcast to (B, T, N).
        past: the keys and values of the positions before x.
        memory: the keys and values for cross-attention (`self.multihead_attn.keys_values`).
        need_weights: return weights (B, H, T, N), those of the cross-attention if there is one;
            None otherwise.

        In training, dropout is applied to the output of each branch before it is added.
        """
        cross_attention = self.multihead_attn is not None
        mlp_norm = self.norm3 if cross_attention else self.norm2
        if self.pre_norm:
            y, past, weights = self._self_attention(self.norm1(x), mask, causal, past, need_weights)
            x = x + y
            if cross_attention:
                y, weights = self._cross_attention(self.norm2(x), memory, memory_mask, need_weights)
                x = x + y
            x = x + self._mlp(mlp_norm(x))
        else:
            y, past, weights = self._self_attention(x, mask, causal, past, need_weights)
            x = self.norm1(x + y)
            if cross_attention:
                y, weights = self._cross_attention(x, memory, memory_mask, need_weights)
                x = self.norm2(x + y)
            x = mlp_norm(x + self._mlp(x))
        return x, past, weights

    def _self_attention(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        past: KeyValueCache | None,
        need_weights: bool,
    ) -> tuple[Tensor, KeyValueCache, Tensor | None]:
        """Attention of x to the past and itself, (B, T, D); keys and values of both; weights."""
        q, k, v = self.self_attn.project(x)  # each (B, H, T, D/H)
        if past is not None:
            past_k, past_v = past
            k = torch.cat([past_k, k], dim=2)  # (B, H, N, D/H)
            v = torch.cat([past_v, v], dim=2)  # (B, H, N, D/H)
        y, weights = self.self_attn.attend(q, k, v, mask, causal, need_weights)
        return F.dropout(y, self.dropout, self.training), (k, v), weights

    def _cross_attention(
        self, x: Tensor, memory: KeyValueCache, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of x to the memory, (B, T, D); weights.

        If beams share a memory, they attend to it together, like the words of one sentence.
        """
        k, v = memory  # each (B, H, N, D/H)
        y = x.reshape(len(k), -1, x.size(-1))  # (memories, beams · T, D)
        q = self.multihead_attn.queries(y)
        y, weights = self.multihead_attn.attend(q, k, v, mask, need_weights=need_weights)
        y = y.view_as(x)  # (B, T, D)
        return F.dropout(y, self.dropout, self.training), weights

    def _mlp(self, x: Tensor) -> Tensor:
        """W₂ gelu(W₁ x) for each position by itself, then dropout: (B, T, D) -> (B, T, D)."""
        hidden = F.gelu(self.linear1(x), approximate=self.approximate)  # (B, T, mlp_dim)
        y = self.linear2(hidden)  # (B, T, D)
        return F.dropout(y, self.dropout, self.training)


class Embedding(nn.Module):
    """Word plus position: the sum of a learned vector for each word and one for each position."""

    def __init__(self, vocab_size: int, embed_dim: int, max_length: int):
        super().__init__()
        self.words = nn.Embedding(vocab_size, embed_dim)
        self.positions = nn.Embedding(max_length, embed_dim)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=embed_dim**-0.5)

    def forward(self, tokens: Tensor, offset: int = 0) -> Tensor:
        """tokens (B, T), the first of them at position `offset` -> (B, T, D).

        Raises ValueError for more words than positions.
        """
        end = offset + tokens.size(1)
        max_length = self.positions.num_embeddings
        if end > max_length:
            raise ValueError(f"a text of {end} words is longer than the {max_length} positions")
        return self.words(tokens) + self.positions.weight[offset:end]


class TransformerEncoder(nn.Module):
    """Encode sentences: tokens (B, T), padded with 0 -> Memory (B, T, D).

    Each word attends to all words, but not to padding. With `pre_norm` a last norm follows the
    blocks; without, as in BERT, it comes before them. Dropout comes right before the blocks.
    Source: Devlin et al. 2018; BERT's weights load through `weights.load_folder`.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        num_heads: int,
        num_layers: int,
        max_length: int = 512,
        dropout: float = 0.0,
        pre_norm: bool = True,
        norm_eps: float = 1e-5,
        mlp_dim: int | None = None,
    ):
        super().__init__()
        self.pre_norm = pre_norm
        self.dropout = dropout
        self.embedding = Embedding(vocab_size, embed_dim, max_length)
        options = {
            "dropout": dropout,
            "pre_norm": pre_norm,
            "mlp_dim": mlp_dim,
            "norm_eps": norm_eps,
        }
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self.blocks.append(TransformerBlock(embed_dim, num_heads, **options))
        self.norm = nn.LayerNorm(embed_dim, norm_eps)

    def forward(self, tokens: Tensor) -> Memory:
        mask = tokens != PAD
        x = self.embedding(tokens)  # (B, T, D)
        if not self.pre_norm:
            x = self.norm(x)
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x, _, _ = block(x, mask.unsqueeze(1))
        if self.pre_norm:
            x = self.norm(x)
        return Memory(x, mask)


class TransformerState(NamedTuple):
    """The state of a `TransformerDecoder` within a sentence: its key-value cache.

    past: for each layer, the keys and values of the prefix and of the words so far.
    memory: for each layer, the keys and values for cross-attention; they never change.
    mask: (B, N), the memory's. In a beam search, one memory and mask serve all beams of a picture.
    length: the number of words so far.
    """

    past: list[KeyValueCache | None]
    memory: list[KeyValueCache | None]
    mask: Tensor
    length: int


def _reorder_cache(layers: list[KeyValueCache | None], index: Tensor) -> list[KeyValueCache | None]:
    """The rows `index` (B',) of each layer's keys and values."""
    reordered = []
    for cache in layers:
        if cache is not None:
            k, v = cache
            cache = (k.index_select(0, index), v.index_select(0, index))
        reordered.append(cache)
    return reordered


class TransformerDecoder(nn.Module):
    """Generate a sentence, word by word, about a memory: a GPT that has something to describe.

    fusion: "prefix" puts the memory before the words; its positions attend to one another, and each
        word attends to them and to the words up to itself. A memory without positions makes this a
        language model. With "cross_attention", each block attends to the words, then to the memory.
    max_length: the largest number of words; more raise ValueError.
    mlp_dim: as for the block.

    The embedding is also the output matrix (tied weights). Padding comes after a sentence's words,
    where none of them can attend to it.
    Source: Radford et al. 2019 (GPT-2), whose weights load through `weights.load_folder`.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        num_heads: int,
        num_layers: int,
        max_length: int = 64,
        fusion: str = "cross_attention",
        dropout: float = 0.0,
        mlp_dim: int | None = None,
    ):
        super().__init__()
        check_fusion(fusion)
        self.fusion = fusion
        self.dropout = dropout
        self.embed_dim = embed_dim
        self.embedding = Embedding(vocab_size, embed_dim, max_length)
        options = {
            "dropout": dropout,
            "cross_attention": fusion == "cross_attention",
            "mlp_dim": mlp_dim,
            "approximate": "tanh",  # as in GPT-2
        }
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self.blocks.append(TransformerBlock(embed_dim, num_heads, **options))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self, tokens: Tensor, memory: Memory, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """tokens (B, T), starting with <bos> -> the logits (B, T, V) of the word after each.

        With `need_weights`, also the attention of each word to the N positions of the memory,
        (B, layers, H, T, N).
        """
        logits, _, weights = self._advance(tokens, self.start(memory), need_weights)
        return (logits, weights) if need_weights else logits

    def start(self, memory: Memory) -> TransformerState:
        """The state before the first word: the memory's keys and values, computed once."""
        past = [None] * len(self.blocks)
        cross = [None] * len(self.blocks)
        if self.fusion == "cross_attention":
            cross = [block.multihead_attn.keys_values(memory.tokens) for block in self.blocks]
        elif memory.tokens.size(1) > 0:
            past = []
            x = memory.tokens  # (B, N, D)
            for block in self.blocks[:-1]:
                x, keys_values, _ = block(x, memory.mask.unsqueeze(1))
                past.append(keys_values)
            # words attend to the keys and values of the last block: its output is not needed
            last = self.blocks[-1]
            past.append(last.self_attn.keys_values(last.norm1(x)))
        return TransformerState(past, cross, memory.mask, 0)

    def step(self, token: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """token (B,) -> the logits (B, V) of the next word, and the state after `token`.

        The state before it does not change: a search may continue from it again.
        """
        logits, state, _ = self._advance(token.unsqueeze(1), state)
        return logits.squeeze(1), state

    def reorder(self, state: TransformerState, index: Tensor) -> TransformerState:
        """The states of the sentences `index` (B',), in that order."""
        past = _reorder_cache(state.past, index)
        memory = state.memory
        mask = state.mask
        needed = index
        if self.fusion == "cross_attention":
            first_layer = state.past[0]  # None before the first word
            rows = len(mask) if first_layer is None else len(first_layer[0])
            needed = memory_index(index, rows, len(mask))
        if needed is not None:
            memory = _reorder_cache(memory, needed)
            mask = mask.index_select(0, needed)
        return TransformerState(past, memory, mask, state.length)

    def _advance(
        self, tokens: Tensor, state: TransformerState, need_weights: bool = False
    ) -> tuple[Tensor, TransformerState, Tensor | None]:
        """The next words (B, T) -> their logits (B, T, V), the state after them, and the attention
        weights as in `forward`, or None.
        """
        x = self.embedding(tokens, state.length)  # (B, T, D)
        x = F.dropout(x, self.dropout, self.training)
        length = state.length + tokens.size(1)
        N = state.mask.size(1)
        memory_mask = state.mask.unsqueeze(1)  # (B, 1, N)
        mask = None
        if self.fusion == "prefix" and N > 0:
            mask = F.pad(memory_mask, (0, length), value=True)  # (B, 1, N + length)
        new_past = []
        weights = []
        for block, past, memory in zip(self.blocks, state.past, state.memory):
            x, past, w = block(x, mask, True, past, memory, memory_mask, need_weights)
            new_past.append(past)
            weights.append(w)
        logits = F.linear(self.norm(x), self.embedding.words.weight)  # (B, T, V)
        state = TransformerState(new_past, state.memory, state.mask, length)
        if not need_weights:
            return logits, state, None
        return logits, state, torch.stack(weights, dim=1)[..., :N]  # (B, layers, H, T, N)
