"""Chapter 14 written by others: see tests/test_proofs.py."""

# %% 14 resample
import math

import numpy as np
import torch
import torch.nn.functional as F

BETA = 7.3
ZEROS = 64


def windowed_sinc(t, c):
    u = c * t / ZEROS
    root = np.sqrt(np.maximum(0.0, 1 - u**2))
    kaiser = np.where(np.abs(u) < 1, np.i0(BETA * root) / np.i0(BETA), 0.0)
    return c * np.sinc(c * t) * kaiser


def _sinc_filters(old, new):
    """Half a filter's width, and for each phase its first sample and its filter."""
    c = 0.96 * min(1.0, new / old)
    width = math.ceil(ZEROS / c) + 1
    filters = []
    for n in range(new):
        first = n * old // new
        k = np.arange(first - width, first + width + 1)
        filters.append((first, torch.from_numpy(windowed_sinc(n * old / new - k, c))))
    return width, filters


def resample(waveform, old_rate, new_rate):
    common = math.gcd(old_rate, new_rate)
    old, new = old_rate // common, new_rate // common
    if old == new:
        return waveform
    S = waveform.shape[-1]
    length = math.ceil(S * new / old)
    width, filters = _sinc_filters(old, new)
    blocks = math.ceil(length / new)
    padded = F.pad(waveform, (width, width + (blocks + 2) * old))
    phases = []
    for first, weights in filters:
        windows = padded[..., first:].unfold(-1, 2 * width + 1, old)[..., :blocks, :]
        phases.append((windows * weights.to(padded)).sum(-1))
    return torch.stack(phases, dim=-1).flatten(-2)[..., :length]


# %% 14 frames
import torch


