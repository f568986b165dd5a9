"""evaluate: the same command for every task; and what is printed of data and of models."""

import argparse
from pathlib import Path

from ..data.dataset import DataSet
from ..finetuning import trainable_parts
from . import TASKS
from .task import Metadata, Task, image_size_of, load


def evaluate(args: argparse.Namespace) -> None:
    """Measure a run on held-out examples: those of its own data, or of others."""
    _, _, saved = load(args.run)
    metadata = saved["metadata"]
    task = TASKS[metadata["task"]]
    if args.data or args.layout:
        metadata = metadata | data_metadata(task, args.data or Path(metadata["data"]), args.layout)
    split = args.split or task.evaluation_split(metadata)
    data = task.read(metadata, split, image_size_of(saved["model_config"]["encoders"]))
    report(data, split, args.run)
    if len(data) == 0:
        raise ValueError(f"no examples in the split {split}")
    print_heading(task, args.run, data, split)
    task.measure(args.run, data, split, args.beams)


def print_heading(task: Task, run: Path, data: DataSet, split: str) -> None:
    """What the numbers that follow are about."""
    shown = f"{run}, {len(data):,} {task.example_noun} of the {split} split"
    print(f"\n{shown}; in brackets, what 95 % of a thousand resamples give")


def data_metadata(task: Task, data: Path, layout: str | None) -> Metadata:
    """Where the data are, and in which form: as it was asked for, or else by the folder's name."""
    if layout is None:
        drawn = data == Path("scenes") and not data.is_dir()
        layout = "scenes" if drawn and "scenes" in task.layouts else task.layouts[0]
    if layout not in task.layouts:
        raise ValueError(
            f"{task.name} has no layout {layout}: choose one of {', '.join(task.layouts)}"
        )
    return {"data": "scenes" if layout == "scenes" else str(data.resolve()), "layout": layout}


def print_parts(model) -> None:
    """Which parts of a model are trained, and which are frozen."""
    parts = trainable_parts(model)
    parts.append(("all", sum(part[1] for part in parts), sum(part[2] for part in parts)))
    width = max(len(part) for part, _, _ in parts)
    print(f"{'part':{width}}  parameters   trained")
    for part, count, trained in parts:
        print(f"{part:{width}}  {count:10,}  {100 * trained / count:6.1f} %")


def report(data: DataSet, split: str, folder: Path | None) -> None:
    """Say what was read and what was skipped, and keep the latter in the folder."""
    texts = sum(len(references) for references in data.references)
    columns = ", ".join(f"{data.count(modality):,} with {modality}" for modality in data.columns)
    print(
        f"{split}: {len(data):,} examples with {texts:,} texts ({columns}); {len(data.problems)} problems",
        flush=True,
    )
    if data.problems and folder:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"problems-{split}.txt"
        path.write_text("\n".join(data.problems) + "\n", encoding="utf-8")
        print("\n".join(f"  skipped: {problem}" for problem in data.problems[:5]))
        if len(data.problems) > 5:
            print(f"  and {len(data.problems) - 5} more, all in {path}")
