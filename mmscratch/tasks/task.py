"""What a task has to say: `train`, `evaluate` and the verbs are made from it."""

import argparse
import shlex
from pathlib import Path

from torch import Tensor

from ..data.dataset import DataSet
from ..finetuning import load_run
from ..images import open_image, to_tensor
from ..text import Vocabulary
from ..training import Trainer

Metadata = dict  # what a checkpoint remembers of its task: "task", "data", "layout", and the task's own options


class Task:
    """Data by layout, default settings, a measure, and the verb that uses a trained run.

    name       of `train --task`
    example_noun  what its examples are called in messages: "pictures"
    layouts    the names of the forms in which its data come; the first is the default
    options    those of `train` that only this task has, kept in the facts: {"--source": {argparse's arguments}}
    verb       the command that uses a run, with one line that says what it does in `verb_help`
    """

    name = ""
    example_noun = "examples"
    layouts: tuple[str, ...] = ("folder",)
    options: dict[str, dict] = {}
    verb = ""
    verb_help = ""
    default_run = Path("runs/quickstart")  # that the verb uses

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        """The examples of a split."""
        raise NotImplementedError

    def vocabularies(self, metadata: Metadata, training: DataSet, known: dict | None) -> dict:
        """What turns words into numbers, for "target" and for each modality that is text; `known` are those of the run
        that the training starts from."""
        sentences = [words for references in training.references for words in references]
        # A word that occurs in one text only cannot be learned; but in few texts, most words occur only once.
        target = Vocabulary.build(sentences, min_freq=2 if len(sentences) > 1000 else 1)
        if known:  # what the model could say, it still can
            new = [word for word in target.state() if word not in known["target"].index]
            target = Vocabulary([*known["target"].state(), *new])
        return {"target": target}

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        """The settings of a `ModelConfig`, without sizes of vocabularies. `chosen` holds what was given on the command line
        of "decoder", "fusion", "image_size" and "backbone"; `base` is the config of the run that the training starts from."""
        raise NotImplementedError

    def settings(self, metadata: Metadata) -> dict:
        """Those of `TrainConfig` that differ from its defaults."""
        return {}

    def prepare(self, trainer: Trainer, metadata: Metadata) -> None:
        """A last step before training, if there is one."""

    def evaluation_split(self, metadata: Metadata) -> str:
        """The split with which a run is measured."""
        return "validation"

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        """Print how good a run is, and keep in its folder what it wrote."""
        raise NotImplementedError

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        """What to try after training."""
        return self.command("", run)

    def command(self, argument: str, run: Path) -> str:
        """How to call the verb."""
        words = [
            "python",
            "-m",
            "mmscratch",
            self.verb,
            *([argument] if argument else []),
            "--run",
            str(run),
        ]
        return f"Then try\n  {shlex.join(words)}"

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        """The arguments of the verb: those of a task of its own, and these."""
        parser.add_argument(
            "--run", type=Path, default=self.default_run, metavar="DIR", help="default: %(default)s"
        )
        add_beams(parser)

    def use(self, args: argparse.Namespace) -> int | None:
        """Run the verb; returns the exit code."""
        raise NotImplementedError

    def load(self, run: Path) -> tuple:
        """`load_run`, for a run of this task. Raises FileNotFoundError or ValueError in one line."""
        model, vocabularies, saved = load(run)
        task = saved["metadata"]["task"]
        if task != self.name:
            raise ValueError(
                f"{run} is a run of the task {task}, and {self.verb} needs one of the task {self.name}"
            )
        return model, vocabularies, saved


def load(run: Path) -> tuple:
    """`load_run`, with a word on what to do where there is none."""
    if not (run / "best.pt").exists():
        first = (
            "python -m mmscratch quickstart"
            if run == Path("runs/quickstart")
            else "python -m mmscratch train"
        )
        raise FileNotFoundError(
            f"{run} holds no trained model: run {first} first, or name another run"
        )
    return load_run(run)


def image_size_of(encoders: dict[str, dict]) -> int:
    """The size of the pictures that a model sees, by its config; 0 where it sees none."""
    return encoders["image"]["image_size"] if "image" in encoders else 0


def max_length_of(saved: dict) -> int:
    """How many words the model of a checkpoint can write; an LSTM, which has no limit, 64."""
    return saved["model_config"]["decoder"].get("max_length", 64)


def open_picture(path: Path, saved: dict) -> Tensor:
    """A picture file as the model of a checkpoint sees it, (3, S, S) uint8. Raises ValueError where it cannot be read."""
    return to_tensor(open_image(path), image_size_of(saved["model_config"]["encoders"]))


def add_beams(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that write sentences."""
    parser.add_argument(
        "--beams", type=int, default=1, metavar="N", help="beam width (default: 1, greedy search)"
    )
