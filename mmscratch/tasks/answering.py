"""Answering: visual question answering, from a picture and a question to an answer."""

import argparse
from pathlib import Path

from ..data.answers import LAYOUTS, QuestionData, SceneQuestions
from ..data.dataset import words_of
from ..data.scenes import render
from ..decoding import generate, rank_answers
from ..text import detokenize
from . import controls
from .inputs import input_lines, open_picture
from .scores import print_answers, write_rows
from .spoken import LISTENER, SPOKEN, first_sentence, is_spoken, read_sentence, speak_sentences
from .task import Metadata, Task, Verdict, build_vocabulary, decoder_settings, image_settings

PAIRS = 125_000  # balanced pairs to train on
TABLE_PAIRS = 20_000  # of those, for the control that sees the question only
TEST_PAIRS = 1000
READER = {"name": "lstm", "hidden_size": 128}  # of the questions


class Answering(Task):
    name = "answering"
    example_noun = "questions"
    layouts = (*LAYOUTS, "scenes")
    augments = False  # a crop may cut off what the question is about
    freezes = tuple(f"encoders.image.backbone.{part}" for part in ("conv1", "bn1", "layer1"))
    options = {"--spoken": SPOKEN}
    verb = "ask"
    verb_help = "Answer questions about a picture."
    default_run = Path("runs/answering")

    def read(self, metadata: Metadata, split: str, image_size: int) -> QuestionData:
        hears = is_spoken(metadata)
        if metadata["layout"] != "scenes":
            return LAYOUTS[metadata["layout"]](metadata["data"], split, image_size)
        pairs = metadata.get("pairs", PAIRS) if split == "train" else TEST_PAIRS
        data = SceneQuestions(split, pairs, size=image_size, curriculum=split == "train")
        return speak_sentences(data, data.questions, split) if hears else data

    def vocabularies(self, metadata: Metadata, training: QuestionData, known: dict | None) -> dict:
        """The same words for questions and answers: a colour that is asked for may be answered."""
        answers = [words for references in training.references for words in references]
        questions = [words_of(question) for question in training.questions]
        words = build_vocabulary(questions + answers, known and known["target"])
        return {"target": words} if is_spoken(metadata) else {"target": words, "source": words}

    def record(self, training: QuestionData) -> Metadata:
        return {"answers": controls.frequent_answers(training)}

    def model(self, metadata: Metadata, chosen: dict, base: dict | None) -> dict:
        if base:
            return base
        hears = is_spoken(metadata)
        modality = "sound" if hears else "source"
        reader = LISTENER if hears else READER
        image = image_settings({"name": "resnet"}, chosen, film=modality)
        decoder = decoder_settings(chosen)
        dropout = 0.05 if metadata["layout"] == "scenes" else 0.0
        settings = {"joint_vocabulary": not hears, "modality_dropout": dropout}
        return settings | {"encoders": {"image": image, modality: reader}, "decoder": decoder}

    def settings(self, metadata: Metadata) -> dict:
        if metadata["layout"] != "scenes":
            return {"epochs": 6, "batch_size": 64, "learning_rate": 1e-3}
        settings = {"batch_size": 96, "learning_rate": 1.2e-3, "evaluate_every": 1000}
        buckets = 10 if is_spoken(metadata) else None
        return settings | {"bucket_batches": buckets, "shuffle": False}  # in their order

    def evaluation_split(self, metadata: Metadata) -> str:
        return "validation" if metadata["layout"] == "folder" else "test"

    def measure(self, run: Path, data: QuestionData, split: str, num_beams: int = 1) -> None:
        model, vocabularies, checkpoint = self.load(run)

        def answer(examples: QuestionData) -> list[str]:
            return [detokenize(w) for w in generate(model, vocabularies, examples, num_beams)]

        answers = answer(data)
        controls.print_accuracy(answers, data)
        candidates = checkpoint["metadata"]["answers"]
        closed = controls.closed_answers(model, vocabularies, data, candidates)
        controls.print_control("closed set", closed, data, f"the best of {len(candidates):,} answers")
        columns = {"picture": data.pictures, "question": data.questions, "kind": data.kinds}
        columns |= {"answer": answers, "closed": closed, "people": data.texts}
        write_rows(run / f"answers-{split}.jsonl", **columns)
        metadata = checkpoint["metadata"] | {"pairs": TABLE_PAIRS}
        controls.print_controls(answer, data, self.read(metadata, "train", 0))

    def verdict(self, data: QuestionData, index: int, words: list[str]) -> Verdict:
        return super().verdict(data, index, words)._replace(group=data.kinds[index])

    def advice(self, run: Path, data: QuestionData, split: str) -> str:
        picture = data.pictures[0]
        if isinstance(data, SceneQuestions):
            picture = str(run / "picture.png")
            render(data.scenes[0], 256).save(picture)
        return self.command(run, picture, first_sentence(data, data.questions[0], run))

    def add_verb_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("picture", type=Path, metavar="PICTURE")
        text = "a WAV file if the run hears; default: one on each line of the standard input"
        parser.add_argument("questions", nargs="*", metavar="QUESTION", help=text)
        text = "open: any answer (default); closed: one of the training answers"
        parser.add_argument("--answers", choices=("open", "closed"), default="open", help=text)
        self.add_run_option(parser)

    def use(self, args: argparse.Namespace) -> None:
        """Print the most probable answers to each question about a picture."""
        model, vocabularies, checkpoint = self.load(args.run)
        example = {"image": open_picture(args.picture, checkpoint)}
        candidates = None
        if args.answers == "closed":
            candidates = [words_of(answer) for answer in checkpoint["metadata"]["answers"]]
        for question in args.questions or input_lines():
            sentence = read_sentence(question, "source", model, vocabularies)
            if sentence:
                ranked = rank_answers(model, vocabularies, example | sentence, candidates)
                print_answers(question.strip(), ranked)
