"""The drawings of chapter 17, One model for all of it."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import arrow, box, centred, panels, sheet, show
from mmscratch.plots import GREY

BLUE = ("#deebf7", "#9ecae1")
ORANGE = ("#feedde", "#fdae6b")
GREEN = ("#e5f5e0", "#a1d99b")
WHITE = ("white", "#bdbdbd")
ARROW = {"arrowstyle": "->", "color": GREY, "lw": 1.4}
TASKS = (
    ("describe the picture", "picture", "a red star on the left"),
    ("translate into german: a red star", "", "ein roter stern"),
    ("what colour is the star?", "picture", "red"),
    ("write what you hear", "sound", "a red star on the left"),
    ("what is the price?", "picture, row", "about 240 EUR"),
)


def one_model() -> Figure:
    """Five examples with an instruction each, one model, and what it writes."""
    figure, axis = sheet((9.6, 3.9), (0, 96), (0, 39))
    centred(axis, 16, 36.5, "instruction", fontsize=10, weight="bold")
    centred(axis, 38, 36.5, "and what there is", fontsize=10, weight="bold")
    centred(axis, 83, 36.5, "written", fontsize=10, weight="bold")
    box(axis, (60, 18), "encoders\n\none memory\n\ndecoder", ORANGE, pad=1.1)
    for i, (instruction, given, written) in enumerate(TASKS):
        y = 32 - 7 * i
        box(axis, (16, y), instruction, BLUE, fontsize=9)
        text = given or "nothing else"
        box(axis, (38, y), text, GREEN if given else WHITE, fontsize=9)
        arrow(axis, (45, y), (53.5, 18 + 0.35 * (y - 18)), **ARROW)
        arrow(axis, (66.5, 18 + 0.35 * (y - 18)), (73, y), **ARROW)
        centred(axis, 84.5, y, written, fontsize=9)
    return figure


def shares(sizes: dict[str, int], by_temperature: dict[int, Sequence[float]]) -> Figure:
    """The share of each task at some temperatures, as bars."""
    figure, axes = panels((8.2, 2.6), 1, len(by_temperature), sharey=True)
    names = [f"{name}\n{size:,}" for name, size in sizes.items()]
    for axis, (temperature, rates) in zip(axes, by_temperature.items()):
        bars = axis.bar(names, [100 * rate for rate in rates], color=BLUE[1])
        axis.bar_label(bars, fmt="%.0f %%", fontsize=9)
        axis.set_title(f"temperature {temperature}", fontsize=10)
        axis.set_ylim(0, 110)
        axis.set_yticks([])
        axis.tick_params(axis="x", labelsize=8)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    return figure


def said_and_written(
    picture: Tensor, said: Sequence[str], written: Sequence[str]
) -> Figure:
    """A picture (3, H, W), and what the model wrote for each instruction."""
    figure, axis = sheet((8.6, 2.6), (0, 86), (0, 26))
    inset = figure.add_axes((0.02, 0.06, 0.27, 0.88))
    show(inset, picture)
    inset.set_axis_off()
    for i, (instruction, output) in enumerate(zip(said, written)):
        y = 22.5 - 5.8 * i
        box(axis, (31, y), instruction, BLUE, fontsize=9, ha="left")
        axis.text(31, y - 2.9, output, fontsize=9, va="center")
    return figure
