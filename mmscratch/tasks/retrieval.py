"""Retrieval: find the picture that a sentence describes, and the sentences about a picture."""

import argparse
from pathlib import Path

from ..data.captions import LAYOUTS, SceneCaptions, judged_pairs, number_pictures, relevant_pictures
from ..data.dataset import DataSet
from ..data.scenes import render
from ..search import embed, similarities
from ..training import Trainer
from .index import show_best, updated_index
from .inputs import open_picture
from .scores import print_retrieval, save_retrieval
from .spoken import LISTENER, SPOKEN, first_sentence, is_spoken, read_sentence, speak_sentences
from .task import Metadata, Task, image_settings

SCENES = 90_000  # scenes to train on
VALIDATION_SCENES = 1280  # ten batches
TEST_SCENES = 1000


class Retrieval(Task):
    name = "retrieval"
    example_noun = "pictures"
    layouts = ("folder", "flickr8k", "scenes")
    options = {
        "--scenes": {"type": int, "default": SCENES, "help": "number of training scenes"},
        "--spoken": SPOKEN,
    }
    verb = "find"
    verb_help = "Find the pictures that a sentence describes, or those that are like a picture."
    default_run = Path("runs/retrieval")

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        hears = is_spoken(metadata)
        if metadata["layout"] != "scenes":
            return LAYOUTS[metadata["layout"]](metadata["data"], split, image_size)
        counts = {"train": metadata["scenes"], "validation": VALIDATION_SCENES}
        count = counts.get(split, TEST_SCENES)
        one_caption_each = split in counts or hears
        data = SceneCaptions(split, count, size=image_size, one_caption_each=one_caption_each)
        return speak_sentences(data, [texts[0] for texts in data.texts], split) if hears else data

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        if chosen.keys() & {"decoder", "fusion"}:
            raise ValueError("retrieval has no decoder: leave out --decoder and --fusion")
        if base:
            return base
        is_drawn = metadata["layout"] == "scenes"
        image = image_settings({"name": "resnet", "num_layers": 1 if is_drawn else 0}, chosen)
        text = {"name": "lstm", "hidden_size": 128, "dropout": 0.0 if is_drawn else 0.3}
        sentence = {"sound": LISTENER} if is_spoken(metadata) else {"target": text}
        return {"encoders": {"image": image, **sentence}, "decoder": {}}

    def settings(self, metadata: Metadata) -> dict:
        # The batch holds the negatives. Recall still rises when the validation loss does, too.
        settings = {"batch_size": 128, "learning_rate": 2e-3, "keep_best": False}
        if metadata["layout"] != "scenes":
            return settings | {"epochs": 15}
        return settings | {"bucket_batches": None, "evaluate_every": 200}

    def references_at_once(self, metadata: Metadata) -> int:
        return 1  # in a pair

    def prepare(self, trainer: Trainer, metadata: Metadata) -> None:
        """Number the pictures; for scenes, let the judge find the false negatives."""
        datasets = (trainer.train.data, trainer.validation.data)
        number_pictures(*datasets)
        if metadata["layout"] == "scenes":
            trainer.model.same = judged_pairs(*datasets)

    def evaluation_split(self, metadata: Metadata) -> str:
        return "test" if metadata["layout"] == "scenes" else "validation"

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        model, vocabularies, _ = self.load(run)
        scores = similarities(model, vocabularies, data)  # (Q, G)
        relevant = relevant_pictures(data)  # (Q, G)
        print_retrieval(data, scores, relevant)
        save_retrieval(run, split, data, scores, relevant)

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        folder = Path(data.names[0]).parent
        if isinstance(data, SceneCaptions):
            folder = run / "pictures"
            folder.mkdir(exist_ok=True)
            for i, scene in enumerate(data.scenes[:100]):
                render(scene, 256).save(folder / f"scene{i:02}.png")
        command = self.command(run, first_sentence(data, data.texts[0][0], run), str(folder))
        return f"Look at {run / f'retrieval-{split}.png'}. {command}"

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        text = "what to look for, a WAV file if the run hears; left out with --like"
        parser.add_argument("sentence", metavar="SENTENCE", help=text)
        parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="of pictures")
        parser.add_argument("--like", type=Path, metavar="PICTURE", help="find pictures like this")
        text = "keeps the pictures' vectors (default: index.pt in the run's folder)"
        parser.add_argument("--index", type=Path, metavar="FILE", help=text)
        text = "pictures to show (default: %(default)s)"
        parser.add_argument("--top", type=int, default=10, metavar="K", help=text)
        self.add_run_option(parser)

    def use(self, args: argparse.Namespace) -> None:
        """Print and draw the pictures in the folders that fit the sentence or the picture best."""
        if args.top < 1:
            raise ValueError(f"--top must be at least 1, not {args.top}")
        model, vocabularies, checkpoint = self.load(args.run)
        folders = args.folders
        if args.like:
            folders = [Path(args.sentence), *folders]
            if not folders[0].exists():
                raise ValueError(f"{folders[0]}: no such folder; --like takes the sentence's place")
            example = {"image": open_picture(args.like, checkpoint)}
        else:
            example = read_sentence(args.sentence, "target", model, vocabularies)
            if not example:
                raise ValueError("the sentence has no words")
        query = embed(model, vocabularies, [example], *example)  # (1, D)
        index = updated_index(args.index or args.run / "index.pt", folders, model, checkpoint)
        show_best(index, query, args.top, args.run / "found.png")
