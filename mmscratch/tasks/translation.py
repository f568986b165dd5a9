"""Translation: translate a sentence, with or without a picture of what it describes."""

import argparse
import sys
from pathlib import Path

from ..data.dataset import DataSet
from ..data.translations import Multi30k, SceneTranslation
from ..decoding import generate
from ..engine import distributed
from ..pretraining import pretrained_cnn
from ..text import BytePairEncoding, detokenize, printable, tokenize
from ..training import Trainer
from ..weights import load_matching
from .inputs import open_picture
from .scores import translation_scores, write_rows
from .task import Metadata, Task, image_settings, max_length_of

SCENES = 100_000  # scenes to train on
TEST_SCENES = 1000
CNN_SCENES = 30_000  # scenes to pretrain the CNN on
MERGES = 4000
PARTS = {  # encoder and decoder; the Transformer is the tiny one of Wu et al. 2021, "Good for misconceived reasons"
    "lstm": {"name": "lstm", "hidden_size": 256},
    "transformer": {"name": "transformer", "num_heads": 4, "num_layers": 4, "mlp_dim": 256},
}


class Translation(Task):
    name = "translation"
    example_noun = "sentences"
    is_open_ended = True
    layouts = ("multi30k", "scenes")
    verb = "translate"
    verb_help = "Translate a sentence, with or without a picture of what it describes."
    default_run = Path("runs/translation")
    options = {
        "--source": {"default": "en", "help": "source language (default: en)"},
        "--target": {"default": "de", "help": "target language (default: de)"},
        "--photographs": {"type": Path, "metavar": "DIR", "help": "pictures of Flickr30k or 8k"},
    }

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        languages = metadata["source"], metadata["target"]
        if metadata["layout"] == "scenes":
            count = SCENES if split == "train" else TEST_SCENES
            return SceneTranslation(split, count, languages, image_size, "some")
        return Multi30k(metadata["data"], split, languages, metadata["photographs"], image_size)

    def vocabularies(self, metadata: Metadata, training: DataSet, known: dict | None) -> dict:
        """The same byte pairs for both languages, or those of the run that training starts from."""
        if known:
            return known
        targets = [words for (words,) in training.references]
        joint = BytePairEncoding.learn(training.columns["source"] + targets, MERGES)
        return {"target": joint, "source": joint}

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        if base:
            return base
        is_drawn = metadata["layout"] == "scenes"
        part = dict(PARTS[chosen.get("decoder", "lstm" if is_drawn else "transformer")])
        part["dropout"] = 0.0 if is_drawn else 0.15
        encoders = {"source": part}
        if is_drawn or metadata["photographs"]:
            image = {"name": "resnet", "depth": (1, 1, 1) if is_drawn else (1, 1), "num_layers": 1}
            encoders = {"image": image_settings(image, chosen), "source": part}
        decoder = part | {"fusion": chosen.get("fusion", "cross_attention")}
        settings = {"encoders": encoders, "decoder": decoder, "embed_dim": 256 if is_drawn else 128}
        return settings | {"modality_dropout": 0.3, "label_smoothing": 0.1, "joint_vocabulary": True}

    def settings(self, metadata: Metadata) -> dict:
        if metadata["layout"] != "scenes":
            return {"epochs": 28, "batch_size": 48, "learning_rate": 2e-3}
        settings = {"batch_size": 32, "learning_rate": 3e-3, "bucket_batches": None}
        return settings | {"freeze": ("encoders.image.backbone",)}

    def prepare(self, trainer: Trainer, metadata: Metadata) -> None:
        """For scenes, load a pretrained CNN into a new model: next to a sentence, it would not learn to see."""
        if metadata["layout"] == "scenes" and not trainer.config.start_from:
            with distributed.main_process_first():
                cnn = pretrained_cnn(Path("runs/cnn.pt"), CNN_SCENES)
                load_matching(trainer.model.encoders["image"].backbone, cnn.state_dict())

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        model, vocabularies, checkpoint = self.load(run)
        conditions = {"": data}
        if "image" in model.encoders and data.count("image"):
            conditions = {"with pictures": data, "without": data.without("image")}
        language = checkpoint["metadata"]["target"] if isinstance(data, SceneTranslation) else None
        sources = [detokenize(words) for words in data.columns["source"]]
        references = [text for (text,) in data.texts]
        for name, inputs in conditions.items():
            hypotheses = generate(model, vocabularies, inputs, num_beams, max_length_of(checkpoint))
            print(f"  {name:14} {translation_scores(hypotheses, data.references, language)}")
            path = run / ("-".join(["translations", split, *name.split()]) + ".jsonl")
            translations = map(detokenize, hypotheses)
            write_rows(path, source=sources, translation=translations, reference=references)

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        return self.command(run, " ".join(data.columns["source"][0]))

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("sentences", nargs="*", metavar="TEXT", help="default: standard input")
        text = "a picture of what the text describes; [v] marks a word that only the picture shows"
        parser.add_argument("--image", type=Path, metavar="PICTURE", help=text)
        super().add_verb_options(parser)

    def use(self, args: argparse.Namespace) -> None:
        """Print a translation of each sentence, or of each line of the standard input."""
        model, vocabularies, checkpoint = self.load(args.run)
        inputs = {"image": open_picture(args.image, checkpoint)} if args.image else {}
        length = max_length_of(checkpoint)
        for sentence in args.sentences or sys.stdin:
            words = tokenize(sentence)
            if words:
                example = {"source": words} | inputs
                (words,) = generate(model, vocabularies, [example], args.beams, length)
            print(printable(" ".join(detokenize(words).split())), flush=True)
