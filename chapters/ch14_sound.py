# %% [markdown]
# # 14 · Sound
#
# **Adds** log-mel spectrograms, an audio encoder, CTC, and the word error rate. **Takes** 3.4 min on two cores.
#
# A sound becomes a memory, as a picture did, and the decoder of chapter 4 writes down what was said.
# Nothing in the model is new except the encoder, and most of the encoder is known. The work is in
# front of it: pressure becomes a spectrogram, in which words can be seen. And there are more ways
# than usual to fool oneself, because a sound carries a speaker, a room and a microphone as well as
# words. A program speaks here (`mmscratch/data/speech.py`), so it is known who says which phone, and
# when.

# %%
import math
import random
from dataclasses import replace
from functools import partial
from itertools import groupby, product
from operator import attrgetter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR

from chapters.chapter import Chapter, show
from chapters.drawings import ch14 as drawings
from chapters.measured import sound as measured
from mmscratch import ctc
from mmscratch.attention import Memory

# %%
from mmscratch.audio import (
    SAMPLE_RATE,
    dft_matrix,
    frames,
    log_mel,
    mel_filters,
    resample,
    spectrogram,
)
from mmscratch.batches import encode_words
from mmscratch.ctc import ctc_decode, ctc_loss
from mmscratch.data.scenes import COLOURS, NOUNS, SIZES
from mmscratch.data.speech import Voice, segments, speak
from mmscratch.decoding import greedy_search
from mmscratch.hearing import AudioEncoder
from mmscratch.metrics import edit_counts, word_error_rate
from mmscratch.model import EncoderDecoder
from mmscratch.text import PAD, Vocabulary, tokenize
from mmscratch.training import warmup_and_cosine
from mmscratch.transformer import TransformerDecoder

torch.manual_seed(0)
chapter = Chapter(14)

# %% [markdown]
# ## The idea

# %%
TEXT = "a small red star"
voice = Voice(9)
waveform = torch.from_numpy(speak(TEXT, voice))  # (S,)
sound = log_mel(waveform, SAMPLE_RATE)  # (F, 80)
figure = drawings.sound_to_words(waveform, sound, tokenize(TEXT))
chapter.draw(figure, "from pressure to words")
chapter.play(waveform, SAMPLE_RATE, "a small red star")

# %% [markdown]
# A microphone measures the pressure of the air, here 16,000 times a second: a **waveform**. One
# number says nothing about a word, and neither does the exact shape of the wave. What distinguishes
# an "ah" from an "ee" is which frequencies are loud at a time. So we cut the waveform into frames of
# 25 ms, and measure in each how loud 80 bands of frequencies are. The result is the **log-mel
# spectrogram**, a picture whose one axis is time. Two convolutions and some Transformer blocks make
# a memory of it, with a vector for every 20 ms, and the decoder attends to it.
#
# ## By hand
#
# **Sound is pressure.** Vowels repeat themselves about a hundred times a second, since the vocal
# folds open and close that often; this is the **pitch**. An "s" never repeats: it is the noise of air
# in a narrow gap.


# %%
def word_times(phones):
    """Each word of these phones, with its start and end in seconds."""
    times = []
    for word, group in groupby(phones, attrgetter("word")):
        of_word = list(group)
        times.append((word, of_word[0].start, of_word[-1].end))
    return times


phones = segments(TEXT, voice)
for word, start, end in word_times(phones):
    said = " ".join(each.phone for each in phones if each.word == word)
    print(f"{word:6} {said:8} {start:.2f} to {end:.2f} s")

# %%
shown = {each.phone: each for each in phones}
figure = Figure(figsize=(9.2, 3.6), dpi=100, layout="constrained")
grid = figure.add_gridspec(2, 2)
axis = figure.add_subplot(grid[0, :])
axis.plot(torch.arange(len(waveform)) / SAMPLE_RATE, waveform, lw=0.5)
axis.set(title=f"“{TEXT}”", xlabel="seconds", ylabel="pressure")
for column, phone in enumerate(("AA", "S")):
    middle = (shown[phone].start + shown[phone].end) / 2
    first = round(middle * SAMPLE_RATE) - 200
    part = waveform[first : first + 400]  # 25 ms
    axis = figure.add_subplot(grid[1, column])
    axis.plot(torch.arange(400) / 16, part, lw=1)
    axis.set(title=f"25 ms of {phone}", xlabel="milliseconds")
chapter.draw(figure, "a waveform, and 25 ms of a vowel and of noise")

# %% [markdown]
# **A vowel by hand.** The vocal folds sound at their pitch and at all its multiples, the harmonics,
# which are the weaker, the higher they are. The mouth and throat resonate at a few frequencies, the
# **formants**, and harmonics near a formant are loud. The mouth moves the formants. So a vowel is a
# sum of sines, and its formants say which vowel. (Klatt's synthesiser, which speaks in this chapter,
# does the same with filters and adds noise.)

