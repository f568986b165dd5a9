"""Sound: WAV files against other readers, resampling, log-mel spectrograms, SpecAugment."""

import math
import re
import struct
import wave

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mmscratch.audio import (
    KAISER_BETA,
    ROLLOFF,
    SAMPLE_RATE,
    ZERO_CROSSINGS,
    augment_spectrogram,
    dft_matrix,
    frames,
    hertz_to_mel,
    log_mel,
    mel_filters,
    mel_to_hertz,
    read_wav,
    resample,
    spectrogram,
    write_wav,
)
from mmscratch.batches import Examples, collate, to_device
from mmscratch.data.dataset import DataSet, LazyColumn
from mmscratch.images import augment
from mmscratch.text import Vocabulary

RATES = [8_000, 11_025, 22_050, 44_100, 48_000]
NOISE = np.random.default_rng(0).uniform(-1, 1, (173, 3))  # S, channels


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# --- WAV files ---


def chunk(name, data, size=None, padding=b"\0"):
    size = len(data) if size is None else size
    return name + struct.pack("<I", size) + data + padding * (len(data) % 2)


def riff(*chunks, size=None):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def fmt(code=1, channels=1, rate=8_000, bits=16, frame_size=None, more=b""):
    frame_size = channels * bits // 8 if frame_size is None else frame_size
    header = struct.pack("<HHIIHH", code, channels, rate, rate * frame_size, frame_size, bits)
    return chunk(b"fmt ", header + more)


SAMPLES = [0, 16384, -32768, 32767, -1]  # 16 bits
DATA = np.array(SAMPLES, "<i2").tobytes()
WAVEFORM = torch.tensor(SAMPLES) / 2**15


def read(tmp_path, content):
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    return read_wav(path)


def assert_reads(tmp_path, content, waveform=WAVEFORM, rate=8_000):
    ours, our_rate = read(tmp_path, content)
    assert our_rate == rate
    assert ours.dtype == torch.float32
    assert_close(ours, waveform, rtol=0, atol=0)


