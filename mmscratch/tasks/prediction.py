"""Prediction: one column of a table, from the other columns and from pictures."""

import argparse
from pathlib import Path

from ..data.dataset import DataSet
from ..data.listings import Listings
from ..data.tables import TableData, read_examples
from ..text import Vocabulary, printable
from ..training import Trainer
from . import predictions
from .columns import COLUMNS, columns_of, known_columns, table_options
from .task import Metadata, Task, decoder_settings, image_settings, image_size_of

LISTINGS = 40_000  # listings to train on
TEST_LISTINGS = 2000


class Prediction(Task):
    name = "prediction"
    example_noun = "rows"
    layouts = ("table", "listings")
    options = COLUMNS
    verb = "predict"
    verb_help = "Predict the column of a table that a run has learned, from rows and pictures."
    default_run = Path("runs/prediction")

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        if metadata["layout"] == "listings":
            count = LISTINGS if split == "train" else TEST_LISTINGS
            return Listings(split, count, image_size, metadata["inputs"])
        options = table_options(metadata)
        known = known_columns(metadata) if "schema" in metadata else None
        return TableData(metadata["data"], split, image_size, options, known)

    def vocabularies(self, metadata: Metadata, training: DataSet, known: dict | None) -> dict:
        """One word for each class or bracket."""
        words = [] if known is None else known["target"].state()
        new = [label for label in training.target.classes if label not in words]
        return {"target": Vocabulary([*words, *new])}

    def record(self, training: DataSet) -> Metadata:
        return columns_of(training)

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        if base:
            return base
        is_drawn = metadata["layout"] == "listings"
        dropout = 0.0 if is_drawn else 0.3
        encoders = {}
        if metadata["inputs"] != "row":
            encoders["image"] = image_settings({"name": "resnet", "num_layers": 0}, chosen)
        if metadata["inputs"] != "image":
            encoders["row"] = {"name": "table", "num_layers": 1, "dropout": dropout}
        # Its heads can attend to the picture and to several columns at once.
        decoder = decoder_settings(chosen, "transformer") | {"dropout": dropout}
        return {"encoders": encoders, "decoder": decoder, "modality_dropout": 0.2}

    def settings(self, metadata: Metadata) -> dict:
        if metadata["layout"] == "listings":
            settings = {"batch_size": 48, "learning_rate": 1e-3, "evaluate_every": 500}
        else:
            settings = {"batch_size": 32, "learning_rate": 1e-3, "epochs": 20}
        return settings | {"bucket_batches": None}

    def prepare(self, trainer: Trainer, metadata: Metadata) -> None:
        predictions.balance(trainer, metadata["balance"])

    def evaluation_split(self, metadata: Metadata) -> str:
        return "test"

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        model, vocabularies, checkpoint = self.load(run)
        if not data.target.is_number:
            size = image_size_of(checkpoint["model_config"]["encoders"])
            validation = self.read(checkpoint["metadata"], "validation", size)
            predictions.keep_temperature(run, (model, vocabularies), validation)
        predictions.measure(run, (model, vocabularies), data, split)

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        return self.command(run, predictions.write_example(data, run))

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        text = "a CSV file with one row or more: the columns of the training table but its target"
        parser.add_argument("rows", type=Path, metavar="ROWS.csv", help=text)
        text = "the picture of the row (default: those of its file_name, next to the CSV file)"
        parser.add_argument("--image", type=Path, metavar="PICTURE", help=text)
        self.add_run_option(parser)

    def use(self, args: argparse.Namespace) -> None:
        """Print the prediction for each row, with its probability."""
        model, vocabularies, checkpoint = self.load(args.run)
        schema, target, most_files = known_columns(checkpoint["metadata"])
        size = image_size_of(checkpoint["model_config"]["encoders"])
        temperature = predictions.read_temperature(args.run)
        for where, example in read_examples(args.rows, args.image, schema, most_files, size):
            log_probs = predictions.class_log_probs(model, vocabularies, [example], target)
            probabilities = (log_probs / temperature).softmax(-1)[0]
            description = predictions.describe(probabilities, target)
            print(printable(f"{where}: {description}"), flush=True)
