"""Figures. Each function returns a matplotlib Figure; `figure.savefig(path)` writes it, a notebook shows it."""

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from textwrap import wrap

from matplotlib import font_manager
from matplotlib.figure import Figure
from torch import Tensor

from .text import detokenize

GREEN, RED, GREY = "#1a7f37", "#c62828", "#555555"


def caption_sheet(
    pictures: Sequence[Tensor],
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]] | None = None,
    columns: int = 4,
) -> Figure:
    """Pictures (3, H, W) uint8 with what was written under each.

    Green where it is one of the references, red where it is not, and then the nearest reference below it in grey.
    Without references, black. Captions in Chinese that no font here can draw become numbers, and are printed.
    """
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.5 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for i, (axis, picture, hypothesis) in enumerate(zip(axes, pictures, hypotheses), 1):
        axis.imshow(picture.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
        written, right, nearest = list(hypothesis), None, []
        if references is not None:
            right = written in [list(reference) for reference in references[i - 1]]
            nearest = max(references[i - 1], key=lambda ref: SequenceMatcher(None, written, list(ref)).ratio())
        lines = _lines(detokenize(written) or "(nothing)", f"{i}")
        _below(axis, lines, 0, "black" if right is None else GREEN if right else RED)
        if right is False:
            _below(axis, _lines(detokenize(nearest), f"{i} should be"), len(lines), GREY)
    return figure


def _below(axis, lines: list[str], first_line: int, colour: str) -> None:
    """Write below a picture; positions are in points, so that they fit whatever the size of the figure."""
    axis.annotate(
        "\n".join(lines), (0.5, 0), (0, -4 - 12.5 * first_line), xycoords="axes fraction", textcoords="offset points",
        ha="center", va="top", fontsize=8.5, linespacing=1.2, color=colour, family=[*_chinese_fonts(), "DejaVu Sans"],
    )  # fmt: skip


def _lines(text: str, number: str) -> list[str]:
    if _HAN.search(text):
        if not _chinese_fonts():
            print(f"({number}) {text}")
            return [f"({number})"]
        return [text[i : i + 16] for i in range(0, len(text), 16)]
    return wrap(text, 30)


_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@cache
def _chinese_fonts() -> list[str]:
    """A font of this system that has Chinese characters, if it offers one; DejaVu Sans has none."""
    known = ("Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "PingFang", "Hiragino Sans GB", "Heiti",
             "Microsoft YaHei", "SimHei", "SimSun", "Arial Unicode MS", "Droid Sans Fallback")  # fmt: skip
    names = sorted({font.name for font in font_manager.fontManager.ttflist})
    return [name for name in names if name.startswith(known)][:1]


def learning_curves(metrics: str | Path) -> Figure:
    """Training and validation loss by step, from a run's metrics.jsonl."""
    entries = [json.loads(line) for line in Path(metrics).read_text().splitlines()]
    figure = Figure(figsize=(6, 3.6), dpi=100, layout="constrained")
    axis = figure.subplots()
    for name, label, style in (("loss", "training", "-"), ("validation_loss", "validation", "o-")):
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        axis.plot(*zip(*points), style, label=label, markersize=4)
    axis.set(xlabel="step", ylabel="loss a word (nats)", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
