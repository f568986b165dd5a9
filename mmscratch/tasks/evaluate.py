"""evaluate: one command for every task; and reports on data and models."""

import argparse
import contextlib
import io
import sys
from pathlib import Path

from ..data.dataset import DataSet
from ..finetuning import trainable_parts
from ..text import printable
from .report import task_of, write_report
from .scores import INTERVALS, SCORES
from .task import DRAWN, Metadata, Task, image_size_of, load


def evaluate(args: argparse.Namespace) -> None:
    """Measure a run on held-out examples of its own data, or on other data."""
    _, _, checkpoint = load(args.run)
    task = task_of(args.run, checkpoint)
    metadata = checkpoint["metadata"]
    if args.data or args.layout:
        folder = args.data or Path(metadata["data"])
        metadata = metadata | data_metadata(task, folder, args.layout)
    split = args.split or task.evaluation_split(metadata)
    image_size = image_size_of(checkpoint["model_config"]["encoders"])
    data = task.read(metadata, split, image_size)
    print_data(data, split, args.run)
    if len(data) == 0:
        raise ValueError(f"no examples in the split {split}")
    measure(task, args.run, data, split, args.beams)
    print(write_report(task, args.run, data, split))


def measure(task: Task, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
    """Print how good a run is, and keep what is printed in its folder, for the report."""
    print_heading(task, run, data, split)
    kept = Copy(sys.stdout)
    with contextlib.redirect_stdout(kept):
        task.measure(run, data, split, num_beams)
    path = run / SCORES.format(split)
    path.write_text(kept.getvalue(), encoding="utf-8", errors="backslashreplace")


class Copy(io.StringIO):
    """Keeps what is written to it, and writes it to another stream as well."""

    def __init__(self, stream):
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        return super().write(text)

    def flush(self) -> None:
        self.stream.flush()


def print_heading(task: Task, run: Path, data: DataSet, split: str) -> None:
    """Print what the following numbers are about."""
    print(f"\n{run}, {len(data):,} {task.example_noun} of the {split} split; {INTERVALS}")


def data_metadata(task: Task, folder: Path, layout: str | None) -> Metadata:
    """The data's folder and layout: the requested layout, or else a guess by the folder's name."""
    if layout is None:
        name = str(folder)
        is_drawn = name in DRAWN and name in task.layouts and not folder.is_dir()
        layout = name if is_drawn else task.layouts[0]
    if layout not in task.layouts:
        known = ", ".join(task.layouts)
        raise ValueError(f"{task.name} has no layout {layout}: choose one of {known}")
    return {"data": layout if layout in DRAWN else str(folder.resolve()), "layout": layout}


def print_parts(model) -> None:
    """Print the parts of a model, with the percentage of their parameters that is trained."""
    parts = trainable_parts(model)
    total = sum(count for _, count, _ in parts)
    total_trained = sum(trained for _, _, trained in parts)
    parts.append(("all", total, total_trained))
    width = max(len(part) for part, _, _ in parts)
    print(f"{'part':{width}}  parameters   trained")
    for part, count, trained in parts:
        print(f"{part:{width}}  {count:10,}  {100 * trained / count:6.1f} %")


def print_data(data: DataSet, split: str, folder: Path | None) -> None:
    """Print what was read and what was skipped, and write the latter to the folder."""
    texts = sum(len(references) for references in data.references)
    columns = ", ".join(f"{data.count(modality):,} with {modality}" for modality in data.columns)
    examples = f"{len(data):,} examples with {texts:,} texts ({columns})"
    if data.shard_sizes:
        examples = f"{len(data):,} examples in {len(data.shard_sizes):,} shards"
    print(f"{split}: {examples}; {len(data.problems)} problems", flush=True)
    if data.problems and folder:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"problems-{split}.txt"
        text = "\n".join(data.problems) + "\n"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        for problem in data.problems[:5]:
            print(f"  skipped: {printable(problem)}")
        if len(data.problems) > 5:
            print(f"  and {len(data.problems) - 5} more, all in {path}")
