"""train: one command for every task."""

import argparse
import copy
import re
import shlex
from functools import partial
from pathlib import Path

from ..batches import Examples
from ..data.dataset import DataSet
from ..decoding import generate
from ..engine import distributed
from ..features import VIEWS, FeatureCache
from ..finetuning import vocabularies_from
from ..model import ModelConfig
from ..plots import learning_curves
from ..streaming import StreamedExamples
from ..text import detokenize, printable
from ..training import TrainConfig, Trainer
from ..weights import gpt2_settings, gpt2_vocabulary, load_torchvision
from . import TASKS
from .evaluate import data_metadata, measure, print_data, print_parts
from .task import DRAWN, Metadata, Task, image_size_of, load

MAX_LENGTH = 64  # words and <eos> that a Transformer has positions for; more if the data are longer
WATCHED = 2  # validation examples about which the model writes at each validation
MINIMUM = {
    "image_size": 1,
    "epochs": 1,
    "batch_size": 1,
    "accumulation_steps": 1,
    "learning_rate": 1e-9,
    "workers": 0,
    "lora": 0,
    "adapters": 0,
    "prompt": 0,
}
SMALL_CHANGES = (  # options that take a size, and what they do
    ("--lora", "RANK", "freeze the model and train low-rank changes of the decoder's weights"),
    ("--adapters", "SIZE", "or adapters in the decoder"),
    ("--prompt", "LENGTH", "or learned positions before the memory"),
)
TRAIN_OPTIONS = (  # options of the command line that override a setting of TrainConfig
    "epochs",
    "batch_size",
    "learning_rate",
    "accumulation_steps",
    "seed",
    "workers",
    "lora",
    "adapters",
    "prompt",
    "biases",
    "precision",
    "compile",
)


def train(args: argparse.Namespace) -> None:
    """Train a run of a task, or resume it, measure it, and say what to try with it."""
    advice = train_run(args)
    if advice:
        print(f"\n{advice}")


def train_run(args: argparse.Namespace) -> str | None:
    """Train and measure a run. Returns what to try with it; None in processes other than rank 0."""
    for name, minimum in MINIMUM.items():
        value = getattr(args, name)
        if value is not None and not value >= minimum:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} must be at least {minimum}, not {value}")
    distributed.start()
    task = TASKS[args.task]
    metadata = metadata_of(task, args)
    folder = args.run or _default_folder(task, metadata)
    trainer = _make_trainer(task, metadata, args, folder)
    if trainer.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["python", "-m", "mmscratch", *args.arguments])
        (folder / "command.txt").write_text(command, encoding="utf-8", errors="backslashreplace")
    trainer.fit(args.profile)
    distributed.finish()
    if trainer.rank > 0:
        return None
    report_skipped(trainer.train.data)
    learning_curves(folder / "metrics.jsonl").savefig(folder / "learning_curves.png")
    split = task.evaluation_split(metadata)
    data = trainer.validation.data
    if split != "validation":
        data = task.read(metadata, split, image_size_of(trainer.model_config.encoders))
    measure(task, folder, data, split)
    return task.advice(folder, data, split)


def _default_folder(task: Task, metadata: Metadata) -> Path:
    """runs/TASK or, if sentences are spoken, runs/TASK-spoken; of a user's data, runs/NAME."""
    if metadata["layout"] not in DRAWN:
        return Path("runs", Path(metadata["data"]).name)
    return Path("runs", f"{task.name}-spoken" if metadata.get("spoken") else task.name)


def _make_trainer(
    task: Task, metadata: Metadata, args: argparse.Namespace, folder: Path
) -> Trainer:
    """Put together data, vocabularies, model and settings, by the task and the command line."""
    base = None
    if args.start_from and not is_published(args.start_from):
        base = load_base(task, args)
    check_weights(args)
    continues = base is not None and is_alike(base["metadata"], metadata)
    known = vocabularies_from(base["vocabularies"]) if continues else None
    settings = model_settings(task, metadata, model_options(args), base)
    if args.decoder_from:
        use_gpt2(settings, args, base)
    data = {}
    with distributed.main_process_first():  # the others find the pictures decoded
        for split in ("train", "validation"):
            data[split] = task.read(metadata, split, image_size_of(settings["encoders"]))
    for split in data:
        print_data(data[split], split, folder if distributed.rank() == 0 else None)
        if data[split].shard_sizes:
            folder.mkdir(parents=True, exist_ok=True)
            data[split].log = folder / "skipped.txt"
    vocabularies = task.vocabularies(metadata, data["train"], known)
    if args.decoder_from:
        vocabularies["target"] = gpt2_vocabulary(args.decoder_from)
    metadata |= task.record(data["train"])
    examples = make_examples(task, metadata, data, vocabularies, args.seed)
    config = _train_config(task, metadata, args)
    lent = {} if base is None or continues else base["model_config"]["encoders"]
    if lent.get("image", {}).get("name") == "resnet":
        config["freeze"] += task.freezes
    if "image" in settings["encoders"] and not data["train"].count("image"):
        config["freeze"] += ("encoders.image",)  # nothing to learn without pictures
    model_config = sized(settings, vocabularies, examples)
    if args.decoder_from and model_config.decoder["max_length"] > settings["decoder"]["max_length"]:
        positions = settings["decoder"]["max_length"]
        raise ValueError(f"{args.decoder_from} has {positions} positions: too few for the texts")
    trainer = Trainer(model_config, TrainConfig(**config), examples, folder, metadata)
    keep_features(trainer, metadata)
    task.prepare(trainer, metadata)
    if model_config.decoder:
        trainer.watch = partial(watch, trainer)
    if trainer.rank == 0 and (trainer.frozen or args.start_from):
        print_parts(trainer.model)
    return trainer


