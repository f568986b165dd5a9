"""The drawings of chapter 1, Images and words."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from chapters.drawings.shapes import box, cell, show
from mmscratch.plots import GREEN, GREY, RED

PART = 6  # pixels, the side of the part of the picture that is enlarged


def picture_and_caption(
    picture: Tensor, tokens: Sequence[str], numbers: Sequence[int]
) -> Figure:
    """A picture and its caption as numbers.

    picture (3, H, W) is shown with a few of its pixels in three channels, each token with its
    number.
    """
    figure = Figure(figsize=(7, 3), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 0.7))
    row, column = 7, 8  # the upper left corner of the part that is enlarged
    show(left, picture)
    corner = (column - 0.5, row - 0.5)
    frame = {"fill": False, "edgecolor": "black", "linewidth": 1.5}
    left.add_patch(Rectangle(corner, PART, PART, **frame))
    _channels(middle, picture[:, row : row + PART, column : column + PART])
    for i, (token, number) in enumerate(zip(tokens, numbers, strict=True)):
        y = 1 - (i + 0.5) / len(tokens)
        box(right, (0.55, y), token, ("#dce9f7", "none"), ha="right", fontsize=9)
        right.text(
            0.95, y, number, ha="right", va="center", fontsize=9, family="monospace"
        )
    right.set_box_aspect(1.57)  # as high as the others
    titles = ("a picture", f"{PART} × {PART} of its pixels", "its caption")
    for axis, title in zip((left, middle, right), titles):
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    return figure


def _channels(axis: Axes, part: Tensor) -> None:
    """The three channels of a part of a picture, one behind the other; numbers in the first."""
    for channel, colour in enumerate(("red", "lime", "blue")):
        shift = 1.2 * channel
        place = (shift, shift + PART, PART - shift, -shift)
        colours = LinearSegmentedColormap.from_list("", ["black", colour])
        style = {"cmap": colours, "vmin": 0, "vmax": 255, "zorder": -channel}
        axis.imshow(part[channel].numpy(), extent=place, **style)
    for i, values in enumerate(part[0].tolist()):
        for j, value in enumerate(values):
            style = {"ha": "center", "va": "center", "fontsize": 7, "color": "white"}
            axis.text(j + 0.5, i + 0.5, value, **style)
    axis.set(xlim=(-0.1, 8.5), ylim=(6.1, -2.5))


def padding_and_mask(
    words: Sequence[Sequence[str]], target: Tensor, mask: Tensor
) -> Figure:
    """Sentences as `words`, padded as numbers `target` (B, T), and their mask (B, T)."""
    figure = Figure(figsize=(7, 3.3), dpi=100, layout="constrained")
    upper, lower = figure.subplots(2, 1)
    for row, numbers in enumerate(target.tolist()):
        for column, number in enumerate(numbers):
            real = bool(mask[row, column])
            token = words[row][column] if real else "<pad>"
            place = (column, row)
            above = ("#dce9f7", "black") if real else ("#d5d5d5", GREY)
            below = ("#d4ecd9", GREEN) if real else ("#d5d5d5", RED)
            _cell_with_text(upper, place, f"{token}\n{number}", above)
            _cell_with_text(lower, place, str(real), below)
    titles = ("target (4, T)", "mask (4, T): True = may be attended to")
    for axis, title in zip((upper, lower), titles):
        axis.set(xlim=(0, target.size(1)), ylim=(len(target), 0), xticks=[], yticks=[])
        axis.set_title(title, fontsize=9)
        axis.spines[:].set_visible(False)
    return figure


def _cell_with_text(axis: Axes, place: tuple, text: str, colours: tuple) -> None:
    """A cell of 1 × 1 and a text in its middle; `colours`: of the cell and of the text."""
    fill, colour = colours
    cell(axis, place, (1, 1), fill, edgecolor="white")
    x, y = place
    axis.text(
        x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=8, color=colour
    )


def batches_as_blocks(panels: dict[str, list], names: dict[str, str]) -> Figure:
    """Batches next to each other, a row a sentence, grey where it is padded.

    panels: title -> batches, each a list of (length, colour), one a sentence.
    names: colour -> its meaning.
    """
    figure = Figure(figsize=(7, 5), dpi=100, layout="constrained")
    axes = figure.subplots(len(panels), 1)
    widths = []
    for axis, (title, batches) in zip(axes, panels.items()):
        widths.append(_blocks(axis, batches))
        axis.set_title(title, fontsize=9, loc="left")
    for axis in axes:
        axis.set(xlim=(0, max(widths)), ylim=(64, 0), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in names]
    style = {"loc": "outside lower center", "ncols": 3, "fontsize": 8, "frameon": False}
    figure.legend(handles, list(names.values()), **style)
    return figure


def _blocks(axis: Axes, batches: Sequence[Sequence[tuple[int, str]]]) -> int:
    """The batches of one panel -> how wide they are together."""
    start = 0
    for batch in batches:
        width = max(length for length, _ in batch)
        cell(axis, (start, 0), (width, len(batch)), "#cccccc")
        for row, (length, colour) in enumerate(batch):
            cell(axis, (start, row), (length, 1), colour)
        start += width + 2
    return start
