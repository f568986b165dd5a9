"""The interface of a task, from which `train`, `evaluate` and its own command are made."""

import argparse
import shlex
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..data.dataset import DataSet
from ..data.scenes import draw
from ..finetuning import load_run
from ..text import Vocabulary
from ..training import Trainer

DRAWN = ("scenes", "speech", "listings", "mixture")  # layouts whose data a program makes, without a folder
SHOWN_SIZE = 240  # of a scene in figures, in pixels
DECODERS = {
    "lstm": {"name": "lstm", "hidden_size": 256},
    "transformer": {"name": "transformer", "num_heads": 4, "num_layers": 2},
}
Metadata = dict  # what a checkpoint records about its task: "task", "data", "layout", and the task's options


class Verdict(NamedTuple):
    """What a report says about one output of a model."""

    right: bool | None  # None where nobody can tell
    wrong: tuple[str, ...] = ()  # what is wrong with it, in words
    group: str = ""  # the kind of example: "2 objects"


class Task:
    """Data by layout, default settings, a measure, and a command ("verb") that uses a trained run.

    name          its name in `train --task`
    example_noun  the name of its examples in messages: "pictures"
    layouts       the layouts that its data may have; the first is the default
    augments      whether training shows photographs cropped, mirrored and in another light, and
                  plays recordings with stretches blanked
    options       its own options of `train`, kept in the metadata: {"--source": {arguments of argparse}};
                  two tasks may have the same one, each with its own default
    is_open_ended whether people's references are not the only right outputs
    freezes       patterns of the parameters that stay as they were if the picture's encoder is a
                  ResNet from a run of another task
    verb          the command that uses a run
    verb_help     one line that says what the command does
    default_run   the run that the command uses by default
    """

    name = ""
    example_noun = "examples"
    layouts: tuple[str, ...] = ("folder",)
    augments = True
    is_open_ended = False
    options: dict[str, dict] = {}
    freezes: tuple[str, ...] = ()
    verb = ""
    verb_help = ""
    default_run = Path("runs/quickstart")

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        """The examples of a split."""
        raise NotImplementedError

    def vocabularies(self, metadata: Metadata, training: DataSet, known: dict | None) -> dict:
        """The vocabularies of "target" and of each text modality.

        known  the vocabularies of the run that training starts from
        """
        sentences = [words for references in training.references for words in references]
        return {"target": build_vocabulary(sentences, known and known["target"])}

    def references_at_once(self, metadata: Metadata) -> int:
        """How many references of an example a step trains on, which encodes the example once.

        Scenes never end, so that more scenes are worth more than more captions of one.
        """
        return 1 if metadata["layout"] in DRAWN else 5

    def record(self, training: DataSet) -> Metadata:
        """What the checkpoint records about the training examples, if anything."""
        return {}

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        """The settings of a `ModelConfig`, without vocabulary sizes.

        chosen  some of "decoder", "fusion", "image_size" and "backbone" (a published CNN), by the command line; and
                "image", the settings of the encoder that is taken from a run of another task
        base    the config of the run that training starts from, if it is of the same task
        """
        raise NotImplementedError

    def settings(self, metadata: Metadata) -> dict:
        """The settings of `TrainConfig` that differ from its defaults."""
        return {}

    def prepare(self, trainer: Trainer, metadata: Metadata) -> None:
        """Do what remains to be done before training, if anything."""

    def evaluation_split(self, metadata: Metadata) -> str:
        """The split on which a run is measured."""
        return "validation"

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        """Print how good a run is, and write its outputs to its folder."""
        raise NotImplementedError

    def verdict(self, data: DataSet, index: int, words: list[str]) -> Verdict:
        """Whether the output `words` is right for an example: by default, whether it is a reference."""
        right = words in data.references[index]
        is_drawn = hasattr(data, "scenes")
        return Verdict(right or None if self.is_open_ended and not is_drawn else right)

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        """What to try after training."""
        return self.command(run)

    def command(self, run: Path, *arguments: str) -> str:
        """How to call the verb."""
        words = ["python", "-m", "mmscratch", self.verb, *arguments, "--run", str(run)]
        return f"Then try\n  {shlex.join(words)}"

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments: a task's own, and these."""
        self.add_run_option(parser)
        add_beams(parser)

    def add_run_option(self, parser: argparse.ArgumentParser) -> None:
        """Add the option that names the run."""
        text = "default: %(default)s"
        parser.add_argument("--run", type=Path, default=self.default_run, metavar="DIR", help=text)

    def use(self, args: argparse.Namespace) -> int | None:
        """Run the verb; returns the exit code."""
        raise NotImplementedError

    def load(self, run: Path) -> tuple:
        """`load_run` for a run of this task. Raises FileNotFoundError or ValueError in one line."""
        model, vocabularies, checkpoint = load(run)
        task = checkpoint["metadata"]["task"]
        if task != self.name:
            needed = f"{self.verb} needs one of the task {self.name}"
            raise ValueError(f"{run} is a run of the task {task}, and {needed}")
        return model, vocabularies, checkpoint


