"""Figures. Each function returns a matplotlib Figure; `figure.savefig(path)` saves it."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from itertools import count
from pathlib import Path
from textwrap import wrap

import torch.nn.functional as F
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .classification import ReliabilityBin
from .decoding import Candidate
from .text import Vocabulary, detokenize

GREEN = "#1a7f37"
RED = "#c62828"
GREY = "#555555"
LINE = 0.165  # inches, from one line of text to the next


def caption_sheet(
    pictures: Sequence[Tensor],
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]] | None = None,
    columns: int = 4,
    right: Sequence[bool] | None = None,
) -> Figure:
    """Draw pictures (3, H, W) uint8, each with its caption below.

    hypotheses: a list of tokens for each picture.
    references: any number of lists of tokens for each picture. A right caption is green, another one
        red, with the closest reference in grey below. Without references, all are black.
    columns: pictures in a row.
    right: whether each caption is right; None: whether it equals one of the references.

    Chinese captions that no font here can draw are replaced by numbers, and printed.
    """
    paragraphs = []
    for i, hypothesis in enumerate(hypotheses):
        refs = None if references is None else references[i]
        if right is not None and right[i]:
            refs = [hypothesis]
        paragraphs.append(_caption_paragraphs(i + 1, list(hypothesis), refs))
    most_lines = max(sum(len(lines) for lines, _ in texts) for texts in paragraphs)
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)

    side = 2.4  # in inches, as all lengths here
    gap = 0.15
    width = columns * (side + gap) + gap
    height = rows * (side + (most_lines + 1) * LINE + gap) + gap
    figure = Figure(figsize=(width, height), dpi=100)
    for i, (picture, texts) in enumerate(zip(pictures, paragraphs)):
        row, column = divmod(i, columns)
        x = gap + column * (side + gap)
        y = height * (1 - row / rows) - side - gap
        _add_picture(figure, picture, x, y, side, interpolation="nearest")
        _add_paragraphs(figure, texts, x + side / 2, y - 0.06)
    return figure


def _caption_paragraphs(
    number: int,
    hypothesis: list[str],
    references: Sequence[Sequence[str]] | None,
    width: int = 30,
) -> list[tuple[list[str], str]]:
    """The paragraphs of text about example `number`, each (its lines, its colour)."""
    caption = _wrap(detokenize(hypothesis) or "(nothing)", f"{number}", width)
    if references is None:
        return [(caption, "black")]
    references = [list(reference) for reference in references]
    if hypothesis in references:
        return [(caption, GREEN)]
    ratios = [SequenceMatcher(None, hypothesis, reference).ratio() for reference in references]
    closest = references[ratios.index(max(ratios))]
    reference = _wrap(detokenize(closest), f"{number}, reference", width)
    return [(caption, RED), (reference, GREY)]


def _wrap(text: str, number: str, width: int = 30) -> list[str]:
    """Break a caption into lines; if no font can draw it, print it and return its number."""
    if not _CHINESE.search(text):
        return wrap(text, width)
    if not _chinese_fonts():
        print(f"({number}) {text}")
        return [f"({number})"]
    width = width // 2 + 1  # Chinese characters are twice as wide
    return [text[i : i + width] for i in range(0, len(text), width)]


def retrieval_sheet(
    captions: Sequence[str],
    pictures: Sequence[Sequence[Tensor]],
    right: Sequence[Sequence[bool]],
) -> Figure:
    """Draw the pictures (3, H, W) uint8 that were found for each caption, in a row below it.

    right: for each picture, whether the caption is about it; it then has a green frame.
    """
    texts = []
    for i, caption in enumerate(captions):
        texts.append(_wrap(caption, f"{i + 1}", 100))
    columns = max(len(row) for row in pictures)

    side = 1.5  # in inches, as all lengths here
    gap = 0.15
    width = max(columns, 5) * (side + gap) + gap
    heights = [len(lines) * LINE + side + 2 * gap for lines in texts]
    y = sum(heights) + gap
    figure = Figure(figsize=(width, y), dpi=100)
    for lines, row, row_right in zip(texts, pictures, right):
        y -= gap
        style = {"ha": "left", "fontsize": 8.5, "linespacing": 1.2}
        _add_text(figure, "\n".join(lines), gap, y, **style)
        y -= len(lines) * LINE + gap / 2 + side
        for column, (picture, is_right) in enumerate(zip(row, row_right)):
            x = gap + column * (side + gap)
            axis = _add_picture(figure, picture, x, y, side, interpolation="nearest")
            if is_right:
                frame = Rectangle((0, 0), 1, 1, transform=axis.transAxes, clip_on=False)
                frame.set(fill=False, edgecolor=GREEN, linewidth=5)
                axis.add_patch(frame)
        y -= gap / 2
    return figure


_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@cache
def _chinese_fonts() -> list[str]:
    """The name of an installed font with Chinese characters, if any; DejaVu Sans has none."""
    known = ("Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "PingFang")
    known += ("Hiragino Sans GB", "Heiti", "Microsoft YaHei", "SimHei", "SimSun")
    known += ("Arial Unicode MS", "Droid Sans Fallback")
    names = sorted({font.name for font in font_manager.fontManager.ttflist})
    return [name for name in names if name.startswith(known)][:1]


def _fonts() -> list[str]:
    """The fonts to draw words with, in order of preference."""
    return [*_chinese_fonts(), "DejaVu Sans"]


def _add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes whose lower left corner is at (x, y), all in inches."""
    total_width, total_height = figure.get_size_inches()
    left = x / total_width
    bottom = y / total_height
    return figure.add_axes((left, bottom, width / total_width, height / total_height))


