"""The drawings of chapter 1, Images and words."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from chapters.drawings.shapes import box, cell, centred, panels, show
from mmscratch.plots import GREEN, GREY, RED

PART = 6  # pixels, the side of the enlarged part of the picture
ROW = 7  # of its upper left corner
COLUMN = 8
COLOURS = ("red", "green", "blue")
PALE = "#d5d5d5"


def picture_and_caption(
    picture: Tensor, tokens: Sequence[str], numbers: Sequence[int]
) -> Figure:
    """A picture and its caption as numbers.

    picture (3, H, W) is shown with a few of its pixels in three channels, each token with its
    number.
    """
    figure, axes = panels((7, 3), 1, 3, width_ratios=(1.1, 1.1, 0.7))
    titles = ("a picture", f"{PART} × {PART} of its pixels", "its caption")
    for axis, title in zip(axes, titles):
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    left, middle, right = axes
    show(left, picture)
    style = {"fill": False, "edgecolor": "black", "linewidth": 1.5}
    left.add_patch(Rectangle((COLUMN - 0.5, ROW - 0.5), PART, PART, **style))
    rows = slice(ROW, ROW + PART)
    columns = slice(COLUMN, COLUMN + PART)
    _channels(middle, picture[:, rows, columns])
    style = {"ha": "right", "va": "center", "fontsize": 9}
    for i, (token, number) in enumerate(zip(tokens, numbers, strict=True)):
        y = 1 - (i + 0.5) / len(tokens)
        box(right, (0.55, y), token, ("#dce9f7", "none"), **style)
        right.text(0.95, y, number, family="monospace", **style)
    right.set_box_aspect(1.57)  # as high as the others
    return figure


def _channels(axis: Axes, part: Tensor) -> None:
    """The three channels of a part of a picture, one behind the other; numbers in the first."""
    for channel, colour in enumerate(("red", "lime", "blue")):
        shift = 1.2 * channel
        extent = (shift, shift + PART, PART - shift, -shift)
        cmap = LinearSegmentedColormap.from_list("", ["black", colour])
        style = {"cmap": cmap, "vmin": 0, "vmax": 255, "zorder": -channel}
        axis.imshow(part[channel].numpy(), extent=extent, **style)
    for i, values in enumerate(part[0].tolist()):
        for j, value in enumerate(values):
            centred(axis, j + 0.5, i + 0.5, value, fontsize=7, color="white")
    axis.set_xlim(-0.1, 8.5)
    axis.set_ylim(6.1, -2.5)


def preprocessing(photograph: Image.Image, small: Tensor, normal: Tensor) -> Figure:
    """A photograph, its centre (3, 64, 64), and that normalised; below, histograms."""
    figure = Figure(figsize=(7, 4.4), dpi=100, layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    axes = upper.subplots(1, 5)
    axes[0].imshow(photograph)
    show(axes[1], small)
    style = {"cmap": "RdBu_r", "vmin": -2.5, "vmax": 2.5}
    for axis, channel in zip(axes[2:], normal):
        image = axis.imshow(channel.numpy(), **style)
    names = [f"{photograph.width} × {photograph.height}", "64 × 64"]
    names += [f"{colour}, normalised" for colour in COLOURS]
    for axis, name in zip(axes, names):
        axis.set_xlabel(name, fontsize=8)
        axis.set(xticks=[], yticks=[])
    bar = upper.colorbar(image, ax=axes[4], shrink=0.7)
    bar.ax.tick_params(labelsize=7)
    left, right = lower.subplots(1, 2)
    _histograms(left, small.float(), "before")
    _histograms(right, normal, "after normalising")
    return figure


def _histograms(axis: Axes, picture: Tensor, title: str) -> None:
    """The histogram of each channel of a picture (3, H, W)."""
    for channel, colour in zip(picture, COLOURS):
        style = {"histtype": "step", "color": f"tab:{colour}", "linewidth": 1.4}
        axis.hist(channel.flatten().numpy(), bins=40, **style)
    axis.set_title(title, fontsize=9)
    axis.set(xlabel="value", ylabel="pixels")


def padding_and_mask(
    words: Sequence[Sequence[str]], target: Tensor, mask: Tensor
) -> Figure:
    """Sentences as `words`, padded as numbers `target` (B, T), and their mask (B, T)."""
    figure, axes = panels((7, 3.3), 2, 1)
    titles = ("target (4, T)", "mask (4, T): True = may be attended to")
    B, T = target.shape
    for axis, title in zip(axes, titles):
        axis.set_title(title, fontsize=9)
        _empty(axis, T, B)
    upper, lower = axes
    for row, numbers in enumerate(target.tolist()):
        for column, number in enumerate(numbers):
            corner = (column, row)
            if mask[row, column]:
                text = f"{words[row][column]}\n{number}"
                _cell_with_text(upper, corner, text, ("#dce9f7", "black"))
                _cell_with_text(lower, corner, "True", ("#d4ecd9", GREEN))
            else:
                _cell_with_text(upper, corner, f"<pad>\n{number}", (PALE, GREY))
                _cell_with_text(lower, corner, "False", (PALE, RED))
    return figure


def _cell_with_text(axis: Axes, corner: tuple, text: str, colours: tuple) -> None:
    """A cell of 1 × 1 and a text in its middle; `colours`: of the cell and of the text."""
    fill, colour = colours
    cell(axis, corner, (1, 1), fill, edgecolor="white")
    x, y = corner
    centred(axis, x + 0.5, y + 0.5, text, fontsize=8, color=colour)


def _empty(axis: Axes, width: int, height: int) -> None:
    """An axis of width × height cells, without ticks and frame; row 0 is at the top."""
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def batches_as_blocks(groups: dict[str, list], names: dict[str, str]) -> Figure:
    """Batches next to each other, one row per sentence, padding in grey.

    groups: title -> batches, each a list of (length, colour), one per sentence.
    names: colour -> its meaning.
    """
    figure, axes = panels((7, 5), len(groups), 1)
    widths = []
    for axis, (title, batches) in zip(axes, groups.items()):
        widths.append(_blocks(axis, batches))
        axis.set_title(title, fontsize=9, loc="left")
    for axis in axes:
        _empty(axis, max(widths), 64)
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in names]
    style = {"loc": "outside lower center", "ncols": 3, "fontsize": 8, "frameon": False}
    figure.legend(handles, list(names.values()), **style)
    return figure


def _blocks(axis: Axes, batches: Sequence[Sequence[tuple[int, str]]]) -> int:
    """Draw the batches of one panel; return their total width."""
    start = 0
    for batch in batches:
        width = max(length for length, _ in batch)
        cell(axis, (start, 0), (width, len(batch)), "#cccccc")
        for row, (length, colour) in enumerate(batch):
            cell(axis, (start, row), (length, 1), colour)
        start += width + 2
    return start
