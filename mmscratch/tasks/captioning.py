"""Captioning: write a sentence about a picture."""

import argparse
import sys
from pathlib import Path

from ..data.captions import LAYOUTS, SceneCaptions
from ..data.dataset import DataSet
from ..data.judge import judge, judge_captions
from ..decoding import generate
from ..plots import caption_sheet
from ..text import caption_tokenize, detokenize, printable
from ..training import Trainer
from .inputs import open_picture, pictures_in
from .rewards import REWARD, SETTINGS, set_reward
from .scores import print_judgement, print_scores, write_rows
from .task import Metadata, Task, Verdict, decoder_settings, image_settings, shown_picture

SCENES = 48_000  # scenes to train on
VALIDATION_SCENES = 300
TEST_SCENES = 1000
BEST = {"decoder": "lstm", "fusion": "cross_attention"}  # of the four that quickstart can train


class Captioning(Task):
    name = "captioning"
    example_noun = "pictures"
    is_open_ended = True
    layouts = (*LAYOUTS, "scenes")
    options = {
        "--scenes": {"type": int, "default": SCENES, "help": f"default: {SCENES:,}, to train on"},
        "--reward": REWARD,
    }
    verb = "caption"
    verb_help = "Write a caption for each picture."

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        if metadata["layout"] != "scenes":
            return LAYOUTS[metadata["layout"]](metadata["data"], split, image_size)
        counts = {"train": metadata["scenes"], "validation": VALIDATION_SCENES}
        one_each = split == "train" and not metadata.get("reward")
        return SceneCaptions(split, counts.get(split, TEST_SCENES), "en", image_size, one_each)

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        is_drawn = metadata["layout"] == "scenes"
        eyes = {"width": 48, "attend_first": True} if is_drawn and "backbone" not in chosen else {}
        image = image_settings({"name": "resnet", "num_layers": 1} | eyes, chosen)
        decoder = decoder_settings(BEST | chosen)
        if not is_drawn and decoder["name"] == "lstm":
            decoder["hidden_size"] = 512
        settings = base or {"encoders": {"image": image}, "decoder": decoder}
        if not is_drawn:  # few pictures, seen many times
            settings["decoder"]["dropout"] = 0.3
            settings["label_smoothing"] = 0.1
        return settings

    def references_at_once(self, metadata: Metadata) -> int:
        return 5 if metadata.get("reward") else super().references_at_once(metadata)

    def settings(self, metadata: Metadata) -> dict:
        if metadata.get("reward"):
            return SETTINGS
        if metadata["layout"] != "scenes":
            return {"epochs": 15, "batch_size": 32, "learning_rate": 1e-3}
        # No bucketing: the length of a scene's caption depends on the number of objects, so all
        # scenes of a bucketed batch would be alike, and batch norm would come to rely on that.
        small_steps = {"batch_size": 24, "learning_rate": 2.5e-3, "evaluate_every": 200}
        return small_steps | {"bucket_batches": None}

    def prepare(self, trainer: Trainer, metadata: Metadata) -> None:
        set_reward(trainer, metadata.get("reward"))

    def evaluation_split(self, metadata: Metadata) -> str:
        return "test" if metadata["layout"] == "scenes" else "validation"

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        model, vocabularies, _ = self.load(run)
        hypotheses = generate(model, vocabularies, data, num_beams)
        if isinstance(data, SceneCaptions):
            print_judgement(judge_captions(hypotheses, data.scenes), len(data))
        captions = [detokenize(words) for words in hypotheses]
        references = [[caption_tokenize(text) for text in texts] for texts in data.texts]
        print_scores([caption_tokenize(caption) for caption in captions], references)
        path = run / f"captions-{split}.jsonl"
        write_rows(path, picture=data.names, caption=captions, references=data.texts)
        pictures = [shown_picture(data, i) for i in range(min(12, len(data)))]
        right = [bool(self.verdict(data, i, hypotheses[i]).right) for i in range(len(pictures))]
        sheet = caption_sheet(pictures, hypotheses[:12], data.references[:12], right=right)
        sheet.savefig(run / f"captions-{split}.png")

    def verdict(self, data: DataSet, index: int, words: list[str]) -> Verdict:
        if not isinstance(data, SceneCaptions):
            return super().verdict(data, index, words)
        judgement = judge(detokenize(words), data.scenes[index])
        return Verdict(
            judgement.true, judgement.wrong, f"objects: {len(data.scenes[index].objects)}"
        )

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        return f"Look at {run / f'captions-{split}.png'}. {self.command(run, 'PICTURE')}"

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        text = "picture files, or folders of them"
        parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help=text)
        super().add_verb_options(parser)

    def use(self, args: argparse.Namespace) -> int:
        """Print a caption for each picture; returns 2 if one cannot be read."""
        model, vocabularies, checkpoint = self.load(args.run)
        status = 0
        for path in pictures_in(args.pictures):
            try:
                picture = open_picture(path, checkpoint)
            except (ValueError, OSError) as error:
                print(f"error: {printable(error)}", file=sys.stderr)
                status = 2
                continue
            (words,) = generate(model, vocabularies, [{"image": picture}], args.beams)
            print(printable(f"{path}: {detokenize(words)}"), flush=True)
        return status
