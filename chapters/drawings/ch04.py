"""The drawings of chapter 4: what a word looks at, attention with all its numbers, masks."""

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

GREEN, BLUE, GREY = "#1a7f37", "#1f6fb4", "#666666"
PALE_GREY = "#d8d8d8"
SIDE = 4  # patches along a side of the picture
N = SIDE * SIDE


def words_look_back(image, words, obj):
    """A picture's 16 patches and the words so far, and for each of five words what it looks at.

    image (3, 64, 64) uint8; `words`, five of a caption; `obj`, the thing that the fourth word
    names. That word's lines are blue. How thick they are is made up: thick at the thing and at the
    words that describe it.
    """
    figure = Figure(figsize=(8, 3.3), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    columns = [0.45 + 0.56 * n for n in range(N)]  # of the patches
    columns += [9.95 + 1.4 * i for i in range(5)]  # of the words
    weights = [_looks(obj, n) for n in range(N)]
    weights += [0.3, 0.3, 2.0, 2.0]  # of <bos>, "a", "big" and the colour itself
    _cut_picture(axis, image)
    _patches(axis, image, columns)
    for i, word in enumerate(words):
        x = columns[N + i]
        blue = i == 3  # one word's view is drawn in blue
        for n in range(N + i + 1):
            line = {"color": PALE_GREY, "linewidth": 0.5, "zorder": 1}
            if blue:
                line = {"color": BLUE, "linewidth": 0.3 + weights[n], "zorder": 2}
            axis.plot((x, columns[n]), (3.9, 1.8), **line)
        colour = BLUE if blue else GREY
        axis.plot(x, 3.9, "o", color=colour, markersize=9, zorder=3)
        axis.annotate(
            "", (x, 5.0), (x, 4.15), arrowprops={"arrowstyle": "->", "color": colour}
        )
        axis.text(x, 5.2, word, ha="center", fontsize=9.5, color=GREEN)
        axis.text(x, 1.4, ["<bos>", *words][i], ha="center", va="center", fontsize=9.5)
    _note(axis, columns[7] + 0.28, 0.75, "the picture's 16 places, row by row")
    _note(axis, columns[N + 2], 0.75, "the words so far")
    _note(axis, columns[N + 2], 5.9, "the next words")
    axis.set(xlim=(0, 16.4), ylim=(0.2, 6.97))
    axis.set_axis_off()
    return figure


def _looks(obj, n):
    """How thick the line to patch n is: 3 near the thing, else 0."""
    x = n % SIDE / SIDE + 0.125
    y = n // SIDE / SIDE + 0.125
    return 3.0 * (max(abs(obj.x - x), abs(obj.y - y)) < 0.2)


def _cut_picture(axis, image):
    """The whole picture, with the lines along which it is cut."""
    axis.imshow(image.permute(1, 2, 0).numpy(), extent=(0.2, 3.0, 3.75, 6.55), zorder=3)
    for i in (0.7, 1.4, 2.1):
        axis.plot(
            (0.2 + i, 0.2 + i), (3.75, 6.55), color="white", linewidth=1, zorder=4
        )
        axis.plot(
            (0.2, 3.0), (3.75 + i, 3.75 + i), color="white", linewidth=1, zorder=4
        )


def _patches(axis, image, columns):
    """The 16 patches in a row."""
    patches = image.unfold(1, 16, 16).unfold(2, 16, 16)  # (3, 4, 4, 16, 16)
    patches = patches.permute(1, 2, 3, 4, 0).flatten(0, 1)  # (16, 16, 16, 3)
    for x, patch in zip(columns, patches):
        axis.imshow(patch.numpy(), extent=(x - 0.25, x + 0.25, 1.3, 1.8), zorder=3)


def _note(axis, x, y, text):
    axis.text(x, y, text, ha="center", fontsize=9, color=GREY)


def attention_tables(sentence, queries, keys, values, attention):
    """Attention on five words with all its numbers: without a causal mask, then with one.

    `attention(queries, keys, values, causal)` gives scores, weights and results, word by word.
    """
    figure = Figure(figsize=(8, 7), dpi=100, layout="constrained")
    axes = figure.subplots(3, 3)
    kinds = ("article", "adject.", "noun", "prepos.")
    meanings = ("large", "red", "star", "above")
    _table(axes[0, 0], queries, "queries: asks for", (sentence, kinds), ("Purples", 5))
    _table(axes[0, 1], keys, "keys: is", (sentence, kinds), ("Oranges", 5))
    _table(axes[0, 2], values, "values: means", (sentence, meanings), ("Greens", 2))
    for row, causal in enumerate((False, True), 1):
        scores, weights, results = attention(queries, keys, values, causal)
        seen = "it and those before" if causal else "all words seen"
        _table(
            axes[row, 0],
            scores,
            f"scores, {seen}",
            (sentence, sentence),
            ("Blues", 6),
            1,
        )
        _table(axes[row, 1], weights, "weights", (sentence, sentence), ("Blues", 1), 2)
        labels = (sentence, meanings)
        _table(
            axes[row, 2], results, "weighted sums of values", labels, ("Greens", 1), 2
        )
    return figure


def _table(axis, rows, title, labels, colours, digits=0):
    """A table of numbers, the darker the larger; rows may be of different length.

    `labels`: (of the rows, of the columns); `colours`: (a colour map, the number at its end).
    """
    row_labels, column_labels = labels
    cmap, most = colours
    shown = torch.full((len(rows), len(column_labels)), torch.nan)
    for i, row in enumerate(rows):
        shown[i, : len(row)] = torch.tensor(row)
        for j, x in enumerate(row):
            colour = "white" if x > 0.6 * most else "black"
            axis.text(
                j,
                i,
                f"{x:.{digits}f}",
                ha="center",
                va="center",
                fontsize=8,
                color=colour,
            )
    axis.imshow(shown.numpy(), cmap=cmap, vmin=0, vmax=most, aspect="auto")
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(column_labels)), column_labels, fontsize=8)
    axis.set_yticks(range(len(rows)), row_labels, fontsize=8)
    axis.tick_params(length=0)


def who_may_look(masks):
    """Four masks, by name; in the last one 4 places stand before the words."""
    figure = Figure(figsize=(8, 2.7), dpi=100, layout="constrained")
    cells = {"cmap": ListedColormap(["#eeeeee", "#4292c6"]), "vmin": 0, "vmax": 1}
    for axis, (name, mask) in zip(figure.subplots(1, 4), masks.items()):
        axis.pcolormesh(mask, **cells, edgecolor="white", linewidth=1.5)
        axis.set_title(name, fontsize=10)
        axis.set(
            aspect="equal", xticks=[], yticks=[], xlabel="may look at", frame_on=False
        )
        axis.tick_params(length=0)
        axis.invert_yaxis()
    figure.axes[0].set_ylabel("who looks")
    figure.axes[3].set_xticks((2, 6.5), ("places", "words"))
    figure.axes[3].set_yticks((2, 6.5), ("places", "words"), rotation=90, va="center")
    return figure
