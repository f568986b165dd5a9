"""The Transformer: its block, an encoder of sentences, a decoder that writes about a memory."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory, MultiHeadAttention, check_fusion, memory_index
from .text import PAD

KeyValueCache = tuple[Tensor, Tensor]  # each (B, H, N, D/H)


class TransformerBlock(nn.Module):
    """Attention, then a small network for each place by itself; each adds to x.

        pre-norm (GPT-2, ViT):   x = x + attention(norm(x));  x = x + W₂ gelu(W₁ norm(x))
        post-norm (BERT):        x = norm(x + attention(x));  x = norm(x + W₂ gelu(W₁ x))

    With `cross_attention`, attention over a memory stands between the two. W₁ is (mlp_dim, D),
    mlp_dim being 4 D if not given. Parameters are named as in torch's TransformerEncoderLayer and,
    with cross-attention, TransformerDecoderLayer, so their weights load here.
    Source: Vaswani et al. 2017; GELU: Hendrycks & Gimpel 2016, exact, or by tanh as in GPT-2.
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
        """x (B, T, D) -> the same, changed; the keys and values that were attended to; the weights
        if they are needed.

        `past` are the keys and values of what stands before x, `memory` those of what
        cross-attention looks at (from `self.multihead_attn.keys_values`). `mask` speaks of past
        and x together, broadcast to (B, T, N). The weights (B, H, T, N) are those of the
        cross-attention where there is one.
        """
        query, keys, values = self.self_attn.project(self._before(self.norm1, x))
        if past is not None:
            keys = torch.cat([past[0], keys], dim=2)  # (B, H, N, D/H)
            values = torch.cat([past[1], values], dim=2)  # (B, H, N, D/H)
        y, weights = self.self_attn.attend(query, keys, values, mask, causal, need_weights)
        x = self._after(self.norm1, x + self._drop(y))

        if self.multihead_attn is not None:
            y = self._before(self.norm2, x)
            # the beams of a picture look at its memory together, as words of one sentence do
            y = y.reshape(len(memory[0]), -1, y.size(-1))
            query = self.multihead_attn.queries(y)
            y, weights = self.multihead_attn.attend(
                query, *memory, memory_mask, need_weights=need_weights
            )
            x = self._after(self.norm2, x + self._drop(y.view_as(x)))

        norm = self.norm3 or self.norm2
        y = self._mlp(self._before(norm, x))
        x = self._after(norm, x + self._drop(y))
        return x, (keys, values), weights

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def _after(self, norm: nn.Module, x: Tensor) -> Tensor:
        return x if self.pre_norm else norm(x)

    def _mlp(self, x: Tensor) -> Tensor:
        """W₂ gelu(W₁ x), for each place by itself."""
        hidden = F.gelu(self.linear1(x), approximate=self.approximate)  # (B, T, mlp_dim)
        return self.linear2(hidden)  # (B, T, D)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Embedding(nn.Module):
    """Words and where they stand: the sum of a learned vector a word and one a position."""

    def __init__(self, vocab_size: int, embed_dim: int, max_length: int):
        super().__init__()
        self.words = nn.Embedding(vocab_size, embed_dim)
        self.positions = nn.Embedding(max_length, embed_dim)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=embed_dim**-0.5)

    def forward(self, tokens: Tensor, first: int = 0) -> Tensor:
        """tokens (B, T), the first of them at position `first` -> (B, T, D)."""
        end = first + tokens.size(1)
        there = self.positions.num_embeddings
        if end > there:
            raise ValueError(f"a text of {end} words is longer than the {there} positions")
        return self.words(tokens) + self.positions.weight[first:end]