def _add_picture(
    figure: Figure, picture: Tensor, x: float, y: float, side: float, **options
) -> Axes:
    """Draw a picture (3, H, W) into a square whose lower left corner is at (x, y), in inches."""
    axis = _add_axes(figure, x, y, side, side)
    axis.imshow(picture.permute(1, 2, 0).cpu().numpy(), **options)
    axis.set_axis_off()
    return axis


def _add_text(figure: Figure, text: str, x: float, y: float, **style) -> None:
    """Write centred text whose upper edge is at (x, y), in inches."""
    width, height = figure.get_size_inches()
    style = {"ha": "center", "va": "top", "family": _fonts(), "parse_math": False} | style
    figure.text(x / width, y / height, text, **style)


def _add_paragraphs(
    figure: Figure, paragraphs: list[tuple[list[str], str]], x: float, y: float, **style
) -> float:
    """Write paragraphs, each (its lines, its colour), below one another; return where they end."""
    for lines, colour in paragraphs:
        text = "\n".join(lines)
        _add_text(figure, text, x, y, color=colour, fontsize=8.5, linespacing=1.2, **style)
        y -= len(lines) * LINE
    return y


def attention_sheet(
    pictures: Sequence[Tensor],
    captions: Sequence[Sequence[str]],
    maps: Sequence[Tensor],
    columns: int = 9,
) -> Figure:
    """Draw where a model looked for each word: the picture, bright where the weights are large.

    pictures: (3, H, W) uint8; each starts a row, first unchanged, then once for each word.
    captions: a list of T words for each picture, written below.
    maps: (T, h, w) attention weights for each picture. A map is enlarged smoothly to the picture's
        size, and its largest weight is shown at full brightness.
    columns: pictures in a row.
    """
    rows = []  # lists of (picture, word)
    for picture, words, weights in zip(pictures, captions, maps, strict=True):
        picture = picture.cpu().float() / 255
        weights = weights.cpu().float().unsqueeze(1)  # (T, 1, h, w)
        light = F.interpolate(weights, picture.shape[1:], mode="bicubic")  # (T, 1, H, W)
        light = light.clamp(min=0)
        largest = light.amax((1, 2, 3), keepdim=True).clamp(min=1e-9)  # (T, 1, 1, 1)
        lit = picture * (0.3 + 0.7 * light / largest)  # (T, 3, H, W)
        cells = [(picture, ""), *zip(lit, words, strict=True)]
        rows += [cells[i : i + columns] for i in range(0, len(cells), columns)]

    side = 1.15  # in inches, as all lengths here
    below = 0.24
    gap = 0.06
    width = columns * (side + gap) + gap
    height = len(rows) * (side + below + gap) + gap
    figure = Figure(figsize=(width, height), dpi=100)
    for row, cells in enumerate(rows):
        for column, (picture, word) in enumerate(cells):
            x = gap + column * (side + gap)
            y = height - (row + 1) * (side + below + gap) + below
            _add_picture(figure, picture, x, y, side, vmin=0, vmax=1)
            _add_text(figure, word, x + side / 2, y - 0.05, fontsize=9)
    return figure


