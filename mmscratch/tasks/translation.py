"""Translation: a sentence is given, perhaps with a picture of what it speaks of, and its translation is written."""

import argparse
import sys
from functools import partial
from pathlib import Path

from ..data.dataset import DataSet
from ..data.language import colour_of
from ..data.translations import Multi30k, SceneTranslation
from ..decoding import generate
from ..engine import distributed
from ..metrics import aligned_accuracy
from ..pretraining import pretrained_cnn
from ..text import BytePairEncoding, detokenize, tokenize
from ..training import Trainer
from ..weights import load_matching
from .scores import bleu_line, percentage, write_rows
from .task import Metadata, Task, max_length_of, open_picture

SCENES, TEST_SCENES = 100_000, 1000
CNN_SCENES = 30_000  # that teach the CNN with which a translator of scenes sees
MERGES = 8000
PARTS = {  # what reads and what writes; the Transformer is the tiny one of Wu et al. 2021 ("Good for misconceived reasons")
    "lstm": {"name": "lstm", "hidden_size": 256},
    "transformer": {"name": "transformer", "num_heads": 4, "num_layers": 4, "mlp_dim": 256},
}


class Translation(Task):
    name = "translation"
    example_noun = "sentences"
    layouts = ("multi30k", "scenes")
    verb = "translate"
    verb_help = "Translate a sentence, with a picture of what it says or without."
    default_run = Path("runs/scenes")
    options = {
        "--source": {
            "default": "en",
            "metavar": "LANGUAGE",
            "help": "translate from it (default: %(default)s)",
        },
        "--target": {
            "default": "de",
            "metavar": "LANGUAGE",
            "help": "translate into it (default: %(default)s)",
        },
        "--photographs": {
            "type": Path,
            "metavar": "DIR",
            "help": "pictures of Multi30k's sentences: Flickr30k's or Flickr8k's",
        },
    }

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        languages = metadata["source"], metadata["target"]
        if metadata["layout"] == "scenes":
            count = SCENES if split == "train" else TEST_SCENES
            return SceneTranslation(split, count, languages, image_size, "some")
        return Multi30k(metadata["data"], split, languages, metadata["photographs"], image_size)

    def vocabularies(self, metadata: Metadata, training: DataSet, known: dict | None) -> dict:
        """The same byte pairs for both languages; those of the run that the training starts from stay."""
        if known:
            return known
        joint = BytePairEncoding.learn(
            [*training.columns["source"], *(words for (words,) in training.references)], MERGES
        )
        return {"target": joint, "source": joint}

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        is_drawn = metadata["layout"] == "scenes"
        part = PARTS[chosen.get("decoder", "lstm" if is_drawn else "transformer")] | {
            "dropout": 0.0 if is_drawn else 0.1
        }
        image = chosen.get(
            "backbone", {"name": "resnet", "depth": (1, 1, 1) if is_drawn else (1, 1)}
        )
        image |= {"image_size": chosen.get("image_size", 64), "num_layers": 1}
        return base or {
            "encoders": {"image": image, "source": part}
            if is_drawn or metadata["photographs"]
            else {"source": part},
            "decoder": part | {"fusion": chosen.get("fusion", "cross_attention")},
            "embed_dim": 256 if is_drawn else 128,
            "joint_vocabulary": True,
            "modality_dropout": 0.3,
            "label_smoothing": 0.1,
        }

    def settings(self, metadata: Metadata) -> dict:
        if metadata["layout"] != "scenes":
            return {"epochs": 16, "batch_size": 96, "learning_rate": 3e-3}
        return {
            "batch_size": 32,
            "learning_rate": 3e-3,
            "bucket_batches": None,
            "freeze": ("encoders.image.backbone",),
        }

    def prepare(self, trainer: Trainer, metadata: Metadata) -> None:
        """Scenes need a CNN that was trained before, and is frozen: next to a sentence, one that sees nothing yet learns nothing."""
        if metadata["layout"] == "scenes":
            with distributed.main_process_first():
                cnn = pretrained_cnn(Path("runs/cnn.pt"), CNN_SCENES)
            load_matching(
                trainer.model.encoders["image"].backbone, cnn.state_dict()
            )  # without its classifier

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        model, vocabularies, saved = self.load(run)
        ways = {"": data}
        if "image" in model.encoders and data.count("image"):
            ways = {"with pictures": data, "without": data.without("image")}
        for way, shown in ways.items():
            written = generate(model, vocabularies, shown, num_beams, max_length_of(saved))
            line = f"  {way:14} {bleu_line(written, data.references)}"
            if isinstance(data, SceneTranslation):
                right = aligned_accuracy(
                    written,
                    data.references,
                    partial(colour_of, language=saved["metadata"]["target"]),
                )
                line += f"; colours right {percentage(100 * sum(right) / len(right), len(right))}"
            print(line)
            file = run / ("-".join(["translations", split, *way.split()]) + ".jsonl")
            given, found = map(detokenize, data.columns["source"]), map(detokenize, written)
            write_rows(
                file, source=given, translation=found, reference=[text for (text,) in data.texts]
            )

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        return self.command(" ".join(data.columns["source"][0]), run)

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sentences",
            nargs="*",
            metavar="SENTENCE",
            help="none: those of the standard input, one a line",
        )
        parser.add_argument(
            "--image",
            type=Path,
            metavar="PICTURE",
            help="of what they say; [v] stands for what it shows",
        )
        super().add_verb_options(parser)

    def use(self, args: argparse.Namespace) -> None:
        """Print the translation of each sentence, of one line from the standard input each where none is given."""
        model, vocabularies, saved = self.load(args.run)
        given = {}
        if args.image:
            if "image" not in model.encoders:
                raise ValueError(f"{args.run} translates without pictures: leave out --image")
            given["image"] = open_picture(args.image, saved)
        for sentence in args.sentences or map(str.strip, sys.stdin):
            if not sentence.strip():
                print(flush=True)
                continue
            (words,) = generate(
                model,
                vocabularies,
                [{"source": tokenize(sentence), **given}],
                args.beams,
                max_length_of(saved),
            )
            print(
                *detokenize(words).split(), flush=True
            )  # on one line, whatever a model that has learned little writes
