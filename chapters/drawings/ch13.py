"""The drawings of chapter 13, Image–text retrieval."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from chapters.drawings.shapes import arrow, box, cell, centred, sheet, show
from mmscratch.plots import GREEN, GREY

BLUE = ("#deebf7", "#9ecae1")
ORANGE = ("#feedde", "#fdae6b")
LEFT, TOP = 42, 30  # the upper left corner of the matrix
SIDE = 13  # the width of a cell of the matrix, whose height is half of it
ARROW = {"arrowstyle": "->", "color": GREY, "lw": 1.4}


def two_towers(pictures: Sequence[Tensor], sentences: Sequence[str]) -> Figure:
    """Pictures and sentences go through two towers, and every pair is compared."""
    figure, axis = sheet((9.6, 4.6), (0, 96), (0, 46))
    size = len(pictures)
    middle = TOP - SIDE / 2 * size / 2
    box(axis, (22, middle), "image\ntower", BLUE, pad=0.8)
    edge = {"edgecolor": ORANGE[1], "linewidth": 1}
    cell(axis, (LEFT, TOP + 4.5), (SIDE * size, 3), ORANGE[0], **edge)
    centred(axis, LEFT + SIDE * size / 2, TOP + 6, "text tower")
    for i, (picture, sentence) in enumerate(zip(pictures, sentences)):
        y = TOP - SIDE / 2 * (i + 0.5)
        near = middle + (y - middle) / 4  # closer to the middle
        show(axis, picture, extent=(1, 7, y - 3, y + 3))
        arrow(axis, (7.8, y), (17.4, near), **ARROW)
        arrow(axis, (26.6, near), (LEFT - 4, y), **ARROW)
        centred(axis, LEFT - 2, y, f"$a_{i + 1}$", fontsize=12, color="#2171b5")
        x = LEFT + SIDE * (i + 0.5)
        centred(axis, x, TOP + 13, fill(sentence, 17), fontsize=8)
        arrow(axis, (x, TOP + 10.6), (x, TOP + 7.6), **ARROW)
        arrow(axis, (x, TOP + 4.5), (x, TOP + 2.2), **ARROW)
        centred(axis, x, TOP + 1.2, f"$b_{i + 1}$", fontsize=12, color="#d94801")
        _draw_row(axis, i, size)
    return figure


def _draw_row(axis: Axes, i: int, size: int) -> None:
    """The similarities of picture i to all sentences, its own in green."""
    y = TOP - SIDE / 2 * (i + 1)
    for j in range(size):
        x = LEFT + SIDE * j
        is_pair = i == j
        background = "#c7e9c0" if is_pair else "#f7f7f7"
        style = {"edgecolor": "white", "linewidth": 2}
        cell(axis, (x, y), (SIDE, SIDE / 2), background, **style)
        colour = GREEN if is_pair else GREY
        text = f"$a_{i + 1} \\cdot b_{j + 1}$"
        centred(axis, x + SIDE / 2, y + SIDE / 4, text, fontsize=11, color=colour)


def space(
    image_points: Tensor,
    text_points: Tensor,
    pictures: Sequence[Tensor],
    sentences: Sequence[str],
) -> Figure:
    """The space in two dimensions: pictures as thumbnails, their sentences as dots.

    image_points (N, 2) and text_points (N, 2); the first few pairs have their `sentences`
    written next to their dots, as many as there are.
    """
    figure = Figure(figsize=(9.2, 7), dpi=100, layout="constrained")
    axis = figure.subplots()
    for (x, y), (u, v), picture in zip(
        image_points.tolist(), text_points.tolist(), pictures
    ):
        axis.plot([x, u], [y, v], color=GREY, lw=0.7, alpha=0.6, zorder=1)
        pixels = picture.permute(1, 2, 0).numpy()  # (H, W, 3)
        thumbnail = OffsetImage(pixels, zoom=0.45)
        axis.add_artist(AnnotationBbox(thumbnail, (x, y), frameon=False, zorder=2))
    dots = {"color": "#d94801", "s": 14, "zorder": 3}
    axis.scatter(*text_points.T.tolist(), label="sentences", **dots)
    style = {"fontsize": 7.5, "color": "#a63603", "zorder": 4, "va": "center"}
    frame = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    middle = image_points[:, 0].mean()
    for (x, y), sentence in zip(text_points.tolist(), sentences):
        side = "right" if x > middle else "left"
        text = fill(sentence, 26).replace("\n", "\n ")
        axis.text(x, y, f" {text} ", bbox=frame, ha=side, **style)
    axis.margins(0.12)
    axis.legend(loc="upper left", fontsize=8)
    axis.set(xlabel="first direction", ylabel="second direction")
    return figure
