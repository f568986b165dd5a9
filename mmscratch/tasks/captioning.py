"""Captioning: a picture is given, and a sentence about it is written."""

import argparse
import sys
from pathlib import Path

from ..data.captions import LAYOUTS, SceneCaptions
from ..data.dataset import DataSet
from ..data.judge import judge_captions
from ..data.photographs import PICTURE_SUFFIXES
from ..decoding import generate
from ..plots import caption_sheet
from ..text import caption_tokenize, detokenize
from .scores import percentage, print_scores, write_rows
from .task import Metadata, Task, open_picture

SCENES, VALIDATION_SCENES, TEST_SCENES = 100_000, 300, 1000  # of each split of the drawn scenes
BEST = {"decoder": "lstm", "fusion": "cross_attention"}  # of the four that quickstart can train
DECODERS = {
    "lstm": {"name": "lstm", "hidden_size": 256},
    "transformer": {"name": "transformer", "num_heads": 4, "num_layers": 2},
}


class Captioning(Task):
    name = "captioning"
    example_noun = "pictures"
    layouts = (*LAYOUTS, "scenes")
    options = {
        "--scenes": {
            "type": int,
            "default": SCENES,
            "help": "drawn pictures to train on (default: %(default)s)",
        },
    }
    verb = "caption"
    verb_help = "Write a caption for each picture."

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        if metadata["layout"] != "scenes":
            return LAYOUTS[metadata["layout"]](metadata["data"], split, image_size)
        counts = {"train": metadata["scenes"], "validation": VALIDATION_SCENES}
        return SceneCaptions(
            split,
            counts.get(split, TEST_SCENES),
            size=image_size,
            one_caption_each=split == "train",
        )

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        is_drawn = metadata["layout"] == "scenes"
        chosen = BEST | chosen
        backbone = chosen.get("backbone", {"name": "resnet"})
        image = backbone | {
            "image_size": chosen.get("image_size", 64),
            "num_layers": 1 if is_drawn else 0,
        }
        decoder = DECODERS[chosen["decoder"]] | {"fusion": chosen["fusion"]}
        settings = base or {"encoders": {"image": image}, "decoder": decoder}
        if not is_drawn:  # few pictures, seen many times
            settings["decoder"]["dropout"] = 0.3
        return settings

    def settings(self, metadata: Metadata) -> dict:
        if metadata["layout"] != "scenes":
            return {"epochs": 8, "batch_size": 64, "learning_rate": 2e-3}
        # No bucketing: the length of a scene's caption tells how many things there are, so bucketed batches would be all
        # alike, and batch norm would learn to rely on that (after 40,000 scenes: 56 % true with it, 70 without).
        return {
            "batch_size": 96,
            "learning_rate": 3e-3,
            "bucket_batches": None,
            "evaluate_every": 500,
        }

    def evaluation_split(self, metadata: Metadata) -> str:
        return "test" if metadata["layout"] == "scenes" else "validation"

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        model, vocabularies, _ = self.load(run)
        written = generate(model, vocabularies, data, num_beams)
        if isinstance(data, SceneCaptions):
            (one, two, three, every), faults = judge_captions(written, data.scenes)
            fractions = f"one thing {one:.0f} %, two {two:.0f} %, three {three:.0f} %"
            print(f"  true by judge        {percentage(every, len(data))}; {fractions}")
            print(
                f"  wrong in the others  {', '.join(f'{fault} {n}' for fault, n in faults.most_common()) or 'nothing'}"
            )
        hypotheses = [caption_tokenize(detokenize(words)) for words in written]
        print_scores(
            hypotheses, [[caption_tokenize(text) for text in texts] for texts in data.texts]
        )
        captions = map(detokenize, written)
        write_rows(
            run / f"captions-{split}.jsonl",
            picture=data.names,
            caption=captions,
            references=data.texts,
        )
        pictures = [data[i]["image"] for i in range(min(12, len(data)))]
        caption_sheet(pictures, written[:12], data.references[:12]).savefig(
            run / f"captions-{split}.png"
        )

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        return f"Look at {run / f'captions-{split}.png'}. {self.command('PICTURE', run)}"

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "pictures",
            type=Path,
            nargs="+",
            metavar="PICTURE",
            help="picture files, or folders of them",
        )
        super().add_verb_options(parser)

    def use(self, args: argparse.Namespace) -> int:
        """Print a caption for each picture; 2 where one cannot be read."""
        model, vocabularies, saved = self.load(args.run)
        failed = 0
        for path in pictures_in(args.pictures):
            try:
                picture = open_picture(path, saved)
            except (ValueError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                failed = 2
                continue
            (words,) = generate(model, vocabularies, [{"image": picture}], args.beams)
            print(f"{path}: {detokenize(words)}", flush=True)
        return failed


def pictures_in(paths: list[Path]) -> list[Path]:
    """The files, and in place of each folder the pictures in it."""
    found = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if not inside:
            raise ValueError(f"{path}: no pictures in this folder")
        found += inside
    return found
