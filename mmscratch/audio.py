"""Sound: from a WAV file to a log-mel spectrogram, and its augmentation."""

import math
import struct
import wave
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz, that of `spectrogram`

# The first bytes of other files, to say what they are.
OTHER_FORMATS = {
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf3": "MP3",
    b"\xff\xf2": "MP3",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b".snd": "AU",
    b"\x1aE\xdf\xa3": "WebM or Matroska",
    b"RIFX": "big-endian WAV",
    b"RF64": "RF64",
    b"NIST": "SPHERE",
}
# The codes of a WAV file's "fmt " chunk.
PCM = 1
FLOAT = 3
EXTENSIBLE = 0xFFFE  # the true code comes later in the chunk
SAMPLE_BITS = {PCM: (8, 16, 24, 32), FLOAT: (32, 64)}
CODES = {2: "ADPCM", 6: "A-law", 7: "µ-law", 0x11: "ADPCM", 0x50: "MPEG", 0x55: "MP3"}
CONVERT = "convert it to PCM, e.g. ffmpeg -i FILE -c:a pcm_s16le NEW.wav"


class WavFormat(NamedTuple):
    """How a WAV file holds its samples; `bits` are those of a sample."""

    code: int
    channels: int
    sample_rate: int
    bits: int


def read_wav(path: str | Path) -> tuple[Tensor, int]:
    """Read a WAV file: the waveform (S,) float32 in [-1, 1], and the sample rate in Hz.

    Samples are integers of 8, 16, 24 or 32 bits (PCM), or floats of 32 or 64, which are clipped.
    Channels are averaged. If the file ends early, the samples before its end are read.
    Raises FileNotFoundError or ValueError, in one line that names the file, if it is missing, in
    another format, without any sound, or if its header contradicts itself.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        chunks = _wav_chunks(content)
        layout = _wav_format(chunks)
        return _to_waveform(chunks[b"data"], layout), layout.sample_rate
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _wav_chunks(content: bytes) -> dict[bytes, memoryview]:
    """The chunks of a WAV file by name: b"fmt " and b"data", among others."""
    if not content:
        raise ValueError("an empty file: record it again")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError(f"{_file_kind(content)}, not a WAV file: {CONVERT}")
    (riff_size,) = struct.unpack_from("<I", content, 4)
    riff_end = 8 + riff_size
    chunks = {}
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        start = position + 8
        # A program that writes to a pipe cannot go back and fill in the sizes.
        if name == b"data" and size == 0 and not start < riff_end <= len(content):
            size = len(content) - start
        chunks.setdefault(name, memoryview(content)[start : start + size])
        position = start + size + size % 2
    return chunks


def _file_kind(content: bytes) -> str:
    if content[4:8] == b"ftyp":
        return "MPEG-4"
    for magic, kind in OTHER_FORMATS.items():
        if content.startswith(magic):
            return kind
    return "an unknown format"


def _wav_format(chunks: dict[bytes, memoryview]) -> WavFormat:
    """Read the "fmt " chunk; raises ValueError if `_to_waveform` cannot read such samples."""
    header = chunks.get(b"fmt ", b"")
    if len(header) < 16 or b"data" not in chunks:
        raise ValueError('a WAV file without its "fmt " or "data" chunk: copy it again')
    code, channels, sample_rate, _, frame_size, bits = struct.unpack_from("<HHIIHH", header)
    if code == EXTENSIBLE and len(header) >= 26:
        (code,) = struct.unpack_from("<H", header, 24)
    if code not in SAMPLE_BITS:
        raise ValueError(f"a WAV file in {CODES.get(code, f'format {code}')}: {CONVERT}")
    if bits not in SAMPLE_BITS[code]:
        kind = "PCM" if code == PCM else "float"
        raise ValueError(f"a WAV file with {kind} samples of {bits} bits: {CONVERT}")
    if sample_rate == 0 or channels == 0 or frame_size != channels * bits // 8:
        raise ValueError(
            f"its header contradicts itself: {channels} channels of {bits} bits at {sample_rate} Hz "
            f"in frames of {frame_size} bytes. Copy it again"
        )
    return WavFormat(code, channels, sample_rate, bits)


def _to_waveform(data: memoryview, layout: WavFormat) -> Tensor:
    """The bytes of the samples -> their mean over the channels, (S,) float32."""
    frame_size = layout.channels * layout.bits // 8
    num_frames = len(data) // frame_size  # whole ones: the last may be cut off
    data = data[: num_frames * frame_size]
    if num_frames == 0:
        raise ValueError("a WAV file without any sound: record it again")
    if layout.code == FLOAT:
        samples = np.frombuffer(data, f"<f{layout.bits // 8}").clip(-1, 1)
    elif layout.bits == 8:  # the only unsigned samples
        samples = np.frombuffer(data, np.uint8) / 2**7 - 1
    elif layout.bits == 24:  # as the upper three bytes of 32 bits
        padded = np.zeros((num_frames * layout.channels, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = padded.view("<i4") / 2**31
    else:
        samples = np.frombuffer(data, f"<i{layout.bits // 8}") / 2 ** (layout.bits - 1)
    samples = samples.reshape(num_frames, layout.channels).mean(1, dtype=np.float64)  # (S,)
    if np.isnan(samples).any():
        raise ValueError("a WAV file with samples that are not numbers (NaN): record it again")
    return torch.from_numpy(samples.astype(np.float32))


def write_wav(path: str | Path, waveform: Tensor, sample_rate: int) -> None:
    """Write a waveform (S,) as WAV, 16-bit PCM, mono; values outside [-1, 1] are clipped."""
    if waveform.dim() != 1 or not waveform.isfinite().all():
        shape = tuple(waveform.shape)
        raise ValueError(f"{path}: a waveform is (S,) finite numbers; this one is {shape}")
    samples = (waveform.detach().cpu().double() * 2**15).round().clamp(-(2**15), 2**15 - 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.numpy().astype("<i2").tobytes())


# The filter of `resample`. 64 zero crossings a side and this window (Kaiser's formulas for 75 dB)
# make a transition of 7 % of the lower rate's Nyquist frequency, which ends at that frequency.
ZERO_CROSSINGS = 64
KAISER_BETA = 7.3
ROLLOFF = 0.96
PHASES = 64  # the number of outputs from one window of samples


def resample(waveform: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """Resample a waveform (…, S) -> (…, ceil(S · new_rate / old_rate)), the rates in Hz.

        yₙ = Σₖ xₖ h(n · old / new - k)
        h(t) = c sinc(c t) kaiser(c t / 64)                   c = 0.96 min(1, new / old)
        kaiser(u) = I₀(β √(1 - u²)) / I₀(β)  for |u| < 1, else 0                      β = 7.3

    The windowed sinc passes frequencies below the lower of the two Nyquist frequencies. Higher ones
    would be folded down (aliasing): they come out at least 60 dB lower. Before its first sample and
    after its last one, the waveform is zero. Its dtype is kept; equal rates return it as it is.

    With both rates divided by their greatest common divisor, outputs n and n + new have the same
    filter, `old` samples apart. So there are `new` different filters ("phases"), the columns of a
    matrix, and each window of samples is multiplied with it.
    Source: Smith, "Digital audio resampling"; Kaiser's window.
    """
    if not waveform.is_floating_point():
        raise ValueError(f"a waveform of floats is needed, in [-1, 1], not {waveform.dtype}")
    if min(old_rate, new_rate) < 1:
        raise ValueError(f"sample rates are above 0 Hz, not {old_rate} and {new_rate}")
    divisor = math.gcd(old_rate, new_rate)
    old = old_rate // divisor
    new = new_rate // divisor
    if old == new or waveform.numel() == 0:
        return waveform
    length = -(-waveform.size(-1) * new // old)
    repeats = max(1, PHASES // new)  # a few wide matrices are faster than many narrow ones
    old *= repeats
    new *= repeats
    num_blocks = -(-length // new)  # of `new` outputs each
    width, groups = _sinc_filters(old, new)
    x = waveform.reshape(-1, waveform.size(-1))  # (B, S)
    x = F.pad(x, (width, width + 2 * old))
    outputs = []
    for start, filters in groups:
        windows = x[:, start:].unfold(-1, len(filters), old)[:, :num_blocks]  # (B, num_blocks, K)
        outputs.append(windows @ filters.to(x))  # (B, num_blocks, phases)
    y = torch.cat(outputs, dim=2).flatten(1)[:, :length]  # (B, S')
    return y.reshape(*waveform.shape[:-1], length)


@lru_cache(maxsize=8)
def _sinc_filters(old: int, new: int) -> tuple[int, list[tuple[int, Tensor]]]:
    """The filters of `resample`: their half width, and for each group of phases its first sample
    and its filters (K, phases).

    Neighbouring phases read almost the same samples, so a group of them is one matrix.
    """
    cutoff = ROLLOFF * min(1, new / old)
    width = math.ceil(ZERO_CROSSINGS / cutoff)
    groups = []
    for phases in torch.arange(new).split(PHASES):
        start = int(phases[0]) * old // new
        end = int(phases[-1]) * old // new + 1
        samples = torch.arange(start, end + 2 * width) - width  # (K,)
        times = phases.double() * old / new - samples.unsqueeze(1)  # (K, phases)
        times = cutoff * times
        inside = (1 - (times / ZERO_CROSSINGS).square()).clamp(min=0)
        kaiser = torch.special.i0(KAISER_BETA * inside.sqrt()) / np.i0(KAISER_BETA).item()
        filters = cutoff * times.sinc() * kaiser * (inside > 0)
        groups.append((start, filters))
    return width, groups


def frames(waveform: Tensor, size: int, hop: int) -> Tensor:
    """Cut a waveform (…, S) into S // hop overlapping frames, at least one: (…, F, size).

    Frame i starts size // 2 samples before sample i · hop. For the first and the last frames the
    waveform is continued as its mirror image (… 3, 2, 1, 2, 3 …), or by zeros if it is not longer
    than half a frame. Raises ValueError if it has no samples.
    """
    num_samples = waveform.size(-1)
    if num_samples == 0:
        raise ValueError("a waveform without any sample has no spectrogram")
    half = size // 2
    x = waveform.reshape(-1, num_samples)  # (B, S)
    x = F.pad(x, (half, half), mode="reflect" if num_samples > half else "constant")
    num_frames = max(1, num_samples // hop)
    x = x.unfold(-1, size, hop)[:, :num_frames]  # (B, F, size)
    return x.unflatten(0, waveform.shape[:-1]) if waveform.dim() > 1 else x[0]


def dft_matrix(size: int) -> Tensor:
    """The discrete Fourier transform of N = `size` numbers as a matrix, (N, N) complex128.

        (W x)ₖ = Σₙ xₙ exp(-2πi k n / N)

    The same as `torch.fft.fft`, which needs N log N steps instead of N².
    """
    n = torch.arange(size)
    turns = torch.outer(n, n) % size / torch.tensor(size, dtype=torch.float64)  # (N, N)
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """Slaney's mel scale: 3 mel each 200 Hz up to 1,000 Hz, then 27 mel each factor of 6.4."""
    linear = 3 * hertz / 200
    logarithmic = 15 + 27 * (hertz.clamp(min=1000) / 1000).log() / math.log(6.4)
    return torch.where(hertz < 1000, linear, logarithmic)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The inverse of `hertz_to_mel`."""
    linear = 200 * mel / 3
    logarithmic = 1000 * torch.exp((mel - 15) * math.log(6.4) / 27)
    return torch.where(mel < 15, linear, logarithmic)


@lru_cache(maxsize=8)
def mel_filters(num_mels: int, size: int, sample_rate: int) -> Tensor:
    """Triangles that sum the power of neighbouring frequencies: (size // 2 + 1, num_mels) float32.

    num_mels + 2 corners are equally far apart in mel, from 0 Hz to the Nyquist frequency. Triangle m
    rises from corner m to corner m + 1 and falls to corner m + 2, so it starts at the peak of the
    one before it. Straight lines in Hz, and an area of 1 Hz: a wide triangle does not get more of a
    noise than a narrow one. As librosa's `filters.mel`.
    Source: Davis & Mermelstein 1980; scale and area: Slaney 1998.
    """
    nyquist = torch.tensor(sample_rate / 2, dtype=torch.float64)
    frequencies = torch.arange(size // 2 + 1, dtype=torch.float64) * sample_rate / size
    mels = torch.linspace(0, 1, num_mels + 2, dtype=torch.float64) * hertz_to_mel(nyquist)
    corners = mel_to_hertz(mels)  # (num_mels + 2,)
    left = corners[:-2]  # (num_mels,)
    peak = corners[1:-1]
    right = corners[2:]
    frequencies = frequencies.unsqueeze(1)  # (size // 2 + 1, 1)
    rising = (frequencies - left) / (peak - left)
    falling = (right - frequencies) / (right - peak)
    triangles = torch.minimum(rising, falling).clamp(min=0)  # (size // 2 + 1, num_mels)
    return (2 / (right - left) * triangles).float()


def log_mel(waveform: Tensor, sample_rate: int, num_mels: int = 80) -> Tensor:
    """The log-mel spectrogram of a waveform (…, S): (…, F, num_mels) float32, F = S // hop.

        log₁₀ max(10⁻¹⁰, |DFT(frame · window)|² · mel filters)

    with periodic Hann windows of 25 ms every 10 ms, both rounded to whole samples, and only the
    frequencies from 0 to the Nyquist frequency. It is on the device of the waveform. At 16 kHz,
    these are the features of Whisper before it scales them (see `spectrogram`).
    Source: Davis & Mermelstein 1980; Radford et al. 2022 (Whisper), section 2.2.
    """
    if sample_rate < 1000:
        raise ValueError(f"{sample_rate} Hz is too low a sample rate for speech: at least 1000 Hz")
    size = round(0.025 * sample_rate)
    hop = round(0.010 * sample_rate)
    x = frames(waveform.float(), size, hop)  # (…, F, size)
    spectrum = torch.fft.rfft(x * torch.hann_window(size, device=x.device))  # (…, F, size // 2 + 1)
    power = spectrum.real.square() + spectrum.imag.square()
    mel = power @ mel_filters(num_mels, size, sample_rate).to(x.device)  # (…, F, num_mels)
    return mel.clamp(min=1e-10).log10()


def spectrogram(waveform: Tensor, sample_rate: int, num_mels: int = 80) -> Tensor:
    """The input of an encoder: a waveform (…, S) -> (…, F, num_mels) float32, 100 frames a second.

        x = log-mel spectrogram at 16 kHz;  x = max(x, max(x) - 4);  x - mean(x)

    Everything more than 40 dB below the loudest point counts as silence, since the noise of rooms
    lies there. The mean of each band over all frames is subtracted: a microphone adds a constant to
    each band. All of this comes from the sound itself, and no statistics of a data set are needed.
    Whisper's weights expect another scale: see `weights.from_whisper`.
    Source: Furui 1981 (cepstral mean normalisation).
    """
    x = log_mel(resample(waveform, sample_rate, SAMPLE_RATE), SAMPLE_RATE, num_mels)
    x = torch.maximum(x, x.amax((-2, -1), keepdim=True) - 4)
    return x - x.mean(-2, keepdim=True)


def augment_spectrogram(sound: Tensor, lengths: Tensor | None, draws: Tensor) -> Tensor:
    """SpecAugment: blank two stretches of time and two bands of mels of each spectrogram.

    sound (B, F, M) -> (B, F, M), on the sound's device. lengths (B,) are the frames of each before
    padding; None if all are F. draws (B, 8), each uniform in [0, 1), decide, in this order: the
    width and the place of the first stretch, of the second, of the first band, of the second. A
    stretch is at most 100 frames (1 s) and a fifth of the sound, a band at most a third of the mels,
    all rounded down. Of `size` frames or mels,

        width = ⌊draw · (max_width + 1)⌋;  start = ⌊draw · (size - width + 1)⌋

    They are filled with 0, which is the mean of each band of a `spectrogram`, and its padding.
    Source: Park et al. 2019, whose policy LD this is, with a fifth for their p.
    """
    _, num_frames, num_mels = sound.shape
    if lengths is None:
        lengths = torch.full((len(sound),), num_frames)
    lengths = lengths.to(sound.device).unsqueeze(1)  # (B, 1)
    draws = draws.to(sound.device)
    mels = torch.full_like(lengths, num_mels)
    times = _masked(draws[:, :4], num_frames, lengths, (lengths // 5).clamp(max=100))  # (B, F)
    bands = _masked(draws[:, 4:], num_mels, mels, mels // 3)  # (B, M)
    return sound.masked_fill(times.unsqueeze(2) | bands.unsqueeze(1), 0.0)


def _masked(draws: Tensor, size: int, lengths: Tensor, max_width: Tensor) -> Tensor:
    """Which of `size` positions are in one of two intervals, (B, size) bool.

    draws (B, 4): width and place of each; lengths and max_width (B, 1).
    """
    widths = (draws[:, ::2] * (max_width + 1)).long()  # (B, 2)
    starts = (draws[:, 1::2] * (lengths - widths + 1)).long()  # (B, 2)
    positions = torch.arange(size, device=draws.device).view(1, -1, 1)  # (1, size, 1)
    starts = starts.unsqueeze(1)  # (B, 1, 2)
    inside = (starts <= positions) & (positions < starts + widths.unsqueeze(1))  # (B, size, 2)
    return inside.any(2)
