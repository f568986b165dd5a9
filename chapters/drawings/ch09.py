"""The drawings of chapter 9, BLEU and its relatives."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import cell, show

RED, GREY = "#c62828", "#8c8c8c"
SHADES = ("white", "#e5f5e0", "#c0e6ba", "#8fd08c", "#56b567")
NAMES = ("not shared", "one word", "two", "three", "four or more")


def shared_ngrams(picture: Tensor, sentences: Sequence, shared: Sequence) -> Figure:
    """A picture (3, H, W), a hypothesis and its references; longer shared n-grams are greener.

    sentences: the hypothesis, then the references, each a list of words.
    shared: for each of their words the n of the longest n-gram that is shared, 0 to 4.
    """
    figure = Figure(figsize=(7.6, 2.5), dpi=100)
    axis = figure.add_axes((0.01, 0.13, 0.25, 0.76))
    show(axis, picture)
    axis.set_axis_off()
    limits = {
        "xlim": (0, 72.6),
        "ylim": (10.2, 0),
    }  # as wide as 72.6 letters, 10.2 lines high
    axis = figure.add_axes((0.28, 0, 0.72, 1), **limits)
    axis.set_axis_off()
    axis.text(0, 0.7, "hypothesis", fontsize=8.5, color=GREY, va="center")
    _words(axis, 1.7, sentences[0], shared[0])
    axis.text(0, 3, "references", fontsize=8.5, color=GREY, va="center")
    for i in range(1, len(sentences)):
        _words(axis, 3 + i, sentences[i], shared[i])
    for n, name in enumerate(NAMES):
        cell(axis, (14 * n, 9.1), (2, 0.7), SHADES[n], edgecolor="#bbbbbb", lw=0.5)
        style = {"fontsize": 8, "va": "center", "color": "black" if n else RED}
        axis.text(14 * n + 2.6, 9.45, name, **style)
    return figure


def _words(axis: Axes, y: float, words: Sequence[str], shared: Sequence[int]) -> None:
    """A sentence in letters of the same width; each word on the shade of its n."""
    x = 0
    for word, n in zip(words, shared, strict=True):
        cell(axis, (x - 0.25, y - 0.42), (len(word) + 0.5, 0.84), SHADES[n])
        style = {"fontsize": 9, "family": "DejaVu Sans Mono", "va": "center"}
        axis.text(x, y, word, color="black" if n else RED, **style)
        x += len(word) + 1


def common_subsequence(
    hypothesis: Sequence[str],
    reference: Sequence[str],
    table: Sequence[Sequence[int]],
    path: set,
) -> Figure:
    """The table of the longest common subsequence, with its `path` of cells in green.

    Cell (i, j) holds the length for the first i words of the hypothesis and j of the reference.
    """
    figure = Figure(figsize=(5.6, 4.2), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(-0.6, len(reference) + 0.6), ylim=(len(hypothesis) + 0.6, -0.6))
    axis.set(ylabel="hypothesis", title="reference")
    for i, lengths in enumerate(table):
        for j, length in enumerate(lengths):
            on_path = (i, j) in path
            fill = SHADES[4] if on_path else "white"
            cell(axis, (j - 0.5, i - 0.5), (1, 1), fill, edgecolor="#dddddd")
            style = {"ha": "center", "va": "center", "fontsize": 8.5}
            weight = "bold" if on_path else "normal"
            colour = "black" if on_path else "#666666"
            axis.text(j, i, length, weight=weight, color=colour, **style)
    labels = ["", *reference]
    axis.set_xticks(range(len(labels)), labels, rotation=40, ha="left", fontsize=8.5)
    labels = ["", *hypothesis]
    axis.set_yticks(range(len(labels)), labels, fontsize=8.5)
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    return figure
