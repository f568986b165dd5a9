"""What a task has to say. `commands.py` makes train, evaluate and the verbs from it."""

import argparse
from pathlib import Path

from ..data.dataset import DataSet
from ..finetuning import load_run
from ..text import Vocabulary
from ..training import Trainer

Facts = dict  # what a checkpoint remembers of its task: "task", "data", "layout", and the task's own options


class Task:
    """Data by layout, default settings, a measure, and the verb that uses a trained run.

    name       of `train --task`
    layouts    the names of the forms in which its data come; the first is the default
    options    those of `train` that only this task has, kept in the facts: {"--source": {argparse's arguments}}
    verb       the command that uses a run, with one line that says what it does in `verb_help`
    """

    name = ""
    layouts: tuple[str, ...] = ("folder",)
    options: dict[str, dict] = {}
    verb = ""
    verb_help = ""

    def read(self, facts: Facts, split: str, image_size: int) -> DataSet:
        """The examples of a split."""
        raise NotImplementedError

    def vocabularies(self, facts: Facts, training: DataSet, known: dict | None) -> dict:
        """What turns words into numbers, for "target" and for each modality that is text; `known` are those of the run
        that the training starts from."""
        sentences = [words for references in training.references for words in references]
        # A word that occurs in one text only cannot be learned; but in few texts, most words occur only once.
        target = Vocabulary.build(sentences, min_freq=2 if len(sentences) > 1000 else 1)
        if known:  # what the model could say, it still can
            new = [word for word in target.state() if word not in known["target"].index]
            target = Vocabulary([*known["target"].state(), *new])
        return {"target": target}

    def model(self, facts: Facts, chosen: dict, base: dict | None) -> dict:
        """The settings of a `ModelConfig`, without sizes of vocabularies. `chosen` holds what was given on the command line
        of "decoder", "fusion", "image_size" and "backbone"; `base` is the config of the run that the training starts from."""
        raise NotImplementedError

    def settings(self, facts: Facts) -> dict:
        """Those of `TrainConfig` that differ from its defaults."""
        return {}

    def prepare(self, trainer: Trainer, facts: Facts) -> None:
        """A last step before training, if there is one."""

    def held_out(self, facts: Facts) -> str:
        """The split with which a run is measured."""
        return "validation"

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        """Print how good a run is, and keep in its folder what it wrote."""
        raise NotImplementedError

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        """What to try after training."""
        return f"Try\n  python -m mmscratch {self.verb} --run {run}"

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        """The arguments of the verb."""
        parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the folder of a trained model")

    def use(self, args: argparse.Namespace) -> int | None:
        """Run the verb; returns the exit code."""
        raise NotImplementedError

    def load(self, run: Path) -> tuple:
        """`load_run`, for a run of this task. Raises FileNotFoundError or ValueError in one line."""
        model, vocabularies, saved = load(run)
        task = saved["facts"]["task"]
        if task != self.name:
            raise ValueError(f"{run} is a run of the task {task}, and {self.verb} needs one of the task {self.name}")
        return model, vocabularies, saved


def load(run: Path) -> tuple:
    """`load_run`, with a word on what to do where there is none."""
    if not (run / "best.pt").exists():
        first = "python -m mmscratch quickstart" if run == Path("runs/quickstart") else "python -m mmscratch train"
        raise FileNotFoundError(f"{run} holds no trained model: run {first} first, or name another run")
    return load_run(run)


def add_beams(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that write sentences."""
    parser.add_argument("--beams", type=int, default=1, metavar="N", help="beam width (default: 1, greedy search)")
