"""The drawings of chapter 12, Visual question answering."""

from collections.abc import Sequence

import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import arrow, box, centred, sheet, show
from mmscratch.plots import GREEN, GREY, RED

BLUE = ("#deebf7", "#9ecae1")
ORANGE = ("#feedde", "#fdae6b")
WHITE = ("white", "#cccccc")


def late_and_early(picture: Tensor, question: str, answer: str) -> Figure:
    """The same model twice: without FiLM, and with the question steering the CNN."""
    figure, axis = sheet((9.6, 3.6), (0, 96), (0, 36))
    for left, title in ((0, "late fusion"), (50, "early fusion: FiLM")):
        _draw_model(axis, left, picture, question, answer)
        centred(axis, left + 22, 34, title, fontsize=11, weight="bold")
    style = {"arrowstyle": "->", "color": "#d94801", "lw": 2.2}
    arrow(axis, (66.5, 9.5), (69.5, 20.2), **style)
    style = {"color": "#d94801", "fontsize": 9, "ha": "right", "va": "center"}
    axis.text(66.8, 14.6, "γ, β of\neach block", **style)
    return figure


def _draw_model(
    axis: Axes, left: float, picture: Tensor, question: str, answer: str
) -> None:
    """Picture and question -> CNN and reader -> one memory -> decoder -> answer."""
    show(axis, picture, extent=(left + 1, left + 11, 18, 28))
    axis.text(left + 1, 3.2, question, fontsize=9, va="center")
    box(axis, (left + 20, 23), "CNN", BLUE, pad=0.6)
    box(axis, (left + 16, 8), "reader", ORANGE, pad=0.5)
    box(axis, (left + 31, 15.5), "one\nmemory", WHITE, pad=0.5)
    box(axis, (left + 41, 15.5), "decoder", WHITE, pad=0.5)
    axis.text(left + 41, 8, f"“{answer}”", ha="center", va="center", fontsize=11)
    style = {"arrowstyle": "->", "color": GREY, "lw": 1.4}
    for start, end in (
        ((11.5, 23), (16.6, 23)),
        ((23.4, 22), (27.8, 17.6)),
        ((16, 4.4), (16, 6)),
        ((19.8, 9), (27.8, 13.6)),
        ((34, 15.5), (36.6, 15.5)),
        ((41, 13.6), (41, 9.6)),
    ):
        arrow(axis, (left + start[0], start[1]), (left + end[0], end[1]), **style)


def balanced_pairs(rows: Sequence[tuple], columns: int = 2) -> Figure:
    """Pairs of pictures about which the same question has two answers.

    rows: (question, (picture, picture), (answer, answer)) for each pair.
    """
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(5.0 * columns, 1.75 * lines), dpi=100)
    for i, (question, pictures, answers) in enumerate(rows):
        row, column = divmod(i, columns)
        left = column / columns
        bottom = 1 - (row + 1) / lines
        for j, (picture, answer) in enumerate(zip(pictures, answers)):
            x = left + (0.02 + 0.48 * j) / columns
            axis = figure.add_axes(
                (x, bottom + 0.04 / lines, 0.22 / columns, 0.74 / lines)
            )
            axis.set_axis_off()
            show(axis, picture)
            text_x = x + 0.24 / columns
            text_y = bottom + 0.4 / lines
            figure.text(text_x, text_y, _wrap(answer), va="center", fontsize=9)
        y = bottom + 0.88 / lines
        figure.text(left + 0.02 / columns, y, question, va="center", fontsize=9.5)
    return figure


def _wrap(text: str) -> str:
    """Long answers on two lines."""
    words = text.split()
    if len(text) <= 13:
        return text
    half = len(words) // 2 + 1
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])


def where_it_looks(cells: Sequence[tuple], columns: int = 4) -> Figure:
    """For each question the picture, and again, bright where the model looks.

    cells: (picture, question, answer, is it right, attention (h, w)) for each question.
    """
    rows = -(-len(cells) // columns)
    width = 2.45  # of a cell, in inches, as all lengths here
    height = 2.0
    side = 1.15
    figure = Figure(figsize=(width * columns, height * rows), dpi=100)
    for i, (picture, question, answer, is_right, weights) in enumerate(cells):
        row, column = divmod(i, columns)
        x = width * column + 0.05
        y = height * (rows - row - 1) + 0.27
        picture = picture.float() / 255
        light = F.interpolate(weights[None, None], picture.shape[1:], mode="bicubic")
        light = light[0].clamp(min=0)  # (1, H, W)
        lit = picture * (0.3 + 0.7 * light / light.max())
        _panel(figure, picture, (x, y), side)
        _panel(figure, lit, (x + side + 0.03, y), side)
        middle = (x + side) / (width * columns)
        style = {"ha": "center", "fontsize": 8}
        top = (y + side + 0.05) / (height * rows)
        figure.text(middle, top, _wrap_question(question), va="bottom", **style)
        colour = GREEN if is_right else RED
        below = (y - 0.05) / (height * rows)
        figure.text(middle, below, answer, color=colour, va="top", **style)
    return figure


def _panel(figure: Figure, picture: Tensor, corner: tuple, side: float) -> None:
    """A square picture with its lower left corner there, in inches."""
    width, height = figure.get_size_inches()
    x, y = corner
    axis = figure.add_axes((x / width, y / height, side / width, side / height))
    axis.set_axis_off()
    show(axis, picture)


def _wrap_question(question: str) -> str:
    words = question.split()
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 30:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
