"""Translation: a sentence is given, perhaps with a picture of what it speaks of, and its translation is written."""

import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path

from ..data.dataset import DataSet
from ..data.language import colour_of
from ..data.translations import Multi30k, SceneTranslation
from ..decoding import generate
from ..engine import distributed
from ..images import open_image, to_tensor
from ..metrics import bleu_estimates, exact_match, words_right
from ..pretraining import pretrained_cnn
from ..text import BytePairEncoding, detokenize, tokenize
from ..training import Trainer
from ..weights import load_fitting
from .scores import percentage
from .task import Facts, Task, add_beams

SCENES, TEST_SCENES = 100_000, 1000
CNN_SCENES = 30_000  # that teach the CNN with which a translator of scenes sees
MERGES = 8000
LONGEST = 64  # words of a translation by an LSTM, which has no other limit
# What reads and what writes, by layout and kind. For Multi30k the tiny Transformer of Wu et al. 2021 ("Good for
# misconceived reasons"), with less dropout.
PARTS = {
    "scenes": {
        "lstm": {"name": "lstm", "hidden_size": 256},
        "transformer": {"name": "transformer", "num_heads": 4, "num_layers": 1},
    },
    "multi30k": {
        "lstm": {"name": "lstm", "hidden_size": 256, "dropout": 0.1},
        "transformer": {"name": "transformer", "num_heads": 4, "num_layers": 4, "mlp_dim": 256, "dropout": 0.1},
    },
}


class Translation(Task):
    name = "translation"
    layouts = ("multi30k", "scenes")
    verb = "translate"
    verb_help = "Translate a sentence, with a picture of what it speaks of or without."
    options = {
        "--source": {"default": "en", "metavar": "LANGUAGE", "help": "translate from it (default: %(default)s)"},
        "--target": {"default": "de", "metavar": "LANGUAGE", "help": "translate into it (default: %(default)s)"},
        "--photographs": {
            "type": Path, "metavar": "DIR",
            "help": "those of Multi30k's sentences: Flickr30k's pictures, or Flickr8k's, which are some of them",
        },
    }  # fmt: skip

    def read(self, facts: Facts, split: str, image_size: int) -> DataSet:
        languages = facts["source"], facts["target"]
        if facts["layout"] == "scenes":
            count = SCENES if split == "train" else TEST_SCENES
            return SceneTranslation(split, count, languages, image_size, "some")
        return Multi30k(facts["data"], split, languages, facts["photographs"], image_size)

    def vocabularies(self, facts: Facts, training: DataSet, known: dict | None) -> dict:
        """The same byte pairs for both languages; those of the run that the training starts from stay."""
        if known:
            return known
        written = [words for (words,) in training.references]
        joint = BytePairEncoding.learn([*training.columns["source"], *written], MERGES)
        return {"target": joint, "source": joint}

    def model(self, facts: Facts, chosen: dict, base: dict | None) -> dict:
        if base:
            return base
        is_drawn = facts["layout"] == "scenes"
        part = PARTS["scenes" if is_drawn else "multi30k"][chosen.get("decoder", "lstm" if is_drawn else "transformer")]
        encoders = {"source": part}
        if is_drawn or facts["photographs"]:
            image = {"name": "resnet", "depth": (1, 1, 1) if is_drawn else (1, 1), "num_layers": 1}
            encoders = {"image": image | {"image_size": chosen.get("image_size", 64)}, "source": part}
        return {
            "encoders": encoders,
            "decoder": part | {"fusion": chosen.get("fusion", "cross_attention")},
            "embed_dim": 256 if is_drawn else 128,
            "joint_vocabulary": True,
            "modality_dropout": 0.3,
            "label_smoothing": 0.1,
        }

    def settings(self, facts: Facts) -> dict:
        if facts["layout"] == "scenes":
            freeze = ("encoders.image.backbone",)  # see `prepare`
            return {"batch_size": 32, "learning_rate": 3e-3, "bucket_batches": None, "freeze": freeze}
        return {"epochs": 16, "batch_size": 96, "learning_rate": 3e-3}

    def prepare(self, trainer: Trainer, facts: Facts) -> None:
        """Scenes are seen with a CNN that was trained before: next to a sentence, one that sees nothing yet learns nothing."""
        if facts["layout"] != "scenes":
            return
        with distributed.main_first():
            cnn = pretrained_cnn(Path("runs/cnn.pt"), CNN_SCENES)
        load_fitting(trainer.model.encoders["image"].backbone, cnn.state_dict())  # without its classifier

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        model, vocabularies, saved = self.load(run)
        longest = saved["model_config"]["decoder"].get("max_length", LONGEST)
        print(f"\n{run}, {len(data):,} sentences of the {split} split; in brackets, what 95 % of a thousand resamples give")
        ways = {"": data}
        if "image" in model.encoders and data.count("image"):
            ways = {"with pictures": data, "without": data.without("image")}
        for way, shown in ways.items():
            written = generate(model, vocabularies, shown, num_beams, longest)
            score, low, high = bleu_estimates(written, data.references)[-1]
            exact = percentage(100 * exact_match(written, data.references), len(data))
            print(f"  {way:14} BLEU {score:.1f}  ({low:.1f} to {high:.1f}); exactly the reference {exact}", end="")
            if isinstance(data, SceneTranslation):
                colour = partial(colour_of, language=saved["facts"]["target"])
                right = words_right(written, data.references, colour)
                print(f"; colours right {percentage(100 * sum(right) / len(right), len(right))}", end="")
            print()
            name = "-".join(filter(None, ("translations", split, way.replace(" ", "-"))))
            with (run / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                for source, words, (reference,) in zip(data.columns["source"], written, data.texts):
                    entry = {"source": detokenize(source), "translation": detokenize(words), "reference": reference}
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        example = shlex.quote(" ".join(data.columns["source"][0]))
        return f"Try\n  python -m mmscratch translate {example} --run {shlex.quote(str(run))}"

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="none: those of the standard input, one a line")
        parser.add_argument("--run", type=Path, default=Path("runs/scenes"), metavar="DIR", help="default: %(default)s")
        parser.add_argument("--image", type=Path, metavar="PICTURE",
                            help="what the sentences speak of; [v] stands for what it shows")  # fmt: skip
        add_beams(parser)

    def use(self, args: argparse.Namespace) -> None:
        """Print the translation of each sentence, of one line from the standard input each where none is given."""
        model, vocabularies, saved = self.load(args.run)
        given = {}
        if args.image:
            if "image" not in model.encoders:
                raise ValueError(f"{args.run} translates without pictures: leave out --image")
            given["image"] = to_tensor(open_image(args.image), saved["model_config"]["encoders"]["image"]["image_size"])
        longest = saved["model_config"]["decoder"].get("max_length", LONGEST)
        for sentence in args.sentences or map(str.strip, sys.stdin):
            if not sentence.strip():
                print(flush=True)
                continue
            (words,) = generate(model, vocabularies, [{"source": tokenize(sentence), **given}], args.beams, longest)
            print(*detokenize(words).split(), flush=True)  # on one line, whatever a model that has learned little writes
