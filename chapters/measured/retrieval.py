"""How well do the towers of chapter 13 search, and does their picture encoder help a captioner?

    python -m chapters.measured.retrieval            adds what chapters/measured/retrieval.jsonl lacks
    python -m chapters.measured.retrieval NAME …     measures only these
    torchrun --nproc_per_node=2 -m chapters.measured.retrieval scenes    trains one on two cores

It needs data/flickr8k (python -m data_scripts.flickr8k), data/mobilenet_v2.pth
(chapters/measured/mobilenet.py) and runs/ch07/base (chapter 7).
"""

import sys
import tempfile
from pathlib import Path

import torch

from chapters.measured import by_name, few_labels, measure_missing, train
from chapters.measured.mobilenet import WEIGHTS
from mmscratch.data.captions import relevant_pictures
from mmscratch.data.dataset import DataSet
from mmscratch.engine import distributed
from mmscratch.finetuning import load_run, save_run
from mmscratch.metrics import median_rank, recall_at, retrieval_ranks
from mmscratch.model import ModelConfig, build_model
from mmscratch.search import similarities
from mmscratch.tasks.retrieval import SCENES, Retrieval
from mmscratch.weights import load_matching

RESULTS = Path(__file__).with_suffix(".jsonl")
RUNS = Path("runs/retrieval-measured")
FLICKR8K = Path("data/flickr8k")
TASK = Retrieval()
TOWERS = "scenes, with chapter 7's image encoder"
SCRATCH = "German captions from random weights"
FROM_TOWERS = "German captions from the towers"
FROM_FROZEN = "German captions from the towers, CNN frozen"
CAPTIONERS = {SCRATCH: "from scratch", FROM_TOWERS: "all", FROM_FROZEN: "frozen encoder"}
CHOSEN = {"backbone": {"name": "mobilenet"}, "image_size": 224}
PUBLISHED_WEIGHTS = {  # options of `TrainConfig`
    "start_from": "mobilenet_v2",
    "weights": str(WEIGHTS),
    "freeze": ("encoders.image.backbone",),
}
LABELS = 200  # pictures with German captions
PUBLISHED = "Flickr8k, with MobileNetV2's features"
NAMES = ["scenes", "Flickr8k", PUBLISHED, TOWERS, *CAPTIONERS]


def measure_search(name: str) -> dict:
    """Train two towers -> the seconds it took, and how well they search among 1,000 pictures."""
    layout = "flickr8k" if name.startswith("Flickr8k") else "scenes"
    metadata = {"task": TASK.name, "layout": layout, "data": str(FLICKR8K), "scenes": SCENES}
    settings = TASK.model(metadata, {}, None)
    options = {}
    if name == PUBLISHED:
        settings = TASK.model(metadata, CHOSEN, None)
        options = PUBLISHED_WEIGHTS
    if name == TOWERS:
        _, _, base = load_run(few_labels.BASE)
        settings["encoders"]["image"] = base["model_config"]["encoders"]["image"]
    row = train(TASK, metadata, settings, folder_of(name), **options)
    if distributed.rank() > 0:
        return row
    size = settings["encoders"]["image"]["image_size"]
    data = TASK.read(metadata, TASK.evaluation_split(metadata), size)
    return row | search_scores(folder_of(name), data)


def folder_of(name: str) -> Path:
    return RUNS / name.replace(" ", "-").replace(",", "").replace("'", "")


def search_scores(folder: Path, data: DataSet) -> dict:
    """Recall (%) and median rank in both directions, each with its interval."""
    model, vocabularies, _ = load_run(folder)
    scores = similarities(model, vocabularies, data)  # (Q, G)
    relevant = relevant_pictures(data)  # (Q, G)
    pictures = [i for i, texts in enumerate(data.texts) for _ in texts]
    fits_one = relevant.sum(1) == 1  # (Q,)
    captions = retrieval_ranks(scores[fits_one], relevant[fits_one])
    groups = [picture for picture, one in zip(pictures, fits_one.tolist()) if one]
    images = retrieval_ranks(scores.T, relevant.T)
    return {
        "gallery": len(data),
        "caption to picture": _recalls(captions, groups),
        "picture to caption": _recalls(images, list(range(len(data)))),
    }


def _recalls(ranks: torch.Tensor, groups: list[int]) -> dict:
    recalls = {}
    for k in (1, 5, 10):
        hits = recall_at(ranks, k)
        recalls[f"R@{k}"] = round(100 * sum(hits) / len(hits), 1)
    recalls["median rank"] = median_rank(ranks, groups)
    return recalls


def measure_captioner(name: str) -> dict:
    """The percentage of true German captions after 200 labelled pictures, with each seed."""
    method = CAPTIONERS[name]
    true = []
    for seed in few_labels.SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            base = None if name == SCRATCH else captioner_of_towers(Path(folder, "base"), seed)
            settings = few_labels.METHODS[method] | {"seed": seed}
            data = few_labels.training_set("German", LABELS, seed)
            steps = few_labels.STEPS[LABELS]
            trainer = few_labels.fine_tune(
                settings, "German", data, steps, Path(folder, "run"), base
            )
            test = few_labels.test_set("German")
            vocabularies = trainer.train.vocabularies
            measured = few_labels.measure(trainer.model, vocabularies, "German", test)
            true.append(measured["true"])
    return {"true": true}


def captioner_of_towers(folder: Path, seed: int) -> Path:
    """Save a captioner like chapter 7's base: the towers' image encoder, and a new decoder."""
    _, vocabularies, base = load_run(few_labels.BASE)
    config = ModelConfig(**base["model_config"])
    torch.manual_seed(seed)
    model = build_model(config)
    towers, _, _ = load_run(folder_of(TOWERS))
    load_matching(model.encoders["image"], towers.encoders["image"].state_dict())
    save_run(folder, model, config, vocabularies, {})
    return folder


def results() -> dict[str, dict]:
    """The measurements so far, by name."""
    return by_name(RESULTS)


def measure(name: str) -> dict:
    return measure_captioner(name) if name in CAPTIONERS else measure_search(name)


def main(names: list[str]) -> None:
    """Measure these, or what is missing."""
    measure_missing(RESULTS, names, NAMES, measure)


if __name__ == "__main__":
    main(sys.argv[1:])