def model_settings(task: Task, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
    """The model's settings: those of the task, unless others are chosen on the command line.

    base  the checkpoint of the run to start from. Of the same task, its model goes on; of another,
          the image encoder does, and the width, so that the encoders fit that both have.
    """
    if base is None:
        return task.model(metadata, chosen, None)
    if is_alike(base["metadata"], metadata):
        return task.model(metadata, chosen, base["model_config"])
    theirs = base["model_config"]["encoders"]
    if "image" in theirs:
        chosen = chosen | {"image": theirs["image"]}
    settings = task.model(metadata, chosen, None)
    if theirs.keys() & settings["encoders"]:
        settings["embed_dim"] = base["model_config"]["embed_dim"]
    return settings


def _train_config(task: Task, metadata: Metadata, args: argparse.Namespace) -> dict:
    """The task's settings of `TrainConfig`, overridden by those of the command line."""
    config = dict(task.settings(metadata))
    if args.start_from and not is_published(args.start_from):
        config.pop("freeze", None)  # a task freezes parts of a new model only
    if args.lora or args.adapters or args.prompt or args.biases:
        config["learning_rate"] = 1e-2
    for name in TRAIN_OPTIONS:
        if getattr(args, name) is not None:
            config[name] = getattr(args, name)
    config["start_from"] = ",".join(map(str, bases_of(args)))
    config["weights"] = str(args.weights.resolve()) if args.weights else ""
    config["decoder_from"] = str(args.decoder_from.resolve()) if args.decoder_from else ""
    config["freeze"] = tuple(args.freeze) + config.get("freeze", ())
    return config


def metadata_of(task: Task, args: argparse.Namespace) -> Metadata:
    """What the checkpoint records about the task and its data."""
    drawn = args.layout or task.layouts[0]
    if args.data is None and drawn not in DRAWN:
        raise ValueError("train needs --data DIR, the folder with the training data")
    metadata = {"task": task.name}
    metadata |= data_metadata(task, args.data or Path(drawn), args.layout)
    for option, settings in task.options.items():
        name = option.removeprefix("--")
        value = getattr(args, name.replace("-", "_"))
        if value is None:
            value = settings.get("default")
        metadata[name] = str(value.resolve()) if isinstance(value, Path) else value
    return metadata


def model_options(args: argparse.Namespace) -> dict:
    """The model's options on the command line: decoder, fusion, image size, published backbone."""
    chosen = {}
    for name in ("decoder", "fusion", "image_size"):
        if getattr(args, name) is not None:
            chosen[name] = getattr(args, name)
    if is_published(args.start_from):
        chosen["backbone"] = published_backbone(args.start_from)
    return chosen


def is_alike(theirs: Metadata, ours: Metadata) -> bool:
    """Whether two runs are of the same task, and both hear their sentences or both read them."""
    return theirs["task"] == ours["task"] and theirs.get("spoken") == ours.get("spoken")


def is_published(start_from: str | None) -> bool:
    """Whether this names a CNN of torchvision rather than a run."""
    return re.fullmatch(r"resnet\d+|vgg\d+_bn|mobilenet_v2", str(start_from)) is not None


def published_backbone(name: str) -> dict:
    """The settings of an encoder with this CNN of torchvision as its backbone."""
    if name == "mobilenet_v2":
        return {"name": "mobilenet"}
    kind, depth = re.fullmatch(r"([a-z]+)(\d+)(?:_bn)?", name).groups()
    settings = {"name": kind, "depth": int(depth)}
    return settings | {"width": 64} if kind == "resnet" else settings


def check_weights(args: argparse.Namespace) -> None:
    """Raise an error in one line if the file of published weights cannot be used."""
    if args.weights and not is_published(args.start_from):
        raise ValueError("--weights needs the CNN that they are of, such as --from mobilenet_v2")
    if args.weights:
        load_torchvision(args.start_from, args.weights)


def use_gpt2(settings: dict, args: argparse.Namespace, base: dict | None) -> None:
    """Put the GPT-2 in a folder in the place of the decoder; what the encoders make is its prefix."""
    if base is not None or args.decoder or args.fusion:
        raise ValueError(
            "--decoder-from takes the place of --decoder, --fusion and a run in --from"
        )
    if not settings["decoder"] or settings.get("joint_vocabulary"):
        raise ValueError("--decoder-from is for tasks whose decoder has a vocabulary of its own")
    settings["decoder"], settings["embed_dim"] = gpt2_settings(args.decoder_from)


def bases_of(args: argparse.Namespace) -> list[Path]:
    """The runs to start from, or the CNN of torchvision."""
    return [Path(base) for base in args.start_from.split(",")] if args.start_from else []


def load_base(task: Task, args: argparse.Namespace) -> dict:
    """The checkpoint of the first run to start from. Raises ValueError if its model differs.

    From a run of another task, the decoder is taken only if it is the same, so it may differ. The
    other runs are read too: whatever is wrong with them is said before the data is read.
    """
    first, *others = bases_of(args)
    for base in others:
        load(base)
    _, _, checkpoint = load(first)
    config = checkpoint["model_config"]
    theirs = {}
    if "image" in config["encoders"]:
        theirs["image_size"] = image_size_of(config["encoders"])
    if checkpoint["metadata"]["task"] == task.name and config["decoder"]:
        theirs["decoder"] = config["decoder"]["name"]
        theirs["fusion"] = config["decoder"].get("fusion", "cross_attention")
    for name, value in model_options(args).items():
        if name in theirs and theirs[name] != value:
            option = f"--{name.replace('_', '-')}"
            found = f"is {theirs[name]} in {first}"
            raise ValueError(f"{option} {found}, and cannot become {value}")
    return checkpoint


def make_examples(
    task: Task, metadata: Metadata, data: dict[str, DataSet], vocabularies: dict, seed: int = 0
) -> tuple[Examples, Examples]:
    """The examples to train on and to validate with; no drawn one is shown twice."""
    augments = task.augments and metadata["layout"] not in DRAWN
    at_once = task.references_at_once(metadata)
    if data["train"].shard_sizes:
        training = StreamedExamples(data["train"], vocabularies, augments, seed)
    else:
        training = Examples(data["train"], vocabularies, augments, seed, at_once)
    return training, Examples(data["validation"], vocabularies, references_at_once=at_once)


def watch(trainer: Trainer) -> dict[str, str]:
    """What the model writes now about the first validation examples: {name: text}."""
    data = trainer.validation.data
    indices = range(min(WATCHED, len(data)))
    vocabularies = trainer.train.vocabularies
    written = generate(trainer.model, vocabularies, [data[i] for i in indices])
    names = [printable(Path(data.name(i)).name) for i in indices]
    return {name: printable(detokenize(words)) for name, words in zip(names, written)}


def keep_features(trainer: Trainer, metadata: Metadata) -> None:
    """Compute the features of photographs once, if the image encoder's backbone stays frozen."""
    encoder = trainer.model.encoders["image"] if "image" in trainer.model.encoders else None
    if encoder is None or encoder.film or metadata["layout"] in (*DRAWN, "shards"):
        return
    if not trainer.train.data.count("image"):
        return
    changes = trainer.config.gradual_unfreezing > 0
    if changes or any(weights.requires_grad for weights in encoder.backbone.parameters()):
        return
    for examples in (trainer.train, trainer.validation):
        views = VIEWS if examples.augmented else 1
        pictures = examples.data.columns.get("image", [None] * len(examples.data))
        with distributed.main_process_first():  # the others find them computed
            examples.features = FeatureCache(encoder.backbone, pictures, views, trainer.precision)
    if trainer.rank == 0:
        count = f"{len(trainer.train.features):,} pictures in {trainer.train.features.views} views"
        print(f"encoders.image.backbone is frozen: training reads its features of {count}")


def report_skipped(data: DataSet) -> None:
    """Say how many examples of a stream could not be read."""
    if data.shard_sizes and data.log.exists():
        count = len(set(data.log.read_text(encoding="utf-8").splitlines()))
        print(f"{count:,} examples could not be read: see {data.log}")


def sized(settings: dict, vocabularies: dict, examples: tuple[Examples, Examples]) -> ModelConfig:
    """Add the sizes that the data determine: the vocabularies', and a Transformer's longest text."""
    settings = copy.deepcopy(settings) | {"vocab_size": len(vocabularies["target"])}
    for modality, words in vocabularies.items():
        if modality in settings["encoders"]:
            settings["encoders"][modality]["vocab_size"] = len(words)
    if "row" in settings["encoders"] and examples[0].data.schema:
        settings["encoders"]["row"]["num_categories"] = examples[0].data.schema.num_categories()
    longest = max([0, *examples[0].lengths, *examples[1].lengths])
    for part in (*settings["encoders"].values(), settings["decoder"]):
        if part.get("name") == "transformer":
            part["max_length"] = max(part.get("max_length", MAX_LENGTH), longest)
    return ModelConfig(**settings)
