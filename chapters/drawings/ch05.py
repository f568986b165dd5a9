"""The drawing of chapter 5, Cross-attention fusion."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import box, sheet, show
from mmscratch.plots import GREEN

SIDE = 24  # of the picture
LEFT, BOTTOM = 1, 3  # its corner
GRID = {"color": "white", "lw": 0.4, "zorder": 3}
LINE = {"color": GREEN, "lw": 1.2, "alpha": 0.6, "zorder": 4}


def words_attend_to_objects(
    picture: Tensor, words: Sequence[str], objects: dict
) -> Figure:
    """A picture (3, H, W) and its caption, with lines from words to the objects they name.

    objects: index of a word -> the object, whose `x` and `y` are from 0 to 1.
    """
    figure, axis = sheet((7.6, 3), (-1, 75), (0, 30))
    right = LEFT + SIDE
    top = BOTTOM + SIDE
    show(axis, picture, extent=(LEFT, right, BOTTOM, top), zorder=2)
    for i in range(9):
        x = LEFT + 3 * i
        y = BOTTOM + 3 * i
        axis.plot([x, x], [BOTTOM, top], **GRID)
        axis.plot([LEFT, right], [y, y], **GRID)
    for i, word in enumerate(words):
        x = 38 + 32 * (i % 4) / 3
        y = 22 - 7 * (i // 4)
        style = {"color": GREEN if i in objects else "black", "fontsize": 10}
        box(axis, (x, y), word, ("white", "#cccccc"), zorder=5, **style)
        if i in objects:
            object_x = LEFT + SIDE * objects[i].x
            object_y = top - SIDE * objects[i].y
            axis.plot([object_x, x], [object_y, y], **LINE)
    axis.text(13, 1.4, "8 × 8 grid cells", ha="center", va="center", fontsize=9)
    return figure