# %%
seconds = torch.arange(SAMPLE_RATE // 2) / SAMPLE_RATE


def vowel(formants, pitch):
    """Half a second of a vowel: harmonics of the pitch, loud near its formants."""
    pressure = torch.zeros(len(seconds))
    for k in range(1, 4000 // pitch):
        frequency = k * pitch
        resonances = [1 / (1 + ((frequency - f) / 80) ** 2) for f in formants]
        loudness = sum(resonances) / k
        pressure += loudness * torch.sin(2 * math.pi * frequency * seconds)
    return 0.5 * pressure / pressure.abs().max()


VOWELS = {
    "ah": vowel([700, 1220, 2600], pitch=120),
    "ee": vowel([310, 2020, 2960], pitch=120),
    "ah, higher": vowel([700, 1220, 2600], pitch=200),
}
for name, pressure in VOWELS.items():
    chapter.play(resample(pressure, SAMPLE_RATE, 8000), 8000, f"vowel {name}")

# %% [markdown]
# **Which frequencies are in it?** The discrete Fourier transform compares the $N$ samples of a frame
# with $N$ waves, each of which fits into the frame a whole number $k$ of times. The comparison is a
# dot product, once with a cosine and once with a sine; a complex number holds both:
#
# $$X_k = \sum_{n=0}^{N-1} x_n\, e^{-2\pi i k n / N} \qquad X = W x, \quad W_{kn} = e^{-2\pi i k n/N}$$
#
# So it is a matrix. The fast Fourier transform computes the same product with fewer steps.

# %%
N = 400  # 25 ms
frame = VOWELS["ah"][2000 : 2000 + N]
by_hand = []
for k in range(5):
    cosine = sum(frame[n] * math.cos(2 * math.pi * k * n / N) for n in range(N))
    sine = sum(frame[n] * math.sin(2 * math.pi * k * n / N) for n in range(N))
    by_hand.append(torch.complex(cosine, -sine))
by_hand = torch.stack(by_hand)
matrix = dft_matrix(N)  # (N, N)
spectrum = matrix @ frame.to(matrix.dtype)  # (N,)
fast = torch.fft.fft(frame.double())
assert torch.allclose(spectrum[:5], by_hand.to(matrix.dtype), atol=1e-3)
assert torch.allclose(spectrum, fast, atol=1e-9)
print("two loops, the matrix and torch.fft agree")
for k, value in enumerate(by_hand.abs()):
    print(f"  {k * SAMPLE_RATE // N:3} Hz: {value:6.2f}")

# %% [markdown]
# **The window.** A wave that does not fit into the frame a whole number of times has a jump where
# its end meets its start. The transform takes the frame for one period of an endless wave, hears
# a click at every jump, and spreads the tone over all frequencies. So we first multiply the frame by
# a Hann window, which goes to zero at both ends.

# %%
tones = {"1,000 Hz: 25 periods": 1000, "1,020 Hz: 25 and a half": 1020}
window = torch.hann_window(N)
hertz = torch.arange(N // 2 + 1) * SAMPLE_RATE / N
figure = Figure(figsize=(9.2, 3), dpi=100, layout="constrained")
for axis, (name, frequency) in zip(figure.subplots(1, 2, sharey=True), tones.items()):
    tone = torch.sin(2 * math.pi * frequency * seconds[:N])
    for label, weights in (("no window", torch.ones(N)), ("Hann", window)):
        power = torch.fft.rfft(tone * weights).abs().square()
        decibels = 10 * (power / power.max()).clamp(min=1e-9).log10()
        axis.plot(hertz, decibels, label=label)
    axis.set(title=name, xlabel="Hz", xlim=(0, 4000), ylim=(-90, 5))
    axis.legend(fontsize=8)
figure.axes[0].set_ylabel("decibels")
chapter.draw(figure, "the spectrum of a tone with and without a window")

# %% [markdown]
# **Mel.** The ear tells 200 Hz from 300 Hz easily, but hardly 5,000 from 5,100. The **mel scale** is
# linear up to 1,000 Hz and logarithmic above. 80 triangles, equally wide in mel, sum up the power of
# neighbouring frequencies: narrow ones for low frequencies, wide ones for high. And since the ear
# also hears ratios of power rather than differences, we take the logarithm.

# %%
filters = mel_filters(80, N, SAMPLE_RATE)  # (201, 80)
power = torch.fft.rfft(frame * window).abs().square()  # (201,)
mel = power @ filters  # (80,)
figure = Figure(figsize=(9.2, 3), dpi=100, layout="constrained")
axes = figure.subplots(1, 2)
axes[0].plot(hertz, filters[:, ::8])
axes[0].set(title="every eighth mel filter", xlabel="Hz", ylabel="weight")
for name, style in (("ah", "-"), ("ah, higher", "--"), ("ee", "-")):
    part = VOWELS[name][2000 : 2000 + N]
    bands = torch.fft.rfft(part * window).abs().square() @ filters
    axes[1].plot(bands.clamp(min=1e-6).log10(), style, label=name)
axes[1].set(title="three vowels", xlabel="mel band", ylabel="log power")
axes[1].legend(fontsize=8)
chapter.draw(figure, "mel filters, and the bands of three vowels")

# %% [markdown]
# Now all of it, for each frame of the sentence. Frame $i$ has its centre at 10 ms times $i$. (The first
# two and the last two reach over the ends of the sound; the library continues it as its mirror
# image.)

# %%
rows = []
for i in range(2, len(sound) - 2):
    start = 160 * i - N // 2
    power = torch.fft.rfft(waveform[start : start + N] * window).abs().square()
    rows.append((power @ filters).clamp(min=1e-10).log10())
by_hand = torch.stack(rows)  # (F - 4, 80)
assert torch.allclose(by_hand, sound[2:-2], atol=1e-3)
print(f"{tuple(sound.shape)}: by hand and library agree")

# %% [markdown]
# **Reading it.** The white lines are the true borders of the phones, since the program that speaks
# knows them. Vowels have bright horizontal bars, their formants, which glide from phone to phone. An
# "s" is a cloud above 3,000 Hz. A "t" is a gap, with a burst at its end. One can learn to read words
# in such a picture; the model has to.

# %%
figure = drawings.phones(sound, phones, word_times(phones))
chapter.draw(figure, "the phones of a sentence")

# %% [markdown]
# **A transcript without alignment: CTC.** The other way to write is to let the encoder itself put a
# word, or nothing, on each of its positions. Nobody says at which position a word belongs. So
# **connectionist temporal classification** sums over all possibilities: a sequence of labels, one
# for each position, reads as the sentence if merging repeats and then dropping blanks gives it. Here
# are two words in four frames:

# %%
log_probs = torch.randn(1, 4, 3).log_softmax(-1)  # (1, F, V); label 0 is the blank
target = [1, 2]
likelihood = 0.0
for labels in product(range(3), repeat=4):
    merged = [label for label, _ in groupby(labels)]
    if [label for label in merged if label != 0] == target:
        log_prob = sum(log_probs[0, t, labels[t]] for t in range(4))
        likelihood += log_prob.exp()
        print("".join("–ab"[label] for label in labels), end="  ")
by_hand = -likelihood.log()
lengths = (torch.tensor([4]), torch.tensor([2]))
assert torch.allclose(ctc_loss(log_probs, torch.tensor([target]), *lengths), by_hand)
print(f"\nloss {by_hand:.3f}, summed one by one and by the library")

# %% [markdown]
# There are $3^4$ sequences here, and $26^{100}$ for a real sound. But they are paths in a small
# grid. In each frame, an alignment stays in its state, moves to the next one, or skips a blank between
# two different labels. The sum over all paths into a state follows from the sums one frame earlier.

# %%
chapter.draw(drawings.alignments(["a", "b"], 4), "all alignments of two labels")

# %% [markdown]
# ## The piece
#
# **From samples to frames.** A recording at another rate must first be resampled. Taking every second
# sample is not enough: a wave that is too fast for the new rate turns into a slow one, which was
# never there (aliasing). `resample` removes what the new rate cannot hold.

# %%
show(resample)


# %%
def loudest(pressure, rate):
    """The loudest frequency, in Hz, and how loud it is, in decibels."""
    power = torch.fft.rfft(pressure * torch.hann_window(len(pressure))).abs().square()
    at = power.argmax()
    level = 10 * (power[at] / (len(pressure) / 4) ** 2).log10()
    return round(at.item() * rate / len(pressure)), level.item()


tone = torch.sin(2 * math.pi * 6000 * seconds)
every_second = loudest(tone[::2], 8000)
proper = loudest(resample(tone, SAMPLE_RATE, 8000)[500:3500], 8000)
print(f"a tone of {loudest(tone, SAMPLE_RATE)[0]:,} Hz, at 8,000 samples a second:")
print(f"  every second sample: {every_second[0]:,} Hz at {every_second[1]:.0f} dB")
print(f"  resampled:           {proper[1]:.0f} dB")

# %%
show(frames)
show(dft_matrix)
show(mel_filters)
show(log_mel)

# %% [markdown]
# **What the encoder gets** must not depend on how loud a recording is, or on its microphone. A
# microphone multiplies the power of each band by a constant, so it adds a constant to the logarithm,
# and subtracting the mean of the band removes it. The noise of a room lies far below the voice, so
# what is 40 dB below the loudest point counts as silence.

# %%
show(spectrogram)

# %% [markdown]
# **The encoder** is Whisper's. Two convolutions look at neighbouring frames, and the second one
# halves their number. The rest is the Transformer of chapter 4, with fixed sines as positions.

# %%
show(AudioEncoder.forward)

# %% [markdown]
# The sounds of a batch are padded to one length, and **padding must change nothing**. Masking the
# attention is not enough. A convolution has a bias, so it turns zeros into something else, and the
# next one mixes it into the last true frame. Here is the usual mistake:


# %%
class LeakyEncoder(AudioEncoder):
    """Pads with zeros and masks the attention, but forgets the biases."""

    def forward(self, sound, lengths):
        x = F.gelu(self.conv1(sound.transpose(1, 2)))  # (B, D, F)
        x = F.gelu(self.conv2(x)).transpose(1, 2)  # (B, N, D)
        x = x + self.positions[: x.size(1)]
        positions = torch.arange(x.size(1), device=x.device)
        mask = positions < (lengths.unsqueeze(1) + 1) // 2  # (B, N)
        for block in self.blocks:
            x, _, _ = block(x, mask.unsqueeze(1))
        return Memory(self.norm(x), mask)


# %%
encoder = AudioEncoder(embed_dim=64).eval()
leaky = LeakyEncoder(embed_dim=64).eval()
leaky.load_state_dict(encoder.state_dict())
batch = spectrogram(waveform, SAMPLE_RATE).unsqueeze(0)  # (1, F, 80)
padded = F.pad(batch, (0, 0, 0, batch.size(1)))  # (1, 2F, 80)
length = torch.tensor([batch.size(1)])
with torch.no_grad():
    for name, model in (("AudioEncoder", encoder), ("LeakyEncoder", leaky)):
        alone = model(batch, length).tokens[0]  # (N, D)
        with_padding = model(padded, length).tokens[0, : len(alone)]
        difference = (with_padding - alone).abs().amax(1)  # (N,)
        print(f"{name}: changed by padding: last position {difference[-1]:.4f}", end="")
        print(f", first position {difference[0]:.4f}")

# %% [markdown]
# **CTC**: the forward variables are the sums of the grid above. The gradient needs them from the
# other end, too. To read, take the most probable label of each position.

# %%
show(ctc.forward_variables)
show(ctc_loss)
show(ctc_decode)

# %% [markdown]
# **The word error rate** counts the words that someone would have to substitute, delete or insert to
# get from what was said to what was written, and divides by the number of words said. It can exceed
# 100 %.

# %%
show(edit_counts)
said = "a small red star".split()
for written in ("a small red star", "a tall red star", "small red star red"):
    counts = edit_counts(written.split(), said)
    rate = 100 * sum(counts[:3]) / len(said)
    print(f"{written:20} {counts}, {rate:.0f} %")

# %% [markdown]
# ## Train it
#
# Four minutes are not enough for whole sentences (those come at the end). So the program says phrases
# of three words, such as "small red star": 2 sizes, 8 colours and 12 nouns. Each utterance has **a
# voice of its own**, with its pitch, vocal tract, speed, breath, room and loudness. No voice of the
# test set is ever heard in training. To save time, we keep every second frame.

# %%
CHOICES = (list(SIZES), list(COLOURS), list(NOUNS)[:12])
words = Vocabulary.build(CHOICES)


class Recordings(NamedTuple):
    """Utterances: sounds (N, F, 80), padded, their lengths (N,), and words."""

    sounds: torch.Tensor
    lengths: torch.Tensor
    sentences: list[list[str]]


def draw_phrases(count, seed):
    """Random phrases, each a list of three words."""
    draw = random.Random(seed)
    return [[draw.choice(options) for options in CHOICES] for _ in range(count)]


def voices_of(split, count, num_voices):
    """The voices of `count` utterances: `num_voices` different ones, in turn."""
    return [Voice.of_split(split, i % num_voices) for i in range(count)]


# %% [markdown]
# `change` alters the waveform before it becomes a spectrogram, and `features` is another function
# for that; we will need both.


# %%
def record(sentences, voices, change=None, features=spectrogram):
    """Let each voice say its sentence."""
    sounds = []
    for i, (sentence, voice) in enumerate(zip(sentences, voices)):
        waveform = torch.from_numpy(speak(" ".join(sentence), voice, seed=i))
        if change:
            waveform = change(waveform)
        sounds.append(features(waveform, SAMPLE_RATE)[::2])  # (F, 80)
    lengths = torch.tensor([len(sound) for sound in sounds])
    return Recordings(pad_sequence(sounds, batch_first=True), lengths, sentences)


UTTERANCES = chapter.choose(1000, fast=32)
FEW = UTTERANCES // 4
TEST = chapter.choose(200, fast=8)
phrases = draw_phrases(UTTERANCES, seed=0)
training_voices = voices_of("train", UTTERANCES, UTTERANCES)
training = record(phrases, training_voices)
test_phrases = draw_phrases(TEST, seed=1)
test_voices = voices_of("test", TEST, TEST)
test = record(test_phrases, test_voices)
print(f"{len(words)} words, {len(phrases):,} utterances; ", end="")
print(f"the test set has {len({tuple(phrase) for phrase in test_phrases})} phrases")

# %% [markdown]
# **Two models** with the same encoder. One is the model of chapter 5 with a sound in place of the
# picture: a decoder that attends to the memory and writes word by word. The other has only a matrix
# after the encoder, and CTC.

# %%
WIDTH = 64


def attention_model():
    decoder = TransformerDecoder(len(words), WIDTH, num_heads=4, num_layers=2)
    return EncoderDecoder({"sound": AudioEncoder(WIDTH)}, decoder)


class CTCModel(nn.Module):
    """The audio encoder, and at each position a word or nothing; <pad> is the blank."""

    def __init__(self):
        super().__init__()
        self.encoder = AudioEncoder(WIDTH)
        self.output = nn.Linear(WIDTH, len(words))

    def forward(self, batch):
        """Log-probabilities (B, N, V), and how many positions are no padding (B,)."""
        tokens, mask = self.encoder(batch["sound"], batch["sound_lengths"])
        return self.output(tokens).log_softmax(-1), mask.sum(1)

    def loss(self, batch):
        """The loss summed over a batch, and its number of words."""
        target = batch["target"][:, :-1]  # (B, T), without <eos>
        log_probs, lengths = self(batch)
        target_lengths = (target != PAD).sum(1)  # (B,)
        losses = ctc_loss(log_probs, target, lengths, target_lengths, blank=PAD)
        return losses.sum(), target_lengths.sum()


# %% [markdown]
# Both have a `loss`, so one loop trains both, and for both the loss is per word.


# %%
def batch_of(recordings, rows):
    """A batch of some recordings, padded to the longest of them."""
    lengths = recordings.lengths[rows]
    sounds = recordings.sounds[rows, : lengths.max()]
    sentences = [recordings.sentences[row] for row in rows.tolist()]
    target = [encode_words(words, sentence) for sentence in sentences]
    target = pad_sequence(target, batch_first=True, padding_value=PAD)  # (B, T)
    return {"sound": sounds, "sound_lengths": lengths, "target": target}


def fit(model, recordings, steps, batch_size=16):
    """Train a model; returns its loss per word, averaged over the last 20 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    factor = partial(warmup_and_cosine, steps=steps, warmup_fraction=0.1)
    schedule = LambdaLR(optimizer, factor)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(recordings.lengths), (batch_size,))
        loss, count = model.train().loss(batch_of(recordings, rows))
        optimizer.zero_grad()
        (loss / count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item() / count.item())
    return sum(losses[-20:]) / len(losses[-20:])


# %%
@torch.no_grad()
def transcribe(model, recordings):
    """What a model writes for each recording, as lists of words."""
    model.eval()
    written = []
    for rows in torch.arange(len(recordings.lengths)).split(100):
        batch = batch_of(recordings, rows)
        if isinstance(model, CTCModel):
            found = ctc_decode(*model(batch), blank=PAD)
        else:
            hypotheses = greedy_search(model.decoder, model.encode(batch), max_length=8)
            found = [hypothesis.tokens for hypothesis in hypotheses]
        written += [words.decode(tokens) for tokens in found]
    return written


def error_percent(model, recordings):
    """The word error rate, in percent."""
    references = [[sentence] for sentence in recordings.sentences]
    return 100 * word_error_rate(transcribe(model, recordings), references).score


# %% [markdown]
# **Which needs less data?** Both models, with all utterances and with a quarter of them, for the same
# number of steps.

# %%
STEPS = chapter.choose(600, fast=3)
SEEDS = chapter.choose(2, fast=1)
MODELS = {"attention": attention_model, "CTC": CTCModel}
trained = {}  # (name, utterances) -> the models of all seeds


def take(recordings, count):
    """The first `count` recordings."""
    sounds, lengths, sentences = recordings
    return Recordings(sounds[:count], lengths[:count], sentences[:count])


for count in (FEW, UTTERANCES):
    for name, new_model in MODELS.items():
        errors = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            model = new_model()
            loss = fit(model, take(training, count), STEPS)
            errors.append(f"{error_percent(model, test):5.1f}")
            trained.setdefault((name, count), []).append(model)
        print(f"{name:10} {count:5,} utterances: ", end="")
        print(
            f"word error rate {', '.join(errors)} %; last loss {loss:.2f}", flush=True
        )

# %% [markdown]
# **Which hears order?** All phrases of training are size, colour, noun. Now the unheard voices say
# the words in another order, or one of them twice. A model that has learned what people usually say
# may prefer that to what it hears.

# %%
draw = random.Random(2)
shuffled = []
repeated = []
for sentence in test_phrases:
    order = draw.choice([(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
    shuffled.append([sentence[i] for i in order])
    twice = draw.randrange(3)
    repeated.append(sentence[: twice + 1] + sentence[twice:])
orders = {
    "the usual order": test,
    "shuffled": record(shuffled, test_voices),
    "a word repeated": record(repeated, test_voices),
}
for name in MODELS:
    for condition, recordings in orders.items():
        models = trained[name, UTTERANCES]
        errors = [f"{error_percent(model, recordings):5.1f}" for model in models]
        print(f"{name:10} {condition:16} word error rate {', '.join(errors)} %")

# %%
for condition in ("shuffled", "a word repeated"):
    recordings = take(orders[condition], 3)
    for name in MODELS:
        written = transcribe(trained[name, UTTERANCES][0], recordings)
        for said, hypothesis in zip(recordings.sentences, written):
            print(f"{' '.join(said):32} {name:10} {' '.join(hypothesis)}")

# %% [markdown]
# Is it the fault of the models, or of their data? We train both again, on the same words by the same
# voices, but in any order.

# %%
draw = random.Random(3)
in_any_order = [draw.sample(phrase, 3) for phrase in phrases]
any_order = record(in_any_order, training_voices)
for name, new_model in MODELS.items():
    torch.manual_seed(0)
    model = new_model()
    fit(model, any_order, STEPS)
    for condition, recordings in orders.items():
        error = error_percent(model, recordings)
        print(f"{name:10} {condition:16} word error rate {error:5.1f} %", flush=True)

# %% [markdown]
# **Control: the same speakers in both splits.** Recording four people is easier than recording 500.
# Below, a model hears as many utterances as the smaller set above has, but from four voices. It is
# tested on new utterances of its own four voices, and of voices that it has never heard.

# %%
VOICES = 4
heard = {}  # name -> new utterances by voices of training
heard["4 voices"] = record(test_phrases, voices_of("train", TEST, VOICES))
heard[f"{FEW} voices"] = record(test_phrases, voices_of("train", TEST, FEW))
torch.manual_seed(0)
model_of_few = CTCModel()
fit(model_of_few, record(phrases[:FEW], voices_of("train", FEW, VOICES)), STEPS)
models = {"4 voices": model_of_few, f"{FEW} voices": trained["CTC", FEW][0]}
for name, model in models.items():
    same = error_percent(model, heard[name])
    other = error_percent(model, test)
    print(f"{name:10} heard voices {same:5.1f} %, unheard voices {other:5.1f} %")

# %% [markdown]
# ## Look
#
# Where does each model find its words? Below, the green frames are the true times of the words. CTC
# gives each word a probability at each position (40 ms, since we dropped every second frame). The
# attention decoder has weights for each word that it writes.

# %%
MODEL = trained["CTC", UTTERANCES][0]
WRITER = trained["attention", UTTERANCES][0]


@torch.no_grad()
def find_words(row):
    """Probabilities by CTC and attention weights of the true words, each (T, N)."""
    batch = batch_of(test, torch.tensor([row]))
    tokens = batch["target"][0, :-1]  # (T,)
    log_probs, _ = MODEL.eval()(batch)
    _, weights = WRITER.eval()(batch, need_weights=True)  # (1, layers, H, T + 1, N)
    attention = weights[0, -1].mean(0)  # of the last layer, (T + 1, N)
    return log_probs[0, :, tokens].exp().T, attention[:-1]


ROW = 0
spikes, weights = find_words(ROW)
times = segments(" ".join(test_phrases[ROW]), test_voices[ROW], seed=ROW)
sound = test.sounds[ROW, : test.lengths[ROW]]
by_word = [dict(zip(test_phrases[ROW], curves)) for curves in (spikes, weights)]
figure = drawings.where_words_are(sound, word_times(times), *by_word, seconds=0.02)
chapter.draw(figure, "where the two models find their words")

# %% [markdown]
# Over the test set: how often is the highest point of a word's curve within the true word, or at
# most one position away? Guessing a position would be right about as often as a word takes up of the
# sound.

# %%
hits = {"CTC": [], "attention": [], "guessing": []}
for row in range(TEST):
    times = segments(" ".join(test_phrases[row]), test_voices[row], seed=row)
    curves = dict(zip(("CTC", "attention"), find_words(row)))
    for t, (_, start, end) in enumerate(word_times(times)):
        for name, of_words in curves.items():
            peak = 0.04 * of_words[t].argmax().item()  # seconds
            hits[name].append(start - 0.04 <= peak <= end + 0.04)
        hits["guessing"].append(
            (end - start + 0.08) / (0.02 * test.lengths[row].item())
        )
for name, found in hits.items():
    print(f"{name:10} {100 * sum(found) / len(found):5.1f} % of the words")

# %% [markdown]
# **What does the model listen to?** We change the sound and not the words. Backwards, it has the same
# loudness at the same frequencies, in the wrong order. A higher *pitch* is another singer with the
# same mouth; the vowels keep their formants. A *shorter vocal tract* moves the formants. A tape that
# runs fast moves everything.

# %%
CTC = trained["CTC", UTTERANCES]  # of all seeds


def faster(waveform, factor=1.25):
    """A tape that runs faster: shorter, and higher in pitch and formants."""
    return resample(waveform, round(factor * SAMPLE_RATE), SAMPLE_RATE)


def print_errors(condition, recordings, models=CTC):
    errors = [f"{error_percent(model, recordings):5.1f}" for model in models]
    print(f"{condition:40} word error rate {', '.join(errors)} %")


high = [replace(each, pitch=1.25 * each.pitch) for each in test_voices]
small = [replace(each, tract=1.25 * each.tract) for each in test_voices]
print_errors("unchanged", test)
backwards = partial(torch.flip, dims=(0,))
print_errors("backwards", record(test_phrases, test_voices, backwards))
print_errors("pitch 25 % higher", record(test_phrases, high))
print_errors("formants 25 % higher", record(test_phrases, small))
print_errors("tape 25 % faster", record(test_phrases, test_voices, faster))

# %% [markdown]
# **8 kHz read as 16.** A telephone has 8,000 samples a second. If a program ignores the rate in the
# file's header, the sound is twice as fast and an octave higher, and no error is raised. Below, the
# same recording is read wrongly and rightly. Listen.


# %%
def telephone(waveform):
    return resample(waveform, SAMPLE_RATE, 8000)


def telephone_read_rightly(waveform):
    return resample(telephone(waveform), 8000, SAMPLE_RATE)


chapter.play(telephone(waveform), 8000, "telephone")
chapter.play(telephone(waveform), 16_000, "telephone read as 16 kHz")
print_errors("8 kHz read as 16", record(test_phrases, test_voices, telephone))
rightly = record(test_phrases, test_voices, telephone_read_rightly)
print_errors("8 kHz, resampled to 16", rightly)

# %% [markdown]
# **Statistics of the test set.** `spectrogram` subtracts from each band the mean of this one sound. It
# is more common to standardise the bands by the mean and the deviation of a whole data set. Which one?
# Here is a model that is trained in this way, and a test set that was recorded by a tinny microphone,
# which weakens low frequencies.


# %%
def plain(waveform, sample_rate):
    """Bands (F, 80) that are not normalised."""
    x = log_mel(waveform, sample_rate)
    return torch.maximum(x, x.max() - 4)


def tinny(waveform):
    return waveform[1:] - 0.95 * waveform[:-1]


def frames_of(recordings):
    """All frames that are not padding, (T, 80)."""
    positions = torch.arange(recordings.sounds.size(1))
    return recordings.sounds[positions < recordings.lengths.unsqueeze(1)]


def standardize(sounds, frames):
    """By the mean and the deviation of these frames, (T, 80)."""
    return (sounds - frames.mean(0)) / frames.std(0).clamp(min=0.01)


# %%
plain_training = record(phrases, training_voices, features=plain)
plain_test = record(test_phrases, test_voices, features=plain)
plain_tinny = record(test_phrases, test_voices, tinny, plain)
usual = frames_of(plain_training)
torch.manual_seed(0)
standardized = plain_training._replace(sounds=standardize(plain_training.sounds, usual))
PLAIN = [attention_model()]
fit(PLAIN[0], standardized, STEPS)


def print_standardized(condition, recordings, frames):
    sounds = standardize(recordings.sounds, frames)
    print_errors(condition, recordings._replace(sounds=sounds), PLAIN)


print_standardized("first microphone, by the training set", plain_test, usual)
print_standardized("tinny, by the training set", plain_tinny, usual)

# %% [markdown]
# The mean and the deviation can also come from the test set; from a test set in which half of the
# sounds come from the first microphone; or from one sound at a time. And last, the model from above,
# which has heard nothing but `spectrogram`.

# %%
print_standardized("tinny, by the test set", plain_tinny, frames_of(plain_tinny))
both = torch.cat([frames_of(plain_tinny), frames_of(plain_test)])
print_standardized("tinny, by both microphones' sounds", plain_tinny, both)
singles = []
for sound, length in zip(plain_tinny.sounds, plain_tinny.lengths.tolist()):
    singles.append(standardize(sound, sound[:length]))
alone = plain_tinny._replace(sounds=torch.stack(singles))
print_errors("tinny, by each sound itself", alone, PLAIN)
writers = trained["attention", UTTERANCES]
by_spectrogram = record(test_phrases, test_voices, tinny)
print_errors("tinny, spectrogram", by_spectrogram, writers)

# %% [markdown]
# **Padding, again**, now in the trained model: how much do its probabilities, and its transcripts,
# depend on the other sounds of the batch? With the encoder as it is, and with the mistake.


# %%
@torch.no_grad()
def alone_or_together(model):
    """How much the probabilities of each sound change, (N,); how many transcripts."""
    log_probs, lengths = model({"sound": test.sounds, "sound_lengths": test.lengths})
    written = ctc_decode(log_probs, lengths, blank=PAD)
    changes = []
    differ = 0
    for row in range(TEST):
        alone, length = model(batch_of(test, torch.tensor([row])))  # (1, N, V)
        together = log_probs[row, : length.item()]
        changes.append((together.exp() - alone[0].exp()).abs().max())
        differ += ctc_decode(alone, length, blank=PAD) != [written[row]]
    return torch.stack(changes), differ


for kind in (AudioEncoder, LeakyEncoder):
    model = CTCModel()
    model.encoder = kind(WIDTH)
    model.load_state_dict(MODEL.state_dict())
    changes, differ = alone_or_together(model.eval())
    print(f"{kind.__name__}: {differ} of {TEST} transcripts change; ", end="")
    print(f"probabilities by up to {changes.max():.4f}", end="")
    print(f", in {(changes > 0.01).sum()} sounds by more than 0.01")

# %% [markdown]
# **Longer, and people.** `python -m chapters.measured.sound` trains on whole sentences about scenes
# in 1,000 voices; on the Free Spoken Digit Dataset, 2,500 recordings of five people, with its
# published split and with each speaker held out once; and on spoken questions and captions.

# %%
results = measured.results()


def print_row(name, values, unit="%"):
    value, low, high = values
    print(f"{name:54} {value:5.1f} {unit}  ({low:.1f} to {high:.1f})")


for name, row in results.items():
    for voices in ("unheard voices", "voices of the training set"):
        if voices in row:
            print_row(f"{name}, {voices}: word error rate", row[voices]["WER"])
    if name.endswith("questions"):
        print_row(f"{name}: right", row["accuracy"])
        kinds = [f"{kind} {right:.1f}" for kind, right in row["kinds"].items()]
        print("   ", ", ".join(kinds))
    if "caption to picture" in row:
        recalls = row["caption to picture"]
        cells = ", ".join(f"R@{k} {recalls[f'R@{k}']:.1f} %" for k in (1, 5, 10))
        print(f"{name:54} {cells} among {row['gallery']:,} pictures")


# %%
accuracies = []
for name, row in sorted(results.items()):
    if name.startswith("FSDD, without "):
        accuracies.append(row["accuracy"][0])
        print_row(f"{name}: digits", row["accuracy"])
mean = sum(accuracies) / len(accuracies)
spread = torch.tensor(accuracies).std().item()
print(f"their mean {mean:.1f} %, standard deviation {spread:.1f}")
print_row("FSDD, published split: digits", results["FSDD"]["accuracy"])

# %% [markdown]
# **Your own recordings.** `transcribe` reads WAV files of any rate:
#
#     python -m mmscratch train --task transcription --data speech --to runs/transcription
#     python -m mmscratch transcribe SOUND.wav --run runs/transcription
#
# `--data DIR` trains on a folder with a `transcripts.csv` of `file_name` and `text`, and `--spoken`
# gives the tasks `answering` and `retrieval` spoken questions and captions.
#
# ## What to notice
#
# **Data.** With 250 utterances, CTC gets 27.5 and 19.2 % of the words wrong (two seeds), and attention
# 3.3 % with either. With 1,000 it is 4.7 and 8.7 % against 0.2 %. So attention needs less data here,
# although CTC knows from the start that words come in the order in which they were said. It also
# needs fewer steps: CTC has to find out first where in the sound a word may be.
#
# **Order.** Said in another order, 78 % of the words are wrong for attention, and 69 and 78 % for CTC.
# Both have learned that a size comes first and a noun last, and they write what people usually say.
# For attention this was to be expected, since the decoder reads its own last word. CTC has no such
# decoder; but every position of its encoder attends to all others and knows where it is. Trained on
# the same words in any order, both hear it: 1.8 and 8.3 % are wrong. **It is the data that teach order,
# not the model.** A word said twice never occurs in either training set, and costs attention 33 % even
# then, and CTC 16 %. In a large recogniser, knowing what people say is welcome, because it repairs
# what was hard to hear, until somebody says something unusual. Whisper continues fluently where
# nothing was said at all.
#
# **Speakers.** The model of four voices gets 14.3 % of the words wrong in its own voices, and 36.7 % in
# new ones. The model of 250 voices, trained on as many utterances, gets 24.5 and 27.5 %. A test set
# that shares its speakers with training would prefer the first. It measures how well voices are
# recognised again, and most published results on spoken digits are of this kind.
#
# **Where.** 94.8 % of CTC's peaks and 94.7 % of attention's lie in their word, where guessing would hit
# 33.4 %. CTC's are spikes: one or two positions of a word suffice for its loss, and all others are
# blank. They need not be in the middle of the word. Attention spreads over many positions. Neither
# curve is a segmentation.
#
# **What it listens to.** Backwards, 77 % of the words are wrong, so it is not only a bag of
# frequencies. A pitch higher by a quarter doubles the errors, to 9.5 and 18.2 %; formants higher by a
# quarter cost far more, 38.7 and 48.3 %: the vowel is in the formants. The fast tape moves both and
# shortens everything: 44.2 and 48.5 %.
#
# **The rate.** 8 kHz read as 16 gives 89 % wrong words, without any error message. Read rightly, it is
# 8.5 and 25.8 %: all that lies above 4,000 Hz is missing, and with it most of each "s", and no voice of
# training was on the telephone.
#
# **Statistics.** The tinny microphone alone raises the error rate from 0.2 to 28.5 %. Normalised by the
# statistics of the whole test set it is 2.7 %, which looks like robustness. But the recipe needs 200
# recordings of this microphone before it can transcribe the first, and the number depends on the
# company: the same recordings, in a test set of which half comes from the first microphone, get 9.7 %.
# By the statistics of each sound alone it is 10.8 %. `spectrogram`, which only subtracts the mean, gets
# 13.8 and 23.0 %. These are the honest ones: they need nothing but the sound.
#
# **Padding.** With the mistake, the probabilities in 17 of the 200 sounds change by more than 0.01, and
# by up to 0.025, when other sounds are in the batch; without it, none does. No transcript changes
# here. The leak enters at the last position, where it is silent, and only if the number of frames is
# odd; but attention carries it to all others. Nobody notices such a mistake in training. On harder
# sounds, it shows as a test score that changes with the batch size.
#
# **People.** On the Free Spoken Digit Dataset, 98.8 % of the digits are right in the published split,
# where all speakers are heard in training. With one of the five speakers held out, it is 76.9 % on
# average, from 67.2 to 88.4 %. Speakers differ from each other more than published methods do. And
# even these figures flatter: the 40 dB of `spectrogram` and its scale were chosen by looking at two
# of these speakers.
#
# **Whole sentences** by unheard voices have a word error rate of 0.9 %, and those by voices of the
# training set 0.7 %: with 1,000 voices, the next one is no surprise. All of them come out of one
# program, though, and a person is a surprise.
#
# **One memory.** A spoken caption finds its picture among the first ten of 1,000 in 99 % of the cases.
# Of the questions spoken by an unheard voice, 96.6 % are answered rightly, and of the written ones
# 95.7 %. The decoder does not mind where its memory comes from; but the ears must learn what matters
# to it. With no other hint than whether the answer was right, they learned slowly: an encoder that
# came from the transcriber had 75.2 % after 80,000 pairs of questions. So it first learns to
# **imitate**: of 120,000 questions, without any picture, to make the vector that the reader of written
# questions makes of the same words. How well it imitates decides. When a distance of 12 % of the
# vector's variance was left, 90,000 pairs of questions brought the answers to 92.0 %. In batches of 16
# instead of 32, at twice the learning rate, and with two and a half times as many questions, 1.6 % is
# left, and 40,000 pairs suffice for 96.6 %. This does not make hearing better than reading: the eyes
# have seen these 40,000 pairs in addition.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 14 --to work`
# creates the stubs, and `check 14 --from work` tests your code, with a hint where something is
# wrong.
#
# 1. `resample`: with `_sinc_filters`; another rate, without tones that were never there. 10 points, 60
#    minutes.
# 2. `frames`: overlapping, and continued at both ends. 4 points, 20 minutes.
# 3. `dft_matrix`: the Fourier transform as a matrix. 3 points, 15 minutes.
# 4. `mel_filters`: bands as the ear hears them. 6 points, 30 minutes.
# 5. `log_mel`: all of it, for any sample rate. 5 points, 25 minutes.
# 6. `augment_spectrogram`: with `_masked`; SpecAugment, but not in the padding. 6 points, 30 minutes.
# 7. `AudioEncoder.forward`: padding changes nothing. 6 points, 30 minutes.
# 8. `edit_counts`: with `_edit_distances`; the fewest edits. 8 points, 40 minutes.
# 9. `word_error_rate`: with `_error_rate`; of a corpus, not of a sentence. 3 points, 15 minutes.
# 10. `ctc_states`: with `skip_mask`; a blank around each label. 4 points, 20 minutes.
# 11. `forward_variables`: the sum over all alignments. 8 points, 40 minutes.
# 12. `backward_variables`: the same from the other end, for the gradient. 6 points, 30 minutes.
# 13. `ctc_decode`: merge, then drop. 3 points, 15 minutes.
#
# And three questions without an answer here:
#
# 1. **Phones instead of words.** With 40 phones as labels, CTC can write words that it has never
#    heard. What does it need to turn phones into words, and where does the knowledge about language
#    go then?
# 2. **A stream.** A recogniser on a telephone cannot wait for the end of the sentence. Which parts
#    of this model look into the future: the encoder, CTC, the attention decoder? How far must each?
# 3. A hospital wants to measure a disease from the voice. Its patients were recorded in the ward and
#    its healthy people at home. What will the model learn, and which of this chapter's controls would
#    show it?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Davis and Mermelstein 1980, "Comparison of parametric representations for monosyllabic word
# recognition" (mel) · Slaney 1998, "Auditory Toolbox" · Smith, "Digital audio resampling" · Klatt 1980,
# "Software for a cascade/parallel formant synthesizer" · Graves, Fernández, Gomez and Schmidhuber
# 2006, "Connectionist temporal classification" · Chan et al. 2016, "Listen, attend and spell" ·
# Radford et al. 2022, "Robust speech recognition via large-scale weak supervision" (Whisper) · Park et
# al. 2019, "SpecAugment" · Levenshtein 1966; Wagner and Fischer 1974, "The string-to-string
# correction problem" · Jackson et al. 2018, "Free Spoken Digit Dataset" · Koenecke et al. 2024,
# "Careless Whisper" (transcripts of things nobody said) · Zeyer, Schlüter and Ney 2021, "Why does CTC
# result in peaky behavior?"
