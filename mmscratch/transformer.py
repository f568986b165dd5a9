"""The Transformer: its block, an encoder of sentences, and the decoder, which writes while looking at a memory."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory, MultiHeadAttention, check_fusion, owners
from .text import PAD

KeysValues = tuple[Tensor, ...]  # two of (B, H, N, D/H)


class TransformerBlock(nn.Module):
    """Attention, then a small network for each place by itself; each adds to x instead of replacing it.

        pre-norm (GPT-2, ViT):   x = x + attention(norm(x));  x = x + W₂ gelu(W₁ norm(x))
        post-norm (BERT):        x = norm(x + attention(x));  x = norm(x + W₂ gelu(W₁ x))

    With `cross_attention`, attention over a memory stands between the two. Parameters are named as in torch's
    TransformerEncoderLayer and, with cross-attention, TransformerDecoderLayer, so their weights load here.
    Source: Vaswani et al. 2017; GELU: Hendrycks & Gimpel 2016, exact, or by tanh as in GPT-2.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        pre_norm: bool = True,
        cross_attention: bool = False,
        hidden_size: int | None = None,
        approximate: str = "none",
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        hidden_size = hidden_size or 4 * embed_dim
        self.pre_norm, self.dropout, self.approximate = pre_norm, dropout, approximate
        self.self_attn = MultiHeadAttention(embed_dim, num_heads, dropout)
        self.multihead_attn = MultiHeadAttention(embed_dim, num_heads, dropout) if cross_attention else None
        self.linear1, self.linear2 = nn.Linear(embed_dim, hidden_size), nn.Linear(hidden_size, embed_dim)
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim, norm_eps), nn.LayerNorm(embed_dim, norm_eps)
        self.norm3 = nn.LayerNorm(embed_dim, norm_eps) if cross_attention else None

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        past: KeysValues | None = None,
        memory: KeysValues | None = None,
        memory_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, KeysValues, Tensor | None]:
        """x (B, T, D) -> the same, changed; the keys and values that were attended to; the weights if they are needed.

        `past` are the keys and values of what stands before x, `memory` those of what cross-attention looks at (from
        `self.multihead_attn.keys_values`). `mask` speaks of past and x together, broadcast to (B, T, N). The weights
        (B, H, T, N) are those of the cross-attention where there is one.
        """
        query, *seen = self.self_attn.project(self._before(self.norm1, x))  # each (B, H, T, D/H)
        if past is not None:
            seen = [torch.cat(pair, dim=2) for pair in zip(past, seen)]  # (B, H, N, D/H)
        y, weights = self.self_attn.attend(query, *seen, mask, causal, need_weights)
        x = self._after(self.norm1, x + self._drop(y))
        if self.multihead_attn is not None:
            y = self._before(self.norm2, x)
            y = y.reshape(len(memory[0]), -1, y.size(-1))  # beams look at one memory together, as words of a sentence do
            query = self.multihead_attn.queries(y)
            y, weights = self.multihead_attn.attend(query, *memory, memory_mask, need_weights=need_weights)
            x = self._after(self.norm2, x + self._drop(y.view_as(x)))
        norm = self.norm3 or self.norm2
        y = F.gelu(self.linear1(self._before(norm, x)), approximate=self.approximate)  # (B, T, 4D)
        x = self._after(norm, x + self._drop(self.linear2(y)))
        return x, tuple(seen), weights

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def _after(self, norm: nn.Module, x: Tensor) -> Tensor:
        return x if self.pre_norm else norm(x)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Embedding(nn.Module):
    """Words and where they stand: the sum of a learned vector a word and one a position."""

    def __init__(self, vocab_size: int, embed_dim: int, max_length: int):
        super().__init__()
        self.words, self.positions = nn.Embedding(vocab_size, embed_dim), nn.Embedding(max_length, embed_dim)
        for table in (self.words, self.positions):
            nn.init.normal_(table.weight, std=embed_dim**-0.5)

    def forward(self, tokens: Tensor, first: int = 0) -> Tensor:
        """tokens (B, T), the first of them at position `first` -> (B, T, D)."""
        end = first + tokens.size(1)
        if end > self.positions.num_embeddings:
            raise ValueError(f"a text of {end} words is longer than the {self.positions.num_embeddings} positions")
        return self.words(tokens) + self.positions.weight[first:end]


