"""How well do captioners of chapter 15 describe photographs?

    python -m chapters.measured.photographs          adds what chapters/measured/photographs.jsonl lacks
    python -m chapters.measured.photographs NAME …   measures only these
    torchrun --nproc_per_node=2 -m chapters.measured.photographs …   trains on two cores

It needs data/flickr8k (python -m data_scripts.flickr8k) and data/mobilenet_v2.pth
(chapters/measured/mobilenet.py). Scores are those of the 1,000 pictures of the dev split.
"""

import sys
from pathlib import Path

from chapters.measured import by_name, measure_missing, train
from chapters.measured.mobilenet import WEIGHTS
from mmscratch.data.dataset import DataSet
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
PUBLISHED = "published weights"
REWARDED = "then CIDEr-D"
FREEZE = ("encoders.image.backbone",)


def published(name: str) -> dict:
    """From MobileNetV2's weights, frozen: its features are computed once."""
    chosen = {"backbone": {"name": "mobilenet"}, "image_size": 224}
    settings = TASK.model(DATA, chosen, None)
    options = {"start_from": "mobilenet_v2", "weights": str(WEIGHTS), "freeze": FREEZE}
    return _scored(name, DATA, settings, **options)


def rewarded(name: str) -> dict:
    """Self-critical training of the captioner before."""
    base = folder_of(PUBLISHED)
    settings = load(base)[2]["model_config"]
    return _scored(
        name, DATA | {"reward": "cider_d"}, settings, start_from=str(base), freeze=FREEZE, epochs=2
    )


MEASURES = {PUBLISHED: published, REWARDED: rewarded}


def folder_of(name: str) -> Path:
    return RUNS / name.replace(" ", "-").replace(",", "")


def _scored(name: str, metadata: dict, settings: dict, **options) -> dict:
    """Train -> the seconds it took, and the scores by greedy search and with five beams."""
    row = train(TASK, metadata, settings, folder_of(name), **options)
    if distributed.rank() == 0:
        size = settings["encoders"]["image"]["image_size"]
        data = TASK.read(metadata, "validation", size)
        row["greedy"] = scores_of(folder_of(name), data, 1)
        row[f"{BEAMS} beams"] = scores_of(folder_of(name), data, BEAMS)
    return row


def scores_of(run: Path, data: DataSet, num_beams: int) -> dict:
    """BLEU-4 and CIDEr-D of a run, each with its interval."""
    model, vocabularies, _ = load_run(run)
    words = generate(model, vocabularies, data, num_beams)
    captions = [caption_tokenize(detokenize(caption)) for caption in words]
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