def alignment_sheet(
    sources: Sequence[Sequence[str]],
    translations: Sequence[Sequence[str]],
    maps: Sequence[Tensor],
    titles: Sequence[str] = (),
) -> Figure:
    """Draw, side by side for some translations, where each word looked in its source.

    sources: a list of S words for each sentence, written above.
    translations: a list of T words for each sentence, written at the left.
    maps: (T, S) weights for each sentence, from 0 (white) to 1 (black).
    titles: one for each sentence, or none at all.
    """
    cell = 0.24  # in inches, as all lengths here
    letter = 0.085  # average width, at most
    gap = 0.2
    left = [letter * max(map(len, words)) + gap for words in translations]
    above = letter * max(len(word) for words in sources for word in words) + gap
    title = 0.3 if titles else 0.0
    width = sum(left) + cell * sum(map(len, sources)) + gap
    height = title + above + cell * max(map(len, translations)) + gap
    figure = Figure(figsize=(width, height), dpi=100)
    x = 0.0
    for i, (source, words, weights) in enumerate(zip(sources, translations, maps, strict=True)):
        S = len(source)
        T = len(words)
        if weights.shape != (T, S):
            needed = f"{T} words from {S} need as many weights"
            raise ValueError(f"sentence {i}: {needed}, not {tuple(weights.shape)}")
        x += left[i]
        y = height - title - above - cell * T
        axis = _add_axes(figure, x, y, cell * S, cell * T)
        _draw_alignment(axis, source, words, weights)
        if titles:
            middle = x + cell * S / 2
            _add_text(figure, titles[i], middle, height - 0.17, va="center", fontsize=9.5)
        x += cell * S
    return figure


def _draw_alignment(
    axis: Axes, source: Sequence[str], words: Sequence[str], weights: Tensor
) -> None:
    """Draw weights (T, S) as shades of grey, S source words above, T words at the left."""
    axis.imshow(weights.cpu().float().numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(source)), source, rotation=90, fontsize=9, family=_fonts())
    axis.set_yticks(range(len(words)), words, fontsize=9, family=_fonts())
    axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.set_xticks([n - 0.5 for n in range(1, len(source))], minor=True)
    axis.set_yticks([n - 0.5 for n in range(1, len(words))], minor=True)
    axis.grid(which="minor", color="#dddddd", lw=0.5)
    axis.tick_params(which="minor", length=0)