class TransformerEncoder(nn.Module):
    """Reads a sentence: tokens (B, T), padded with 0 -> Memory (B, T, D).

    Every word sees all others, but no padding. With `pre_norm` a last norm follows the blocks;
    without, as in BERT, it stands before them.
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
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            block = TransformerBlock(
                embed_dim, num_heads, dropout, pre_norm, mlp_dim=mlp_dim, norm_eps=norm_eps
            )
            self.blocks.append(block)
        self.norm = nn.LayerNorm(embed_dim, norm_eps)

    def forward(self, tokens: Tensor) -> Memory:
        mask = tokens != PAD
        x = self.embedding(tokens)  # (B, T, D)
        if not self.pre_norm:
            x = self.norm(x)
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x, _, _ = block(x, mask.unsqueeze(1))
        return Memory(self.norm(x) if self.pre_norm else x, mask)


class TransformerState(NamedTuple):
    """Where a `TransformerDecoder` is in its sentence: the key-value cache.

    Each list has an entry a layer.
    """

    past: list[KeyValueCache | None]  # of the prefix, if there is one, and the words so far
    memory: list[KeyValueCache | None]  # of what cross-attention looks at; the same at every step
    mask: Tensor  # (B, N), the memory's; as of the memory, there is one for all beams of a picture
    length: int  # words so far


def _pick(layers: list[KeyValueCache | None], index: Tensor) -> list[KeyValueCache | None]:
    """The sentences `index` (B',) of each layer's keys and values."""
    picked = []
    for pair in layers:
        if pair is not None:
            keys, values = pair
            pair = keys.index_select(0, index), values.index_select(0, index)
        picked.append(pair)
    return picked


class TransformerDecoder(nn.Module):
    """Writes a sentence, word by word, while looking at a memory: a GPT with something to speak of.

    fusion="prefix": the memory stands before the words. Its places see one another; each word sees
    them and the words up to itself. A memory of no places makes it a language model.
    fusion="cross_attention": each block looks at the memory after it has looked at the words.

    The embedding is also the output (tied). Words that are padding stand behind the others, where
    none can see them.
    Source: Radford et al. 2019 (GPT-2), whose GELU is the approximation `approximate="tanh"`; its weights load through
    `weights.load_folder`.
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
        approximate: str = "none",
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
            "approximate": approximate,
        }
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self.blocks.append(TransformerBlock(embed_dim, num_heads, **options))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self, tokens: Tensor, memory: Memory, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """tokens (B, T), beginning with <bos> -> the logits (B, T, V) of the word after each.

        With `need_weights` also where each word looked: (B, layers, H, T, N), its attention to the
        N places.
        """
        logits, _, weights = self._advance(tokens, self.start(memory), need_weights)
        return (logits, weights) if need_weights else logits

    def start(self, memory: Memory) -> TransformerState:
        """The state before the first word: the memory's keys and values, computed once."""
        past = [None] * len(self.blocks)
        seen = [None] * len(self.blocks)
        if self.fusion == "cross_attention":
            seen = [block.multihead_attn.keys_values(memory.tokens) for block in self.blocks]
        elif memory.tokens.size(1):
            past = []
            x = memory.tokens  # (B, N, D)
            for block in self.blocks[:-1]:
                x, prefix, _ = block(x, memory.mask.unsqueeze(1))
                past.append(prefix)
            last = self.blocks[-1]  # what it makes of the places, no word sees
            past.append(last.self_attn.keys_values(last.norm1(x)))
        return TransformerState(past, seen, memory.mask, 0)

    def step(self, token: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """token (B,) -> the logits (B, V) of the next word, and the state after it."""
        logits, state, _ = self._advance(token.unsqueeze(1), state)
        return logits.squeeze(1), state

    def reorder(self, state: TransformerState, index: Tensor) -> TransformerState:
        """The states of the sentences `index` (B',), in that order."""

        past = _pick(state.past, index)
        memory = state.memory
        mask = state.mask
        rows = len(mask) if past[0] is None else len(state.past[0][0])
        owner = index if self.fusion == "prefix" else memory_index(index, rows, len(mask))
        if owner is not None:
            memory = _pick(memory, owner)
            mask = mask.index_select(0, owner)
        return TransformerState(past, memory, mask, state.length)

    def _advance(
        self, tokens: Tensor, state: TransformerState, need_weights: bool = False
    ) -> tuple[Tensor, TransformerState, Tensor | list]:
        """The next words (B, T) -> their logits (B, T, V), the state after them, and where they
        looked.
        """
        x = self.embedding(tokens, state.length)  # (B, T, D)
        x = F.dropout(x, self.dropout, self.training)
        length = state.length + tokens.size(1)
        places = state.mask.size(1)
        memory_mask = state.mask.unsqueeze(1)  # (B, 1, N)
        mask = None
        if self.fusion == "prefix" and places:
            mask = F.pad(memory_mask, (0, length), value=True)  # (B, 1, N + length)
        past = []
        looked = []
        for block, before, memory in zip(self.blocks, state.past, state.memory):
            x, seen, weights = block(x, mask, True, before, memory, memory_mask, need_weights)
            past.append(seen)
            looked.append(weights)
        logits = F.linear(self.norm(x), self.embedding.words.weight)  # (B, T, V)
        if need_weights:
            looked = torch.stack(looked, dim=1)[..., :places]  # (B, layers, H, T, N)
        return logits, TransformerState(past, state.memory, state.mask, length), looked
