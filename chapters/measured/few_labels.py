"""How many labelled pictures does a new task need? The measurements of chapter 7, which take hours.

    python -m chapters.measured.few_labels

makes those that are missing in chapters/measured/few_labels.jsonl, and adds them there. It starts
from the captioner that chapter 7 trains, in runs/ch07/base. Flickr8k is measured if it is in
data/flickr8k.
"""

import math
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from io import StringIO
from itertools import count, product
from multiprocessing import get_context
from pathlib import Path

import torch

from chapters.measured import add_row, read_rows
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
COUNTS = (50, 200, 800, 3200)  # labelled pictures
SEEDS = (0, 1, 2)
# Labelled pictures -> steps, the same for all methods; the last epoch is then completed.
STEPS = {50: 150, 200: 250, 800: 300, 1600: 400, 3200: 500}
BATCH_SIZE = 32  # captions
BASE = Path("runs/ch07/base")
RESULTS = Path(__file__).with_suffix(".jsonl")
FLICKR8K = Path("data/flickr8k")
METHODS = {
    "from scratch": {"learning_rate": 3e-3},
    "frozen encoder": {"learning_rate": 3e-3, "freeze": ("encoders.image.backbone",)},
    "all": {"learning_rate": 2e-3},
    "layer-wise decay": {"learning_rate": 3e-3, "layer_decay": 0.8},
    "LoRA": {"learning_rate": 1e-2, "lora": 8},
}
GRADUALLY = {  # measured with 200 pictures only
    "gradual unfreezing": {
        "learning_rate": 2e-3,
        "freeze": ("encoders", "decoder.blocks"),
        "gradual_unfreezing": 0.5,
    }
}
TASKS = {
    "inverted and noisy": {"inverted": True},
    "unseen nouns": {"unseen": True},
    "German": {"language": "de"},
    "photographs": {},
    "old": {},  # what the base was trained on
}
OLD = "old"


class FilteredScenes(SceneCaptions):
    """The `number` first scenes from scene `first` on that show unseen nouns, or that show none."""

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
        scenes = []
        for seed in count(first):
            if len(scenes) == number:
                break
            scene = Scene(seed)
            if any(obj.noun in UNSEEN for obj in scene.objects) == unseen:
                scenes.append(scene)
        self.set_scenes(scenes, language, one_caption_each=one_caption_each)
        if inverted:
            self.columns["image"] = LazyColumn(inverted_and_noisy, self.scenes)


def inverted_and_noisy(scene: Scene) -> torch.Tensor:
    """The inverted picture of a scene, (3, 64, 64) uint8, plus noise that depends only on the scene."""
    picture = draw(scene)  # (3, 64, 64)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(scene.seed))
    return (255.0 - picture + 25 * noise).clamp(0, 255).to(torch.uint8)


