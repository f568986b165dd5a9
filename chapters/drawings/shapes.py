"""What the drawings are made of: an empty sheet, and on it pictures, boxes, arrows and cells."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from torch import Tensor


def sheet(size: tuple, xlim: tuple, ylim: tuple) -> tuple[Figure, Axes]:
    """A figure of `size` inches, and one axis that covers all of it and has no frame."""
    figure = Figure(figsize=size, dpi=100)
    axis = figure.add_axes((0, 0, 1, 1), xlim=xlim, ylim=ylim)
    axis.set_axis_off()
    return figure, axis


def show(axis: Axes, picture: Tensor, **style) -> None:
    """A picture (3, H, W)."""
    axis.imshow(picture.permute(1, 2, 0).numpy(), **style)  # (H, W, 3)


def box(
    axis: Axes, place: tuple, text: str, colours: tuple, pad: float = 0.3, **style
) -> Text:
    """A text in a box with round corners, centred at `place`; `colours` of the box and its edge."""
    fill, edge = colours
    frame = {"boxstyle": f"round,pad={pad}", "facecolor": fill, "edgecolor": edge}
    style = {"ha": "center", "va": "center"} | style
    return axis.text(*place, text, bbox=frame, **style)


def arrow(axis: Axes, start: tuple, end: tuple, **style) -> None:
    """An arrow between two points."""
    axis.annotate("", end, start, arrowprops=style)


def cell(axis: Axes, corner: tuple, size: tuple, fill: str, **style) -> None:
    """A rectangle of `size` (width, height) whose corner with the least x and y is `corner`."""
    style = {"edgecolor": "none"} | style
    axis.add_patch(Rectangle(corner, *size, facecolor=fill, **style))
