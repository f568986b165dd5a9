"""The drawings of chapter 16, Small labelled sets."""

from matplotlib.figure import Figure

from chapters.drawings.shapes import arrow, box, cell, centred, sheet
from mmscratch.plots import GREY

BLUE = ("#deebf7", "#9ecae1")
ORANGE = ("#feedde", "#fdae6b")
ARROW = {"arrowstyle": "->", "color": GREY, "lw": 1.4}


def a_row_as_memory() -> Figure:
    """A picture and a row; their vectors in one memory; a decoder that writes a class."""
    figure, axis = sheet((9.6, 3.3), (0, 96), (0, 33))
    cell(axis, (2, 19), (12, 12), "#f2e3d5", edgecolor=GREY)
    cell(axis, (6, 23), (4.5, 4), "#8c5a3c")
    centred(axis, 8, 16.5, "picture", fontsize=9)
    columns = (("age", "47"), ("sex", "female"), ("site", "–"))
    for i, (name, value) in enumerate(columns):
        cell(axis, (1 + 7.5 * i, 6), (7.3, 3.6), "white", edgecolor=GREY)
        cell(axis, (1 + 7.5 * i, 2.4), (7.3, 3.6), "white", edgecolor=GREY)
        centred(axis, 4.6 + 7.5 * i, 7.8, name, fontsize=9, weight="bold")
        centred(axis, 4.6 + 7.5 * i, 4.2, value, fontsize=9)
    box(axis, (32, 25), "CNN", BLUE, pad=0.6)
    box(axis, (32, 6), "one vector\nper column", BLUE, pad=0.5)
    arrow(axis, (15, 25), (28, 25), **ARROW)
    arrow(axis, (24, 6), (27.3, 6), **ARROW)
    for i in range(9):
        cell(axis, (46 + 2.2 * (i % 3), 21 + 2.6 * (i // 3)), (2, 2.4), "#fdae6b")
    for i, fill in enumerate(("#9ecae1", "#9ecae1", "white")):
        style = {} if i < 2 else {"edgecolor": GREY, "linestyle": ":"}
        cell(axis, (46 + 2.2 * i, 4.8), (2, 2.4), fill, **style)
    arrow(axis, (36, 25), (45, 25), **ARROW)
    arrow(axis, (37, 6), (45, 6), **ARROW)
    centred(axis, 49, 15, "one memory", fontsize=10, weight="bold")
    centred(axis, 49, 1.5, "the site is missing: masked", fontsize=9)
    box(axis, (68, 15), "decoder", ORANGE, pad=0.7)
    arrow(axis, (54, 24), (63.5, 17), **ARROW)
    arrow(axis, (54, 6.5), (63.5, 13), **ARROW)
    arrow(axis, (73, 15), (79, 15), **ARROW)
    centred(axis, 87, 17.5, "nevus 84 %", fontsize=10)
    centred(axis, 87, 14.5, "melanoma 9 %", fontsize=10)
    centred(axis, 87, 11.5, "…", fontsize=10)
    return figure