def transcript_sheet(
    sounds: Sequence[Tensor],
    transcripts: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    maps: Sequence[Tensor] = (),
) -> Figure:
    """Draw spectrograms, each with its transcript above, and below where each word was heard.

    sounds: (F, mels) spectrograms, 100 frames a second.
    transcripts: a list of words for each sound.
    references: any number of lists of words for each sound. A transcript is green if it equals one
        of them, else red, with the closest reference in grey.
    maps: (T, N) weights for each sound, of its first T words to N positions of equal duration; or
        none at all. The largest weight of a word is black.
    """
    maps = maps or [sound.new_empty(0, 1) for sound in sounds]
    paragraphs = []
    for i, words in enumerate(transcripts):
        paragraphs.append(_caption_paragraphs(i + 1, list(words), references[i], 75))
    most_lines = max(sum(len(lines) for lines, _ in texts) for texts in paragraphs)
    longest = max([len(word) for words in transcripts for word in words], default=0)
    columns = min(2, len(sounds))
    rows = math.ceil(len(sounds) / columns)

    wide = 4.6  # in inches, as all lengths here
    high = 1.1
    gap = 0.15
    left = max(0.55, 0.085 * longest + gap)
    below = 0.17 * max(map(len, maps)) + 0.45  # the words, and the axis of time
    panel = most_lines * LINE + high + below + 2 * gap
    figure = Figure(figsize=(columns * (left + wide + gap), rows * panel), dpi=100)
    for i, (sound, texts, weights) in enumerate(zip(sounds, paragraphs, maps, strict=True)):
        row, column = divmod(i, columns)
        x = column * (left + wide + gap) + left
        y = _add_paragraphs(figure, texts, x, (rows - row) * panel - gap, ha="left")
        y -= high + gap / 2
        axis = _add_axes(figure, x, y, wide, high)
        _draw_sound(axis, sound)
        if len(weights):
            axis.tick_params(labelbottom=False)
            y -= 0.17 * len(weights) + 0.05
            axis = _add_axes(figure, x, y, wide, 0.17 * len(weights))
            words = transcripts[i][: len(weights)]
            _draw_hearing(axis, words, weights, len(sound) / 100)
        axis.set_xlabel("seconds", fontsize=8, labelpad=1)
    return figure


