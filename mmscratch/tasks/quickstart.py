"""The first command: train a captioner of drawn scenes, and show its attention."""

import argparse
import shlex
import time
from pathlib import Path

from ..data.captions import SceneCaptions
from ..data.language import named_objects
from ..data.scenes import SPLITS, Scene, box, render
from ..decoding import attention_maps, generate
from ..engine import distributed
from ..metrics import attention_in_box
from ..plots import attention_sheet
from . import captioning
from .task import load
from .train import train_run

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
    if chosen != {"decoder": "lstm", "fusion": "prefix"}:
        show_attention(folder, SceneCaptions("test", captioning.TEST_SCENES))
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for i in range(8):
        scene = Scene(SPLITS["test"] + captioning.TEST_SCENES + i)
        render(scene, 256).save(pictures / f"scene{i}.png")
    seconds = time.monotonic() - start
    print(f"\n{seconds:.0f} seconds. Look at {folder / 'captions-test.png'}, then try")
    command = ["python", "-m", "mmscratch", "caption", str(pictures), "--run", str(folder)]
    print(f"  {shlex.join(command)}")


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
    sheet = attention_sheet(
        [pictures[i] for i in chosen], [hypotheses[i] for i in chosen], [maps[i] for i in chosen]
    )
    sheet.savefig(run / "attention.png")
