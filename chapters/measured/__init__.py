"""Measurements that take minutes to hours: for each, a script and a file of its results."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from mmscratch.engine import distributed
from mmscratch.metrics import bootstrap
from mmscratch.tasks.task import Task, image_size_of
from mmscratch.tasks.train import keep_features, make_examples, sized
from mmscratch.training import TrainConfig, Trainer


def read_rows(path: Path) -> list[dict]:
    """The measurements in a file, one per line; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_row(path: Path, row: dict) -> None:
    """Add a measurement to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def by_name(path: Path) -> dict[str, dict]:
    """The measurements in a file, by name."""
    return {row["name"]: row for row in read_rows(path)}


def percent(scores: list[float]) -> list[float]:
    """The mean of scores from 0 to 1 in %, and the ends of its interval."""
    values = [sum(scores) / len(scores), *bootstrap(scores)]
    return [round(100 * value, 1) for value in values]


def by_kind(scores: Sequence[float], kinds: Sequence[str]) -> dict[str, list[float]]:
    """The scores of each kind of question, in alphabetical order."""
    grouped = {kind: [] for kind in sorted(set(kinds))}
    for score, kind in zip(scores, kinds, strict=True):
        grouped[kind].append(score)
    return grouped


def measure_missing(
    path: Path, names: list[str], known: Iterable[str], measure: Callable[[str], dict]
) -> None:
    """Add to a file the measurements that it lacks, one after the other, in all processes.

    names: those wanted; none means all that are `known`. Others end the program.
    """
    known = list(known)
    for name in names:
        if name not in known:
            sys.exit(f"error: there is no measurement {name!r}; choose among: {'; '.join(known)}")
    distributed.start()
    for name in names or known:
        if name in by_name(path):
            continue
        print(f"\n{name}", flush=True)
        row = {"name": name} | measure(name)
        if distributed.rank() == 0:
            print(row, flush=True)
            add_row(path, row)


def train(
    task: Task, metadata: dict, model: dict, folder: Path, known: dict | None = None, **options
) -> dict:
    """Train a new run of a task in `folder`, as `mmscratch train` does, and return its row.

    model: its settings, as from `task.model`
    known: the vocabularies of the run that it starts from, if it goes on with them
    options: change the task's settings of `TrainConfig`
    """
    with distributed.main_process_first():
        shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    with distributed.main_process_first():  # the others find the pictures decoded
        size = image_size_of(model["encoders"])
        data = {split: task.read(metadata, split, size) for split in ("train", "validation")}
    training = data["train"]
    vocabularies = task.vocabularies(metadata, training, known)
    examples = make_examples(task, metadata, data, vocabularies)
    config = TrainConfig(**task.settings(metadata) | options)
    record = metadata | task.record(training)
    trainer = Trainer(sized(model, vocabularies, examples), config, examples, folder, record)
    keep_features(trainer, metadata)
    task.prepare(trainer, metadata)
    trainer.fit()
    return {
        "seconds": round(time.monotonic() - start),
        "threads": torch.get_num_threads() * distributed.world_size(),
        "examples": len(training),
        "epochs": config.epochs,
    }
