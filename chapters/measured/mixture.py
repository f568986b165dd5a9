"""One model for many tasks: does it cost quality, does it follow, and what is it worth afterwards?

    python -m chapters.measured.mixture          adds what chapters/measured/mixture.jsonl lacks
    python -m chapters.measured.mixture NAME …   measures only these

"mixture" trains the model of chapter 17, and the names with "alone" a model of the same kind on one
of its parts, with the eyes of runs/quickstart; all others start from these. With OMP_NUM_THREADS=1,
two can run side by side, or one as two processes (torchrun --nproc_per_node=2 -m …).
"""

import sys
from itertools import product
from pathlib import Path

from chapters.measured import by_name, measure_missing, percent, train
from mmscratch.data.dataset import Subset
from mmscratch.data.mixture import Mixture
from mmscratch.engine import distributed
from mmscratch.finetuning import load_run
from mmscratch.tasks.mixture import MixtureOfTasks
from mmscratch.tasks.parts import MIXED, PARTS, modalities_of
from mmscratch.tasks.task import load
from mmscratch.tasks.train import model_settings

RESULTS = Path(__file__).with_suffix(".jsonl")
RUNS = Path("runs/mixture-measured")
QUICKSTART = Path("runs/quickstart")  # whose eyes all start with
BASE = RUNS / "mixture"
TEST = 1000  # examples of each part
ALONE = ("captions-en", "translation-en-de", "questions", "speech-en")
# A new task: the part, from how many labels, and the steps of training, the same for all ways.
NEW = ("questions-de", "translation-de-zh", "spoken-questions-de")
STEPS = {50: 150, 200: 250, 800: 400}
BATCH_SIZE = 32
SEEDS = (0, 1, 2)
WAYS = {
    "all weights": {"learning_rate": 5e-4},
    "LoRA": {"learning_rate": 5e-3, "lora": 8},
    "adapters": {"learning_rate": 5e-3, "adapters": 16},
    "prompt": {"learning_rate": 3e-2, "prompt": 16},
    "biases": {"learning_rate": 1e-2, "biases": True},
    "from scratch": {"learning_rate": 1.5e-3},
    "all weights of the single-task model": {"learning_rate": 5e-4},
}


def settings_of(parts: str, **options) -> dict:
    """The metadata of a run of these parts."""
    metadata = {"task": "mixture", "layout": "mixture", "data": "mixture", "parts": parts}
    defaults = {"examples": None, "temperature": 1.0, "count-by": "word", "wordings": "few"}
    return metadata | defaults | options


def pretrain(name: str) -> dict:
    """Train the mixture, or one of its parts alone, and measure all that it has learned."""
    task = MixtureOfTasks()
    parts = {"mixture": MIXED}.get(name, name.removeprefix("alone, "))
    metadata = settings_of(parts)
    options = {}
    base = None
    if "image" in modalities_of(metadata):
        base = load(QUICKSTART)[2]
        options = {"start_from": str(QUICKSTART), "freeze": task.freezes}
    settings = model_settings(task, metadata, {}, base)
    row = train(task, metadata, settings, _folder(name), **options)
    if distributed.rank() > 0:
        return row
    model, vocabularies, _ = load_run(_folder(name))
    row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    row["right"] = {part: right(model, vocabularies, part) for part in parts.split(",")}
    if name == "mixture":
        row |= controls(model, vocabularies)
    return row


MORE = 40_000  # examples, in many wordings


def reword(name: str) -> dict:
    """Go on with the mixture, now with many wordings of each instruction, and measure it again."""
    task = MixtureOfTasks()
    metadata = settings_of(MIXED, examples=MORE, wordings="seen")
    settings = model_settings(task, metadata, {}, load(BASE)[2])
    options = {"start_from": str(BASE), "learning_rate": 7e-4}
    known = load_run(BASE)[1]
    row = train(task, metadata, settings, _folder(name), known, **options)
    if distributed.rank() > 0:
        return row
    model, vocabularies, _ = load_run(_folder(name))
    row["right"] = {part: right(model, vocabularies, part, "seen") for part in MIXED.split(",")}
    return row | controls(model, vocabularies)


VARIANTS = {  # of a mixture with fewer examples
    "short": {},
    "short, batches of one task": {"block": 64},
    "short, temperature 3": {"temperature": 3.0},
    "short, every example counts the same": {"count-by": "example"},
}
SHORT = 60_000


def vary(name: str) -> dict:
    """Train a short mixture in another way, and measure it."""
    task = MixtureOfTasks()
    metadata = settings_of(MIXED, examples=SHORT, **VARIANTS[name])
    settings = model_settings(task, metadata, {}, load(QUICKSTART)[2])
    options = {"start_from": str(QUICKSTART), "freeze": task.freezes}
    row = train(task, metadata, settings, RUNS / "short", **options)
    if distributed.rank() > 0:
        return row
    model, vocabularies, _ = load_run(RUNS / "short")
    return row | {"right": {part: right(model, vocabularies, part) for part in MIXED.split(",")}}


