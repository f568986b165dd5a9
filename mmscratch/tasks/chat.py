"""Talking with a model of several tasks: what it took a line for, and what it says."""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batches import collate, numericalize, to_device
from ..data.mixture import Mixture
from ..data.sounds import read_sound
from ..decoding import generate
from ..text import detokenize, printable, tokenize
from .inputs import input_lines, open_picture
from .scores import print_unknown
from .task import Metadata, max_length_of

REMEMBERED = 40  # examples of each part, with which a line is compared


def remember(data: Mixture) -> Metadata:
    """Some instructions of each part and its inputs, which a run records for `guess_part`."""
    parts = {}
    for name, source in zip(data.part_of, data.columns["source"]):
        sources = parts.setdefault(name, [])
        if len(sources) < REMEMBERED:
            sources.append(" ".join(source))
    inputs = {name: sorted(data.parts[name].columns.keys() - {"source"}) for name in parts}
    return {"remembered": parts, "inputs": inputs}


def guess_part(model, vocabularies: dict, metadata: Metadata, example: dict) -> str:
    """The part that an example looks like to the model.

    It is the part of the remembered instruction whose mean vector, in the model's memory, has the
    largest cosine with the example's; of the parts with the same inputs, if there are any.
    """
    inputs = sorted(example.keys() - {"source"})
    parts = [name for name, theirs in metadata["inputs"].items() if theirs == inputs]
    sources = []
    names = []
    for name in parts or metadata["remembered"]:
        sources += [source.split() for source in metadata["remembered"][name]]
        names += [name] * len(metadata["remembered"][name])
    vectors = _read(model, vocabularies, [example["source"], *sources])  # (1 + n, D)
    return names[(vectors[1:] @ vectors[0]).argmax().item()]


@torch.no_grad()
def _read(model, vocabularies: dict, sources: list[list[str]]) -> Tensor:
    """The mean vector of each sentence in the memory, with length 1: (n, D)."""
    examples = [numericalize({"source": source}, vocabularies) for source in sources]
    batch = to_device(collate(examples), next(model.parameters()).device)
    return F.normalize(model.encoders["source"](batch["source"]).mean(), dim=1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    text = "what to say; default: each line of the standard input"
    parser.add_argument("lines", nargs="*", metavar="LINE", help=text)
    text = "a picture to talk about"
    parser.add_argument("--image", type=Path, metavar="PICTURE", help=text)
    text = "a WAV file to listen to"
    parser.add_argument("--sound", type=Path, metavar="SOUND", help=text)


def chat(args: argparse.Namespace, model, vocabularies: dict, checkpoint: dict) -> None:
    """Answer each line, with the part that the model took it for."""
    given = {}
    if args.image:
        given["image"] = open_picture(args.image, checkpoint)
    if args.sound:
        if "sound" not in model.encoders:
            raise ValueError(f"{args.sound}: this model was trained without sounds: leave it out")
        given["sound"] = read_sound(args.sound)
    length = max_length_of(checkpoint)
    for line in args.lines or input_lines():
        words = tokenize(line)
        if not words:
            continue
        print_unknown(words, vocabularies["source"])
        example = given | {"source": words}
        part = guess_part(model, vocabularies, checkpoint["metadata"], example)
        (output,) = generate(model, vocabularies, [example], args.beams, length)
        print(printable(f"[{part}] {detokenize(output)}"), flush=True)
