"""train: the same command for every task."""

import argparse
import copy
import re
from pathlib import Path

from ..batches import Examples
from ..engine import distributed
from ..finetuning import vocabularies_from
from ..model import ModelConfig
from ..plots import learning_curves
from ..training import TrainConfig, Trainer
from . import TASKS
from .evaluate import data_metadata, print_heading, print_parts, report
from .task import Metadata, Task, image_size_of, load

LONGEST = (
    64  # words and <eos> that a Transformer has positions for, or more where the data are longer
)
LEAST = {
    "image_size": 1,
    "epochs": 1,
    "batch_size": 1,
    "accumulation_steps": 1,
    "learning_rate": 1e-9,
    "workers": 0,
    "lora": 0,
}
STEPS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "accumulation_steps",
    "seed",
    "workers",
    "lora",
    "precision",
    "compile",
)


def train(args: argparse.Namespace) -> None:
    """Train a run of a task, or resume it, measure it, and say what to try with it."""
    advice = train_run(args)
    if advice:
        print(f"\n{advice}")


def train_run(args: argparse.Namespace) -> str | None:
    """Train and measure. -> what to try with the run, in rank 0; None in other processes."""
    for name, least in LEAST.items():
        if getattr(args, name) is not None and not getattr(args, name) >= least:
            raise ValueError(
                f"--{name.replace('_', '-')} must be at least {least}, not {getattr(args, name)}"
            )
    distributed.start()
    task = TASKS[args.task]
    metadata = metadata_of(task, args)
    folder = args.run or Path("runs", Path(metadata["data"]).name)
    trainer = _make_trainer(task, metadata, args, folder)
    trainer.fit(args.profile)
    distributed.finish()
    if trainer.rank > 0:
        return None
    learning_curves(folder / "metrics.jsonl").savefig(folder / "learning_curves.png")
    split = task.evaluation_split(metadata)
    data = trainer.validation.data
    if split != "validation":
        data = task.read(metadata, split, image_size_of(trainer.model_config.encoders))
    print_heading(task, folder, data, split)
    task.measure(folder, data, split)
    return task.advice(folder, data, split)


def _make_trainer(
    task: Task, metadata: Metadata, args: argparse.Namespace, folder: Path
) -> Trainer:
    """Data, vocabularies, model and settings, as the task and the command line have them."""
    base = load_base(task, args) if args.start_from and not is_published(args.start_from) else None
    settings = task.model(metadata, model_options(args), base and base["model_config"])
    with distributed.main_process_first():  # the others find the pictures decoded
        data = {
            split: task.read(metadata, split, image_size_of(settings["encoders"]))
            for split in ("train", "validation")
        }
    for split in data:
        report(data[split], split, folder if distributed.rank() == 0 else None)
    vocabularies = task.vocabularies(
        metadata, data["train"], base and vocabularies_from(base["vocabularies"])
    )
    is_drawn = metadata["layout"] == "scenes"  # then no picture is shown twice
    examples = (
        Examples(data["train"], vocabularies, not is_drawn, args.seed),
        Examples(data["validation"], vocabularies),
    )
    config = task.settings(metadata)
    frozen = tuple(args.freeze) + (() if base else config.pop("freeze", ()))
    if "image" in settings["encoders"] and not data["train"].count("image"):
        frozen += ("encoders.image",)  # without pictures there is nothing to learn for it
    config |= {"learning_rate": 1e-2} if args.lora else {}
    config |= {name: getattr(args, name) for name in STEPS if getattr(args, name) is not None}
    config |= {"start_from": str(args.start_from or ""), "freeze": frozen}
    trainer = Trainer(
        sized(settings, vocabularies, examples), TrainConfig(**config), examples, folder, metadata
    )
    if not base:
        task.prepare(trainer, metadata)
    if trainer.rank == 0 and (trainer.frozen or args.start_from):
        print_parts(trainer.model)
    return trainer


def metadata_of(task: Task, args: argparse.Namespace) -> Metadata:
    """What the checkpoint is to remember of the task and its data."""
    if args.data is None and args.layout != "scenes":
        raise ValueError("train needs --data DIR, the folder with what to learn from")
    metadata = {"task": task.name, **data_metadata(task, args.data or Path("scenes"), args.layout)}
    for option in task.options:
        value = getattr(args, option.removeprefix("--").replace("-", "_"))
        metadata[option.removeprefix("--")] = (
            str(value.resolve()) if isinstance(value, Path) else value
        )
    return metadata


def model_options(args: argparse.Namespace) -> dict:
    """What was said of the model on the command line: a published backbone, a decoder, a fusion, a size of pictures."""
    chosen = {
        name: getattr(args, name)
        for name in ("decoder", "fusion", "image_size")
        if getattr(args, name) is not None
    }
    if is_published(args.start_from):
        backbone, depth = re.fullmatch(r"([a-z]+)(\d+)(?:_bn)?", str(args.start_from)).groups()
        chosen["backbone"] = {"name": backbone, "depth": int(depth)} | (
            {"width": 64} if backbone == "resnet" else {}
        )
    return chosen


def is_published(start_from: Path | None) -> bool:
    """Is it the name of a CNN of torchvision's that can begin a captioner, and no run?"""
    return re.fullmatch(r"resnet\d+|vgg\d+_bn", str(start_from)) is not None


def load_base(task: Task, args: argparse.Namespace) -> dict:
    """The checkpoint of the run that a training starts from, if it is of the same task and sizes."""
    _, _, saved = load(args.start_from)
    config = saved["model_config"]
    there = {
        "task": saved["metadata"]["task"],
        "decoder": config["decoder"]["name"],
        "fusion": config["decoder"].get("fusion", "cross_attention"),
        "image_size": image_size_of(config["encoders"]),
    }
    for name, value in {"task": task.name, **model_options(args)}.items():
        if there[name] != value:
            option = name.replace("_", "-")
            raise ValueError(
                f"--{option} is {there[name]} in {args.start_from}, and cannot become {value}"
            )
    return saved


def sized(settings: dict, vocabularies: dict, examples: tuple[Examples, Examples]) -> ModelConfig:
    """The settings of a model with the sizes that its data decide: of vocabularies, and of Transformers the longest text."""
    settings = copy.deepcopy(settings) | {"vocab_size": len(vocabularies["target"])}
    for modality, words in vocabularies.items():
        if modality in settings["encoders"]:
            settings["encoders"][modality]["vocab_size"] = len(words)
    for part in (*settings["encoders"].values(), settings["decoder"]):
        if part["name"] == "transformer":
            part["max_length"] = max(
                part.get("max_length", LONGEST), *examples[0].lengths, *examples[1].lengths
            )
    return ModelConfig(**settings)