def build_vocabulary(sentences: list[list[str]], known: Vocabulary | None = None) -> Vocabulary:
    """The words of the sentences, after all words that the model already knows."""
    # A word that occurs in a single text cannot be learned; but in a small data set, most words
    # occur only once.
    vocabulary = Vocabulary.build(sentences, min_freq=2 if len(sentences) > 1000 else 1)
    if sentences and not vocabulary.state():
        raise ValueError(
            f"no word occurs twice in the {len(sentences):,} training texts, so that none can be "
            "learned: more texts are needed, or others"
        )
    if known is None:
        return vocabulary
    new = [word for word in vocabulary.state() if word not in known.index]
    return Vocabulary([*known.state(), *new])


def load(run: Path) -> tuple:
    """`load_run`; if there is no run, the error says what to do."""
    if "+" not in run.name and not (run / "best.pt").exists():
        command = "quickstart" if run == Path("runs/quickstart") else "train"
        first = f"run python -m mmscratch {command} first"
        raise FileNotFoundError(f"{run} holds no trained model: {first}, or name another run")
    loaded = load_run(run)
    metadata = loaded[-1].get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    if not all(isinstance(known.get(name), str) for name in ("task", "layout", "data")):
        raise ValueError(f"{run} does not say of which task and data it is: `train` another run")
    return loaded


def shown_picture(data: DataSet, index: int) -> Tensor:
    """A picture to look at, (3, S, S) uint8: a scene is drawn larger than a model sees it."""
    if hasattr(data, "scenes"):
        return draw(data.scenes[index], SHOWN_SIZE)
    return data[index]["image"]


def decoder_settings(chosen: dict, default: str = "lstm") -> dict:
    """The decoder's settings, unless others are `chosen`: it attends at every word."""
    settings = dict(DECODERS[chosen.get("decoder", default)])
    settings["fusion"] = chosen.get("fusion", "cross_attention")
    return settings


def image_settings(default: dict, chosen: dict, film: str = "") -> dict:
    """The settings of a picture's encoder: the default's, unless others are `chosen`.

    film  the modality that steers it, if it is a ResNet (see `FiLM`). One of our own then has four
          more blocks than that of another task, which are new and steered from their first step;
          they take the place of its Transformer blocks, and cost less.
    """
    is_steered = False
    if "image" in chosen:
        settings = dict(chosen["image"])
        is_steered = settings.pop("film", "") != ""
    else:
        image_size = chosen.get("image_size", 64)
        settings = default | chosen.get("backbone", {}) | {"image_size": image_size}
    if film and settings["name"] == "resnet":
        depth = settings.get("depth", (1, 1))
        if not isinstance(depth, int) and not is_steered:
            settings["depth"] = (*depth[:-1], depth[-1] + 4)
            settings["num_layers"] = 0
        settings["film"] = film
    return settings


def image_size_of(encoders: dict[str, dict]) -> int:
    """The size of a model's pictures, from its config; 0 if it uses none."""
    return encoders["image"]["image_size"] if "image" in encoders else 0


def max_length_of(checkpoint: dict, default: int = 64) -> int:
    """The number of words that the model can generate; the default for an LSTM, without limit."""
    return checkpoint["model_config"]["decoder"].get("max_length", default)


def add_beams(parser: argparse.ArgumentParser) -> None:
    """Add the option of all commands that generate sentences."""
    text = "beam width (default: 1, greedy search)"
    parser.add_argument("--beams", type=int, default=1, metavar="N", help=text)
