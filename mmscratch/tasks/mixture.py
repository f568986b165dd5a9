"""The mixture: one model for many tasks, each asked for by an instruction."""

import argparse
from pathlib import Path

from ..data.dataset import DataSet
from ..data.judge import judge
from ..data.mixture import Mixture
from ..data.scenes import Scene, first_of_split, render
from ..mixture import deal_tasks, mixing_rates
from ..text import detokenize
from ..training import Trainer
from . import chat
from .parts import OPTIONS, PARTS, count_by_example, mean_loss, modalities_of, parts_of
from .scores import mean_percentage
from .spoken import LISTENER
from .task import Metadata, Task, Verdict, build_vocabulary, decoder_settings, image_settings

VALIDATION_EXAMPLES = 50  # of each part
TEST_EXAMPLES = 300
NEW_EXAMPLES = 1000  # to train on, of a part that is not in the mixture


class MixtureOfTasks(Task):
    name = "mixture"
    example_noun = "examples"
    layouts = ("mixture",)
    freezes = tuple(f"encoders.image.backbone.{part}" for part in ("conv1", "bn1", "layer1"))
    options = OPTIONS
    verb = "chat"
    verb_help = "Talk about a picture or a sound with a model that has learned several tasks."
    default_run = Path("runs/mixture")

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        names = parts_of(metadata)
        count = VALIDATION_EXAMPLES if split == "validation" else TEST_EXAMPLES
        order = names * count
        if split == "train":
            sizes = [PARTS[name].size or NEW_EXAMPLES for name in names]
            rates = mixing_rates(sizes, metadata["temperature"])
            block = metadata.get("block", 1)  # this and "wordings" are set by measurements only
            dealt = deal_tasks(rates, metadata["examples"] or sum(sizes), block)
            order = [names[number] for number in dealt]
        parts = {name: PARTS[name].read(split, order.count(name), image_size) for name in names}
        return Mixture(parts, order, metadata.get("wordings", "seen"))

    def vocabularies(self, metadata: Metadata, training: DataSet, known: dict | None) -> dict:
        """The same words for instructions and outputs, in all languages."""
        outputs = [words for references in training.references for words in references]
        sentences = training.columns["source"] + outputs
        words = build_vocabulary(sentences, known and known["target"])
        return {"target": words, "source": words}

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        if base:
            return base
        modalities = modalities_of(metadata)
        film = "source,sound" if "sound" in modalities else "source"
        encoders = {
            "image": image_settings({"name": "resnet", "depth": (1, 5)}, chosen, film=film),
            "sound": LISTENER,
            "row": {"name": "table", "num_layers": 1},
            "source": {"name": "lstm", "hidden_size": 128},
        }
        encoders = {name: encoders[name] for name in encoders if name in modalities}
        decoder = decoder_settings(chosen)
        return {"encoders": encoders, "decoder": decoder, "joint_vocabulary": True}

    def settings(self, metadata: Metadata) -> dict:
        settings = {"batch_size": 64, "learning_rate": 1.5e-3, "evaluate_every": 500}
        return settings | {"bucket_batches": None, "shuffle": False}

    def prepare(self, trainer: Trainer, metadata: Metadata) -> None:
        if metadata["count-by"] == "example":
            count_by_example(trainer)

    def evaluation_split(self, metadata: Metadata) -> str:
        return "test"

    def record(self, training: Mixture) -> Metadata:
        return chat.remember(training)

    def measure(self, run: Path, data: Mixture, split: str, num_beams: int = 1) -> None:
        model, vocabularies, _ = self.load(run)
        print(f"  {'':22} {'loss':>6}  {'right':24}  with new wordings of the instruction")
        for name, part in data.parts.items():
            order = [name] * len(part)
            scores = []
            for wordings in ("seen", "unseen"):
                examples = Mixture({name: part}, order, wordings)
                scores.append(PARTS[name].score(model, vocabularies, examples, part))
            loss = mean_loss(model, vocabularies, Mixture({name: part}, order))
            right, other = map(mean_percentage, scores)
            print(f"  {name:22} {loss:6.3f}  {right:24}  {other}", flush=True)

    def verdict(self, data: Mixture, index: int, words: list[str]) -> Verdict:
        part = data.part_of[index]
        right = words in data.references[index]
        if part.startswith("captions"):
            scene = data.parts[part].scenes[data.origin[index]]
            right = judge(detokenize(words), scene, part.removeprefix("captions-")).true
        return Verdict(right, group=part)

    def advice(self, run: Path, data: Mixture, split: str) -> str:
        picture = str(run / "picture.png")
        render(Scene(first_of_split(split)), 256).save(picture)
        return self.command(run, "--image", picture, "describe the picture in german")

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        chat.add_options(parser)
        super().add_verb_options(parser)

    def use(self, args: argparse.Namespace) -> None:
        """Print what the model says to each line, and the part that it took the line for."""
        chat.chat(args, *self.load(args.run))
