"""The drawings of chapter 2, CNN encoder."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from chapters.drawings.shapes import centred, panels, show

RED = "#c62828"


def sliding_filter(picture: Tensor, weights: Tensor, response: Tensor) -> Figure:
    """A picture (3, H, W), a filter (3, 3) with its numbers, and its feature map."""
    figure, axes = panels((7, 2.6), 1, 3)
    titles = ("a picture", "a filter", "its feature map")
    for axis, title in zip(axes, titles):
        axis.set(title=title, xticks=[], yticks=[])
    left, middle, right = axes
    show(left, picture)
    middle.imshow(weights.numpy(), cmap="RdBu", vmin=-2.5, vmax=2.5)
    for i in range(3):
        for j in range(3):
            centred(middle, j, i, f"{weights[i, j]:.0f}", fontsize=13)
    right.imshow(response.numpy(), cmap="RdBu", vmin=-600, vmax=600)
    return figure


def stride_and_padding(positions: dict[tuple[int, int], int]) -> Figure:
    """The positions of a 3 × 3 filter on a picture of 7 × 7.

    positions: (stride, padding) -> the number of positions along a side.
    """
    figure, axes = panels((7, 2.5), 1, len(positions))
    picture = np.pad(np.ones((7, 7)), 1)
    style = {"cmap": "Greys", "vmin": -1, "vmax": 3, "alpha": 0.5}
    style["extent"] = (-1.5, 7.5, 7.5, -1.5)
    edges = np.arange(-1.5, 8)
    for axis, ((stride, padding), count) in zip(axes, positions.items()):
        axis.imshow(picture, **style)
        centres = [1 - padding + stride * i for i in range(count)]
        x, y = np.meshgrid(centres, centres)
        axis.scatter(x, y, s=22, color=RED)
        axis.set_xticks(edges, [])
        axis.set_yticks(edges, [])
        axis.grid(color="white")
        axis.tick_params(length=0)
        title = f"stride {stride}, padding {padding}:\n{count} × {count} positions"
        axis.set_title(title, fontsize=10)
    return figure


def what_filters_see(responses: dict[str, Tensor]) -> Figure:
    """Feature maps by their filters' names: "blur" in grey, others red above 0, blue below."""
    figure, axes = panels((7, 2.1), 1, len(responses))
    for axis, (name, response) in zip(axes, responses.items()):
        if name == "blur":
            style = {"cmap": "gray", "vmin": 0, "vmax": 1}
        else:
            most = response.abs().max()
            style = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
        axis.imshow(response.numpy(), **style)
        axis.set_title(name, fontsize=9)
        axis.set(xticks=[], yticks=[])
    return figure


def receptive_fields(picture: Tensor, fields: dict[str, tuple]) -> Figure:
    """A picture (3, H, W), and on it the part that one position of each stage sees.

    fields: stage -> (height and width of its grid), (the rows of pixels), (the columns of pixels).
    """
    figure, axes = panels((7, 2.3), 1, len(fields))
    style = {"fill": False, "color": RED, "linewidth": 2}
    for axis, (stage, (grid, rows, columns)) in zip(axes, fields.items()):
        show(axis, picture, alpha=0.6)
        corner = (columns[0], rows[0])
        height = len(rows)
        width = len(columns)
        axis.add_patch(Rectangle(corner, width, height, **style))
        size = f"{grid[0]} × {grid[1]}"
        title = f"{stage}: {size} positions,\neach sees {height} × {width}"
        axis.set_title(title, fontsize=9)
        axis.set(xticks=[], yticks=[])
    return figure