def frames(waveform, size, hop):
    S = waveform.shape[-1]
    if S == 0:
        raise ValueError("an empty waveform")
    half = size // 2
    mirrored = S > half
    cut = []
    for i in range(max(S // hop, 1)):
        places = torch.arange(size, device=waveform.device) + i * hop - half
        inside = (places >= 0) & (places < S)
        if mirrored:
            places = places.abs()
            places = torch.where(places >= S, 2 * (S - 1) - places, places)
            cut.append(waveform[..., places])
        else:
            samples = waveform[..., places.clamp(0, S - 1)]
            cut.append(torch.where(inside, samples, torch.zeros_like(samples)))
    return torch.stack(cut, dim=-2)


# %% 14 dft_matrix
import cmath

import torch


def dft_matrix(size):
    roots = [cmath.exp(-2j * cmath.pi * turn / size) for turn in range(size)]
    rows = [[roots[k * n % size] for n in range(size)] for k in range(size)]
    return torch.tensor(rows, dtype=torch.complex128)


# %% 14 mel_filters
import torch


def mel_filters(num_mels, size, sample_rate):
    top = hertz_to_mel(torch.tensor(sample_rate / 2)).item()
    corners = mel_to_hertz(torch.linspace(0, top, num_mels + 2))
    bins = torch.arange(size // 2 + 1) * (sample_rate / size)
    columns = []
    for low, middle, high in zip(corners[:-2], corners[1:-1], corners[2:]):
        rising = (bins - low) / (middle - low)
        falling = (high - bins) / (high - middle)
        triangle = torch.clamp(torch.minimum(rising, falling), min=0.0)
        columns.append(triangle * 2 / (high - low))
    return torch.stack(columns, dim=-1)


# %% 14 log_mel
import math

import torch


def hann(size):
    n = torch.arange(size, dtype=torch.float64)
    return (0.5 - 0.5 * torch.cos(2 * math.pi * n / size)).float()


def log_mel(waveform, sample_rate, num_mels=80):
    size, hop = round(0.025 * sample_rate), round(0.01 * sample_rate)
    filters = mel_filters(num_mels, size, sample_rate).to(waveform.device)
    cut = frames(waveform.to(torch.float32), size, hop) * hann(size).to(waveform.device)
    power = torch.fft.fft(cut, dim=-1)[..., : size // 2 + 1].abs() ** 2
    energies = torch.einsum("...k,km->...m", power, filters)
    return torch.log10(torch.maximum(energies, torch.tensor(1e-10)))


# %% 14 augment_spectrogram
import math
from dataclasses import dataclass

import torch


@dataclass
class Stretch:
    start: int
    end: int

    @classmethod
    def drawn(cls, draws, size, max_width):
        width = math.floor(draws[0] * (max_width + 1))
        start = math.floor(draws[1] * (size - width + 1))
        return cls(start, start + width)

    def holds(self, position):
        return self.start <= position < self.end


def _masked(draws, size, lengths, max_width):
    rows = []
    for two, length, widest in zip(draws, lengths.flatten().tolist(), max_width.flatten().tolist()):
        stretches = [Stretch.drawn(pair, length, widest) for pair in (two[:2], two[2:])]
        rows.append([any(one.holds(p) for one in stretches) for p in range(size)])
    return torch.tensor(rows, dtype=torch.bool, device=draws.device).reshape(len(draws), size)


def augment_spectrogram(sound, lengths, draws):
    B, F, M = sound.shape
    draws = draws.to(sound.device)
    if lengths is None:
        lengths = torch.tensor([F] * B)
    limits = torch.tensor([min(100, int(n) // 5) for n in lengths])
    time = _masked(draws[:, :4], F, lengths, limits)
    bands = _masked(draws[:, 4:], M, torch.tensor([M] * B), torch.tensor([M // 3] * B))
    result = sound.clone()
    for b in range(B):
        result[b, time[b], :] = 0
        result[b, :, bands[b]] = 0
    return result


# %% 14 AudioEncoder.forward
import torch
import torch.nn.functional as F
from torch import nn


class AudioEncoder(nn.Module):
    def forward(self, sound, lengths=None):
        B, frames, _ = sound.shape
        real = torch.ones(B, frames, dtype=torch.bool, device=sound.device)
        if lengths is not None:
            for b, length in enumerate(lengths.tolist()):
                real[b, length:] = False
        keep = real.unsqueeze(1).to(sound.dtype)
        x = torch.where(real[:, :, None], sound, torch.zeros_like(sound)).mT
        x = F.gelu(self.conv1(x)) * keep
        x = F.gelu(self.conv2(x)).mT
        N = x.shape[1]
        x = F.dropout(x + self.positions[None, :N], p=self.dropout, training=self.training)
        mask = real[:, [2 * n for n in range(N)]]
        for block in self.blocks:
            x = block(x, mask[:, None, :])[0]
        return Memory(self.projection(self.norm(x)), mask)


# %% 14 edit_counts
import numpy as np


def _edit_distances(hypothesis, reference):
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=int)
    table[:, 0] = range(len(reference) + 1)
    table[0, :] = range(len(hypothesis) + 1)
    for i, wanted in enumerate(reference, start=1):
        for j, said in enumerate(hypothesis, start=1):
            table[i, j] = min(
                table[i - 1, j] + 1,
                table[i, j - 1] + 1,
                table[i - 1, j - 1] + (wanted != said),
            )
    return table.tolist()


def edit_counts(hypothesis, reference):
    table = _edit_distances(hypothesis, reference)
    counts = {"substitutions": 0, "insertions": 0, "deletions": 0, "hits": 0}
    i, j = len(reference), len(hypothesis)
    while (i, j) != (0, 0):
        cost = table[i][j]
        equal = i > 0 and j > 0 and reference[i - 1] == hypothesis[j - 1]
        if equal and table[i - 1][j - 1] == cost:
            step, i, j = "hits", i - 1, j - 1
        elif i > 0 and table[i - 1][j] == cost - 1:
            step, i, j = "deletions", i - 1, j
        elif i > 0 and j > 0 and table[i - 1][j - 1] == cost - 1:
            step, i, j = "substitutions", i - 1, j - 1
        else:
            step, i, j = "insertions", i, j - 1
        counts[step] += 1
    return EditCounts(**counts)


# %% 14 word_error_rate
def _error_rate(statistics):
    s, i, d, h = [int(number) for number in statistics]
    words = s + d + h
    return (s + i + d) / (words if words > 0 else 1)


def word_error_rate(hypotheses, references):
    totals = [0, 0, 0, 0]
    for hypothesis, refs in zip(hypotheses, references):
        closest = None
        for ref in refs:
            counts = edit_counts(hypothesis, ref)
            if closest is None or sum(counts[:3]) < sum(closest[:3]):
                closest = counts
        totals = [total + count for total, count in zip(totals, closest)]
    return ErrorRate(_error_rate(totals), *totals)


# %% 14 ctc_states
import torch


def ctc_states(targets, target_lengths, blank):
    rows = []
    for labels, length in zip(targets.tolist(), target_lengths.flatten().tolist()):
        row = [blank]
        for position, label in enumerate(labels):
            row += [label if position < length else blank, blank]
        rows.append(row)
    width = 2 * targets.size(1) + 1
    return torch.tensor(rows, dtype=targets.dtype, device=targets.device).reshape(-1, width)


def skip_mask(states, blank):
    mask = torch.zeros_like(states, dtype=torch.bool)
    for s in range(2, states.size(1)):
        mask[:, s] = (states[:, s] != blank) & (states[:, s] != states[:, s - 2])
    return mask


# %% 14 forward_variables
import torch


def one_step(before, emission, may_skip):
    """The variables of one example after one more frame; both are lists of scalars."""
    after = []
    for s in range(len(before)):
        ways = [before[s]]
        if s >= 1:
            ways.append(before[s - 1])
        if s >= 2 and may_skip[s]:
            ways.append(before[s - 2])
        after.append(torch.stack(ways).logsumexp(0) + emission[s])
    return after


def forward_variables(emissions, may_skip, input_lengths):
    tables = []
    lengths = input_lengths.flatten().tolist()
    for frames, skips, length in zip(emissions, may_skip.tolist(), lengths):
        alpha = [frames.new_tensor(LOG_ZERO) for _ in skips]
        alpha[0] = frames.new_tensor(0.0)
        rows = [torch.stack(alpha)]
        for t, emission in enumerate(frames):
            if t < length:
                alpha = one_step(alpha, emission.unbind(), skips)
            rows.append(torch.stack(alpha))
        tables.append(torch.stack(rows))
    return torch.stack(tables)


# %% 14 backward_variables
import torch


def backward_variables(emissions, may_skip, input_lengths, final):
    B, num_frames, S = emissions.shape
    betas = {num_frames: final}
    nothing = torch.full((B, 2), LOG_ZERO, dtype=emissions.dtype, device=emissions.device)
    for t in range(num_frames, 0, -1):
        after = betas[t] + emissions[:, t - 1]
        wide = torch.cat([after, nothing], dim=1)  # two states that do not exist
        skips = torch.cat([torch.where(may_skip, after, nothing[:, :1]), nothing], dim=1)
        ways = [wide[:, s : s + 2].unbind(1) + (skips[:, s + 2],) for s in range(S)]
        before = torch.stack([torch.stack(way).logsumexp(0) for way in ways], dim=1)
        betas[t - 1] = torch.where(input_lengths >= t, before, betas[t])
    return torch.stack([betas[t] for t in range(num_frames + 1)], dim=1)


# %% 14 ctc_decode
from itertools import groupby


def ctc_decode(log_probs, lengths, blank=0):
    decoded = []
    for example, length in zip(log_probs, lengths):
        best = [int(frame.argmax()) for frame in example[: int(length)]]
        decoded.append([label for label, _ in groupby(best) if label != blank])
    return decoded
