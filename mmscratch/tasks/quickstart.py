"""The first command: train a captioner of drawn scenes, and show its attention."""

import argparse
import shlex
import time
from pathlib import Path

import torch

from ..batches import Examples, collate, to_device
from ..data.captions import SceneCaptions
from ..data.language import named_objects
from ..data.scenes import SPLITS, Scene, box, render
from ..decoding import attention_maps, generate
from ..engine import distributed
from ..engine.devices import pick_device, pick_precision
from ..metrics import attention_in_box
from ..model import build_model
from ..plots import attention_sheet
from . import captioning
from .report import write_report
from .task import load, shown_picture
from .train import sized, train_run

MEASURED_SCENES = 500
OTHER_SECONDS = 15  # for starting, measuring and drawing
SETTINGS = {  # the options of `train` that quickstart does not have
    "task": "captioning",
    "layout": "scenes",
    "reward": None,
    **dict.fromkeys(("data", "start_from", "weights", "decoder_from", "image_size")),
    **dict.fromkeys(("epochs", "batch_size", "accumulation_steps", "learning_rate", "workers")),
    "freeze": [],
    **dict.fromkeys(("lora", "adapters", "prompt", "biases", "seed"), 0),
}


def quickstart(args: argparse.Namespace) -> None:
    """Train a captioner of drawn scenes, measure it, and draw some pictures to try it on."""
    start = time.monotonic()
    distributed.start()
    if args.scenes < 1:
        raise ValueError(f"--scenes must be at least 1, not {args.scenes}")
    chosen = dict(captioning.BEST)
    for name in chosen:
        chosen[name] = getattr(args, name) or chosen[name]
    if args.run is None:
        variant = "" if chosen == captioning.BEST else f"-{'-'.join(chosen.values())}"
        args.run = Path(f"runs/quickstart{variant}")
    scenes = f"{args.scenes:,} scenes to train on"
    print(f"drawing {scenes}; each is shown once, with one of its captions", flush=True)
    if train_run(args) is None:
        return
    folder = args.run
    # An LSTM with a prefix attends only once, before the first word.
    test = SceneCaptions("test", captioning.TEST_SCENES)
    if chosen != {"decoder": "lstm", "fusion": "prefix"}:
        show_attention(folder, test)
    print(write_report(captioning.Captioning(), folder, test, "test"))
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for i in range(8):
        scene = Scene(SPLITS["test"] + captioning.TEST_SCENES + i)
        render(scene, 256).save(pictures / f"scene{i}.png")
    seconds = time.monotonic() - start
    print(f"\n{seconds:.0f} seconds. Look at {folder / 'captions-test.png'}, then try")
    command = ["python", "-m", "mmscratch", "caption", str(pictures), "--run", str(folder)]
    print(f"  {shlex.join(command)}")


def print_estimate(_: argparse.Namespace) -> None:
    """The end of `doctor`: say how long quickstart will take on this machine."""
    minutes = max(1, round(seconds_needed() / 60))
    print(f"quickstart   about {minutes} min, after a second of training")


def seconds_needed() -> float:
    """How long quickstart will take on this machine, in seconds, from a second of training."""
    task = captioning.Captioning()
    metadata = {"layout": "scenes", "scenes": MEASURED_SCENES}
    data = task.read(metadata, "train", 64)
    vocabularies = task.vocabularies(metadata, data, None)
    examples = Examples(data, vocabularies)
    config = sized(task.model(metadata, {}, None), vocabularies, (examples, examples))
    device = pick_device()
    precision, _ = pick_precision(device)
    model = build_model(config).to(device, memory_format=precision.layout)
    optimizer = torch.optim.AdamW(model.parameters())
    batch_size = task.settings(metadata)["batch_size"]
    steps = 0
    start = time.perf_counter()
    while steps < 3 or time.perf_counter() - start < 1:
        first = steps * batch_size
        chosen = [examples[i % MEASURED_SCENES] for i in range(first, first + batch_size)]
        with precision.autocast():
            loss, count = model.loss(to_device(collate(chosen), device))
        (loss / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        if steps == 2:  # the first two are slower
            start = time.perf_counter()
    seconds = (time.perf_counter() - start) / (steps - 2)
    return OTHER_SECONDS + seconds * captioning.SCENES / batch_size


def show_attention(
    run: Path, data: SceneCaptions, hypotheses: list[list[str]] | None = None
) -> None:
    """Print how much attention falls on the object that a word names; draw it for two captions."""
    model, vocabularies, _ = load(run)
    indices = range(min(300, len(data)))
    pictures = [data[i]["image"] for i in indices]
    if hypotheses is None:
        hypotheses = generate(model, vocabularies, [{"image": picture} for picture in pictures])
    maps = []
    fractions = []
    for picture, words, scene in zip(pictures, hypotheses, data.scenes):
        attention = attention_maps(model, vocabularies, picture, words)
        maps.append(attention)
        for t, obj in named_objects(words, scene):
            size = picture.size(-1)
            fractions.append(attention_in_box(attention[t], box(obj, size), size))
    if fractions:  # a model that has hardly learned anything may name no object of the scene
        inside = 100 * sum(inside for inside, _ in fractions) / len(fractions)
        area = 100 * sum(area for _, area in fractions) / len(fractions)
        where = "within the object that a noun or colour names"
        print(f"  attention            {inside:.0f} % {where}, {area:.0f} % of the area")
    chosen = [i for i in indices if len(data.scenes[i].objects) > 1][:2]
    shown = [shown_picture(data, i) for i in chosen]
    sheet = attention_sheet(shown, [hypotheses[i] for i in chosen], [maps[i] for i in chosen])
    sheet.savefig(run / "attention.png")
