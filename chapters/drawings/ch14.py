"""The drawings of chapter 14, Sound."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from chapters.drawings.shapes import arrow, box, cell, centred, panels, sheet
from mmscratch.audio import SAMPLE_RATE, hertz_to_mel
from mmscratch.data.speech import Segment
from mmscratch.plots import GREEN, GREY

BLUE = ("#deebf7", "#9ecae1")
ORANGE = ("#feedde", "#fdae6b")
HERTZ = (250, 500, 1000, 2000, 4000)  # marked on the axis of a spectrogram
WordTime = tuple[str, float, float]  # a word, and when it starts and ends, in seconds
ARROW = {"arrowstyle": "->", "color": GREY, "lw": 1.4}
HEAT = {"origin": "lower", "aspect": "auto", "cmap": "magma"}


def sound_to_words(waveform: Tensor, sound: Tensor, words: Sequence[str]) -> Figure:
    """A waveform becomes a spectrogram, that a memory, and that a sentence.

    waveform (S,), sound (F, M).
    """
    figure, axis = sheet((9.6, 3.6), (0, 96), (0, 36))
    wave = figure.add_axes((0.02, 0.52, 0.26, 0.34))
    wave.plot(waveform, lw=0.4, color="#2171b5")
    wave.set_axis_off()
    centred(axis, 15, 33, "pressure, 16,000 numbers a second", fontsize=9)
    picture = figure.add_axes((0.37, 0.52, 0.26, 0.34))
    picture.imshow(sound.T.numpy(), vmin=_faintest(sound), **HEAT)
    picture.set_axis_off()
    centred(axis, 48, 33, "log-mel spectrogram, (F, 80)", fontsize=9)
    arrow(axis, (28, 25), (35, 25), **ARROW)
    centred(axis, 31.5, 27, "Fourier", fontsize=8)
    arrow(axis, (61.5, 25), (69.5, 25), **ARROW)
    box(axis, (78, 25), "audio encoder", BLUE, pad=0.7)
    arrow(axis, (78, 22), (78, 15), **ARROW)
    positions = 16
    for i in range(positions):
        x = 62 + 2 * i
        style = {"edgecolor": "white", "linewidth": 1.5}
        cell(axis, (x, 8), (2, 6), "#9ecae1", **style)
    centred(axis, 78, 5.5, "memory (N, D): a vector each 20 ms", fontsize=9)
    box(axis, (46, 11), "decoder", ORANGE, pad=0.7)
    arrow(axis, (51, 11), (61, 11), **ARROW)
    centred(axis, 56, 13, "attends", fontsize=8)
    arrow(axis, (41, 11), (34, 11), **ARROW)
    axis.text(32, 11, " ".join(words), ha="right", va="center", fontsize=12)
    return figure


def phones(
    sound: Tensor, segments: Sequence[Segment], words: Sequence[WordTime]
) -> Figure:
    """A spectrogram (F, M) of 100 frames a second, with its phones and words above it."""
    figure, axis = panels((9.6, 3.9), 1, 1)
    _draw_spectrogram(axis, sound, 0.01)
    top = sound.size(1)
    style = {"ha": "center", "va": "bottom", "clip_on": False}
    for segment in segments:
        axis.axvline(segment.start, color="white", lw=0.7, alpha=0.8)
        axis.axvline(segment.end, color="white", lw=0.7, alpha=0.8)
        middle = (segment.start + segment.end) / 2
        axis.text(middle, top + 0.5, segment.phone, fontsize=8, **style)
    for word, start, end in words:
        axis.text((start + end) / 2, top + 6, word, fontsize=11, **style)
    axis.set_xlabel("seconds")
    return figure


def _draw_spectrogram(axis: Axes, sound: Tensor, seconds: float) -> None:
    """A spectrogram (F, M) over time and frequency; a frame lasts `seconds`."""
    num_frames, num_mels = sound.shape
    extent = (0, seconds * num_frames, 0, num_mels)
    style = HEAT | {"extent": extent, "interpolation": "nearest"}
    axis.imshow(sound.T.numpy(), vmin=_faintest(sound), **style)
    highest = hertz_to_mel(torch.tensor(SAMPLE_RATE / 2))
    share = hertz_to_mel(torch.tensor(HERTZ, dtype=torch.float32)) / highest
    ticks = (share * (num_mels + 1) - 0.5).tolist()
    axis.set_yticks(ticks, [f"{hertz:,}" for hertz in HERTZ])
    axis.set_ylabel("Hz")


def _faintest(sound: Tensor) -> float:
    """What is black: the smallest value, or 60 dB below the loudest."""
    return max(sound.min().item(), sound.max().item() - 6)


def alignments(labels: Sequence[str], frames: int) -> Figure:
    """All ways of CTC through the states of a target, with a blank around each label."""
    states = ["–"]
    for label in labels:
        states += [label, "–"]
    figure, axis = sheet((7.2, 3.2), (-1.6, frames + 0.2), (-0.9, len(states) + 0.3))
    last = len(states) - 1
    for t in range(frames):
        centred(axis, t, -0.6, f"frame {t + 1}", fontsize=9)
        for s, state in enumerate(states):
            y = last - s
            possible = _can_be_reached(s, t, frames, states)
            colour = ("#c7e9c0", GREEN) if possible else ("#f7f7f7", "#d9d9d9")
            circle = {"boxstyle": "circle,pad=0.35", "facecolor": colour[0]}
            circle["edgecolor"] = colour[1]
            centred(axis, t, y, state, bbox=circle, fontsize=10)
            for after in range(s, min(s + 3, len(states))):
                skips = after == s + 2
                if skips and (state == "–" or state == states[after]):
                    continue
                both = possible and _can_be_reached(after, t + 1, frames, states)
                if t + 1 < frames and both:
                    line = {"arrowstyle": "->", "color": GREY, "lw": 1}
                    line |= {"shrinkA": 11, "shrinkB": 11}
                    arrow(axis, (t, y), (t + 1, last - after), **line)
    for s, state in enumerate(states):
        name = "blank" if state == "–" else f"“{state}”"
        axis.text(-0.6, last - s, name, ha="right", va="center", fontsize=9)
    return figure


def _can_be_reached(s: int, t: int, frames: int, states: Sequence[str]) -> bool:
    """Whether a whole alignment may be in state s at frame t. Labels must differ."""
    labels_before = (s + 1) // 2  # those up to this state
    labels_after = (len(states) - s - 1) // 2
    is_early = t + 1 < labels_before
    is_late = frames - t - 1 < labels_after
    return not is_early and not is_late


def where_words_are(
    sound: Tensor,
    words: Sequence[WordTime],
    spikes: dict[str, Tensor],
    weights: dict[str, Tensor],
    seconds: float,
) -> Figure:
    """A spectrogram, the CTC probabilities and the attention of its words over time.

    sound: (F, M), a frame each `seconds`.
    spikes: the probability of each word at each position, (N,), by word.
    weights: the attention of each word to each position, (N,), by word.
    """
    figure, axes = panels((9.6, 6.2), 3, 1, sharex=True)
    _draw_spectrogram(axes[0], sound, seconds)
    names = ("probability of CTC", "attention")
    for axis, name, curves in zip(axes[1:], names, (spikes, weights)):
        for word, curve in curves.items():
            times = 2 * seconds * torch.arange(len(curve))
            axis.plot(times, curve, label=word, marker=".", ms=4, lw=1)
        axis.set_ylabel(name)
        axis.legend(fontsize=8, loc="upper right")
    for axis in axes:
        for _, start, end in words:
            axis.axvspan(start, end, fill=False, edgecolor=GREEN, lw=1)
    for word, start, end in words:
        style = {"ha": "center", "va": "bottom", "fontsize": 10}
        axes[0].text((start + end) / 2, sound.size(1) + 1, word, **style)
    axes[-1].set_xlabel("seconds")
    return figure
