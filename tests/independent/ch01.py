"""Right solutions of chapter 1's exercises, in other styles than the library's (see test_proofs.py)."""

# %% 1 tokenize
def tokenize(text):
    """Lower-case, compose, then walk through the matches of the pattern."""
    composed = unicodedata.normalize("NFC", text.lower())
    words = []
    position = 0
    while True:
        match = _TOKEN.search(composed, position)
        if match is None:
            return words
        words.append(match.group(0))
        position = match.end()


# %% 1 detokenize
from dataclasses import dataclass, field


@dataclass
class Line:
    """A sentence that grows token by token."""

    pieces: list = field(default_factory=list)

    def last_character(self):
        return self.pieces[-1][-1:] if self.pieces else ""

    def add(self, token):
        if self.pieces and needs_space(self.last_character(), token):
            self.pieces.append(" ")
        self.pieces.append(token)


def needs_space(before, token):
    if _EXTENSION.match(token) is not None:
        return True
    if _NO_SPACE_BEFORE.fullmatch(token) or _NO_SPACE_AFTER.fullmatch(before):
        return False
    return not any(_WIDE.fullmatch(piece) for piece in (before, token))


def detokenize(tokens):
    line = Line()
    for token in tokens:
        line.add(token)
    return "".join(line.pieces)


# %% 1 Vocabulary.build
from __future__ import annotations

from collections import defaultdict


class Vocabulary:
    @classmethod
    def build(cls, sentences: Iterable[Sequence[str]], min_freq: int = 1) -> Vocabulary:
        number: dict[str, int] = defaultdict(int)
        for sentence in sentences:
            for word in sentence:
                number[word] += 1
        for special in SPECIALS:
            number.pop(special, None)
        alphabetical = sorted(number)
        alphabetical.sort(key=number.get, reverse=True)  # sorting is stable
        frequent = list(filter(lambda word: number[word] >= min_freq, alphabetical))
        return cls(frequent)


# %% 1 Vocabulary.encode
class Vocabulary(object):
    def encode(self, tokens):
        if type(tokens) is str:
            raise TypeError("these are characters; first tokenize the string")
        ids = []
        for token in tokens:
            try:
                ids.append(self.index[token])
            except KeyError:
                ids.append(UNK)
        return ids

    def decode(self, ids):
        ids = [int(i) for i in ids]
        if EOS in ids:
            ids = ids[: ids.index(EOS)]
        silent = {PAD, BOS}
        return [self.words[i] for i in ids if i not in silent]


# %% 1 normalize
import numpy as np


def normalize(images):
    channels = []
    for c, (mean, std) in enumerate(zip(MEAN, STD)):
        pixels = images[:, c].float() / 255.0
        channels.append((pixels - mean) / std)
    return torch.stack(channels, dim=1)


# %% 1 collate
import torch.nn.functional as F


def _is_words(x):
    return x.dtype == torch.long and 1 <= x.dim() <= 2


def _pad_first_axis(x, length):
    missing = length - x.shape[0]
    return F.pad(x, [0, 0] * (x.dim() - 1) + [0, missing], value=PAD)


def _add_modality(batch, name, examples):
    values = [e.get(name) for e in examples]
    has = torch.tensor([v is not None for v in values])
    present = [v for v in values if v is not None]
    example = present[0]
    sizes = [len(v) if v.dim() > 0 else 0 for v in present]
    different = len(set(sizes)) > 1

    if _is_words(example) and example.dim() == 2:
        rows = max(v.shape[0] for v in present)
        columns = max(v.shape[1] for v in present)
        shape = (rows, columns)
        present = [F.pad(v, (0, columns - v.shape[1], 0, rows - v.shape[0]), value=PAD) for v in present]
    elif _is_words(example) or different:
        present = [_pad_first_axis(v, max(sizes)) for v in present]
        shape = present[0].shape
    else:
        shape = example.shape

    stacked = torch.zeros((len(examples), *shape), dtype=example.dtype)
    lengths = torch.zeros(len(examples), dtype=torch.long)
    k = 0
    for i, is_there in enumerate(has.tolist()):
        if is_there:
            stacked[i] = present[k]
            lengths[i] = sizes[k]
            k += 1

    if different and not _is_words(example):
        batch[name + "_lengths"] = lengths
    if not bool(has.all()):
        batch["has_" + name] = has
    batch[name] = stacked


def collate(examples):
    names = []
    for e in examples:
        names += [name for name in e if name not in names]
    batch = {}
    for name in names:
        _add_modality(batch, name, examples)
    return batch


# %% 1 BucketSampler.__iter__
from itertools import islice


def pieces(items, size):
    """[1, 2, 3, 4, 5] in pieces of 2: [1, 2], [3, 4], [5]."""
    items = iter(items)
    while piece := list(islice(items, size)):
        yield piece


def shuffled(items, generator):
    return [items[i] for i in torch.randperm(len(items), generator=generator)]


class BucketSampler:
    def __iter__(self):
        rng = torch.Generator()
        rng.manual_seed(seed_of(self.seed, self.epoch))
        indices = list(range(len(self.lengths)))
        if self.shuffle:
            indices = shuffled(indices, rng)
        all_batches = []
        for bucket in pieces(indices, self.bucket_size):
            bucket.sort(key=lambda i: self.lengths[i])
            all_batches.extend(pieces(bucket, self.batch_size))
        if self.shuffle:
            all_batches = shuffled(all_batches, rng)
        for number, batch in enumerate(all_batches):
            if number < self.skip:
                continue
            mine = [i for k, i in enumerate(batch) if k % self.world_size == self.rank]
            if mine:
                yield [(i, self.epoch) for i in mine]
            else:
                yield [(batch[0], None)]
