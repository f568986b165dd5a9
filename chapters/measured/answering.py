"""How well do the models of chapter 12 answer? Each is trained in 2 to 10 minutes.

    python -m chapters.measured.answering            adds what chapters/measured/answering.jsonl lacks
    python -m chapters.measured.answering NAME …     measures only these
    torchrun --nproc_per_node=2 -m chapters.measured.answering NAME      measures one on two cores

It needs runs/quickstart (python -m mmscratch quickstart), data/easy-vqa (python -m
data_scripts.easy_vqa) and data/vqa-rad (osf.io/89kps). With OMP_NUM_THREADS=1, two can run side
by side.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from chapters.measured import by_kind, by_name, measure_missing, percent, train
from mmscratch.data.answers import QuestionData
from mmscratch.decoding import generate
from mmscratch.engine import distributed
from mmscratch.finetuning import load_run
from mmscratch.metrics import pair_accuracy, vqa_accuracy
from mmscratch.tasks.answering import PAIRS, Answering
from mmscratch.tasks.controls import answers_of, closed_answers, guess_answers
from mmscratch.text import detokenize

RESULTS = Path(__file__).with_suffix(".jsonl")
CAPTIONER = "runs/quickstart"
SCENES = "runs/answering-measured/scenes-from-a-captioner"  # the first of RUNS
TASK = Answering()


class Run(NamedTuple):
    """What is trained, on what, and from which weights."""

    layout: str
    start_from: str = CAPTIONER
    film: str = "source"  # "": late fusion
    pairs: int = PAIRS  # scenes only
    seed: int = 0
    epochs: int | None = None  # None: those of the task


RUNS = {
    "scenes, from a captioner": Run("scenes"),
    "scenes, from random weights": Run("scenes", start_from="", pairs=60_000),
    "easy-VQA": Run("easy-vqa"),
    "easy-VQA, from scenes": Run("easy-vqa", start_from=SCENES, epochs=4),
    "VQA-RAD": Run("vqa-rad", epochs=10),
    "VQA-RAD by picture": Run("vqa-rad-by-picture", epochs=10),
}
for seed in range(3):
    RUNS[f"FiLM, seed {seed}"] = Run("scenes", pairs=22_000, seed=seed)
    RUNS[f"late fusion, seed {seed}"] = Run("scenes", film="", pairs=22_000, seed=seed)


def measure(name: str) -> dict:
    """Train a model; returns the seconds it took, and its accuracy on each test split."""
    run = RUNS[name]
    folder = folder_of(name)
    metadata = metadata_of(run)
    row = _train(run, metadata, folder)
    if distributed.rank() > 0:
        return row
    training = TASK.read(metadata, "train", 0)
    splits = ["test"]
    if run.layout == "scenes":
        splits.append("compositional_test")
    for split in splits:
        row[split] = _accuracies(folder, TASK.read(metadata, split, 64), training)
    return row


def folder_of(name: str) -> Path:
    return Path("runs/answering-measured", name.replace(" ", "-").replace(",", ""))


def metadata_of(run: Run) -> dict:
    data = "data/easy-vqa" if run.layout == "easy-vqa" else "data/vqa-rad"
    return {"task": TASK.name, "layout": run.layout, "data": data, "pairs": run.pairs}


def _train(run: Run, metadata: dict, folder: Path) -> dict:
    settings = TASK.model(metadata, {}, None)
    settings["encoders"]["image"]["film"] = run.film
    options = {"seed": run.seed, "start_from": run.start_from}
    if run.start_from == CAPTIONER:
        options["freeze"] = TASK.freezes
    if run.epochs:
        options["epochs"] = run.epochs
    return train(TASK, metadata, settings, folder, **options)


def _accuracies(folder: Path, data: QuestionData, training: QuestionData) -> dict:
    """The accuracy of open and closed answers, and of the question alone: [%, low, high]."""
    model, vocabularies, checkpoint = load_run(folder)
    answers = answers_of(data)
    candidates = checkpoint["metadata"]["answers"]
    opened = [detokenize(words) for words in generate(model, vocabularies, data)]
    predictions = {
        "open": opened,
        "closed": closed_answers(model, vocabularies, data, candidates),
        "question alone": guess_answers(training, data.questions),
    }
    results = {}
    for name, predicted in predictions.items():
        scores = vqa_accuracy(predicted, answers).scores
        groups = {"all": scores} | by_kind(scores, data.kinds)
        if data.pairs:
            groups["pairs"] = pair_accuracy(scores, data.pairs).scores
        results[name] = {group: percent(each) for group, each in sorted(groups.items())}
    return results


def results() -> dict[str, dict]:
    """The measurements so far, by name."""
    return by_name(RESULTS)


def main(names: list[str]) -> None:
    """Measure these, or what is missing."""
    measure_missing(RESULTS, names, RUNS, measure)


if __name__ == "__main__":
    main(sys.argv[1:])
