"""Data preparation shared by several chapters. Chapter 3 shows it."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmscratch.data.language import caption, captions
from mmscratch.data.scenes import SPLITS, Scene
from mmscratch.decoding import greedy_search
from mmscratch.pretraining import labelled_scenes
from mmscratch.text import EOS, Vocabulary, tokenize


class HeldOut(NamedTuple):
    """Scenes that no model was trained on."""

    images: Tensor  # (N, 3, 64, 64) uint8
    labels: Tensor  # (N, L) bool: which words are true of the scene
    scenes: list[Scene]
    references: list[list[list[str]]]  # five tokenized captions per scene


def held_out_scenes(split: str, count: int) -> HeldOut:
    """The first `count` scenes of the split "validation" or "test"."""
    images, labels = labelled_scenes(split, count)
    scenes = [Scene(SPLITS[split] + i) for i in range(count)]
    references = [[tokenize(c) for c in captions(scene)] for scene in scenes]
    return HeldOut(images, labels, scenes, references)


def training_captions(count: int, per_scene: int = 5) -> tuple[Vocabulary, list]:
    """The vocabulary and the captions of the first `count` training scenes.

    per_scene: 5 for all captions of a scene; 1 for one of them, varying from scene to
    scene. Each scene has a list of captions, each a tensor of token ids (T,) that ends
    in <eos>.
    """
    sentences = []  # for each scene, its tokenized captions
    for i in range(count):
        texts = captions(Scene(i)) if per_scene == 5 else [caption(Scene(i), i % 5)]
        sentences.append([tokenize(text) for text in texts])
    vocabulary = Vocabulary.build(tokens for texts in sentences for tokens in texts)
    targets = []
    for texts in sentences:
        encoded = [[*vocabulary.encode(tokens), EOS] for tokens in texts]
        targets.append([torch.tensor(ids) for ids in encoded])
    return vocabulary, targets


@torch.no_grad()
def describe(encoder, decoder, vocabulary, features: Tensor) -> list[list[str]]:
    """Generate a caption, as tokens, for each image with CNN features (N, C, h, w)."""
    generated = []
    for batch in features.float().split(200):  # (200, C, h, w)
        memory = encoder.encode_features(batch)
        for hypothesis in greedy_search(decoder, memory, max_length=30):
            generated.append(vocabulary.decode(hypothesis.tokens))
    return generated
