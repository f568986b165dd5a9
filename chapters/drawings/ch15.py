"""The drawings of chapter 15, Real photographs."""

from matplotlib.figure import Figure

from chapters.drawings.shapes import arrow, box, cell, centred, panels, sheet
from mmscratch.plots import GREY

BLUE = ("#deebf7", "#9ecae1")
ORANGE = ("#feedde", "#fdae6b")
GREEN = ("#e5f5e0", "#a1d99b")
ARROW = {"arrowstyle": "->", "color": GREY, "lw": 1.4}


def what_photographs_need() -> Figure:
    """Tar files, a frozen backbone, features in a file, a decoder, and a reward."""
    figure, axis = sheet((9.6, 2.9), (0, 96), (1, 30))
    for i in range(3):
        cell(axis, (3 + 1.2 * i, 20 - 1.2 * i), (9, 7), "#d9d9d9", edgecolor="white")
    centred(axis, 9, 13.5, "photographs,\nin tar files", fontsize=9)
    arrow(axis, (16, 22), (22, 22), **ARROW)
    box(axis, (31, 22), "MobileNetV2\nof ImageNet", BLUE, pad=0.7)
    centred(axis, 31, 13.5, "frozen: looks at each\npicture once", fontsize=9)
    arrow(axis, (40, 22), (46, 22), **ARROW)
    for i in range(4):
        for j in range(3):
            cell(axis, (47 + 2 * i, 18.5 + 2.4 * j), (1.8, 2.2), "#9ecae1")
    centred(axis, 51, 13.5, "features,\nkept in a file", fontsize=9)
    arrow(axis, (57, 22), (63, 22), **ARROW)
    box(axis, (70, 22), "decoder", ORANGE, pad=0.7)
    centred(axis, 70, 13.5, "writes five captions\nfrom one memory", fontsize=9)
    arrow(axis, (76, 22), (82, 22), **ARROW)
    box(axis, (88, 22), "reward", GREEN, pad=0.7)
    arrow(axis, (88, 18.5), (88, 7), **ARROW)
    axis.plot((70, 88), (7, 7), color=GREY, lw=1.4)
    arrow(axis, (70, 7), (70, 10.5), **ARROW)
    centred(axis, 79, 4.5, "likelier, if better than the greedy one", fontsize=9)
    return figure


def convolutions() -> Figure:
    """Which inputs an output reads: in a convolution, a depthwise, and a pointwise one."""
    figure, axes = panels((9.2, 2.9), 1, 3)
    titles = (
        "convolution:\nall channels of 3 × 3 places",
        "depthwise: one channel\nof 3 × 3 places",
        "pointwise: all channels\nof one place",
    )
    for axis, title, channels, places in zip(axes, titles, (4, 1, 4), (3, 3, 1)):
        axis.set(xlim=(-0.5, 16.5), ylim=(-0.5, 11.5), title=title)
        axis.set_axis_off()
        for channel in range(4):
            for row in range(5):
                for column in range(5):
                    middle = (5 - places) // 2
                    inside = all(middle <= i < middle + places for i in (row, column))
                    is_read = inside and channel < channels
                    x = 5.8 * (channel % 2) + column
                    y = 5.8 * (1 - channel // 2) + row
                    fill = "#fdae6b" if is_read else "#deebf7"
                    cell(axis, (x, y), (1, 1), fill, edgecolor="white", linewidth=0.8)
        arrow(axis, (11.6, 5.4), (14.4, 5.4), **ARROW)
        cell(axis, (15, 4.9), (1, 1), "#a1d99b", edgecolor="white")
    return figure
