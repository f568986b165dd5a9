"""The drawings of chapter 11, Multimodal translation."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import box, sheet, show
from mmscratch.plots import GREEN, GREY, RED

GRID = 4  # the memory has 4 × 4 positions of the picture
BLUE = ("#deebf7", "#9ecae1")
WHITE = ("white", "#cccccc")
KINDS = {
    "nothing": "nothing hidden",
    "colours": "all colours",
    "noun": "one noun",
}


def picture_or_sentence(
    picture: Tensor,
    source: Sequence[str],
    target: Sequence[str],
    positions: Sequence[int],
) -> Figure:
    """A memory of picture and sentence; a line from each target word to where it looks.

    picture (3, H, W). positions: for each word of the target, where it looks in the
    memory, whose first 16 positions are the picture's; such words are green.
    """
    figure, axis = sheet((9, 2.6), (0, 90), (2, 28))
    show(axis, picture, extent=(1, 15, 8, 22))
    side = picture.size(1) // GRID  # pixels
    y = 17  # of the memory
    middle = []  # x of each position of the memory
    for row in range(GRID):
        for column in range(GRID):
            x = 19 + 3.1 * len(middle)
            top = row * side
            left = column * side
            patch = picture[:, top : top + side, left : left + side]
            show(axis, patch, extent=(x, x + 2.8, y - 1.4, y + 1.4))
            middle.append(x + 1.4)
    for n, word in enumerate(source):
        x = 72 + 6.4 * n
        box(axis, (x, y), word, BLUE, fontsize=10)
        middle.append(x)
    style = {"ha": "center", "va": "center", "fontsize": 10}
    axis.text(44, 21, "positions of the picture", **style)
    axis.text(78.4, 21, "words of the sentence", **style)
    for n, (word, position) in enumerate(zip(target, positions)):
        x = 46 + 12 * n
        colour = GREEN if position < GRID**2 else GREY
        box(axis, (x, 5), word, WHITE, color=colour, fontsize=10)
        line_x = [x, middle[position]]
        axis.plot(line_x, [7, y - 2.2], color=colour, lw=1.4)
    return figure


def with_either_picture(
    rows: Sequence[tuple[Tensor, Tensor, Sequence[tuple]]],
) -> Figure:
    """For each sentence a row: the right picture, another one, and lines of text.

    rows: (right picture, other picture, lines). A line is (label, text, verdict); it is
    green if the verdict is True, red if it is False, black if it is None.
    """
    colours = {True: GREEN, False: RED, None: "black"}
    style = {"fontsize": 9, "va": "center"}
    figure = Figure(figsize=(10, 5.2), dpi=100)
    for row, (right, other, lines) in enumerate(rows):
        bottom = 0.76 - 0.25 * row
        for column, picture in enumerate((right, other)):
            left = 0.01 + 0.12 * column
            axis = figure.add_axes((left, bottom, 0.115, 0.225))
            axis.set_axis_off()
            show(axis, picture, alpha=1 - 0.4 * column)
        for n, (label, text, verdict) in enumerate(lines):
            y = bottom + 0.2 - 0.045 * n
            figure.text(0.26, y, label, color=GREY, **style)
            figure.text(0.37, y, text, color=colours[verdict], **style)
    return figure


def words_and_bleu(table: Mapping, colours: Mapping, chance: Mapping) -> Figure:
    """Two panels with 95 % intervals: how many words are right, and BLEU.

    table: (kind, way) -> an object with `right` and `bleu`, each (value, low, high).
    colours: way -> colour. chance: kind -> percent right by chance.
    """
    figure = Figure(figsize=(9.6, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    kinds = list(KINDS)
    ways = list(colours)
    for (kind, way), row in table.items():
        y = kinds.index(kind) + 0.19 * ways.index(way)
        style = {"fmt": "o", "color": colours[way], "capsize": 3}
        if kind == kinds[0]:
            style["label"] = way
        for axis, (value, low, high) in zip(axes, (row.right, row.bleu)):
            spread = [[value - low], [high - value]]
            axis.errorbar(value, y, xerr=spread, **style)
    label = "chance"
    for kind, percent in chance.items():
        y = kinds.index(kind)
        axes[0].plot([percent] * 2, [y - 0.15, y + 0.72], "k:", label=label)
        label = None
    ticks = [n + 0.285 for n in range(len(kinds))]
    axes[0].set_yticks(ticks, KINDS.values())
    axes[0].invert_yaxis()
    axes[0].set_xlim(-3, 103)
    axes[0].set_xlabel("% of the hidden words right (nothing hidden: colours)")
    axes[1].set_xlabel("BLEU")
    for axis in axes:
        axis.grid(axis="x", alpha=0.3)
    style = {"ncols": 5, "frameon": False, "title": "bars: 95 % intervals"}
    legend = axes[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", **style)
    return figure
