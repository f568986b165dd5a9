"""The drawing of chapter 3, LSTM decoder."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import arrow, box, sheet, show

BLUE = ("#cfe3f5", "#4292c6")
ARROW = {"arrowstyle": "->", "color": "#555555"}


def vector_becomes_sentence(picture: Tensor, words: Sequence[str]) -> Figure:
    """A picture (3, H, W) makes the first state; each step reads a word and writes the next."""
    figure, axis = sheet((7, 2.3), (0, 14), (0, 4.6))
    show(axis, picture, extent=(0.2, 2.6, 1.1, 3.5), zorder=2)
    axis.text(1.4, 0.6, "picture", ha="center", fontsize=9)
    read = ["<bos>", *words]
    places = [4.4 + 9.2 * (i + 0.5) / len(words) for i in range(len(words))]
    for i, (x, word) in enumerate(zip(places, words)):
        box(axis, (x, 2.3), "LSTM", BLUE, fontsize=7.5)
        axis.text(x, 3.7, word, ha="center", fontsize=9, color="#1a7f37")
        axis.text(x, 0.75, read[i], ha="center", fontsize=9)
        arrow(axis, (x, 2.65), (x, 3.6), **ARROW)
        arrow(axis, (x, 1.15), (x, 1.95), **ARROW)
        before = places[i - 1] + 0.45 if i else 3.9
        arrow(axis, (before, 2.3), (x - 0.45, 2.3), **ARROW)
    style = {"ha": "center", "va": "center", "fontsize": 8, "color": "#555555"}
    axis.text(3.35, 2.3, "CNN →\nvector", **style)
    return figure
