"""How well do captioners of chapter 15 describe photographs?

    python -m chapters.measured.photographs          adds what chapters/measured/photographs.jsonl lacks
    python -m chapters.measured.photographs NAME …   measures only these
    torchrun --nproc_per_node=2 -m chapters.measured.photographs …   trains on two cores

It needs data/flickr8k (python -m data_scripts.flickr8k) and data/mobilenet_v2.pth
(chapters/measured/mobilenet.py). Scores are those of the 1,000 pictures of the dev split.
"""

import sys
from collections import Counter
from pathlib import Path

import torch

from chapters.measured import by_name, measure_missing, read_rows, train
from chapters.measured.mobilenet import WEIGHTS
from mmscratch.data.dataset import DataSet, Subset
from mmscratch.decoding import generate
from mmscratch.engine import distributed
from mmscratch.finetuning import load_run
from mmscratch.metrics import caption_scores
from mmscratch.tasks.captioning import Captioning
from mmscratch.tasks.task import load
from mmscratch.text import caption_tokenize, detokenize

RESULTS = Path(__file__).with_suffix(".jsonl")
RUNS = Path("runs/photographs-measured")
DATA = {"task": "captioning", "layout": "flickr8k", "data": "data/flickr8k"}
TASK = Captioning()
BEAMS = 5
EPOCHS = 15
FREEZE = ("encoders.image.backbone",)
PUBLISHED = "published weights"
REWARDED = "then CIDEr-D"
AGAIN = "CIDEr-D for two more epochs"
SCRATCH = "random weights"
FROZEN = "96 pixels, frozen"
RANDOM_FEATURES = "96 pixels, frozen, random weights"
FINE_TUNED = "96 pixels, fine-tuned"
ONE_BY_ONE = "96 pixels, fine-tuned, one caption at a time"
STEPS = {f"a step at {size} pixels": size for size in (64, 128, 224)}
PICTURES = 320  # of a measured step


class FewPictures(Captioning):
    """Captioning with the first pictures of a split only."""

    def read(self, metadata: dict, split: str, image_size: int) -> DataSet:
        return Subset(super().read(metadata, split, image_size), range(PICTURES))


class OneByOne(Captioning):
    """Captioning as before chapter 15: a picture is encoded for each of its captions."""

    def references_at_once(self, metadata: dict) -> int:
        return 1


def published(name: str) -> dict:
    """From MobileNetV2's weights, frozen: its features are computed once.

    Two controls: the captions against the references of other pictures, which says how much of a
    score is language alone; and the commonest caption of the training split for all pictures.
    """
    settings = settings_of(224)
    row = _scored(name, DATA, settings, **from_published(), freeze=FREEZE, epochs=EPOCHS)
    if distributed.rank() == 0:
        data = TASK.read(DATA, "validation", 224)
        model, vocabularies, _ = load_run(folder_of(name))
        captions = generate(model, vocabularies, data, BEAMS)
        row["of other pictures"] = scores_of([*captions[1:], captions[0]], data)
        row["commonest caption"] = scores_of([commonest_caption()] * len(data), data)
    return row


def settings_of(size: int) -> dict:
    """The settings of a captioner with MobileNetV2, for pictures of this size."""
    chosen = {"backbone": {"name": "mobilenet"}, "image_size": size}
    return TASK.model(DATA, chosen, None)


def from_published() -> dict:
    """The options of `TrainConfig` that start from the published weights."""
    return {"start_from": "mobilenet_v2", "weights": str(WEIGHTS)}


def commonest_caption() -> list[str]:
    """The words of the caption that occurs most often in the training split."""
    data = TASK.read(DATA, "train", 0)
    captions = Counter(tuple(words) for several in data.references for words in several)
    return list(captions.most_common(1)[0][0])


def rewarded(name: str) -> dict:
    """Self-critical training of the captioner before, and of that once more."""
    base = folder_of(REWARDED if name == AGAIN else PUBLISHED)
    settings = load(base)[2]["model_config"]
    metadata = DATA | {"reward": "cider_d"}
    return _scored(name, metadata, settings, start_from=str(base), freeze=FREEZE, epochs=2)


def from_random_weights(name: str) -> dict:
    """`train --layout flickr8k` as it is: 64 pixels, nothing published."""
    return _scored(name, DATA, TASK.model(DATA, {}, None))


def frozen(name: str) -> dict:
    """What features are worth, published ones and those of random weights."""
    start = {} if name == RANDOM_FEATURES else from_published()
    return _scored(name, DATA, settings_of(96), **start, freeze=FREEZE, epochs=4)


def fine_tuned(name: str) -> dict:
    """All weights trained, for about as long as `frozen`: five captions at once, or one."""
    if name == ONE_BY_ONE:
        return _scored(name, DATA, settings_of(96), OneByOne(), **from_published(), epochs=1)
    return _scored(name, DATA, settings_of(96), **from_published(), epochs=2)


def step(name: str) -> dict:
    """Time and memory of a step that trains all weights, with 32 pictures and 160 captions.

    Memory is the most that the process ever had: measure the sizes from small to large.
    """
    task = FewPictures()
    train(task, DATA, settings_of(STEPS[name]), folder_of(name), **from_published(), epochs=1)
    if distributed.rank() > 0:
        return {}
    rows = [row for row in read_rows(folder_of(name) / "metrics.jsonl") if "loss" in row]
    rates = sorted(row["examples_per_second"] for row in rows)
    return {
        "threads": torch.get_num_threads() * distributed.world_size(),
        "pictures per second": rates[len(rates) // 2],
        "peak memory": rows[-1]["peak_memory"],
    }


MEASURES = {
    **dict.fromkeys(STEPS, step),
    PUBLISHED: published,
    REWARDED: rewarded,
    AGAIN: rewarded,
    SCRATCH: from_random_weights,
    FROZEN: frozen,
    RANDOM_FEATURES: frozen,
    FINE_TUNED: fine_tuned,
    ONE_BY_ONE: fine_tuned,
}


def folder_of(name: str) -> Path:
    return RUNS / name.replace(" ", "-").replace(",", "")


def _scored(name: str, metadata: dict, settings: dict, task: Captioning = TASK, **options) -> dict:
    """Train -> the seconds it took, and the scores by greedy search and with five beams."""
    row = train(task, metadata, settings, folder_of(name), **options)
    if distributed.rank() == 0:
        size = settings["encoders"]["image"]["image_size"]
        data = TASK.read(metadata, "validation", size)
        model, vocabularies, _ = load_run(folder_of(name))
        row["greedy"] = scores_of(generate(model, vocabularies, data), data)
        row[f"{BEAMS} beams"] = scores_of(generate(model, vocabularies, data, BEAMS), data)
    return row


def scores_of(captions: list[list[str]], data: DataSet) -> dict:
    """BLEU-4 and CIDEr-D of the words of captions, each with its interval."""
    captions = [caption_tokenize(detokenize(words)) for words in captions]
    references = [[caption_tokenize(text) for text in texts] for texts in data.texts]
    scores = caption_scores(captions, references)
    return {name: [round(x, 3) for x in scores[name]] for name in ("BLEU-4", "CIDEr-D")}


def results() -> dict[str, dict]:
    """The measurements so far, by name."""
    return by_name(RESULTS)


def main(names: list[str]) -> None:
    """Measure these, or what is missing."""
    measure_missing(RESULTS, names, MEASURES, lambda name: MEASURES[name](name))


if __name__ == "__main__":
    main(sys.argv[1:])
