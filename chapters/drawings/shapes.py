"""The parts of a drawing: an empty sheet; pictures, boxes, arrows and cells to put on it."""

import numpy as np
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


def panels(
    size: tuple, rows: int, columns: int, **options
) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches and its axes, (rows, columns) or one row or column."""
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def show(axis: Axes, picture: Tensor, **style) -> None:
    """Show a picture (3, H, W)."""
    pixels = picture.permute(1, 2, 0).numpy()  # (H, W, 3)
    axis.imshow(pixels, **style)


def box(
    axis: Axes,
    centre: tuple,
    text: str,
    colours: tuple,
    pad: float = 0.3,
    **style,
) -> Text:
    """Write a text in a box with round corners; `colours`: of the box and of its edge."""
    fill, edge = colours
    frame = {"boxstyle": f"round,pad={pad}", "facecolor": fill, "edgecolor": edge}
    style = {"ha": "center", "va": "center"} | style
    x, y = centre
    return axis.text(x, y, text, bbox=frame, **style)


def centred(axis: Axes, x: float, y: float, text: str, **style) -> None:
    """Write a text with its centre at (x, y)."""
    axis.text(x, y, text, ha="center", va="center", **style)


def arrow(axis: Axes, start: tuple, end: tuple, **style) -> None:
    """Draw an arrow between two points."""
    axis.annotate("", end, start, arrowprops=style)


def cell(axis: Axes, corner: tuple, size: tuple, fill: str, **style) -> None:
    """Draw a rectangle of `size` (width, height); `corner` has its smallest x and y."""
    width, height = size
    style = {"facecolor": fill, "edgecolor": "none"} | style
    axis.add_patch(Rectangle(corner, width, height, **style))
