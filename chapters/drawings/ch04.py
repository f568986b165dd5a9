"""The drawings of chapter 4: a word's view, attention with all its numbers, masks."""

import torch
from matplotlib.colors import ListedColormap

from chapters.drawings.shapes import arrow, centred, panels, sheet

GREEN = "#1a7f37"
BLUE = "#1f6fb4"
GREY = "#666666"
PALE_GREY = "#d8d8d8"
SIDE = 4  # patches along a side of the picture
N = SIDE * SIDE


def words_look_back(image, words, obj):
    """A picture's 16 patches and the words so far; for each of five words, its view of them.

    image (3, 64, 64) uint8; `words`: five of a caption; `obj`: the object that the fourth word
    names. That word's lines are blue. Their widths are made up: thick to the object and to the
    words that describe it.
    """
    figure, axis = sheet((8, 3.3), (0, 16.4), (0.2, 6.97))
    columns = [0.45 + 0.56 * n for n in range(N)]  # of the patches
    columns += [9.95 + 1.4 * i for i in range(5)]  # of the words
    widths = [_width(obj, n) for n in range(N)]
    widths += [0.6, 0.6, 2.3, 2.3]  # to <bos>, "a", "big" and the colour itself
    _cut_picture(axis, image)
    _patches(axis, image, columns)
    read = ["<bos>", *words]
    for i, word in enumerate(words):
        x = columns[N + i]
        seen = columns[: N + i + 1]
        if i == 3:  # the one word whose view is shown
            colour = BLUE
            _lines(axis, x, seen, BLUE, widths)
        else:
            colour = GREY
            _lines(axis, x, seen, PALE_GREY, [0.5] * len(seen))
        axis.plot(x, 3.9, "o", color=colour, markersize=9, zorder=3)
        arrow(axis, (x, 4.15), (x, 5.0), arrowstyle="->", color=colour)
        axis.text(x, 5.2, word, ha="center", fontsize=9.5, color=GREEN)
        centred(axis, x, 1.4, read[i], fontsize=9.5)
    _note(axis, columns[7] + 0.28, 0.75, "the picture's 16 positions, row by row")
    _note(axis, columns[N + 2], 0.75, "the words so far")
    _note(axis, columns[N + 2], 5.9, "the next words")
    return figure


def _width(obj, n):
    """The width of the line to patch n: thick near the object."""
    x = n % SIDE / SIDE + 0.125
    y = n // SIDE / SIDE + 0.125
    distance = max(abs(obj.x - x), abs(obj.y - y))
    return 3.3 if distance < 0.2 else 0.3


def _lines(axis, x, columns, colour, widths):
    """Lines from the word at x down to the patches and words that it sees."""
    zorder = 2 if colour == BLUE else 1
    for column, width in zip(columns, widths, strict=True):
        style = {"color": colour, "linewidth": width, "zorder": zorder}
        axis.plot((x, column), (3.9, 1.8), **style)


def _cut_picture(axis, image):
    """The whole picture, with the lines along which it is cut."""
    left, right = 0.2, 3.0
    lower, upper = 3.75, 6.55
    pixels = image.permute(1, 2, 0).numpy()  # (H, W, 3)
    extent = (left, right, lower, upper)
    axis.imshow(pixels, extent=extent, zorder=3)
    style = {"color": "white", "linewidth": 1, "zorder": 4}
    for shift in (0.7, 1.4, 2.1):
        x = left + shift
        y = lower + shift
        axis.plot((x, x), (lower, upper), **style)
        axis.plot((left, right), (y, y), **style)


def _patches(axis, image, columns):
    """The 16 patches in a row."""
    patches = image.unfold(1, 16, 16).unfold(2, 16, 16)  # (3, 4, 4, 16, 16)
    patches = patches.permute(1, 2, 3, 4, 0).flatten(0, 1)  # (16, 16, 16, 3)
    for x, patch in zip(columns, patches):
        extent = (x - 0.25, x + 0.25, 1.3, 1.8)
        axis.imshow(patch.numpy(), extent=extent, zorder=3)


def _note(axis, x, y, text):
    axis.text(x, y, text, ha="center", fontsize=9, color=GREY)


def attention_tables(sentence, queries, keys, values, attention):
    """Attention on five words with all its numbers: without a causal mask, then with one.

    `attention(queries, keys, values, causal)` gives scores, weights and outputs, word by word.
    """
    figure, axes = panels((8, 7), 3, 3)
    kinds = (sentence, ("article", "adject.", "noun", "prepos."))
    meanings = (sentence, ("large", "red", "star", "above"))
    words = (sentence, sentence)
    left, middle, right = axes[0]
    _table(left, queries, "queries: asks for", kinds, ("Purples", 5))
    _table(middle, keys, "keys: is", kinds, ("Oranges", 5))
    _table(right, values, "values: means", meanings, ("Greens", 2))
    for row, causal in ((1, False), (2, True)):
        scores, weights, outputs = attention(queries, keys, values, causal)
        seen = "itself and those before" if causal else "all words seen"
        left, middle, right = axes[row]
        _table(left, scores, f"scores, {seen}", words, ("Blues", 6), 1)
        _table(middle, weights, "weights", words, ("Blues", 1), 2)
        _table(right, outputs, "weighted sums of values", meanings, ("Greens", 1), 2)
    return figure


def _table(axis, rows, title, labels, colours, digits=0):
    """A table of numbers, the darker the larger; rows may differ in length.

    labels: of the rows, of the columns; colours: a colour map, the number at its end.
    """
    row_labels, column_labels = labels
    cmap, most = colours
    shape = (len(rows), len(column_labels))
    shown = torch.full(shape, torch.nan)
    for i, row in enumerate(rows):
        shown[i, : len(row)] = torch.tensor(row)
        for j, x in enumerate(row):
            colour = "white" if x > 0.6 * most else "black"
            text = f"{x:.{digits}f}"
            centred(axis, j, i, text, fontsize=8, color=colour)
    style = {"cmap": cmap, "vmin": 0, "vmax": most, "aspect": "auto"}
    axis.imshow(shown.numpy(), **style)
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(column_labels)), column_labels, fontsize=8)
    axis.set_yticks(range(len(rows)), row_labels, fontsize=8)
    axis.tick_params(length=0)


def attention_masks(masks):
    """Four masks, by name; in the last one, 4 positions of a picture come before the words."""
    figure, axes = panels((8, 2.7), 1, 4)
    colours = ListedColormap(["#eeeeee", "#4292c6"])
    style = {"cmap": colours, "vmin": 0, "vmax": 1, "edgecolor": "white"}
    for axis, (name, mask) in zip(axes, masks.items()):
        axis.pcolormesh(mask, **style, linewidth=1.5)
        axis.set_title(name, fontsize=10)
        axis.set(aspect="equal", frame_on=False, xticks=[], yticks=[])
        axis.set_xlabel("may look at")
        axis.tick_params(length=0)
        axis.invert_yaxis()
    axes[0].set_ylabel("query")
    labels = ("picture", "words")
    middles = (2, 6.5)
    axes[3].set_xticks(middles, labels)
    axes[3].set_yticks(middles, labels, rotation=90, va="center")
    return figure
