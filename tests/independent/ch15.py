"""Chapter 15 written by others: see tests/test_proofs.py."""

# %% 15 depthwise_conv2d
import torch


def depthwise_conv2d(x, weight, bias=None, stride=1, padding=0):
    B, C, H, W = x.shape
    if weight.shape[0] != C or weight.shape[1] != 1:
        raise ValueError(f"a weight of ({C}, 1, U, V) is needed")
    U, V = weight.shape[2:]
    padded = x.new_zeros(B, C, H + 2 * padding, W + 2 * padding)
    padded[:, :, padding : padding + H, padding : padding + W] = x
    if padded.shape[2] < U or padded.shape[3] < V:
        raise ValueError("the filter is larger than the picture")
    windows = padded.unfold(2, U, stride).unfold(3, V, stride)
    y = torch.einsum("bchwuv,cuv->bchw", windows, weight[:, 0])
    if bias is None:
        return y
    return y + bias.view(1, -1, 1, 1)


# %% 15 InvertedResidual.__init__
from torch import nn


def convolution(inputs, outputs, size, stride=1, groups=1):
    return [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    def __init__(self, in_channels, channels, stride=1, expansion=6):
        super().__init__()
        inside = in_channels * expansion
        steps = []
        if expansion != 1:
            steps += [nn.Sequential(*convolution(in_channels, inside, 1), nn.ReLU6())]
        steps += [nn.Sequential(*convolution(inside, inside, 3, stride, inside), nn.ReLU6())]
        steps += convolution(inside, channels, 1)
        self.conv = nn.Sequential(*steps)

    def forward(self, x):
        y = self.conv(x)
        if y.shape == x.shape:
            y = y + x
        return y


# %% 15 self_critical_loss
def self_critical_loss(log_probs, rewards, baselines):
    loss = 0.0
    for words, reward, baseline in zip(log_probs, rewards.detach(), baselines.detach()):
        loss = loss - (reward - baseline) * words.sum()
    return loss


# %% 15 caption_log_probs
import torch


def caption_log_probs(decoder, memory, captions):
    B, T = captions.shape
    bos = torch.full((B, 1), BOS, dtype=captions.dtype, device=captions.device)
    logits = decoder(torch.hstack([bos, captions[:, :-1]]), memory)
    words = [i for i in range(logits.size(2)) if i not in (PAD, BOS, UNK)]
    normalizer = torch.logsumexp(logits[:, :, words], dim=2)
    columns = []
    for t in range(T):
        chosen = logits[torch.arange(B, device=logits.device), t, captions[:, t]]
        log_prob = chosen - normalizer[:, t]
        columns.append(torch.where(captions[:, t] == PAD, torch.zeros_like(log_prob), log_prob))
    return torch.stack(columns, dim=1)


# %% 15 feature_key
import hashlib


def feature_key(backbone, digests, views, dtype):
    state = hashlib.blake2b(digest_size=10)
    state.update(fingerprint(backbone).encode())
    state.update(f"{views} views, {dtype}, {len(digests)} pictures".encode())
    for digest in digests:
        state.update(f"/{digest}".encode())
    return state.hexdigest()


# %% 15 deal_shards
import random


def deal_shards(num_shards, epoch, seed=0, rank=0, world_size=1):
    if world_size > num_shards:
        raise ValueError("too few shards")
    cards = list(range(num_shards))
    random.Random(f"shards {seed} {epoch}").shuffle(cards)
    hands = [[] for _ in range(world_size)]
    for number, card in enumerate(cards):
        hands[number % world_size].append(card)
    return hands[rank]


# %% 15 ShardSampler.__iter__
import random

from torch.utils.data import Sampler


class ShardSampler(Sampler):
    def _shuffled(self, shards, ends, window):
        examples = []
        start = 0
        for shard, end in zip(shards, ends):
            for place in range(start, end):
                if place // WINDOW == window:
                    examples.append(self.starts[shard] + place - start)
            start = end
        random.Random(f"{self.seed} {self.epoch} {self.rank} {window}").shuffle(examples)
        return examples

    def __iter__(self):
        mine = deal_shards(len(self.sizes), self.epoch, self.seed, self.rank, self.world_size)
        ends = []
        for shard in mine:
            ends.append(self.sizes[shard] + (ends[-1] if ends else 0))
        total = ends[-1]
        share = sum(i % self.world_size == self.rank for i in range(self.batch_size))

        def stream(place):
            """The examples from this place on, again and again."""
            while True:
                place %= total
                window = self._shuffled(mine, ends, place // WINDOW)
                for example in window[place % WINDOW :]:
                    yield example
                    place += 1

        examples = stream(self.skip * share)
        for _ in range(self.skip, len(self)):
            if share == 0:
                yield [(next(examples), None)]
            else:
                yield [(next(examples), self.epoch) for _ in range(share)]


# %% 15 ByteLevelBPE.encode_text
class ByteLevelBPE:
    def _merge(self, symbols):
        symbols = list(symbols)
        while len(symbols) > 1:
            ranked = []
            for pair in zip(symbols[:-1], symbols[1:]):
                if pair in self.ranks:
                    ranked.append((self.ranks[pair], pair))
            if not ranked:
                break
            _, pair = min(ranked)
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == pair:
                    symbols[i : i + 2] = ["".join(pair)]
                i += 1
        return symbols

    def encode_text(self, text):
        alphabet = byte_symbols()
        numbers = []
        for match in _gpt2_pieces().finditer(text):
            raw = match.group().encode("utf-8", errors="replace")
            tokens = self._merge(alphabet[byte] for byte in raw)
            numbers.extend(self.index[token] for token in tokens)
        return numbers
