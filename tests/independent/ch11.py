"""Chapter 11 written by others: see tests/test_proofs.py."""

# %% 11 fuse
from functools import reduce

import torch


def join_two(left, right):
    return Memory(torch.hstack([left[0], right[0]]), torch.hstack([left[1], right[1]]))


def fuse(memories):
    return reduce(join_two, memories)


# %% 11 EncoderDecoder.encode
import torch
import torch.nn.functional as F
from torch import nn


def plus_prompt(memory, prompt):
    B = memory.tokens.size(0)
    prompts = torch.stack([prompt] * B)
    visible = torch.ones(B, prompt.size(0), dtype=torch.bool, device=memory.mask.device)
    return fuse([Memory(prompts, visible), memory])


class EncoderDecoder(nn.Module):
    def encode(self, batch):
        names = []
        for name in self.encoders:
            if name in batch:
                names.append(name)
        if len(names) == 0:
            raise ValueError("the model has no encoder for anything in this batch")

        present = dict()
        for name in names:
            present[name] = batch["has_" + name] if "has_" + name in batch else None
        if self.training and self.modality_dropout > 0 and len(names) >= 2:
            rows = batch[names[0]].shape[0]
            where = batch[names[0]].device
            present = _drop_modality(present, rows, self.modality_dropout, where)

        done = {}

        def memory_of(name):
            if name in done:
                return done[name]
            inputs = inputs_of(batch, name)
            question = None
            for other in self._steering(name):
                if other in names:
                    mean = memory_of(other).mean()
                    question = mean if question is None else question + mean
            if question is not None:
                inputs = inputs + [question]
            memory = _encode_present(self.encoders[name], inputs, present[name])
            if len(self.encoders) >= 2:
                normed = F.layer_norm(memory.tokens, [memory.tokens.size(-1)])
                memory = Memory(normed, memory.mask)
            done[name] = memory
            return memory

        memory = fuse([memory_of(name) for name in names])
        return memory if self.prompt is None else plus_prompt(memory, self.prompt)


# %% 11 _encode_present
from contextlib import contextmanager

import torch


@contextmanager
def in_eval_mode(module):
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def _encode_present(encoder, inputs, present):
    if present is None or bool(present.all()):
        return encoder(*inputs)
    B = present.shape[0]
    if present.sum().item() == 0:
        with in_eval_mode(encoder):
            one = encoder(*(x[0:1] for x in inputs))
        tokens = torch.cat([one.tokens] * B) * 0.0
        return Memory(tokens, torch.cat([torch.zeros_like(one.mask)] * B))

    encoded = encoder(*(x[present] for x in inputs))
    blank_tokens = torch.zeros_like(encoded.tokens[0])
    blank_mask = torch.zeros_like(encoded.mask[0])
    tokens, mask = [], []
    number = 0
    for here in present.tolist():
        tokens.append(encoded.tokens[number] if here else blank_tokens)
        mask.append(encoded.mask[number] if here else blank_mask)
        number += here
    return Memory(torch.stack(tokens), torch.stack(mask))


# %% 11 _drop_modality
import torch


def _drop_modality(present, batch_size, fraction, device):
    names = list(present)
    table = torch.ones(batch_size, len(names), dtype=torch.bool, device=device)
    for column, name in enumerate(names):
        if present[name] is not None:
            table[:, column] = present[name]
    for row in range(batch_size):
        candidates = torch.nonzero(table[row]).flatten().tolist()
        if len(candidates) > 1 and torch.rand(()).item() < fraction:
            chosen = candidates[torch.randint(len(candidates), ()).item()]
            table[row, chosen] = False
    return {name: table[:, column] for column, name in enumerate(names)}


# %% 11 mask_colours
import re

GERMAN_ENDINGS = ("", "e", "er", "es", "en", "em")


def is_colour(word, language):
    if language == "en":
        return word in COLOURS
    for colour in COLOURS.values():
        if word in [colour.german + ending for ending in GERMAN_ENDINGS]:
            return True
    return False


def mask_colours(caption, language="en"):
    if language not in LANGUAGES:
        raise ValueError(f"unknown language {language}")
    if language == "zh":
        for colour in COLOURS.values():
            caption = caption.replace(colour.chinese, MASKED)
        return caption
    pieces = re.split(r"(\W+)", caption)
    return _without_an("".join(MASKED if is_colour(one, language) else one for one in pieces))


def _without_an(masked):
    words = masked.split(" ")
    for i in range(len(words) - 1):
        if words[i] == "an" and words[i + 1].startswith(MASKED):
            words[i] = "a"
    return " ".join(words)


# %% 11 mask_noun
def is_part_of_word(caption, position):
    """Whether a letter, a digit or a _ stands there."""
    if not 0 <= position < len(caption):
        return False
    return caption[position].isalnum() or caption[position] == "_"


def noun_at(caption, start, nouns, language):
    """The length of the longest noun that starts there, or 0."""
    longest = 0
    for noun in nouns:
        end = start + len(noun)
        if caption[start:end].lower() != noun or len(noun) <= longest:
            continue
        whole = not (is_part_of_word(caption, start - 1) or is_part_of_word(caption, end))
        if whole or language == "zh":
            longest = len(noun)
    return longest


def mask_noun(caption, which=0, language="en"):
    _check_language(language)
    nouns = set(_lexicon(language).nouns)
    spans = []
    position = 0
    while position < len(caption):
        length = noun_at(caption, position, nouns, language)
        if length:
            spans.append((position, position + length))
        position += max(length, 1)
    if not spans:
        return caption
    start, end = spans[which % len(spans)]
    return _without_an("".join([caption[:start], MASKED, caption[end:]]))


# %% 11 colour_of
from typing import Optional


def all_forms(language: str) -> dict:
    forms = {}
    for name, colour in COLOURS.items():
        if language == "en":
            forms[name] = name
        elif language == "zh":
            forms[colour.chinese[:1]] = name
        else:
            for ending in ["", "e", "en", "em", "er", "es"]:
                forms[colour.german + ending] = name
    return forms


def colour_of(token: str, language: str = "en") -> Optional[str]:
    return all_forms(language).get(token)


# %% 11 aligned_accuracy
def aligned_accuracy(hypotheses, references, meaning):
    if len(hypotheses) != len(references):
        raise ValueError("as many references as hypotheses are needed")
    right = []
    for hypothesis, refs in zip(hypotheses, references):
        said = list(filter(None, map(meaning, hypothesis)))
        wanted = list(filter(None, map(meaning, refs[0])))
        for n, name in enumerate(wanted):
            right.append(n < len(said) and said[n] == name)
    return right
