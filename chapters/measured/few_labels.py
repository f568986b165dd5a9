"""How many labelled pictures does a new task need? The measurements of chapter 7, which take hours.

    python -m chapters.measured.few_labels       measures what is not yet in chapters/measured/few_labels.jsonl, and adds it there

It begins with the captioner that chapter 7 trains, in runs/ch07/base. Flickr8k is measured where it lies in data/flickr8k.
"""

import contextlib
import io
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import count, islice, product
from multiprocessing import get_context
from pathlib import Path

import torch

from mmscratch.batches import Examples
from mmscratch.data.captions import Flickr8k, SceneCaptions
from mmscratch.data.dataset import DataSet, LazyColumn, Subset
from mmscratch.data.judge import judge
from mmscratch.data.scenes import SPLITS, Scene, draw
from mmscratch.decoding import generate
from mmscratch.finetuning import load_run
from mmscratch.metrics import bleu, caption_tokenize, cider_d
from mmscratch.model import ModelConfig
from mmscratch.text import SPECIALS, Vocabulary, detokenize
from mmscratch.training import TrainConfig, Trainer

UNSEEN = ("cat", "pencil", "anchor", "gear")  # nouns that pre-training never shows
COUNTS, SEEDS = (50, 200, 800, 3200), (0, 1, 2)
# With so many pictures, for all methods: at least so many steps, then the epoch is brought to its end.
STEPS = {50: 150, 200: 250, 800: 300, 1600: 400, 3200: 500}
BATCH_SIZE = 32  # captions
BASE = Path("runs/ch07/base")
RESULTS = Path(__file__).with_suffix(".jsonl")
FLICKR8K = Path("data/flickr8k")
METHODS = {
    "from nothing": {"learning_rate": 3e-3},
    "frozen encoder": {"learning_rate": 3e-3, "freeze": ("encoders.image.backbone",)},
    "all": {"learning_rate": 2e-3},
    "falling rates": {"learning_rate": 3e-3, "layer_decay": 0.8},
    "LoRA": {"learning_rate": 1e-2, "lora": 8},
}
# Tried with 200 pictures.
GRADUALLY = {
    "gradual unfreezing": {
        "learning_rate": 2e-3,
        "freeze": ("encoders", "decoder.blocks"),
        "gradual_unfreezing": 0.5,
    }
}


class Drawn(SceneCaptions):
    """So many scenes, from the number `first` on: those that hold unseen nouns, or those that do not."""

    def __init__(
        self,
        first: int,
        number: int,
        language: str = "en",
        unseen: bool = False,
        inverted: bool = False,
        one_caption_each: bool = False,
    ):
        DataSet.__init__(self)
        fitting = (
            scene
            for scene in map(Scene, count(first))
            if unseen == any(t.noun in UNSEEN for t in scene.objects)
        )
        self.set_scenes(list(islice(fitting, number)), language, one_caption_each=one_caption_each)
        if inverted:
            self.columns["image"] = LazyColumn(inverted_and_noisy, self.scenes)


def inverted_and_noisy(scene: Scene) -> torch.Tensor:
    """The picture of a scene, (3, 64, 64) uint8, white where it was black; its noise is always the same."""
    picture = draw(scene)  # (3, 64, 64)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(scene.seed))
    return (255.0 - picture + 25 * noise).clamp(0, 255).to(torch.uint8)


