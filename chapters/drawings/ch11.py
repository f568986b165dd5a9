"""The drawings of chapter 11, Multimodal translation."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import box, sheet, show
from mmscratch.plots import GREEN, GREY, RED

GRID = 4  # the memory has 4 × 4 places of the picture
BLUE = ("#deebf7", "#9ecae1")
WHITE = ("white", "#cccccc")


def picture_or_sentence(
    picture: Tensor, source: Sequence[str], target: Sequence[str], looked: Sequence[int]
) -> Figure:
    """A memory of picture and sentence; a line from each word of `target` to where it looks.

    picture (3, H, W). looked: for each word of the target its position in the memory, of which
    the first 16 are places of the picture. A word that looks into the picture is green.
    """
    figure, axis = sheet((9, 2.6), (0, 90), (2, 28))
    y = 17
    middle = []  # of each place of the memory
    show(axis, picture, extent=(1, 15, 8, 22))
    side = picture.size(1) // GRID  # pixels
    for row in range(GRID):
        for column in range(GRID):
            x = 19 + 3.1 * len(middle)
            part = picture[
                :, row * side : (row + 1) * side, column * side : (column + 1) * side
            ]
            show(axis, part, extent=(x, x + 2.8, y - 1.4, y + 1.4))
            middle.append(x + 1.4)
    for n, word in enumerate(source):
        middle.append(72 + 6.4 * n)
        box(axis, (middle[-1], y), word, BLUE, fontsize=10)
    style = {"ha": "center", "va": "center", "fontsize": 10}
    axis.text(44, 21, "places of the picture", **style)
    axis.text(78.4, 21, "words of the sentence", **style)
    for n, (word, place) in enumerate(zip(target, looked)):
        x = 46 + 12 * n
        colour = GREEN if place < GRID**2 else GREY
        box(axis, (x, 5), word, WHITE, color=colour, fontsize=10)
        axis.plot([x, middle[place]], [7, y - 2.2], color=colour, lw=1.4)
    return figure


def with_either_picture(
    rows: Sequence[tuple[Tensor, Tensor, Sequence[tuple]]],
) -> Figure:
    """A row a sentence: the right picture, another one, and next to them lines of text.

    rows: (right picture, other picture, lines). A line is (label, text, verdict); it is green
    where the verdict is True, red where it is False, black where it is None.
    """
    figure = Figure(figsize=(10, 5.2), dpi=100)
    for row, (right, other, lines) in enumerate(rows):
        bottom = 0.76 - 0.25 * row
        for column, picture in enumerate((right, other)):
            axis = figure.add_axes((0.01 + 0.12 * column, bottom, 0.115, 0.225))
            show(axis, picture, alpha=1 - 0.4 * column)
            axis.set_axis_off()
        for n, (label, text, verdict) in enumerate(lines):
            y = bottom + 0.2 - 0.045 * n
            colour = {True: GREEN, False: RED, None: "black"}[verdict]
            figure.text(0.26, y, label, color=GREY, fontsize=9, va="center")
            figure.text(0.37, y, text, color=colour, fontsize=9, va="center")
    return figure
