"""The drawings of chapter 7, Fine-tuning."""

from collections.abc import Sequence
from textwrap import wrap

from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import sheet, show

FROZEN = 4  # first layers in a frozen encoder
ORANGE, BLUE, GREY = "#fdd0a2", "#2171b5", "#d4d4d4"
LEGEND = (  # x, colour, text
    (16, ORANGE, "random at first, trained"),
    (38, BLUE, "pretrained, trained further"),
    (62, GREY, "frozen"),
)
EDGE = {"align": "edge", "ec": "#555555", "lw": 0.7}
CENTRED = {"ha": "center", "va": "center"}


def what_each_method_trains(layers: Sequence[str], methods: dict[str, dict]) -> Figure:
    """The layers, from the picture at the bottom to the words, coloured by what each method trains.

    methods: name -> its settings, of which "freeze", "lora" and "layer_decay" are shown.
    """
    figure, axis = sheet((8, 4.3), (0, 80), (0, 43))
    heights = [4 + 3.8 * row for row in range(len(layers))]
    for layer, y in zip(layers, heights):
        axis.text(14.5, y + 1.4, layer, ha="right", va="center", fontsize=9)
    for column, (name, method) in enumerate(methods.items()):
        x = 16 + 12.8 * column
        axis.text(x + 4.5, 39.6, name, fontsize=9, weight="bold", **CENTRED)
        for row, y in enumerate(heights):
            later = len(layers) - 1 - row  # layers between this one and the output
            factor = method.get("layer_decay", 1.0) ** later
            fill = (_colour(name, method, row), factor)
            axis.bar(x, 2.8, 9, y, color=fill, **EDGE)
            if factor < 1:
                colour = "black" if factor < 0.6 else "white"
                style = {"fontsize": 8, "color": colour} | CENTRED
                axis.text(x + 4.5, y + 1.4, f"× {factor:.2f}", **style)
            if "lora" in method and layers[row].startswith("decoder"):
                axis.bar(x + 9.4, 2.8, 1.2, y, color=BLUE, **EDGE)
    for x, colour, text in LEGEND:
        axis.bar(x, 1.5, 1.8, 0.8, color=colour, **EDGE)
        axis.text(x + 2.5, 1.5, text, va="center", fontsize=8.5)
    return figure


def _colour(name: str, method: dict, row: int) -> str:
    if name == "from scratch":
        return ORANGE
    if "lora" in method:
        return GREY
    if "freeze" in method and row < FROZEN:
        return GREY
    return BLUE


def pictures_and_captions(shown: dict[str, tuple[Tensor, str]]) -> Figure:
    """Four pictures (3, H, W), each with its title above and a caption below."""
    figure = Figure(figsize=(8.4, 2.9), dpi=100)
    for i, (title, (picture, caption)) in enumerate(shown.items()):
        axis = figure.add_axes((0.01 + 0.248 * i, 0.23, 0.235, 0.68))
        axis.set_title(title, fontsize=10)
        show(axis, picture, interpolation="nearest")
        axis.set_axis_off()
        style = {"ha": "center", "va": "top", "transform": axis.transAxes}
        axis.text(0.5, -0.04, "\n".join(wrap(caption, 32)), fontsize=8.5, **style)
    return figure


def label_rows(figure: Figure, labels: Sequence[str]) -> Figure:
    """Write a label, turned by 90 degrees, to the left of each row of four pictures."""
    for row, label in enumerate(labels):
        picture = figure.axes[4 * row].get_position()
        y = (picture.y0 + picture.y1) / 2
        figure.text(0.008, y, label, rotation=90, fontsize=8, **CENTRED)
    return figure
