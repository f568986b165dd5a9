"""The drawing of chapter 3, LSTM decoder."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import arrow, box, centred, sheet, show

BLUE = ("#cfe3f5", "#4292c6")  # of a box and its edge
GREEN = "#1a7f37"
GREY = "#555555"
ARROW = {"arrowstyle": "->", "color": GREY}


def vector_becomes_sentence(picture: Tensor, words: Sequence[str]) -> Figure:
    """A picture (3, H, W) makes the first state; each step reads a word and writes the next."""
    figure, axis = sheet((7, 2.3), (0, 14), (0, 4.6))
    show(axis, picture, extent=(0.2, 2.6, 1.1, 3.5), zorder=2)
    style = {"ha": "center", "fontsize": 9}
    axis.text(1.4, 0.6, "picture", **style)
    centred(axis, 3.35, 2.3, "CNN →\nvector", fontsize=8, color=GREY)
    read = ["<bos>", *words]
    spacing = 9.2 / len(words)
    end = 3.9  # where the arrow into the next step starts
    for i, word in enumerate(words):
        x = 4.4 + spacing * (i + 0.5)
        arrow(axis, (end, 2.3), (x - 0.45, 2.3), **ARROW)
        box(axis, (x, 2.3), "LSTM", BLUE, fontsize=7.5)
        axis.text(x, 3.7, word, color=GREEN, **style)
        axis.text(x, 0.75, read[i], **style)
        arrow(axis, (x, 2.65), (x, 3.6), **ARROW)
        arrow(axis, (x, 1.15), (x, 1.95), **ARROW)
        end = x + 0.45
    return figure