def controls(model, vocabularies: dict) -> dict:
    """The same with other wordings, without instruction or a modality; and tasks never learned."""
    row = {}
    for key, wordings in (("new wordings", "unseen"), ("no instruction", "none")):
        row[key] = {part: right(model, vocabularies, part, wordings) for part in MIXED.split(",")}
    row["instruction of another part"] = wrong_instructions(model, vocabularies)
    for modality in ("image", "sound", "row"):
        row[f"without {modality}"] = without(model, vocabularies, modality)
    new = [part for part in PARTS if part not in MIXED.split(",")]
    row["never learned"] = {part: right(model, vocabularies, part) for part in new}
    row["never learned, without image"] = {
        part: right(model, vocabularies, part, left_out="image") for part in new
    }
    return row


def right(
    model, vocabularies: dict, name: str, wordings: str = "seen", left_out: str = ""
) -> list[float]:
    """How much of a part's test examples is right, in %, with its interval."""
    data = PARTS[name].read("test", TEST, 64)
    examples = Mixture({name: data}, [name] * len(data), wordings)
    if left_out:
        examples = examples.without(left_out)
    return percent(PARTS[name].score(model, vocabularies, examples, data))


def without(model, vocabularies: dict, modality: str) -> dict:
    """Each part that has this modality, and another input besides, without it."""
    found = {}
    for name in MIXED.split(","):
        columns = PARTS[name].read("test", 2, 64).columns
        if modality in columns and len(columns) > 1:
            found[name] = right(model, vocabularies, name, left_out=modality)
    return found


def wrong_instructions(model, vocabularies: dict) -> dict:
    """The captions and translations that are right where another language is asked for."""
    found = {}
    for kind in ("captions", "translation"):
        names = [name for name in MIXED.split(",") if name.startswith(kind)]
        parts = {name: PARTS[name].read("test", TEST, 64) for name in names}
        for name in names:
            data = Mixture(parts, [name] * TEST, "wrong")
            found[name] = percent(PARTS[name].score(model, vocabularies, data, parts[name]))
    return found


def fine_tune(name: str) -> dict:
    """Learn a new task from few labels, in one of the ways."""
    part, way, labels, seed = name.split("; ")
    labels, seed = int(labels.removesuffix(" labels")), int(seed.removeprefix("seed "))
    options = dict(WAYS[way])
    base = BASE
    if "single" in way:
        base = _folder("alone, questions")
    checkpoint = None if way == "from scratch" else load(base)[2]
    if checkpoint:
        options["start_from"] = str(base)
    task = _FewLabels(labels, seed)
    metadata = settings_of(part)
    settings = model_settings(task, metadata, {}, checkpoint)
    epochs = -(-STEPS[labels] * BATCH_SIZE // labels)
    options |= {"epochs": epochs, "batch_size": BATCH_SIZE, "evaluate_every": None}
    options |= {"shuffle": True, "keep_best": False, "seed": seed}
    folder = RUNS / "new"
    known = load_run(base)[1] if checkpoint else None
    row = train(task, metadata, settings, folder, known, **options)
    model, vocabularies, saved = load_run(folder)
    trained = saved["model"] if "base" in saved and saved["base"] else None
    row["bytes"] = (folder / "best.pt").stat().st_size
    total = sum(parameter.numel() for parameter in model.parameters())
    row["trained"] = sum(x.numel() for x in trained.values()) if trained else total
    row["step, ms"] = round(1000 * row["seconds"] / (epochs * -(-labels // BATCH_SIZE)))
    row["right"] = right(model, vocabularies, part)
    return row


class _FewLabels(MixtureOfTasks):
    """The task, with few training examples, which each seed draws anew."""

    def __init__(self, labels: int, seed: int):
        self.labels = labels
        self.seed = seed

    def read(self, metadata: dict, split: str, image_size: int) -> Mixture:
        name = metadata["parts"]
        if split != "train":
            data = PARTS[name].read(split, 50, image_size)
            return Mixture({name: data}, [name] * len(data))
        data = PARTS[name].read(split, (1 + self.seed) * self.labels, image_size)
        chosen = Subset(data, range(self.seed * self.labels, (1 + self.seed) * self.labels))
        return Mixture({name: chosen}, [name] * self.labels)


def _folder(name: str) -> Path:
    return RUNS / name.replace(", ", "-").replace(" ", "-")


def results() -> dict[str, dict]:
    """The measurements so far, by name."""
    return by_name(RESULTS)


def main(names: list[str]) -> None:
    """Measure these, or what is missing."""
    measures = {"mixture": pretrain} | {f"alone, {part}": pretrain for part in ALONE}
    measures["mixture, then many wordings"] = reword
    measures |= dict.fromkeys(VARIANTS, vary)
    for part, way, labels, seed in product(NEW, WAYS, STEPS, SEEDS):
        measures[f"{part}; {way}; {labels} labels; seed {seed}"] = fine_tune
    measure_missing(RESULTS, names, measures, lambda name: measures[name](name))


if __name__ == "__main__":
    main(sys.argv[1:])
