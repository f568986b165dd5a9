"""The drawings of chapter 9, BLEU and its relatives."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import cell, show

RED = "#c62828"
GREY = "#8c8c8c"
SHADES = ("white", "#e5f5e0", "#c0e6ba", "#8fd08c", "#56b567")  # of n = 0 to 4
NAMES = ("not shared", "one word", "two", "three", "four or more")
WIDTH = 72.6  # of the sentences, in characters
HEIGHT = 10.2  # in lines


def shared_ngrams(picture: Tensor, sentences: Sequence, shared: Sequence) -> Figure:
    """A picture, a hypothesis and its references; longer shared n-grams are greener.

    picture (3, H, W). sentences: the hypothesis, then the references, each a list of words.
    shared: for each of their words, the n of the longest n-gram that is shared, 0 to 4.
    """
    figure = Figure(figsize=(7.6, 2.5), dpi=100)
    axis = figure.add_axes((0.01, 0.13, 0.25, 0.76))
    axis.set_axis_off()
    show(axis, picture)
    place = (0.28, 0, 0.72, 1)
    axis = figure.add_axes(place, xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axis.set_axis_off()
    style = {"fontsize": 8.5, "color": GREY, "va": "center"}
    axis.text(0, 0.7, "hypothesis", **style)
    axis.text(0, 3, "references", **style)
    _words(axis, 1.7, sentences[0], shared[0])
    for i in range(1, len(sentences)):
        _words(axis, 3 + i, sentences[i], shared[i])
    for n, name in enumerate(NAMES):
        x = 14 * n
        style = {"edgecolor": "#bbbbbb", "lw": 0.5}
        cell(axis, (x, 9.1), (2, 0.7), SHADES[n], **style)
        style = {"fontsize": 8, "va": "center"}
        axis.text(x + 2.6, 9.45, name, color=_colour(n), **style)
    return figure


def _words(axis: Axes, y: float, words: Sequence[str], shared: Sequence[int]) -> None:
    """A sentence in characters of equal width; each word on the shade of its n."""
    style = {
        "fontsize": 9,
        "family": "DejaVu Sans Mono",
        "va": "center",
    }
    x = 0
    for word, n in zip(words, shared, strict=True):
        size = (len(word) + 0.5, 0.84)
        cell(axis, (x - 0.25, y - 0.42), size, SHADES[n])
        axis.text(x, y, word, color=_colour(n), **style)
        x += len(word) + 1


def _colour(n: int) -> str:
    """The colour of a word whose longest shared n-gram has n words."""
    return "black" if n else RED


def common_subsequence(
    hypothesis: Sequence[str],
    reference: Sequence[str],
    table: Sequence[Sequence[int]],
    path: set,
) -> Figure:
    """The table of the longest common subsequence, with its `path` of cells in green.

    Cell (i, j) holds the length for i words of the hypothesis and j of the reference.
    """
    figure = Figure(figsize=(5.6, 4.2), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.set_xlim(-0.6, len(reference) + 0.6)
    axis.set_ylim(len(hypothesis) + 0.6, -0.6)
    axis.set(ylabel="hypothesis", title="reference")
    middle = {"ha": "center", "va": "center", "fontsize": 8.5}
    for i, lengths in enumerate(table):
        for j, length in enumerate(lengths):
            fill = "white"
            style = {"color": "#666666"}
            if (i, j) in path:
                fill = SHADES[4]
                style = {"color": "black", "weight": "bold"}
            corner = (j - 0.5, i - 0.5)
            cell(axis, corner, (1, 1), fill, edgecolor="#dddddd")
            axis.text(j, i, length, **style, **middle)
    labels = ["", *reference]
    style = {"rotation": 40, "ha": "left", "fontsize": 8.5}
    axis.set_xticks(range(len(labels)), labels, **style)
    labels = ["", *hypothesis]
    axis.set_yticks(range(len(labels)), labels, fontsize=8.5)
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    return figure
