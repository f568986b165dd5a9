"""report: a page about a run, with what it wrote, how sure it was, and where it looked."""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..audio import SAMPLE_RATE, read_wav, resample
from ..batches import collate, numericalize, to_device
from ..data.captions import relevant_pictures
from ..data.dataset import DataSet
from ..data.mixture import Mixture
from ..data.speech import spoken_waveform
from ..decoding import beam_search, generate
from ..engine.page import MAX_BYTES, bytes_of, picture_address, sound_address, write_page
from ..inspection import Word, inspect
from ..metrics import retrieval_ranks
from ..search import similarities
from . import TASKS
from .scores import SCORES
from .task import Metadata, Task, image_size_of, load, max_length_of, shown_picture

EXAMPLES = 300  # on a page, or fewer, so that it has at most MAX_BYTES
SOUND_RATE = 8000  # Hz
SOUNDS = 12  # that can be played; all others are spectrograms only
BEAMS = 3  # of the trees of beam search
BATCH = 50
STATUS = {"dropped": 0, "kept": 1, "finished": 2}


def task_of(run: Path, checkpoint: dict) -> Task:
    """The task of a run. Raises ValueError if this version knows no such task, or no such data."""
    metadata = checkpoint["metadata"]
    if metadata["task"] not in TASKS:
        raise ValueError(f"{run} is a run of an unknown task, {metadata['task']!r:.50}")
    task = TASKS[metadata["task"]]
    if metadata["layout"] not in task.layouts:
        raise ValueError(f"{run} has data of an unknown layout, {metadata['layout']!r:.50}")
    return task


def report(args: argparse.Namespace) -> None:
    """Write the page about a run, on the split on which it is measured."""
    _, _, checkpoint = load(args.run)
    task = task_of(args.run, checkpoint)
    metadata = checkpoint["metadata"]
    split = task.evaluation_split(metadata)
    data = task.read(metadata, split, image_size_of(checkpoint["model_config"]["encoders"]))
    print(write_report(task, args.run, data, split))


def write_report(task: Task, run: Path, data: DataSet, split: str) -> str:
    """Write `report.html` to a run's folder; returns one line that says so."""
    model, vocabularies, checkpoint = load(run)
    metadata = checkpoint["metadata"]
    settings = {name: checkpoint[name] for name in ("metadata", "model_config", "train_config")}
    page = {
        "title": str(run),
        "subtitle": f"{task.name}, split {split}, {len(data):,} {task.example_noun}",
        "scores": read_scores(run / SCORES.format(split)),
        "settings": json.dumps(settings, ensure_ascii=False, indent=1, default=str),
        "command": read_text(run / "command.txt"),
    }
    page |= learning(task, run, metadata, image_size_of(checkpoint["model_config"]["encoders"]))
    make = written_cards if checkpoint["model_config"]["decoder"] else ranking_cards
    left = MAX_BYTES - len(json.dumps(page).encode())
    page["cards"] = []
    for card in make(task, (model, vocabularies, checkpoint), data):
        left -= len(json.dumps(card, ensure_ascii=False, separators=(",", ":")).encode())
        if left < 0:
            break
        page["cards"].append(card)
    path = run / "report.html"
    write_page(path, page)
    return f"{len(page['cards'])} examples, and where the model looked: open {path} in a browser"


def written_cards(task: Task, run: tuple, data: DataSet) -> Iterator[dict]:
    """The cards of a model that writes: its words, what it computed for them, and the verdict."""
    model, vocabularies, checkpoint = run
    count = min(EXAMPLES, len(data))
    for first in range(0, count, BATCH):
        found = {i: inputs_only(model, data[i]) for i in range(first, min(first + BATCH, count))}
        indices = [i for i, example in found.items() if example]  # some may have no input at all
        if not indices:
            continue
        examples = [found[i] for i in indices]
        length = max_length_of(checkpoint)
        written = generate(model, vocabularies, examples, max_length=length)
        trees = search_trees(model, vocabularies, examples, length)
        for i, example, words, tree in zip(indices, examples, written, trees):
            verdict = task.verdict(data, i, words)
            inputs = inputs_of(data, i, example)
            yield {
                "name": data.name(i),
                "inputs": inputs,
                "words": [word_of(word) for word in inspect(model, vocabularies, example, words)],
                "references": data.texts[i],
                "right": verdict.right,
                "wrong": verdict.wrong,
                "group": verdict.group,
                "tree": tree,
            }


def ranking_cards(task: Task, run: tuple, data: DataSet) -> Iterator[dict]:
    """The cards of a model that ranks: a sentence, and the pictures that fit it best."""
    model, vocabularies, _ = run
    scores = similarities(model, vocabularies, data)  # (Q, G)
    relevant = relevant_pictures(data)  # (Q, G)
    ranks = retrieval_ranks(scores, relevant).tolist()
    query = 0  # the first caption of picture i
    for i in range(min(EXAMPLES, len(data))):
        best = scores[query].topk(min(5, len(data))).indices.tolist()
        found = []
        for j in best:
            found.append({"source": picture_of(data, j), "right": bool(relevant[query, j])})
        rank = ranks[query]
        wrong = [] if rank == 1 else ["second to tenth" if rank <= 10 else "below the tenth"]
        sentence = [{"kind": "text", "words": data.texts[i][0].split()}]
        if "sound" in data.columns:
            sentence = inputs_of(data, i, {"sound": data[i]["sound"]})
        yield {
            "name": data.name(i),
            "inputs": sentence,
            "found": found,
            "text": f"rank {rank:,} of {len(data):,}",
            "references": [],
            "right": rank == 1,
            "wrong": wrong,
            "group": "",
        }
        query += len(data.texts[i])


