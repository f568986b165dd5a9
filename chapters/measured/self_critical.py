"""Does training on a metric make captions truer, or only higher-scored? Scenes know.

    python -m chapters.measured.self_critical          adds what self_critical.jsonl lacks
    python -m chapters.measured.self_critical NAME …   measures only these

A captioner is trained on, from three seeds, for about as long in each way:
with the cross-entropy on more scenes, or on a reward: CIDEr-D, BLEU, or the verdict of the judge.
"""

import sys
from pathlib import Path

from chapters.measured import by_name, measure_missing, percent, train
from mmscratch.data.judge import judge
from mmscratch.decoding import generate
from mmscratch.finetuning import load_run
from mmscratch.metrics import caption_scores
from mmscratch.tasks.captioning import Captioning
from mmscratch.tasks.task import load
from mmscratch.text import caption_tokenize, detokenize

RESULTS = Path(__file__).with_suffix(".jsonl")
RUNS = Path("runs/self-critical-measured")
TASK = Captioning()
BASE = "before"
BASE_SCENES = 60_000
WAYS = {  # the reward, and on how many scenes
    "cross-entropy": (None, 12_000),
    "CIDEr-D": ("cider_d", 1_500),
    "BLEU": ("bleu", 1_500),
    "truth": ("truth", 1_500),
}
SEEDS = (0, 1, 2)


def measure(name: str) -> dict:
    """Train in one way from one seed -> the seconds it took, and the scores on 1,000 new scenes."""
    way, _, seed = name.partition(", seed ")
    if way == BASE:
        metadata = _metadata(None, BASE_SCENES)
        settings = TASK.model(metadata, {}, None)
        row = train(TASK, metadata, settings, folder_of(name), seed=int(seed))
    else:
        metadata = _metadata(*WAYS[way])
        base = folder_of(f"{BASE}, seed {seed}")
        settings = load(base)[2]["model_config"]
        options = {"seed": int(seed), "start_from": str(base)}
        if way == "cross-entropy":
            options["learning_rate"] = 1e-3  # of the first training: 3e-3
        row = train(TASK, metadata, settings, folder_of(name), **options)
    return row | _scores(folder_of(name), metadata)


def _metadata(reward: str | None, scenes: int) -> dict:
    metadata = {"task": TASK.name, "layout": "scenes", "data": "scenes", "scenes": scenes}
    return metadata | {"reward": reward}


def folder_of(name: str) -> Path:
    return RUNS / name.replace(", ", "-").replace(" ", "-")


def _scores(run: Path, metadata: dict) -> dict:
    data = TASK.read(metadata, "test", 64)
    model, vocabularies, _ = load_run(run)
    words = generate(model, vocabularies, data)
    verdicts = [judge(detokenize(c), scene) for c, scene in zip(words, data.scenes)]
    true = [float(verdict.true) for verdict in verdicts]
    captions = [caption_tokenize(detokenize(caption)) for caption in words]
    references = [[caption_tokenize(text) for text in texts] for texts in data.texts]
    scores = caption_scores(captions, references)
    row = {"true": percent(true), "words": round(sum(map(len, captions)) / len(captions), 2)}
    for metric in ("BLEU-4", "CIDEr-D"):
        row[metric] = [round(value, 3) for value in scores[metric]]
    return row


def results() -> dict[str, dict]:
    """The measurements so far, by name."""
    return by_name(RESULTS)


def main(names: list[str]) -> None:
    """Measure these, or what is missing."""
    known = [f"{way}, seed {seed}" for seed in SEEDS for way in (BASE, *WAYS)]
    measure_missing(RESULTS, names, known, measure)


if __name__ == "__main__":
    main(sys.argv[1:])
