"""The first command: captioning of drawn scenes, with a look at where the model looked."""

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


def quickstart(args: argparse.Namespace) -> None:
    """Train a captioner of drawn scenes, measure it, and draw some pictures to try it on."""
    start = time.monotonic()
    distributed.start()
    if args.scenes < 1:
        raise ValueError(f"--scenes is a number of pictures to train on, not {args.scenes}")
    chosen = captioning.BEST | {
        name: getattr(args, name) for name in captioning.BEST if getattr(args, name)
    }
    is_best = chosen == captioning.BEST
    args.run = args.run or Path(
        "runs/quickstart" if is_best else f"runs/quickstart-{'-'.join(chosen.values())}"
    )
    print(
        f"drawing {args.scenes:,} scenes to train on; each is shown once, with one of its captions",
        flush=True,
    )
    if train_run(args) is None:
        return
    folder = args.run
    if chosen != {"decoder": "lstm", "fusion": "prefix"}:  # which looks once, before the first word
        test = SceneCaptions("test", captioning.TEST_SCENES)
        show_attention(folder, test)
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for i in range(8):
        render(Scene(SPLITS["test"] + captioning.TEST_SCENES + i), 256).save(
            pictures / f"scene{i}.png"
        )
    print(
        f"\n{time.monotonic() - start:.0f} seconds. Look at {folder / 'captions-test.png'}, then try"
    )
    print(
        f"  python -m mmscratch caption {shlex.quote(str(pictures))} --run {shlex.quote(str(folder))}"
    )


def show_attention(run: Path, data: SceneCaptions, written: list[list[str]] | None = None) -> None:
    """Print how much of the attention lies within the thing that a word names, and draw it for two captions."""
    model, vocabularies, _ = load(run)
    shown = range(min(300, len(data)))
    if written is None:
        written = generate(model, vocabularies, [data[i] for i in shown])
    maps = [attention_maps(model, vocabularies, data[i]["image"], written[i]) for i in shown]
    fractions = []
    for i in shown:
        for t, obj in named_objects(written[i], data.scenes[i]):
            size = data[i]["image"].size(-1)
            fractions.append(attention_in_box(maps[i][t], box(obj, size), size))
    if fractions:  # a model that has hardly learned anything may name nothing that is there
        inside, area = (100 * sum(column) / len(fractions) for column in zip(*fractions))
        print(
            f"  attention            {inside:.0f} % within the thing that a noun or colour names, {area:.0f} % of the area"
        )
    chosen = [i for i in shown if len(data.scenes[i].objects) > 1][:2]
    sheet = attention_sheet(
        [data[i]["image"] for i in chosen], [written[i] for i in chosen], [maps[i] for i in chosen]
    )
    sheet.savefig(run / "attention.png")
