"""The drawing of chapter 6, The training loop."""

from matplotlib.figure import Figure

from chapters.drawings.shapes import arrow, box, sheet

BLUE = ("#eaf3fb", "#4292c6")
BROWN = "#b3510a"
LINES = {  # line of the loop -> its place; the place of its note, how that is aligned, and its text
    "for batch in loader:": (
        (38, 31), (38, 36), "center",
        "fetched and copied while the step before computes;\neach process takes its share",
    ),
    "loss = model(batch)": (
        (52, 21.5), (62, 21.5), "left",
        "in a shorter\nnumber format;\nin parts that fit",
    ),
    "loss.backward()": (
        (49, 10.5), (57.5, 10.5), "left",
        "summed over parts and\nprocesses, divided by\nthe words of all",
    ),
    "optimizer.step()": (
        (27, 10.5), (18, 10.5), "right",
        "clipped, or skipped;\nthe learning rate\nrises, then falls",
    ),
    "optimizer.zero_grad()": (
        (24, 21.5), (13, 21.5), "right",
        "and then: tell,\nvalidate, save,\nstop, go on",
    ),
}  # fmt: skip
PROMISE = (
    "in parts, in processes, after a power cut: the same model after the same steps"
)


def five_lines() -> Figure:
    """The five lines of a training loop in a circle, each with what the chapter adds to it."""
    figure, axis = sheet((7.6, 3.9), (0, 76), (0, 39))
    boxes = []
    for line, (place, note_place, side, note) in LINES.items():
        style = {"fontsize": 9, "family": "DejaVu Sans Mono"}
        boxes.append(box(axis, place, line, BLUE, pad=0.5, **style))
        style = {"va": "center", "fontsize": 8.5, "color": BROWN, "linespacing": 1.35}
        axis.text(*note_place, note, ha=side, **style)
    style = {
        "arrowstyle": "-|>",
        "color": BLUE[1],
        "lw": 1.6,
        "shrinkA": 5,
        "shrinkB": 5,
    }
    for start, end in zip(boxes, boxes[1:] + boxes[:1]):
        ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
        arrow(axis, start.get_position(), end.get_position(), **ends, **style)
    axis.text(38, 2.5, PROMISE, ha="center", style="italic")
    return figure