def some(data: DataSet, number: int, seed: int) -> Subset:
    """So many examples of a larger data set, drawn by a seed."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return Subset(data, order[:number].tolist())


TASKS = {
    "inverted and noisy": {"inverted": True},
    "unseen nouns": {"unseen": True},
    "German": {"language": "de"},
    "photographs": {},
    "old": {},  # what the base was trained on
}
OLD = "old"


def labelled(task: str, number: int, seed: int) -> DataSet:
    """The pictures that a method may learn from; with another seed others."""
    if task == "photographs":
        return some(Flickr8k(FLICKR8K, "train"), number, seed)
    return Drawn(10_000_000 + 1_000_000 * seed, number, **TASKS[task])


def test_set(task: str, number: int = 500) -> DataSet:
    """Those that it is measured on, the same for all."""
    if task == "photographs":
        return some(Flickr8k(FLICKR8K, "validation"), number, 0)
    return Drawn(SPLITS["test"], number, **TASKS[task])


def fine_tune(
    method: dict,
    task: str,
    data: DataSet,
    seed: int,
    folder: Path,
    steps: int,
    base: Path | None = BASE,
) -> Trainer:
    """Learn a task from labelled pictures, beginning with a base or, without one, from nothing.

    The trainer, with the model as it is at the end.
    """
    _, vocabularies, saved = load_run(base or BASE)
    before = vocabularies["target"]
    sentences = [tokens for references in data.references for tokens in references]
    words = Vocabulary.build(sentences, min_freq=2 if task == "photographs" else 1).words[
        len(SPECIALS) :
    ]
    if task != "German":  # what it could say, it still can; a new language begins anew
        words = [
            *before.words[len(SPECIALS) :],
            *(word for word in words if word not in before.index),
        ]
    vocabulary = Vocabulary(words)
    examples = Examples(data, {"target": vocabulary})
    config = TrainConfig(
        epochs=-(-steps * BATCH_SIZE // len(examples)),
        batch_size=BATCH_SIZE,
        precision="float32",
        bucket_batches=None,
        evaluate_every=10**9,
        seed=seed,
        start_from=str(base or ""),
        **method,
    )
    settings = saved["model_config"] | {"vocab_size": len(vocabulary)}
    # The trainer validates, but the weights of the last step are taken: one picture is enough for it.
    few = Examples(Drawn(SPLITS["validation"], 1), {"target": vocabulary})
    trainer = Trainer(ModelConfig(**settings), config, (examples, few), folder)
    trainer.fit()
    return trainer


def measure(
    model: torch.nn.Module, vocabularies: dict, task: str, data: DataSet
) -> dict[str, float]:
    """The share of captions that are true, in percent; of photographs CIDEr-D and BLEU-4."""
    written = generate(model, vocabularies, data)
    if task == "photographs":
        hypotheses = [caption_tokenize(detokenize(tokens)) for tokens in written]
        references = [list(map(caption_tokenize, texts)) for texts in data.texts]
        return {
            "CIDEr-D": cider_d(hypotheses, references).score,
            "BLEU-4": bleu(hypotheses, references).score,
        }
    language = TASKS[task].get("language", "en")
    true = [
        judge(detokenize(tokens), scene, language).true
        for tokens, scene in zip(written, data.scenes)
    ]
    return {"true": 100 * sum(true) / len(true)}


def one(task: str, method: str, labels: int, seed: int, longer: int = 1) -> dict:
    """One of the measurements: the new task, and, in the same language, the old one after it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        base = None if method == "from nothing" else BASE
        trainer = fine_tune(
            (METHODS | GRADUALLY)[method],
            task,
            labelled(task, labels, seed),
            seed,
            Path(folder),
            longer * STEPS[labels],
            base,
        )
    model, vocabularies = trainer.model, trainer.train.vocabularies
    found = {"task": task, "method": method, "labels": labels, "seed": seed, "longer": longer}
    found |= measure(model, vocabularies, task, test_set(task))
    if task != "German":
        found["old"] = measure(model, vocabularies, OLD, test_set(OLD))["true"]
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return found | {
        "parameters": sum(n for n, _ in sizes),
        "trained": sum(n for n, trained in sizes if trained),
    }


def results() -> list[dict]:
    """What has been measured."""
    return (
        [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    )


def plan() -> list[tuple]:
    """All that is to be measured: what `one` takes."""
    drawn = [task for task in TASKS if task not in ("photographs", OLD)]
    tasks = [
        (task, method, labels, seed, 1)
        for seed, task, labels, method in product(SEEDS, drawn, COUNTS, METHODS)
    ]
    tasks += [(task, *GRADUALLY, 200, seed, 1) for seed, task in product(SEEDS, drawn)]
    # Is it only that from nothing needs more steps? Four times as many, for it and for the best of the others with 200.
    longer = [(drawn[0], "all", 200), (drawn[1], "frozen encoder", 200), (drawn[2], "LoRA", 200)]
    longer += [(task, "from nothing", labels) for task, labels in product(drawn, (800, 1600, 3200))]
    tasks += [(*what, 0, 4) for what in longer]
    return tasks + [
        ("photographs", method, labels, seed, 1)
        for seed, labels, method in product(SEEDS, COUNTS, METHODS)
    ]


def main() -> None:
    """Measure what is missing, one measurement a core at a time."""
    done = [(r["task"], r["method"], r["labels"], r["seed"], r["longer"]) for r in results()]
    missing = [
        what
        for what in plan()
        if what not in done and (what[0] != "photographs" or FLICKR8K.exists())
    ]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for future in as_completed([pool.submit(one, *what) for what in missing]):
            line = json.dumps(future.result())
            print(line, flush=True)
            with RESULTS.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