def _draw_sound(axis: Axes, sound: Tensor) -> None:
    """Draw a spectrogram (F, mels), 100 frames a second, low frequencies below."""
    F, mels = sound.shape
    extent = (0, F / 100, 0, mels)
    axis.imshow(sound.T.cpu().numpy(), aspect="auto", origin="lower", extent=extent)
    axis.set_yticks([0, mels // 2, mels])
    axis.set_ylabel("mel band", fontsize=8, labelpad=1)
    axis.tick_params(labelsize=7, length=2, pad=1.5)


def _draw_hearing(axis: Axes, words: Sequence[str], weights: Tensor, seconds: float) -> None:
    """Draw weights (T, N) as shades of grey over time, a row for each of T words at the left."""
    darkness = weights / weights.amax(1, keepdim=True).clamp(min=1e-9)
    extent = (0, seconds, len(words) - 0.5, -0.5)
    axis.imshow(darkness.cpu().numpy(), cmap="Greys", aspect="auto", vmin=0, vmax=1, extent=extent)
    axis.set_yticks(range(len(words)), words, fontsize=8, family=_fonts())
    axis.tick_params(labelsize=7, length=2, pad=1.5)
    axis.tick_params(axis="y", labelsize=8, length=0)


def search_tree(tree: Sequence[Candidate], vocabulary: Vocabulary) -> Figure:
    """Draw the tree of a `beam_search`: on each edge a word, and below it the word's probability.

    Kept candidates are black, dropped ones grey. A finished hypothesis ends in its score, and the
    path to the best one is thick and green.
    """
    children = defaultdict(list)
    for i, candidate in enumerate(tree):
        if candidate.log_prob > -math.inf:
            children[candidate.parent].append(i)
    depth, height = _tree_layout(children)
    best_path = _best_path(tree)

    nodes = sorted(height.keys() - {-1})
    words = {node: vocabulary.words[tree[node].token] for node in nodes}
    columns = max(depth.values())
    rows = max(height.values()) + 1
    word_width = max(0.95, 0.09 * max(map(len, words.values())))  # inches
    figure = Figure(figsize=(columns * word_width + 0.8, rows * 0.36 + 0.2), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.1, columns + 0.75), ylim=(rows - 0.2, -0.8))
    axis.set_axis_off()
    for node in nodes:
        candidate = tree[node]
        if node in best_path:
            colour = GREEN
            line = {"linewidth": 3, "zorder": 2}
        else:
            colour = GREY if candidate.status == "dropped" else "black"
            line = {"linewidth": 0.8, "zorder": 1}
        x = depth[node]
        y = height[node]
        start = height[candidate.parent]
        xs = (x - 1, x - 0.92, x - 0.92, x)
        axis.plot(xs, (start, start, y, y), color=colour, solid_capstyle="butt", **line)

        middle = x - 0.46
        style = {"color": colour, "fontsize": 9, "family": _fonts()}
        axis.text(middle, y - 0.08, words[node], ha="center", va="bottom", **style)
        before = tree[candidate.parent].log_prob if candidate.parent >= 0 else 0.0
        probability = f"{math.exp(candidate.log_prob - before):.2f}"
        axis.text(middle, y + 0.09, probability, color=GREY, ha="center", va="top", fontsize=6.5)
        if candidate.status == "finished":
            weight = "bold" if node in best_path else None
            score = f"{candidate.score:.2f}"
            axis.text(x + 0.06, y, score, color=colour, va="center", fontsize=9, weight=weight)
    return figure


def _tree_layout(children: dict[int, list[int]]) -> tuple[dict[int, int], dict[int, float]]:
    """Compute the depth of each node below the root -1, and its height, counted downwards.

    Leaves are below one another; a parent is midway between its first and its last child.
    """
    depth = {-1: 0}
    height = {}
    leaf_heights = count()

    def place(node: int) -> None:
        for child in children[node]:
            depth[child] = depth[node] + 1
            place(child)
        heights = [height[child] for child in children[node]]
        if heights:
            height[node] = (heights[0] + heights[-1]) / 2
        else:
            height[node] = next(leaf_heights)

    place(-1)
    return depth, height


def _best_path(tree: Sequence[Candidate]) -> set[int]:
    """The nodes from the root to the finished hypothesis of highest score."""
    finished = [i for i, candidate in enumerate(tree) if candidate.status == "finished"]
    node = max(finished, key=lambda i: tree[i].score)
    path = set()
    while node != -1:
        path.add(node)
        node = tree[node].parent
    return path


def learning_curves(metrics: str | Path) -> Figure:
    """Draw training and validation loss by step, from a run's metrics.jsonl."""
    entries = [json.loads(line) for line in Path(metrics).read_text().splitlines()]
    figure = Figure(figsize=(6, 3.6), dpi=100, layout="constrained")
    axis = figure.subplots()
    for name, label, style in (("loss", "training", "-"), ("validation_loss", "validation", "o-")):
        logged = [entry for entry in entries if name in entry]
        steps = [entry["step"] for entry in logged]
        losses = [entry[name] for entry in logged]
        axis.plot(steps, losses, style, label=label, markersize=4)
    axis.set(xlabel="step", ylabel="loss per word (nats)", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def reliability_diagram(panels: dict[str, list[ReliabilityBin]]) -> Figure:
    """How often predictions of each confidence are right; a panel for each entry, by its title.

    On the diagonal, what is 70 % sure is right in 70 % of the cases; below it the model is too
    sure. The area of a point is in proportion to its number of examples.
    """
    figure = Figure((3.6 * len(panels), 3.7), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, bins) in zip(axes, panels.items()):
        total = sum(each.count for each in bins)
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        sizes = [20 + 800 * each.count / total for each in bins]
        x = [each.confidence for each in bins]
        y = [each.accuracy for each in bins]
        axis.scatter(x, y, sizes, alpha=0.6, clip_on=False)
        axis.set(title=title, xlabel="confidence", ylabel="share that is right")
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return figure
