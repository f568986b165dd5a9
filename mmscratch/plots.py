"""Figures. Each function returns a matplotlib Figure; `figure.savefig(path)` writes it, a notebook shows it."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from textwrap import wrap

import torch.nn.functional as F
from matplotlib import font_manager
from matplotlib.figure import Figure
from torch import Tensor

from .decoding import Candidate
from .text import Vocabulary, detokenize

GREEN, RED, GREY = "#1a7f37", "#c62828", "#555555"


def caption_sheet(
    pictures: Sequence[Tensor],
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]] | None = None,
    columns: int = 4,
) -> Figure:
    """Pictures (3, H, W) uint8 with what was written under each.

    Green where it is one of the references, red where it is not, and then the nearest reference below it in grey.
    Without references, black. Captions in Chinese that no font here can draw become numbers, and are printed.
    """
    below = []  # for each picture, its paragraphs: (lines, colour)
    for number, hypothesis in enumerate(map(list, hypotheses), 1):
        written = _lines(detokenize(hypothesis) or "(nothing)", f"{number}")
        if references is None:
            below.append([(written, "black")])
        elif hypothesis in map(list, references[number - 1]):
            below.append([(written, GREEN)])
        else:
            nearest = max(
                references[number - 1],
                key=lambda ref: SequenceMatcher(None, hypothesis, list(ref)).ratio(),
            )
            below.append(
                [(written, RED), (_lines(detokenize(nearest), f"{number}, reference"), GREY)]
            )
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    most = max(sum(len(lines) for lines, _ in paragraphs) for paragraphs in below)
    side, line, gap = 2.4, 0.165, 0.15  # inches
    width, height = columns * (side + gap) + gap, rows * (side + (most + 1) * line + gap) + gap
    figure = Figure(figsize=(width, height), dpi=100)
    for i, (picture, paragraphs) in enumerate(zip(pictures, below)):
        row, column = divmod(i, columns)
        x, y = (
            gap + column * (side + gap),
            height * (1 - row / rows) - side - gap,
        )  # lower left corner
        axis = figure.add_axes((x / width, y / height, side / width, side / height))
        axis.imshow(picture.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
        axis.set_axis_off()
        for lines, colour in paragraphs:
            figure.text(
                (x + side / 2) / width, (y - 0.06) / height, "\n".join(lines), color=colour, ha="center", va="top",
                fontsize=8.5, linespacing=1.2, family=[*_chinese_fonts(), "DejaVu Sans"],
            )  # fmt: skip
            y -= len(lines) * line
    return figure


def attention_sheet(
    pictures: Sequence[Tensor],
    captions: Sequence[Sequence[str]],
    maps: Sequence[Tensor],
    columns: int = 9,
) -> Figure:
    """Where a model looked for each word: the picture, lit where the weights are large, with the word below it.

    pictures (3, H, W) uint8; for each a caption of T words, and maps (T, h, w), enlarged smoothly to the picture's size.
    The place with the word's largest weight is at full brightness. Each picture begins a row, with itself.
    """
    cells = []  # rows of (picture, word)
    for picture, words, weights in zip(pictures, captions, maps, strict=True):
        picture = picture.cpu().float() / 255
        lit = F.interpolate(
            weights.cpu().float()[:, None], picture.shape[1:], mode="bicubic"
        ).clamp(min=0)  # (T, 1, H, W)
        lit = 0.3 + 0.7 * lit / lit.amax((1, 2, 3), keepdim=True).clamp(min=1e-9)
        shown = [(picture, ""), *zip(picture * lit, words, strict=True)]
        cells += [shown[i : i + columns] for i in range(0, len(shown), columns)]
    side, below, gap = 1.15, 0.24, 0.06  # inches
    figure = Figure(
        figsize=(columns * (side + gap) + gap, len(cells) * (side + below + gap) + gap), dpi=100
    )
    width, height = figure.get_size_inches()
    for row, shown in enumerate(cells):
        for column, (picture, word) in enumerate(shown):
            x, y = gap + column * (side + gap), height - (row + 1) * (side + below + gap) + below
            axis = figure.add_axes((x / width, y / height, side / width, side / height))
            axis.imshow(picture.permute(1, 2, 0).numpy(), vmin=0, vmax=1)
            axis.set_axis_off()
            figure.text((x + side / 2) / width, (y - 0.05) / height, word, ha="center", va="top", fontsize=9,
                        family=[*_chinese_fonts(), "DejaVu Sans"])  # fmt: skip
    return figure


def alignment_sheet(
    sources: Sequence[Sequence[str]],
    translations: Sequence[Sequence[str]],
    maps: Sequence[Tensor],
    titles: Sequence[str] = (),
) -> Figure:
    """Where each word of a translation looked in its source, side by side for some sentences: the darker, the more.

    Of each sentence the S words of the source, above; the T of the translation, at the left; the weights (T, S), which are
    drawn from 0, white, to 1, black; and, if there are titles, what to write over it.
    """
    cell, letter, gap = 0.24, 0.085, 0.2  # inches; a letter is that wide at most, on average
    left = [letter * max(map(len, words)) + gap for words in translations]
    above = letter * max(len(word) for words in sources for word in words) + gap
    title = 0.3 if titles else 0.0
    width = sum(left) + cell * sum(map(len, sources)) + gap
    height = title + above + cell * max(map(len, translations)) + gap
    figure, x = Figure(figsize=(width, height), dpi=100), 0.0
    for i, (source, words, weights) in enumerate(zip(sources, translations, maps, strict=True)):
        x, wide, high = x + left[i], cell * len(source), cell * len(words)
        if weights.shape != (len(words), len(source)):
            raise ValueError(
                f"sentence {i}: {len(words)} words from {len(source)} need as many weights, not {tuple(weights.shape)}"
            )
        axis = figure.add_axes(
            (x / width, 1 - (title + above + high) / height, wide / width, high / height)
        )
        axis.imshow(weights.cpu().float().numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
        style = {"fontsize": 9, "family": [*_chinese_fonts(), "DejaVu Sans"]}
        axis.set_xticks(range(len(source)), source, rotation=90, **style)
        axis.set_yticks(range(len(words)), words, **style)
        axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
        axis.set_xticks([n - 0.5 for n in range(1, len(source))], minor=True)
        axis.set_yticks([n - 0.5 for n in range(1, len(words))], minor=True)
        axis.grid(which="minor", color="#dddddd", lw=0.5)
        axis.tick_params(which="minor", length=0)
        if titles:
            figure.text(
                (x + wide / 2) / width,
                1 - 0.17 / height,
                titles[i],
                ha="center",
                va="center",
                fontsize=9.5,
            )
        x += wide
    return figure


def _lines(text: str, number: str) -> list[str]:
    if _HAN.search(text):
        if not _chinese_fonts():
            print(f"({number}) {text}")
            return [f"({number})"]
        return [text[i : i + 16] for i in range(0, len(text), 16)]
    return wrap(text, 30)


_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@cache
def _chinese_fonts() -> list[str]:
    """A font of this system that has Chinese characters, if it offers one; DejaVu Sans has none."""
    known = ("Noto Sans CJK", "Noto Sans SC", "Source Han Sans", "WenQuanYi", "PingFang", "Hiragino Sans GB", "Heiti",
             "Microsoft YaHei", "SimHei", "SimSun", "Arial Unicode MS", "Droid Sans Fallback")  # fmt: skip
    names = sorted({font.name for font in font_manager.fontManager.ttflist})
    return [name for name in names if name.startswith(known)][:1]


def search_tree(tree: Sequence[Candidate], vocabulary: Vocabulary) -> Figure:
    """The tree of a beam search, as `beam_search` records it: on each edge a word, and below it its probability there.

    Black is what was kept, grey what was dropped; a sentence that was found ends in its score, and the best is thick.
    """
    children = defaultdict(list)
    for i, candidate in enumerate(tree):
        if candidate.log_prob > -math.inf:
            children[candidate.parent].append(i)
    ends = [i for i, candidate in enumerate(tree) if candidate.status == "finished"]
    winner = max(ends, key=lambda i: tree[i].score)
    best, depth, height = set(), {-1: 0}, {}
    while winner != -1:
        best.add(winner)
        winner = tree[winner].parent

    def place(node: int) -> None:
        """Below one another, what has no children; in the middle of its children, what has."""
        for child in children[node]:
            depth[child] = depth[node] + 1
            place(child)
        below = [height[child] for child in children[node]]
        height[node] = (below[0] + below[-1]) / 2 if below else sum(not children[i] for i in height)

    place(-1)
    rows, columns = max(height.values()) + 1, max(depth.values())
    longest = max(len(vocabulary.words[tree[i].token]) for i in height.keys() - {-1})
    wide, high = max(0.95, 0.09 * longest), 0.36  # inches of a word
    figure = Figure(figsize=(columns * wide + 0.8, rows * high + 0.2), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.1, columns + 0.75), ylim=(rows - 0.2, -0.8))
    axis.set_axis_off()
    for i in height.keys() - {-1}:
        word, parent, thick = tree[i], tree[i].parent, i in best
        colour = GREEN if thick else GREY if word.status == "dropped" else "black"
        x, y = depth[i], height[i]
        axis.plot((x - 1, x - 0.92, x - 0.92, x), (height[parent], height[parent], y, y), color=colour,
                  linewidth=3 if thick else 0.8, zorder=2 if thick else 1, solid_capstyle="butt")  # fmt: skip
        probability = math.exp(word.log_prob - (tree[parent].log_prob if parent >= 0 else 0.0))
        axis.text(x - 0.46, y - 0.08, vocabulary.words[word.token], color=colour, ha="center", va="bottom", fontsize=9,
                  family=[*_chinese_fonts(), "DejaVu Sans"])  # fmt: skip
        axis.text(
            x - 0.46,
            y + 0.09,
            f"{probability:.2f}",
            color=GREY,
            ha="center",
            va="top",
            fontsize=6.5,
        )
        if word.status == "finished":
            axis.text(
                x + 0.06,
                y,
                f"{word.score:.2f}",
                color=colour,
                va="center",
                fontsize=9,
                weight="bold" if thick else None,
            )
    return figure


def learning_curves(metrics: str | Path) -> Figure:
    """Training and validation loss by step, from a run's metrics.jsonl."""
    entries = [json.loads(line) for line in Path(metrics).read_text().splitlines()]
    figure = Figure(figsize=(6, 3.6), dpi=100, layout="constrained")
    axis = figure.subplots()
    for name, label, style in (("loss", "training", "-"), ("validation_loss", "validation", "o-")):
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        axis.plot(*zip(*points), style, label=label, markersize=4)
    axis.set(xlabel="step", ylabel="loss a word (nats)", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
