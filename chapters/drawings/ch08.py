"""The drawings of chapter 8, Beam search."""

from collections.abc import Sequence
from textwrap import wrap

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import sheet, show

RED = "#c62828"
ORANGE = "#d94801"
GREEN = "#1a7f37"
PALE = "#999999"
GREY = "#555555"
BRANCHES = {  # first word -> height, colour and second word of its best sentence
    "a": (1.0, ORANGE, "star"),
    "two": (3.5, GREEN, "stars"),
}


def all_sentences(table: dict[tuple, dict[str, float]]) -> Figure:
    """The tree of all sentences of two words; greedy's and the most probable one are coloured.

    table: the words so far -> the probabilities of the next. The first words are "a" and "two".
    """
    figure, axis = sheet((7.2, 3.2), (-0.1, 3.05), (4.6, -0.85))
    above = {"ha": "center", "va": "bottom"}  # a line
    y = 0
    for first, (height, colour, best) in BRANCHES.items():
        p = table[()][first]
        axis.plot((0, 0.1, 1), (2.25, height, height), color=colour, lw=3)
        axis.text(0.55, height - 0.1, f"{first}  {p:.1f}", color=colour, **above)
        for second, q in table[(first,)].items():
            is_best = second == best
            shade = colour if is_best else PALE
            width = 3 if is_best else 1
            weight = "bold" if is_best else None
            axis.plot((1, 1.1, 2), (height, y, y), color=shade, lw=width)
            axis.text(1.55, y - 0.1, f"{second}  {q:.2f}", color=shade, **above)
            style = {"va": "center", "color": shade, "weight": weight}
            axis.text(2.05, y, f"{p:.1f} × {q:.2f} = {p * q:.2f}", **style)
            y += 1
    style = {"va": "center", "style": "italic"}
    axis.text(2.05, -0.55, "greedy search", color=ORANGE, **style)
    axis.text(2.05, 2.55, "the most probable", color=GREEN, **style)
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
    """A line: which search found it, its log-probability, and the words, green if they are true."""
    log_prob, text, true = sentence
    style = {"fontsize": 8.5, "va": "top"}
    number = style | {"ha": "right", "family": "DejaVu Sans Mono"}
    words = style | {"color": GREEN if true else RED, "linespacing": 1.15}
    figure.text(0.33, y, label, color=GREY, style="italic", **style)
    figure.text(0.5, y, f"{log_prob:.2f}", **number)
    figure.text(0.52, y, "\n".join(wrap(text, 60)), **words)
