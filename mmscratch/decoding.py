"""Writing: from a model's probabilities to a sentence. It knows of a decoder only start and step."""

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import Memory
from .text import BOS, EOS, PAD, UNK, Vocabulary


class Hypothesis(NamedTuple):
    """A sentence that was written: its word numbers without <eos>, and the log-probability of it all."""

    tokens: list[int]
    log_prob: float


@torch.no_grad()
def greedy_search(decoder: nn.Module, memory: Memory, max_length: int = 40) -> list[Hypothesis]:
    """The most probable next word, again and again, until <eos> or `max_length` words; one sentence a memory.

    <pad>, <bos> and <unk> are never written. All sentences of the batch go on side by side until the last has ended.
    Put the model into eval mode first.
    """
    if max_length < 1:
        raise ValueError(f"max_length is 1 or more words, not {max_length}")
    state = decoder.start(memory)
    token = torch.full((memory.tokens.size(0),), BOS, device=memory.tokens.device)
    ended = torch.zeros_like(token, dtype=torch.bool)
    log_prob = torch.zeros(token.shape, device=token.device)
    written = []
    for _ in range(max_length):
        logits, state = decoder.step(token, state)  # (B, V)
        logits = logits.float().log_softmax(-1)
        logits[:, [PAD, BOS, UNK]] = -torch.inf
        best, token = logits.max(-1)  # (B,)
        log_prob += best.masked_fill(ended, 0.0)
        token = token.masked_fill(ended, EOS)
        ended |= token == EOS
        written.append(token)
        if ended.all():
            break
    rows = torch.stack(written, dim=1).tolist()  # (B, T)
    return [
        Hypothesis(row[: row.index(EOS)] if EOS in row else row, total) for row, total in zip(rows, log_prob.tolist())
    ]


@torch.no_grad()
def write(decoder: nn.Module, vocabulary: Vocabulary, memories: Iterable[Memory], max_length: int = 40) -> list[list[str]]:
    """A sentence, as tokens, for each row of each memory: `greedy_search`, one memory after the other.

    `memories` may be a generator: each is then made, without gradients, when its turn comes. Put the model into eval mode
    first.
    """
    return [vocabulary.decode(h.tokens) for memory in memories for h in greedy_search(decoder, memory, max_length)]


def write_captions(
    model: nn.Module, vocabulary: Vocabulary, pictures: Iterable[Tensor], batch_size: int = 100, max_length: int = 40
) -> list[list[str]]:
    """A caption, as tokens, for each picture (3, S, S) uint8. Puts the model into eval mode."""
    device, pictures = next(model.parameters()).device, iter(pictures)

    def memories():
        while batch := list(islice(pictures, batch_size)):
            yield model.encode({"image": torch.stack(batch).to(device)})

    return write(model.eval().decoder, vocabulary, memories(), max_length)


@torch.no_grad()
def attention_maps(model: nn.Module, vocabulary: Vocabulary, picture: Tensor, words: Sequence[str]) -> Tensor:
    """Where the model looks in a picture (3, S, S) for each of T words that it writes: (T, h, w), each summing to 1.

    Of a Transformer, the last layer's attention, the mean over its heads. The grid of places is square.
    """
    model.eval()
    target = torch.tensor([[*vocabulary.encode(words), EOS]])  # (1, T + 1)
    batch = {"image": picture.unsqueeze(0), "target": target}
    device = next(model.parameters()).device
    _, weights = model({name: value.to(device) for name, value in batch.items()}, need_weights=True)
    maps = weights[0, -1].mean(0)[:-1].cpu()  # (T, N)
    maps = maps / maps.sum(-1, keepdim=True)  # a prefix shares the attention with the words
    return maps.unflatten(-1, (math.isqrt(maps.size(-1)), -1))
