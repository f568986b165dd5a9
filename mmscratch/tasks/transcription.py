"""Transcription: write down what somebody says."""

import argparse
import sys
from pathlib import Path

from ..data.dataset import DataSet
from ..data.sounds import FSDD, LAYOUTS, SOUND_SUFFIXES, read_sound
from ..data.speech import SpokenCaptions
from ..decoding import generate, memory_attention
from ..plots import transcript_sheet
from ..text import detokenize, printable
from .inputs import files_in
from .scores import print_transcript_scores, write_rows
from .spoken import LISTENER, write_sounds
from .task import Metadata, Task, decoder_settings, max_length_of

UTTERANCES = 25_000  # that a program says, to train on
VALIDATION_UTTERANCES = 300
TEST_UTTERANCES = 1000
MAX_WORDS = 100  # of an LSTM's transcript: nobody says more in 30 seconds


class Transcription(Task):
    name = "transcription"
    example_noun = "sounds"
    layouts = (*LAYOUTS, "speech")
    options = {
        "--utterances": {
            "type": int,
            "default": UTTERANCES,
            "help": f"training sentences that a program says (default: {UTTERANCES:,})",
        },
        "--held-out": {
            "metavar": "SPEAKERS",
            "help": "speakers of the test split, as jackson,theo; '' for the published split",
        },
    }
    verb = "transcribe"
    verb_help = "Write down what somebody says in each sound."
    default_run = Path("runs/transcription")

    def read(self, metadata: Metadata, split: str, image_size: int) -> DataSet:
        if metadata["layout"] == "speech":
            counts = {"train": metadata["utterances"], "validation": VALIDATION_UTTERANCES}
            return SpokenCaptions(split, counts.get(split, TEST_UTTERANCES))
        if metadata["layout"] == "fsdd":
            return FSDD(metadata["data"], split, metadata["held-out"])
        return LAYOUTS[metadata["layout"]](metadata["data"], split)

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        if metadata["held-out"] is not None and metadata["layout"] != "fsdd":
            raise ValueError("--held-out is for the layout fsdd: leave it out")
        decoder = decoder_settings(chosen, "transformer")
        encoders = {"sound": dict(LISTENER)}
        settings = base or {"encoders": encoders, "decoder": decoder, "embed_dim": 128}
        dropout = 0.0 if metadata["layout"] == "speech" else 0.1  # others are heard many times
        settings["encoders"]["sound"]["dropout"] = dropout
        settings["decoder"]["dropout"] = dropout
        return settings

    def settings(self, metadata: Metadata) -> dict:
        settings = {"batch_size": 16, "learning_rate": 1e-3}
        if metadata["layout"] == "speech":
            return settings | {"evaluate_every": 500}
        if metadata["layout"] == "fsdd":  # words of one length would often be the same word
            settings["bucket_batches"] = None
        return settings | {"epochs": 20}

    def evaluation_split(self, metadata: Metadata) -> str:
        return "validation" if metadata["layout"] == "folder" else "test"

    def measure(self, run: Path, data: DataSet, split: str, num_beams: int = 1) -> None:
        model, vocabularies, checkpoint = self.load(run)
        length = max_length_of(checkpoint, MAX_WORDS)
        hypotheses = generate(model, vocabularies, data, num_beams, length)
        print_transcript_scores(hypotheses, data.references)
        transcripts = [detokenize(words) for words in hypotheses]
        path = run / f"transcripts-{split}.jsonl"
        write_rows(path, sound=data.names, transcript=transcripts, references=data.texts)
        drawn = range(0, len(data), max(1, len(data) // 4))[:4]
        sounds = [data[i]["sound"] for i in drawn]
        maps = []
        decoder = checkpoint["model_config"]["decoder"]
        if (decoder["name"], decoder["fusion"]) != ("lstm", "prefix"):  # which attends only once
            for i, sound in zip(drawn, sounds):
                words = hypotheses[i][:20]
                maps.append(memory_attention(model, vocabularies, {"sound": sound}, words))
        written = [hypotheses[i] for i in drawn]
        sheet = transcript_sheet(sounds, written, [data.references[i] for i in drawn], maps)
        sheet.savefig(run / f"transcripts-{split}.png")

    def advice(self, run: Path, data: DataSet, split: str) -> str:
        sound = data.names[0]
        if isinstance(data, SpokenCaptions):
            sound = write_sounds(data, run / "sounds", 3)[0]
        return f"Look at {run / f'transcripts-{split}.png'}. {self.command(run, sound)}"

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        text = "WAV files, or folders of them"
        parser.add_argument("sounds", type=Path, nargs="+", metavar="SOUND", help=text)
        super().add_verb_options(parser)

    def use(self, args: argparse.Namespace) -> int:
        """Print a transcript of each sound; returns 2 if one cannot be read."""
        model, vocabularies, checkpoint = self.load(args.run)
        length = max_length_of(checkpoint, MAX_WORDS)
        status = 0
        for path in files_in(args.sounds, SOUND_SUFFIXES, "sounds"):
            try:
                sound = read_sound(path)
            except (ValueError, OSError) as error:
                print(f"error: {printable(error)}", file=sys.stderr)
                status = 2
                continue
            (words,) = generate(model, vocabularies, [{"sound": sound}], args.beams, length)
            print(printable(f"{path}: {detokenize(words)}"), flush=True)
        return status