def inputs_only(model, example: dict) -> dict:
    """What the model reads of an example."""
    return {name: example[name] for name in model.encoders if name in example}


def inputs_of(data: DataSet, index: int, example: dict) -> list[dict]:
    """What an example shows, for the page; its "modality" finds the attention to it."""
    shown = []
    for modality, value in example.items():
        if modality == "image":
            shown.append({"kind": "image", "source": picture_of(data, index)})
        elif modality == "source":
            shown.append({"kind": "text", "words": list(value)})
        elif modality == "sound":
            sound = {"kind": "sound", "source": spectrogram_of(value)}
            if index < SOUNDS:
                sound["sound"] = sound_of(data, index)
            shown.append(sound)
        elif modality == "row":
            shown.append({"kind": "row", "cells": cells_of(data, value)})
        else:
            continue  # of a task that has another kind of input
        shown[-1]["modality"] = modality
    return shown


def picture_of(data: DataSet, index: int) -> str:
    """A picture, as an address: a scene drawn larger than the model sees it, or what it sees."""
    if isinstance(data, Mixture):
        return picture_of(data.parts[data.part_of[index]], data.origin[index])
    pixels = shown_picture(data, index).permute(1, 2, 0)  # (S, S, 3) uint8
    return picture_address(Image.fromarray(pixels.contiguous().numpy()))


def spectrogram_of(sound: Tensor) -> str:
    """A spectrogram (F, 80), as the address of a picture: low frequencies at the bottom."""
    low, high = sound.min(), sound.max()
    pixels = (255 * (sound - low) / (high - low).clamp(min=1e-9)).byte()  # (F, 80)
    return picture_address(Image.fromarray(pixels.T.flip(0).contiguous().numpy()))


def sound_of(data: DataSet, index: int) -> str:
    """The sound of an example, as an address; of a person's, from its file."""
    if isinstance(data, Mixture):
        return sound_of(data.parts[data.part_of[index]], data.origin[index])
    if Path(data.name(index)).is_file():
        waveform, sample_rate = read_wav(Path(data.name(index)))
    else:
        waveform, sample_rate = spoken_waveform(data.columns["sound"], index), SAMPLE_RATE
    return sound_address(resample(waveform, sample_rate, SOUND_RATE).numpy(), SOUND_RATE)


def cells_of(data: DataSet, row: Tensor) -> list[tuple[str, str]]:
    """A row (C,) as (column, cell); a missing cell is empty."""
    cells = []
    for column, value in zip(data.schema.columns, row.tolist()):
        if value != value:
            text = ""
        elif column.values:
            text = column.values[int(value) - 1] if value else "other"
        else:
            number = round(value * column.scale + column.mean, 4)
            text = f"{number + 0.0:,.6g}"  # -0.0 + 0.0 is 0.0
        cells.append((column.name, text))
    return cells


def word_of(word: Word) -> dict:
    """A word for the page; "looks" has the attention to each modality as bytes."""
    looks = {}
    for modality, weights in word.attention.items():
        looks[modality] = [bytes_of(weights.numpy()), round(float(weights.sum()), 3)]
    return {
        "text": word.text,
        "p": round(word.probability, 3),
        "other": word.runner_up,
        "q": round(word.runner_up_probability, 3),
        "looks": looks,
    }


@torch.no_grad()
def search_trees(model, vocabularies: dict, examples: Sequence[dict], length: int) -> list[list]:
    """For each example, the tree of a beam search: (parent, word, log-probability, status) each."""
    batch = collate([numericalize(example, vocabularies) for example in examples])
    memory = model.encode(to_device(batch, next(model.parameters()).device))
    trees = []
    beam_search(model.decoder, memory, BEAMS, length, trees=trees)
    names = vocabularies["target"].words
    shown = []
    for tree in trees:
        nodes = []
        for node in tree:
            status = STATUS[node.status]
            log_prob = round(max(node.log_prob, -99.0), 2)  # JSON has no infinity
            nodes.append((node.parent, names[node.token], log_prob, status))
        shown.append(nodes)
    return shown


def learning(task: Task, run: Path, metadata: Metadata, image_size: int) -> dict:
    """The learning curves, and what the model wrote about two examples as it learned."""
    lines = read_text(run / "metrics.jsonl").splitlines()
    entries = [json.loads(line) for line in lines if line.endswith("}")]
    logged = [entry for entry in entries if math.isfinite(entry.get("loss", math.nan))]
    training = [(entry["step"], entry["loss"]) for entry in logged]
    validated = [entry for entry in entries if entry.get("validation_loss") is not None]
    validation = [(entry["step"], entry["validation_loss"]) for entry in validated]
    outputs = [(entry["step"], entry["outputs"]) for entry in validated if "outputs" in entry]
    watched = []
    if outputs:
        data = task.read(metadata, "validation", image_size)
        for i in range(len(outputs[0][1])):
            inputs = inputs_of(data, i, data[i])
            watched.append({"inputs": inputs, "references": data.texts[i][:1]})
    curves = {"training": thinned(training), "validation": validation}
    return {"curves": curves, "outputs": outputs, "watched": watched}


def thinned(points: list, most: int = 300) -> list:
    """At most so many of the points, evenly spaced."""
    return points[:: max(1, len(points) // most)]


def read_text(path: Path) -> str:
    """The text of a file, or "" if there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def read_scores(path: Path) -> list[tuple[str, str]]:
    """What a measurement printed, as (name, value) of each line; a heading has no value."""
    rows = []
    for line in read_text(path).splitlines():
        name, _, value = line.strip().partition("  ")
        if name:
            rows.append((name, value.strip()))
    return rows
