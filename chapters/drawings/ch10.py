"""The drawing of chapter 10, Translation."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from chapters.drawings.shapes import arrow, sheet

PALE = "#9ecae1"
ORANGE = "#d94801"
GREY = "#555555"
LIGHT = "#999999"
HEIGHTS = {
    "source": 2.5,
    "memory": 14.6,
    "attention": 22.5,
    "decoder": 29,
}


def where_words_come_from(
    source: Sequence[str],
    translation: Sequence[str],
    origins: dict[str, str],
) -> Figure:
    """A sentence, its memory, its translation, and lines from words to their origins.

    origins: word of the translation -> word of the source. The last translated word is
    orange.
    """
    figure, axis = sheet((8, 3.2), (0, 80), (0, 32))
    middle = {"ha": "center", "va": "center"}
    source_x = {word: 14 + 9.8 * i for i, word in enumerate(source)}
    for word, x in source_x.items():
        axis.text(x, HEIGHTS["source"], word, fontsize=10, **middle)
        arrow(axis, (x, 4.6), (x, 11.4), arrowstyle="-|>", color=LIGHT)
        for row in range(4):
            bottom = 11.8 + 1.4 * row
            axis.bar(x, 1.4, 3.4, bottom, color=PALE, ec="white")
    for i, word in enumerate(translation):
        x = 14 + 8.4 * i
        style = {"color": GREY, "lw": 1}
        if word == translation[-1]:
            style = {"color": ORANGE, "lw": 2}
        colour = style["color"]
        axis.text(x, HEIGHTS["decoder"], word, fontsize=10, color=colour, **middle)
        if word in origins:
            origin_x = source_x[origins[word]]
            axis.plot((x, origin_x), (27.4, 17.8), **style)
    axis.bar(43.4, 3, 68, 6.4, color="white", ec=LIGHT)
    text = "encoder: each word sees all others"
    style = {"fontsize": 9, "backgroundcolor": "white", "zorder": 4}
    axis.text(43.4, 7.8, text, **style, **middle)
    for name, y in HEIGHTS.items():
        axis.text(1, y, name, va="center", fontsize=9, style="italic")
    return figure
