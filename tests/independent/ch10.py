"""Chapter 10 written by others: see tests/test_proofs.py."""

# %% 10 BytePairEncoding.learn
from collections import Counter


def _join(ids, pair, new):
    result = []
    position = 0
    while position < len(ids):
        if tuple(ids[position : position + 2]) == tuple(pair):
            result.append(new)
            position += 2
        else:
            result.append(ids[position])
            position += 1
    return result


def frequent_characters(words):
    occurrences = Counter()
    for word, count in words.items():
        for character in word:
            occurrences[character] += count
    good = []
    for character, count in occurrences.items():
        if count >= 2 and character.isprintable() and character != WORD_START:
            good.append(character)
    return sorted(good)


class BytePairEncoding:
    @classmethod
    def learn(cls, sentences, merges=8000):
        words = Counter()
        for sentence in sentences:
            words.update(sentence)
        encoding = cls("".join(frequent_characters(words)))
        spelled = [[encoding._spell(word), count] for word, count in words.items()]
        impossible = set()
        while len(encoding.merges) < merges:
            pairs = Counter()
            for pieces, count in spelled:
                for pair in zip(pieces, pieces[1:]):
                    pairs[pair] += count
            candidates = [
                (-count, pair)
                for pair, count in pairs.items()
                if count >= 2 and pair not in impossible
            ]
            if len(candidates) == 0:
                return encoding
            best = min(candidates)[1]
            if not encoding._add(best):
                impossible.add(best)
                continue
            new_piece = encoding.merges[best]
            for entry in spelled:
                entry[0] = _join(entry[0], best, new_piece)
        return encoding


# %% 10 BytePairEncoding.encode
def bytes_of(character):
    return [FIRST_BYTE + number for number in character.encode(errors="surrogatepass")]


class BytePairEncoding:
    def _spell(self, token):
        numbers = [self.index[WORD_START]]
        for character in token:
            known = character != WORD_START and character in self.index
            numbers.extend([self.index[character]] if known else bytes_of(character))
        return numbers

    def _merge_all(self, pieces):
        # A merge that was learned later has a larger new number.
        while len(pieces) > 1:
            best = None
            for i in range(len(pieces) - 1):
                new = self.merges.get((pieces[i], pieces[i + 1]))
                if new is not None and (best is None or new < best):
                    best, pair = new, (pieces[i], pieces[i + 1])
            if best is None:
                break
            pieces = _join(pieces, pair, best)
        return pieces

    def encode(self, tokens):
        if type(tokens) is str:
            raise TypeError("a list of tokens is needed, not a string")
        return [number for token in tokens for number in self._merge_all(self._spell(token))]


# %% 10 BytePairEncoding.decode
from __future__ import annotations


def _read_utf8(text):
    for errors in ("strict", "surrogatepass", "replace"):
        try:
            return text.decode("utf-8", errors)
        except UnicodeDecodeError:
            pass


class BytePairEncoding:
    def decode(self, ids: list[int]) -> list[str]:
        encoded: list[bytearray] = []
        for number in map(int, ids):
            if number == EOS:
                return [_read_utf8(bytes(word)) for word in encoded]
            if number == PAD or number == BOS:
                continue
            is_byte = number in range(FIRST_BYTE, FIRST_CHARACTER)
            name = "" if is_byte else self.words[number]
            if not encoded or name[:1] == WORD_START:
                encoded.append(bytearray())
            if is_byte:
                encoded[-1].append(number - FIRST_BYTE)
            elif name[:1] == WORD_START:
                encoded[-1].extend(name[1:].encode("utf-8", errors="surrogatepass"))
            else:
                encoded[-1].extend(name.encode("utf-8", errors="surrogatepass"))
        return [_read_utf8(bytes(word)) for word in encoded]


# %% 10 LSTMEncoder.forward
import math

import torch.nn.functional as F
from torch import nn


class LSTMEncoder(nn.Module):
    def forward(self, tokens):
        is_word = tokens.ne(PAD)
        vectors = math.sqrt(self.embedding.weight.shape[1]) * self.embedding(tokens)
        hidden, _ = self.lstm(self._drop(vectors), lengths=is_word.long().sum(dim=-1))
        hidden = self._drop(hidden)
        projected = F.linear(hidden, self.projection.weight, self.projection.bias)
        return Memory(tokens=projected, mask=is_word)

    def _drop(self, x):
        drop = nn.Dropout(self.dropout)
        drop.train(self.training)
        return drop(x)


# %% 10 EncoderDecoder.forward
import torch
from torch import nn


class EncoderDecoder(nn.Module):
    def forward(self, batch, need_weights=False, teacher_forcing_ratio=1.0):
        memory = self.encode(batch)
        memory, target = repeat_memory(memory, batch["target"])
        read = shift_right(target)
        if teacher_forcing_ratio >= 1:
            return self.decoder(read, memory, need_weights)
        if need_weights:
            raise ValueError("scheduled sampling gives no attention weights")

        for t in range(1, target.shape[1]):
            logits = self.decoder(read[:, :t], memory)  # all words so far, once more
            own = logits[:, -1].max(dim=-1).indices
            chance = torch.full(own.shape, float(teacher_forcing_ratio))
            forced = torch.bernoulli(chance).to(target.device).bool()
            read = read.clone()
            read[~forced, t] = own[~forced]
        return self.decoder(read, memory)
