"""The drawings of chapter 6, The training loop."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chapters.drawings.shapes import arrow, box, sheet

BLUE = ("#eaf3fb", "#4292c6")
BROWN = "#b3510a"
LINES = {  # line of the loop -> its position; position, alignment and text of its note
    "for batch in loader:": (
        (38, 31), (38, 36), "center",
        "fetched and copied during the step before;\neach process takes its shard",
    ),
    "loss = model(batch)": (
        (52, 21.5), (62, 21.5), "left",
        "in a shorter\nnumber format;\nin micro-batches",
    ),
    "loss.backward()": (
        (49, 10.5), (57.5, 10.5), "left",
        "summed over micro-batches\nand processes, divided by\nthe words of all",
    ),
    "optimizer.step()": (
        (27, 10.5), (18, 10.5), "right",
        "clipped, or skipped;\nthe learning rate\nrises, then falls",
    ),
    "optimizer.zero_grad()": (
        (24, 21.5), (13, 21.5), "right",
        "and then: report,\nvalidate, save,\nstop, resume",
    ),
}  # fmt: skip
PROMISE = (
    "in micro-batches, in processes, after a power cut: the same steps, the same model"
)
WORDS = {"fontsize": 8.5, "color": BROWN, "linespacing": 1.35, "va": "center"}
ARROW = {"arrowstyle": "-|>", "color": BLUE[1], "lw": 1.6, "shrinkA": 5, "shrinkB": 5}
ORANGES = ("#fd8d3c", "#fdd0a2")  # of even and odd batches
BLUES = ("#4292c6", "#c6dbef")


def five_lines() -> Figure:
    """The five lines of a training loop in a circle, each with what the chapter adds to it."""
    figure, axis = sheet((7.6, 3.9), (0, 76), (0, 39))
    boxes = []
    for line, (position, note_position, side, note) in LINES.items():
        style = {"fontsize": 9, "family": "DejaVu Sans Mono"}
        boxes.append(box(axis, position, line, BLUE, pad=0.5, **style))
        axis.text(*note_position, note, ha=side, **WORDS)
    for start, end in zip(boxes, boxes[1:] + boxes[:1]):
        ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
        arrow(axis, start.get_position(), end.get_position(), **ends, **ARROW)
    axis.text(38, 2.5, PROMISE, ha="center", style="italic")
    return figure


def fetching_and_computing(timelines: Sequence[tuple]) -> Figure:
    """Two timelines of half a second: when each batch was fetched, and when it was computed.

    timelines: for each its title and its batches: (start and end of fetching, start and end of
    computing), in seconds.
    """
    figure = Figure(figsize=(7.6, 3.4), dpi=100, layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for axis, (title, batches) in zip(axes, timelines):
        begin = batches[0][2]
        for number, times in enumerate(batches):
            fetch_start, fetch_end, start, end = (1000 * (t - begin) for t in times)
            _bar(axis, 1, (fetch_start, fetch_end), number, ORANGES)
            _bar(axis, 0, (start, end), number, BLUES)
        axis.set_yticks((0, 1), ("computing", "fetching"))
        axis.set(xlim=(0, 500), ylim=(-0.5, 1.5))
        axis.set_title(title, fontsize=9.5)
    axes[1].set_xlabel("milliseconds; the numbers are those of the batches")
    return figure


def _bar(axis: Axes, y: int, span: tuple, number: int, colours: tuple) -> None:
    """A bar from the start to the end of `span`, with the number of its batch."""
    start, end = span
    axis.barh(y, end - start, left=start, height=0.66, color=colours[number % 2])
    middle = (start + end) / 2
    if 0 < middle < 500:
        style = {"ha": "center", "va": "center", "fontsize": 7.5}
        axis.text(middle, y, number + 1, **style)
