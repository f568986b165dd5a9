"""The drawings of chapter 8, Beam search."""

from collections.abc import Sequence
from textwrap import wrap

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import sheet, show

RED, ORANGE, GREEN = "#c62828", "#d94801", "#1a7f37"
PALE, GREY = "#999999", "#555555"


def all_sentences(table: dict[tuple, dict[str, float]]) -> Figure:
    """The tree of all sentences of two words; greedy's and the most probable one are coloured.

    table: the words so far -> the probabilities of the next. The first words are "a" and "two".
    """
    figure, axis = sheet((7.2, 3.2), (-0.1, 3.05), (4.6, -0.85))
    heights = {"a": 1.0, "two": 3.5}
    colours = {("a", "star"): ORANGE, ("two", "stars"): GREEN}
    ends = [(first, second) for first in heights for second in table[first,]]
    for y, (first, second) in enumerate(ends):
        p = table[()][first]
        q = table[first,][second]
        chosen = (first, second) in colours
        colour = colours.get((first, second), PALE)
        axis.plot(
            (1, 1.1, 2), (heights[first], y, y), color=colour, lw=3 if chosen else 1
        )
        style = {"ha": "center", "va": "bottom", "color": colour}
        axis.text(1.55, y - 0.1, f"{second}  {q:.2f}", **style)
        style = {"va": "center", "color": colour, "weight": "bold" if chosen else None}
        axis.text(2.05, y, f"{p:.1f} × {q:.2f} = {p * q:.2f}", **style)
    for first, colour in (("a", ORANGE), ("two", GREEN)):
        y = heights[first]
        axis.plot((0, 0.1, 1), (2.25, y, y), color=colour, lw=3)
        style = {"ha": "center", "va": "bottom", "color": colour}
        axis.text(0.55, y - 0.1, f"{first}  {table[()][first]:.1f}", **style)
    axis.text(2.05, -0.55, "greedy search", color=ORANGE, va="center", style="italic")
    axis.text(2.05, 2.55, "the most probable", color=GREEN, va="center", style="italic")
    return figure


def greedy_and_beams(
    pictures: Sequence[Tensor], found: Sequence[Sequence[tuple]]
) -> Figure:
    """Two pictures (3, H, W); next to each, the sentence of greedy search and those of five beams.

    found: for each picture a list of (log-probability, sentence, whether it is true).
    """
    figure = Figure(figsize=(8, 5.4), dpi=100)
    for row, (picture, sentences) in enumerate(zip(pictures, found, strict=True)):
        axis = figure.add_axes((0.01, 0.53 - 0.51 * row, 0.3, 0.44))
        show(axis, picture)
        axis.set_axis_off()
        labels = ["greedy search", "five beams"] + [""] * (len(sentences) - 2)
        for n, (label, sentence) in enumerate(zip(labels, sentences)):
            y = 0.95 - 0.51 * row - 0.068 * n - 0.025 * (n > 0)
            _sentence(figure, y, label, sentence)
    return figure


def _sentence(figure: Figure, y: float, label: str, sentence: tuple) -> None:
    """A line: who found it, its log-probability, and the words, green if they are true."""
    log_prob, text, true = sentence
    style = {"fontsize": 8.5, "va": "top"}
    figure.text(0.33, y, label, color=GREY, style="italic", **style)
    figure.text(
        0.5, y, f"{log_prob:.2f}", ha="right", family="DejaVu Sans Mono", **style
    )
    wrapped = "\n".join(wrap(text, 60))
    figure.text(
        0.52, y, wrapped, color=GREEN if true else RED, linespacing=1.15, **style
    )