class TransformerEncoder(nn.Module):
    """Reads a sentence: tokens (B, T), padded with 0 -> Memory (B, T, D). Every word sees all others, but no padding.

    With `pre_norm` a last norm follows the blocks; without, as in BERT, it stands before them.
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
        hidden_size: int | None = None,
    ):
        super().__init__()
        self.pre_norm, self.dropout = pre_norm, dropout
        self.embedding = Embedding(vocab_size, embed_dim, max_length)
        block = {"dropout": dropout, "pre_norm": pre_norm, "norm_eps": norm_eps, "hidden_size": hidden_size}
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads, **block) for _ in range(num_layers))
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
    """Where a `TransformerDecoder` is in its sentence: the key-value cache. Each list has an entry a layer."""

    past: list[KeysValues | None]  # of the prefix, if there is one, and the words so far
    memory: list[KeysValues | None]  # of what cross-attention looks at; the same at every step
    mask: Tensor  # (B, N), the memory's; as of the memory, there is one for all beams of a picture
    length: int  # words so far


class TransformerDecoder(nn.Module):
    """Writes a sentence, word by word, while looking at a memory: a GPT that was given something to speak of.

    fusion="prefix": the memory stands before the words. Its places see one another; each word sees them and the words
    up to itself. A memory of no places makes it a language model.
    fusion="cross_attention": each block looks at the memory after it has looked at the words.

    The embedding is also the output (tied). Words that are padding stand behind the others, where none can see them.
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
        hidden_size: int | None = None,
    ):
        super().__init__()
        check_fusion(fusion)
        self.fusion, self.dropout, self.embed_dim = fusion, dropout, embed_dim
        self.embedding = Embedding(vocab_size, embed_dim, max_length)
        block = {"dropout": dropout, "cross_attention": fusion == "cross_attention", "hidden_size": hidden_size}
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, num_heads, approximate="tanh", **block) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, tokens: Tensor, memory: Memory, need_weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """tokens (B, T), beginning with <bos> -> the logits (B, T, V) of the word after each.

        With `need_weights` also where each word looked: (B, layers, H, T, N), its attention to the N places.
        """
        logits, _, weights = self._advance(tokens, self.start(memory), need_weights)
        return (logits, weights) if need_weights else logits

    def start(self, memory: Memory) -> TransformerState:
        """The state before the first word: the memory's keys and values, which are computed once."""
        past = seen = [None] * len(self.blocks)
        if self.fusion == "cross_attention":
            seen = [block.multihead_attn.keys_values(memory.tokens) for block in self.blocks]
        elif memory.tokens.size(1):
            x, past, last = memory.tokens, [], self.blocks[-1]
            for block in self.blocks[:-1]:
                x, prefix, _ = block(x, memory.mask.unsqueeze(1))
                past.append(prefix)
            past.append(last.self_attn.keys_values(last.norm1(x)))  # what it makes of the places, no word sees
        return TransformerState(past, seen, memory.mask, 0)

    def step(self, token: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """token (B,) -> the logits (B, V) of the next word, and the state after it."""
        logits, state, _ = self._advance(token.unsqueeze(1), state)
        return logits.squeeze(1), state

    def reorder(self, state: TransformerState, index: Tensor) -> TransformerState:
        """The states of the sentences `index` (B',), in that order."""

        def pick(layers, index):
            return [pair and tuple(x.index_select(0, index) for x in pair) for pair in layers]

        past, memory, mask = pick(state.past, index), state.memory, state.mask
        rows = len(mask) if past[0] is None else len(state.past[0][0])
        owner = index if self.fusion == "prefix" else owners(index, rows, len(mask))
        if owner is not None:
            memory, mask = pick(memory, owner), mask.index_select(0, owner)
        return TransformerState(past, memory, mask, state.length)

    def _advance(self, tokens: Tensor, state: TransformerState, need_weights: bool = False):
        """The next words (B, T): their logits (B, T, V), the state after them, and where they looked."""
        x = F.dropout(self.embedding(tokens, state.length), self.dropout, self.training)  # (B, T, D)
        length, mask, memory_mask = state.length + tokens.size(1), None, state.mask.unsqueeze(1)  # (B, 1, N)
        if self.fusion == "prefix":
            mask = F.pad(memory_mask, (0, length), value=True)  # (B, 1, N + length)
        past, looked = [], []
        for block, before, memory in zip(self.blocks, state.past, state.memory):
            x, seen, weights = block(x, mask, True, before, memory, memory_mask, need_weights)
            past.append(seen)
            looked.append(weights)
        logits = F.linear(self.norm(x), self.embedding.words.weight)  # (B, T, V)
        if need_weights:
            looked = torch.stack(looked, dim=1)[..., : state.mask.size(1)]  # (B, layers, H, T, N)
        return logits, TransformerState(past, state.memory, state.mask, length), looked