@pytest.mark.parametrize("file_format", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_samples_are_those_of_libsndfile(tmp_path, file_format, subtype, channels):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "sound.wav"
    noise = NOISE[:, :channels]
    soundfile.write(path, noise, 11_025, subtype, format=file_format)
    expected, _ = soundfile.read(path, always_2d=True)
    waveform, rate = read_wav(path)
    assert rate == 11_025
    assert waveform.shape == (173,)
    assert_close(waveform, torch.from_numpy(expected.mean(1)).float(), rtol=0, atol=1e-7)
    assert_close(waveform.double(), torch.from_numpy(noise.mean(1)), rtol=0, atol=1 / 128)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_samples_are_those_of_scipy(tmp_path, dtype):
    wavfile = pytest.importorskip("scipy.io.wavfile")
    samples = NOISE
    if not dtype.startswith("float"):
        info = np.iinfo(dtype)
        samples = np.round(info.min + (NOISE + 1) / 2 * (info.max - info.min))
    wavfile.write(tmp_path / "sound.wav", 7_919, samples.astype(dtype))
    rate, expected = wavfile.read(tmp_path / "sound.wav")
    expected = expected.astype(np.float64)
    if dtype == "uint8":
        expected = (expected - 128) / 128
    elif dtype.startswith("int"):
        expected /= -float(np.iinfo(dtype).min)
    waveform, our_rate = read_wav(tmp_path / "sound.wav")
    assert our_rate == rate
    assert_close(waveform, torch.from_numpy(expected.mean(1)).float(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_are_those_of_wave(tmp_path, width):
    path = tmp_path / "sound.wav"
    samples = np.random.default_rng(1).bytes(173 * 2 * width)
    with wave.open(str(path), "wb") as file:
        file.setparams((2, width, 7_919, 0, "NONE", ""))
        file.writeframes(samples)
    values = []
    for i in range(0, len(samples), width):
        value = int.from_bytes(samples[i : i + width], "little", signed=width > 1)
        values.append(value / 128 - 1 if width == 1 else value / 256**width * 2)
    expected = torch.tensor(values).view(173, 2).mean(1)
    assert_close(read_wav(path)[0], expected, rtol=0, atol=1e-7)


def test_the_extremes_of_each_kind_are_minus_one_and_almost_one(tmp_path):
    for bits in (8, 16, 24, 32):
        top = 2 ** (bits - 1)
        values = [-top, 0, top - 1]
        if bits == 8:
            data = bytes(value + 128 for value in values)
        else:
            data = b"".join(value.to_bytes(bits // 8, "little", signed=True) for value in values)
        expected = torch.tensor([-1, 0, (top - 1) / top])
        assert_reads(tmp_path, riff(fmt(bits=bits), chunk(b"data", data)), expected)


def test_floats_beyond_one_are_clipped(tmp_path):
    data = np.array([0.5, -1.5, 1e300, -math.inf]).astype("<f8").tobytes()
    content = riff(fmt(code=3, bits=64), chunk(b"data", data))
    assert_reads(tmp_path, content, torch.tensor([0.5, -1.0, 1.0, -1.0]))


def test_other_chunks_are_skipped(tmp_path):
    odd = chunk(b"LIST", b"abc")
    assert_reads(tmp_path, riff(odd, fmt(), odd, chunk(b"data", DATA), odd))
    assert_reads(tmp_path, riff(odd, chunk(b"data", DATA), odd, fmt()))
    assert_reads(tmp_path, riff(fmt(more=b"\0\0"), chunk(b"data", DATA), chunk(b"data", b"12")))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFF0])
def test_files_written_to_a_pipe_are_read_to_their_end(tmp_path, size):
    data = chunk(b"data", DATA, size)
    for riff_size in (0, 36, 0xFFFFFFFF, 0x7FFFFFF0 + 36):
        assert_reads(tmp_path, riff(fmt(), data, size=riff_size))


def test_an_empty_data_chunk_does_not_swallow_the_next(tmp_path):
    content = riff(fmt(), chunk(b"data", b""), chunk(b"LIST", b"abcd"))
    with pytest.raises(ValueError, match="a WAV file without any sound"):
        read(tmp_path, content)


def test_truncated_files_are_read_to_their_last_whole_frame(tmp_path):
    content = riff(fmt(), chunk(b"data", DATA))
    assert_reads(tmp_path, content[:-1], WAVEFORM[:-1])
    assert_reads(tmp_path, content[:-4], WAVEFORM[:-2])
    stereo = riff(fmt(channels=2), chunk(b"data", DATA))
    assert_reads(tmp_path, stereo, torch.tensor([0.25, -1 / 2**16]))


def extensible(code):
    return struct.pack("<HHIH", 22, 16, 0, code) + bytes.fromhex("000000001000800000aa00389b71")


GOOD = chunk(b"data", DATA)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "an empty file: record it again"),
        (b"RIFF", "an unknown format, not a WAV file: convert it .* ffmpeg"),
        (b"hello, world, hello", "an unknown format, not a WAV file: convert it .* ffmpeg"),
        (b"RIFF\0\0\0\0AVI ", "an unknown format, not a WAV file"),
        (b"ID3\4", "MP3, not a WAV file: convert it to PCM, e.g. ffmpeg"),
        (b"\xff\xfb\x90", "MP3, not"),
        (b"fLaC\0", "FLAC, not"),
        (b"OggS\0", "Ogg, not"),
        (b"FORM\0\0\0\0AIFF", "AIFF, not"),
        (b"\0\0\0\x20ftypM4A ", "MPEG-4, not"),
        (b"RF64\xff\xff\xff\xffWAVE", "RF64, not"),
        (riff(), 'without its "fmt " or "data" chunk: copy it again'),
        (riff(fmt()), 'without its "fmt " or "data" chunk'),
        (riff(GOOD), 'without its "fmt " or "data" chunk'),
        (riff(chunk(b"fmt ", b"\1\0\1\0"), GOOD), 'without its "fmt " or "data" chunk'),
        (riff(fmt(code=7, bits=8), GOOD), "a WAV file in µ-law: convert it to PCM, e.g. ffmpeg"),
        (riff(fmt(code=6, bits=8), GOOD), "a WAV file in A-law: "),
        (riff(fmt(code=0x55), GOOD), "a WAV file in MP3: "),
        (riff(fmt(code=4321), GOOD), "a WAV file in format 4321: "),
        (riff(fmt(code=0xFFFE, more=extensible(7)), GOOD), "a WAV file in µ-law: "),
        (riff(fmt(code=0xFFFE), GOOD), "a WAV file in format 65534: "),
        (riff(fmt(bits=12, frame_size=2), GOOD), "PCM samples of 12 bits: convert it"),
        (riff(fmt(bits=64), GOOD), "PCM samples of 64 bits"),
        (riff(fmt(code=3, bits=16), GOOD), "float samples of 16 bits"),
        (riff(fmt(rate=0), GOOD), "contradicts itself: 1 channels of 16 bits at 0 Hz"),
        (riff(fmt(channels=0), GOOD), "contradicts itself: 0 channels"),
        (riff(fmt(bits=24, frame_size=4), GOOD), "1 channels of 24 bits .* in frames of 4 bytes"),
        (riff(fmt(), chunk(b"data", b"")), "without any sound: record it again"),
        (riff(fmt(), chunk(b"data", b"1")), "without any sound"),
        (riff(fmt(code=3, bits=32), chunk(b"data", struct.pack("<ff", 0, math.nan))), "NaN"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(ValueError) as error:
        read(tmp_path, content)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'sound.wav'}: ")
    assert re.search(message, text)
    assert "\n" not in text


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.wav: no such file$"):
        read_wav(tmp_path / "nothing.wav")
    with pytest.raises(ValueError, match="cannot be read: Is a directory$"):
        read_wav(tmp_path)


def test_no_damage_raises_anything_but_a_value_error(tmp_path):
    content = bytearray(riff(fmt(more=b"\0\0"), chunk(b"LIST", b"abc"), chunk(b"data", DATA)))
    generator = np.random.default_rng(2)
    for _ in range(199):
        damaged = content.copy()
        for position in generator.integers(0, len(content), 3):
            damaged[position] = generator.integers(256)
        try:
            waveform, rate = read(tmp_path, bytes(damaged[: generator.integers(99)]))
        except ValueError as error:
            assert "\n" not in str(error)
            continue
        assert rate > 0
        assert len(waveform) > 0
        assert waveform.abs().max() <= 1


def test_written_files_are_read_by_wave_and_by_us(tmp_path):
    path = tmp_path / "sound.wav"
    write_wav(path, WAVEFORM, 8_000)
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (1, 2, 8_000, 5)
        assert file.readframes(5) == DATA
    assert_close(read_wav(path)[0], WAVEFORM, rtol=0, atol=0)
    write_wav(path, torch.tensor([0.1, 1.0, 1.5, -1.5]).double(), 11_025)
    clipped = torch.tensor([3277, 32767, 32767, -32768]) / 2**15
    assert_reads(tmp_path, path.read_bytes(), clipped, 11_025)


@pytest.mark.parametrize("waveform", [torch.zeros(1, 5), torch.tensor([0.0, math.nan])])
def test_other_waveforms_are_not_written(tmp_path, waveform):
    with pytest.raises(ValueError, match=r"sound\.wav: a waveform is \(S,\) finite numbers"):
        write_wav(tmp_path / "sound.wav", waveform, 8_000)


# --- resampling ---


def sine(frequency, rate, seconds=1.0):
    n = torch.arange(round(rate * seconds), dtype=torch.float64)
    return torch.sin(2 * math.pi * frequency * n / rate + 0.3)


def decibels(waveform):
    """The power in the middle half, against that of a sine."""
    quarter = len(waveform) // 4
    return 10 * math.log10(2 * waveform[quarter:-quarter].square().mean().item())


def sinc_filter(old, new, times):
    """The filter of `resample` at these times, in old samples."""
    c = ROLLOFF * min(1, new / old)
    inside = np.maximum(0, 1 - (c * times / ZERO_CROSSINGS) ** 2)
    kaiser = np.i0(KAISER_BETA * np.sqrt(inside)) / np.i0(KAISER_BETA)
    return c * np.sinc(c * times) * kaiser * (inside > 0)


@pytest.mark.parametrize("new", [16_000, 8_000, 22_050])
@pytest.mark.parametrize("old", RATES + [16_000, 997])
def test_resampling_is_that_of_scipy(old, new):
    signal = pytest.importorskip("scipy.signal")
    up = new // math.gcd(old, new)
    down = old // math.gcd(old, new)
    if up == down:
        return
    half = math.ceil(ZERO_CROSSINGS / ROLLOFF / min(1, up / down) * up)
    taps = sinc_filter(old, new, np.arange(-half, half + 1) / up) / up
    for samples in (1, 2, 313, 1_999):
        x = torch.randn(samples, dtype=torch.float64)
        expected = signal.resample_poly(x.numpy(), up, down, window=taps)
        assert_close(resample(x, old, new), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_resampling_is_the_sum_of_its_formula():
    for old, new, samples in (
        (3, 5, 101),
        (5, 3, 103),
        (1, 67, 7),
        (67, 1, 1_009),
        (129, 130, 307),
    ):
        x = torch.randn(samples, dtype=torch.float64)
        y = resample(x, old, new)
        n = np.arange(math.ceil(samples * new / old))
        times = n[:, None] * old / new - np.arange(samples)
        expected = torch.from_numpy(sinc_filter(old, new, times)) @ x
        assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("old", [22_050, 44_100, 48_000])
def test_tones_above_the_new_nyquist_frequency_are_60_db_down(old):
    for frequency in (8_001, 8_050, 8_200, 9_001, 10_007, 11_003, old / 2 - 7):
        assert decibels(resample(sine(frequency, old), old, 16_000)) < -60


@pytest.mark.parametrize("old", [8_000, 11_025])
def test_higher_rates_have_no_mirrored_tones(old):
    for frequency in (101, 2_003, 0.45 * old):
        spectrum = torch.fft.rfft(
            resample(sine(frequency, old), old, 16_000) * torch.hann_window(16_000)
        )
        power = spectrum.abs().square()  # at 0, 1, … 8,000 Hz
        assert abs(power.argmax() - frequency) <= 1
        assert power[old // 2 + 1 :].max() < 1e-6 * power.max()


@pytest.mark.parametrize("old", RATES)
def test_tones_below_it_keep_their_phase(old):
    for frequency in (53, 1_009, 0.45 * min(old, 16_000)):
        middle = slice(4_000, 12_000)
        y = resample(sine(frequency, old), old, 16_000)
        assert_close(y[middle], sine(frequency, 16_000)[middle], rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_resampling_keeps_the_dtype_and_leading_axes(dtype, tolerance):
    x = torch.randn(2, 3, 331, dtype=dtype)
    y = resample(x, 22_050, 16_000)
    assert y.dtype == dtype
    assert y.shape == (2, 3, 241)  # ceil(331 · 16000 / 22050)
    for i in range(2):
        for j in range(3):
            assert_close(y[i, j], resample(x[i, j], 22_050, 16_000), rtol=0, atol=tolerance)


def test_equal_rates_return_the_waveform():
    x = torch.randn(7)
    assert resample(x, 8_000, 8_000) is x
    assert resample(torch.zeros(3, 0), 8_000, 16_000).shape == (3, 0)


def test_resampling_refuses_integers_and_rates_of_zero():
    with pytest.raises(ValueError, match=r"floats is needed, in \[-1, 1\], not torch\.int16"):
        resample(torch.zeros(7, dtype=torch.int16), 8_000, 16_000)
    with pytest.raises(ValueError, match="above 0 Hz, not 0 and 16000"):
        resample(torch.zeros(7), 0, 16_000)


# --- spectrograms ---


@pytest.mark.parametrize("size", [1, 2, 7, 400])
def test_dft_matrix_is_the_fourier_transform(size):
    x = torch.randn(3, size, dtype=torch.float64)
    assert_close(
        dft_matrix(size) @ x.T.to(torch.complex128), torch.fft.fft(x).T, rtol=0, atol=1e-10
    )
    identity = dft_matrix(size) @ dft_matrix(size).conj().T / size
    assert_close(identity, torch.eye(size, dtype=torch.complex128), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "num_mels, size, rate", [(80, 400, 16_000), (128, 400, 16_000), (23, 200, 8_000)]
)
def test_mel_filters_are_those_of_transformers(num_mels, size, rate):
    audio_utils = pytest.importorskip("transformers.audio_utils")
    expected = audio_utils.mel_filter_bank(
        size // 2 + 1, num_mels, 0, rate / 2, rate, norm="slaney", mel_scale="slaney"
    )
    ours = mel_filters(num_mels, size, rate)
    assert_close(ours, torch.from_numpy(expected).float(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("num_mels, size, rate", [(80, 400, 16_000), (40, 551, 22_050)])
def test_mel_filters_are_those_of_librosa(num_mels, size, rate):
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=rate, n_fft=size, n_mels=num_mels)
    assert_close(mel_filters(num_mels, size, rate), torch.from_numpy(expected).T, rtol=0, atol=1e-7)


@pytest.mark.parametrize("num_mels, size, rate", [(80, 400, 16_000), (23, 551, 22_050)])
def test_mel_filters_equal_triangles_one_by_one(num_mels, size, rate):
    highest = hertz_to_mel(torch.tensor(rate / 2).double()).item()
    mels = torch.tensor([highest * i / (num_mels + 1) for i in range(num_mels + 2)])
    corners = mel_to_hertz(mels.double()).tolist()
    ours = mel_filters(num_mels, size, rate)
    assert ours.shape == (size // 2 + 1, num_mels)
    for m in range(num_mels):
        heights = [0.0, 2 / (corners[m + 2] - corners[m]), 0.0]
        hertz = np.arange(size // 2 + 1) * rate / size
        expected = np.interp(hertz, corners[m : m + 3], heights)
        assert_close(ours[:, m], torch.from_numpy(expected).float(), rtol=0, atol=1e-6)


def test_mel_filters_have_an_area_of_one():
    filters = mel_filters(13, 1_103, 22_050)
    assert_close(filters.sum(0) * 22_050 / 1_103, torch.ones(13), rtol=0, atol=0.02)


def test_mel_scale_has_its_known_points_and_inverse():
    hertz = torch.tensor([0.0, 200, 1_000, 6_400, 40_960]).double()
    mel = torch.tensor([0.0, 3, 15, 42, 69]).double()
    assert_close(hertz_to_mel(hertz), mel, rtol=0, atol=1e-9)
    assert_close(mel_to_hertz(mel), hertz, rtol=0, atol=1e-8)


@pytest.mark.parametrize("samples", [16_000, 16_007, 16_159, 401, 201])
def test_log_mel_is_that_of_whisper(samples):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor()
    x = 0.1 * torch.randn(samples) + sine(701, 16_000)[:1].float()
    options = {"sampling_rate": 16_000, "padding": "do_not_pad", "return_tensors": "pt"}
    expected = extractor(x.numpy(), **options).input_features[0].T
    assert_close(log_mel(x, 16_000), 4 * expected - 4, rtol=0, atol=1e-4)


def test_log_mel_of_speech_with_silence_is_that_of_whisper():
    transformers = pytest.importorskip("transformers")
    x = sine(211, 16_000).float() * torch.hann_window(16_000)
    x[3_001:5_003] = 0
    x = x + 1e-3 * torch.randn(16_000)
    x[9_001:] = 0
    expected = transformers.WhisperFeatureExtractor(128)(
        x.numpy(), sampling_rate=16_000, padding="do_not_pad", return_tensors="pt"
    )
    ours = log_mel(x, 16_000, 128)
    ours = (torch.maximum(ours, ours.max() - 8) + 4) / 4
    assert_close(ours, expected.input_features[0].T, rtol=0, atol=1e-4)


def test_spectrogram_is_its_formula():
    x = sine(211, 16_000).float() * torch.hann_window(16_000) + 1e-4 * torch.randn(16_000)
    bands = log_mel(x, 16_000, 37)
    loudest = bands.max().item()
    expected = torch.empty(100, 37)
    for band in range(37):
        heard = [max(value, loudest - 4) for value in bands[:, band].tolist()]
        mean = sum(heard) / len(heard)
        expected[:, band] = torch.tensor([value - mean for value in heard])
    assert_close(spectrogram(x, 16_000, 37), expected, rtol=0, atol=3e-5)


def test_a_microphone_and_faint_noise_hardly_change_a_spectrogram():
    x = sum(sine(f, 16_000, 2) for f in (307, 1_103, 2_909)).float()
    x = x * (1 + torch.sin(2 * math.pi * 3 * torch.arange(len(x)) / 16_000))
    tinny = x - 0.5 * x.roll(1)
    noisy = x + 1e-4 * torch.randn(len(x))
    expected = spectrogram(x, 16_000)
    assert (spectrogram(noisy, 16_000) - expected).abs().mean() < 0.012
    assert (spectrogram(3 * x, 16_000) - expected).abs().max() < 1e-5
    changed = (spectrogram(tinny, 16_000) - expected).abs().mean()
    without = (log_mel(tinny, 16_000) - log_mel(x, 16_000)).abs().mean()
    assert changed < without / 2


@pytest.mark.parametrize(
    "rate, size, hop", [(16_000, 400, 160), (11_025, 276, 110), (22_050, 551, 220)]
)
def test_log_mel_is_its_formula_with_the_dft_matrix(rate, size, hop):
    x = torch.randn(2, 3_001, dtype=torch.float64)
    n = torch.arange(size, dtype=torch.float64)
    window = (1 - torch.cos(2 * math.pi * n / size)) / 2
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (size // 2, size)), mode="reflect"))
    F = 3_001 // hop
    cut = torch.stack([padded[:, i * hop : i * hop + size] for i in range(F)], dim=1)
    spectrum = (cut * window).to(torch.complex128) @ dft_matrix(size)[:, : size // 2 + 1]
    expected = (spectrum.abs().square() @ mel_filters(17, size, rate).double()).log10()
    ours = log_mel(x, rate, 17)
    assert ours.dtype == torch.float32
    assert ours.shape == (2, F, 17)
    assert_close(ours.double(), expected, rtol=0, atol=1e-4)


def test_frames_are_centred_every_hop():
    x = torch.arange(1.0, 24)
    first = [[4, 3, 2, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7]]
    assert frames(x[:9], 7, 3).tolist() == [*first, [4, 5, 6, 7, 8, 9, 8]]
    assert frames(x[:11], 7, 3).tolist() == [*first, [4, 5, 6, 7, 8, 9, 10]]
    assert frames(x[:2], 7, 3).tolist() == [[0, 0, 0, 1, 2, 0, 0]]
    assert frames(x[:4], 6, 5).tolist() == [[4, 3, 2, 1, 2, 3]]
    assert frames(torch.zeros(2, 5, 23), 7, 3).shape == (2, 5, 7, 7)


def test_a_waveform_without_samples_has_no_frames():
    with pytest.raises(ValueError):
        frames(torch.zeros(2, 0), 7, 3)


def test_faint_sounds_are_above_the_floor_by_the_formula():
    x = torch.randn(4_000, dtype=torch.float64) * 5e-6  # its mels are around the floor of 1e-10
    power = torch.fft.rfft(frames(x, 400, 160) * torch.hann_window(400, dtype=torch.float64))
    mel = power.abs().square() @ mel_filters(80, 400, 16_000).double()
    assert (mel < 1e-10).any() and (mel > 1e-10).any()
    assert_close(log_mel(x, 16_000).double(), mel.clamp(min=1e-10).log10(), rtol=0, atol=1e-4)


def test_log_mel_stays_on_the_device_of_the_waveform():
    assert log_mel(torch.zeros(2, 1_600, device="meta"), 16_000).is_meta


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 199, 200, 201, 319, 320])
def test_very_short_sounds_have_a_frame(samples):
    x = torch.randn(samples)
    for features in (log_mel(x, 16_000), spectrogram(x, 16_000)):
        assert features.shape == (max(1, samples // 160), 80)
        assert features.isfinite().all()
    assert spectrogram(x, 44_100).isfinite().all()


def test_sounds_without_samples_or_at_too_low_a_rate_are_refused():
    with pytest.raises(ValueError, match="^a waveform without any sample has no spectrogram$"):
        log_mel(torch.zeros(0), 16_000)
    with pytest.raises(ValueError, match="without any sample"):
        spectrogram(torch.zeros(3, 0), 8_000)
    with pytest.raises(ValueError, match="^999 Hz is too low a sample rate"):
        log_mel(torch.zeros(7), 999)


def test_silence_is_at_the_floor():
    assert (log_mel(torch.zeros(997), 16_000) == -10).all()
    assert (spectrogram(torch.zeros(997), 16_000) == 0).all()


@pytest.mark.parametrize("rate", [*RATES, 16_000])
def test_a_tone_is_loudest_at_its_mel(rate):
    centres = mel_to_hertz(torch.linspace(0, 1, 82)[1:-1] * hertz_to_mel(torch.tensor(8_000.0)))
    for frequency in (523, 1_709, 3_203):
        waveform = resample(sine(frequency, rate).float(), rate, SAMPLE_RATE)
        loudest = log_mel(waveform, SAMPLE_RATE)[20:80].argmax(1)
        assert loudest.unique().tolist() == [(centres - frequency).abs().argmin().item()]


def test_spectrograms_at_other_rates_are_those_at_16_khz():
    def tones(rate):
        swell = torch.hann_window(rate, dtype=torch.float64)
        return swell * (0.1 * sine(607, rate) + 0.3 * sine(2_801, rate))

    expected = spectrogram(tones(SAMPLE_RATE), SAMPLE_RATE)
    bands = log_mel(tones(SAMPLE_RATE), SAMPLE_RATE)
    loud = bands[50] > bands.max() - 2  # in the middle
    for rate in RATES:
        ours = spectrogram(tones(rate), rate)
        assert ours.shape == expected.shape == (100, 80)
        assert_close(ours[10:90, loud], expected[10:90, loud], rtol=0, atol=0.04)


def test_each_sound_of_a_batch_is_scaled_by_itself():
    x = torch.randn(2, 3, 2_003) * torch.tensor([1.0, 1e-3, 1e-9]).unsqueeze(1)
    x[:, :, 1_500:] = 0
    features = spectrogram(x, 8_000)
    assert features.shape == (2, 3, 25, 80)
    for i in range(2):
        for j in range(3):
            assert_close(features[i, j], spectrogram(x[i, j], 8_000), rtol=0, atol=1e-4)
    extent = features.amax(2) - features.amin(2)  # of each band
    assert (extent <= 4 + 1e-5).all()
    assert (extent[:, 0] > 3.6).any()


# --- SpecAugment ---


def masks_one_by_one(sound, length, draws):
    """`augment_spectrogram` of one sound (F, M) as two loops."""
    sound = sound.clone()
    M = sound.size(1)
    for width, place in (draws[0:2], draws[2:4]):
        width = math.floor(width * (min(100, length // 5) + 1))
        start = math.floor(place * (length - width + 1))
        sound[start : start + width] = 0
    for width, place in (draws[4:6], draws[6:8]):
        width = math.floor(width * (M // 3 + 1))
        start = math.floor(place * (M - width + 1))
        sound[:, start : start + width] = 0
    return sound


def test_augmentation_masks_what_its_draws_say():
    lengths = torch.tensor([701, 499, 83, 4, 1, 0])
    for _ in range(29):
        sound = torch.randn(6, 701, 17)
        draws = torch.rand(6, 8)
        before = sound.clone()
        augmented = augment_spectrogram(sound, lengths, draws)
        assert torch.equal(sound, before)
        for i, length in enumerate(lengths.tolist()):
            expected = masks_one_by_one(sound[i], length, draws[i].tolist())
            assert torch.equal(augmented[i], expected)
    everywhere = augment_spectrogram(sound, None, draws)
    assert torch.equal(everywhere, augment_spectrogram(sound, torch.full((6,), 701), draws))


def test_augmentation_stays_within_its_limits():
    sound = torch.ones(997, 211, 23)
    lengths = torch.randint(1, 212, (997,))
    augmented = augment_spectrogram(sound, lengths, torch.rand(997, 8))
    bands = (augmented == 0).all(1)  # (B, M)
    assert bands.sum(1).max() <= 2 * (23 // 3)
    assert bands.float().mean(0).min() > 0.05  # no mel is spared
    times = (augmented == 0).all(2)  # (B, F)
    assert (times.sum(1) <= 2 * (lengths // 5)).all()
    padding = torch.arange(211) >= lengths.unsqueeze(1)
    assert not times[padding].any()
    at = (torch.arange(997), lengths - 1)  # the last frame of each
    assert times[at][lengths > 4].any()


def test_augmentation_with_draws_of_zero_changes_nothing():
    sound = torch.randn(3, 23, 17)
    assert torch.equal(augment_spectrogram(sound, None, torch.zeros(3, 8)), sound)


class Words(DataSet):
    """Sounds of different lengths, with or without pictures."""

    def __init__(self, pictures):
        super().__init__()
        self.references = [[["left"]]] * 4
        self.columns["sound"] = LazyColumn(lambda frames: torch.ones(frames, 17), [31, 23, 67, 5])
        if pictures:
            images = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8)
            self.columns["image"] = LazyColumn(images.__getitem__, range(4))


@pytest.mark.parametrize("pictures", [False, True])
def test_to_device_augments_sounds_that_have_draws(pictures):
    examples = Examples(Words(pictures), {"target": Vocabulary(["left"])}, augmented=True, seed=3)
    batch = collate([examples[i, 7] for i in range(4)])
    draws = batch["augmentation"]  # (4, 8)
    assert ((draws[:, -1] == 1) == pictures).all()  # "left": no mirroring
    moved = to_device(batch, torch.device("cpu"))
    assert "augmentation" not in moved
    expected = augment_spectrogram(batch["sound"], batch["sound_lengths"], draws)
    assert not torch.equal(expected, batch["sound"])
    assert torch.equal(moved["sound"], expected)
    if pictures:
        assert torch.equal(moved["image"], augment(batch["image"], draws))