def random_subset(data: DataSet, number: int, seed: int) -> Subset:
    """`number` examples of a data set, drawn by a seed."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return Subset(data, order[:number].tolist())


def training_set(task: str, number: int, seed: int) -> DataSet:
    """The labelled pictures that a method learns from; each seed draws others."""
    if task == "photographs":
        return random_subset(Flickr8k(FLICKR8K, "train"), number, seed)
    return FilteredScenes(10_000_000 + 1_000_000 * seed, number, **TASKS[task])


def test_set(task: str, number: int = 500) -> DataSet:
    """The pictures that all methods are measured on."""
    if task == "photographs":
        return random_subset(Flickr8k(FLICKR8K, "validation"), number, 0)
    return FilteredScenes(SPLITS["test"], number, **TASKS[task])


def make_vocabulary(task: str, data: DataSet, base: Vocabulary) -> Vocabulary:
    """The words of the base, then the new ones of the data; for German, those of the data only."""
    sentences = [tokens for references in data.references for tokens in references]
    min_freq = 2 if task == "photographs" else 1
    words = Vocabulary.build(sentences, min_freq=min_freq).words[len(SPECIALS) :]
    if task == "German":
        return Vocabulary(words)
    new_words = [word for word in words if word not in base.index]
    return Vocabulary(base.words[len(SPECIALS) :] + new_words)


def fine_tune(
    settings: dict, task: str, data: DataSet, steps: int, folder: Path, base: Path | None = BASE
) -> Trainer:
    """Learn a task from labelled pictures.

    settings: of a method, for `TrainConfig`.
    steps: to be completed to full epochs.
    base: the run to start from; with None, train its architecture from scratch.
    Returns the trainer, whose model has the weights of the last step.
    """
    _, vocabularies, saved = load_run(base or BASE)
    vocabulary = make_vocabulary(task, data, vocabularies["target"])
    examples = Examples(data, {"target": vocabulary})
    config = TrainConfig(
        epochs=math.ceil(steps * BATCH_SIZE / len(examples)),
        batch_size=BATCH_SIZE,
        precision="float32",
        bucket_batches=None,
        evaluate_every=10**9,
        start_from=str(base or ""),
        **settings,
    )
    model_config = ModelConfig(**saved["model_config"] | {"vocab_size": len(vocabulary)})
    # Validation chooses nothing here, so one picture is enough.
    validation = Examples(FilteredScenes(SPLITS["validation"], 1), {"target": vocabulary})
    trainer = Trainer(model_config, config, (examples, validation), folder)
    trainer.fit()
    return trainer


def measure(
    model: torch.nn.Module, vocabularies: dict, task: str, data: DataSet
) -> dict[str, float]:
    """The percentage of captions that are true; for photographs CIDEr-D and BLEU-4."""
    written = [detokenize(tokens) for tokens in generate(model, vocabularies, data)]
    if task == "photographs":
        hypotheses = [caption_tokenize(text) for text in written]
        references = [[caption_tokenize(text) for text in texts] for texts in data.texts]
        cider = cider_d(hypotheses, references).score
        return {"CIDEr-D": cider, "BLEU-4": bleu(hypotheses, references).score}
    language = TASKS[task].get("language", "en")
    true = [judge(text, scene, language).true for text, scene in zip(written, data.scenes)]
    return {"true": 100 * sum(true) / len(true)}


def measure_one(task: str, method: str, labels: int, seed: int, longer: int = 1) -> dict:
    """Fine-tune once and measure: the new task, then the old one, unless the model now speaks German.

    longer: how many times the usual number of steps.
    """
    torch.set_num_threads(1)
    settings = (METHODS | GRADUALLY)[method] | {"seed": seed}
    base = None if method == "from scratch" else BASE
    data = training_set(task, labels, seed)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        trainer = fine_tune(settings, task, data, longer * STEPS[labels], Path(folder), base)
    model = trainer.model
    vocabularies = trainer.train.vocabularies
    result = {"task": task, "method": method, "labels": labels, "seed": seed, "longer": longer}
    result |= measure(model, vocabularies, task, test_set(task))
    if task != "German":
        result["old"] = measure(model, vocabularies, OLD, test_set(OLD))["true"]
    result["parameters"] = sum(p.numel() for p in model.parameters())
    result["trained"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return result


def results() -> list[dict]:
    """The measurements in the file."""
    return read_rows(RESULTS)


def plan() -> list[tuple]:
    """All measurements that chapter 7 needs, as the arguments of `measure_one`."""
    drawn = [task for task in TASKS if task not in ("photographs", OLD)]
    runs = []
    for seed, task, labels, method in product(SEEDS, drawn, COUNTS, METHODS):
        runs.append((task, method, labels, seed, 1))
    for seed, task, method in product(SEEDS, drawn, GRADUALLY):
        runs.append((task, method, 200, seed, 1))
    # The control, with four times as many steps: does training from scratch only need longer? And
    # does the best of the other methods with 200 pictures gain as much?
    for task, best in zip(drawn, ("all", "frozen encoder", "LoRA")):
        runs.append((task, best, 200, 0, 4))
    for task, labels in product(drawn, (800, 1600, 3200)):
        runs.append((task, "from scratch", labels, 0, 4))
    for seed, labels, method in product(SEEDS, COUNTS, METHODS):
        runs.append(("photographs", method, labels, seed, 1))
    return runs


def main() -> None:
    """Make the missing measurements, one per core at a time."""
    done = [(r["task"], r["method"], r["labels"], r["seed"], r["longer"]) for r in results()]
    missing = []
    for run in plan():
        can_run = run[0] != "photographs" or FLICKR8K.exists()
        if run not in done and can_run:
            missing.append(run)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        futures = [pool.submit(measure_one, *run) for run in missing]
        for future in as_completed(futures):
            print(future.result(), flush=True)
            add_row(RESULTS, future.result())


if __name__ == "__main__":
    main()
