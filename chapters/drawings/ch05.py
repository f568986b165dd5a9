"""The drawing of chapter 5, Cross-attention fusion."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import box, sheet, show
from mmscratch.plots import GREEN

SIDE = 24  # of the picture
LEFT, BOTTOM = 1, 3  # its corner


def words_attend_to_objects(
    picture: Tensor, words: Sequence[str], objects: dict
) -> Figure:
    """A picture (3, H, W) and its caption, with lines from words to the things they name.

    things: index of a word -> the thing, whose `x` and `y` are from 0 to 1.
    """
    figure, axis = sheet((7.6, 3), (-1, 75), (0, 30))
    right = LEFT + SIDE
    top = BOTTOM + SIDE
    show(axis, picture, extent=(LEFT, right, BOTTOM, top), zorder=2)
    for i in range(9):
        x = LEFT + 3 * i
        y = BOTTOM + 3 * i
        axis.plot([x, x], [BOTTOM, top], color="white", lw=0.4, zorder=3)
        axis.plot([LEFT, right], [y, y], color="white", lw=0.4, zorder=3)
    for i, word in enumerate(words):
        x = 38 + 32 * (i % 4) / 3
        y = 22 - 7 * (i // 4)
        colour = GREEN if i in objects else "black"
        box(
            axis,
            (x, y),
            word,
            ("white", "#cccccc"),
            fontsize=10,
            color=colour,
            zorder=5,
        )
        if i in objects:
            thing_x = LEFT + SIDE * objects[i].x
            thing_y = top - SIDE * objects[i].y
            axis.plot(
                [thing_x, x], [thing_y, y], color=GREEN, lw=1.2, alpha=0.6, zorder=4
            )
    axis.text(13, 1.4, "8 × 8 places", ha="center", va="center", fontsize=9)
    return figure
