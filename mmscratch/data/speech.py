"""A program that speaks: a formant synthesiser, voices, and utterances whose text is known.

The vocal folds, or air in a narrow gap, make a sound, and the vocal tract filters it. The tract's
resonances, the formants, distinguish the vowels: a man's "ee" has its first two near 300 and 2,000
Hz, his "ah" near 700 and 1,200.

    voice = Voice(7)                               # every number is a voice, always the same one
    waveform = speak("a small red star", voice)    # (S,) float32, 16,000 samples a second
    data = SpokenCaptions("train", 1000)           # utterances: a spectrogram and its words

Source: Klatt 1980, "Software for a cascade/parallel formant synthesizer"; most formants are those of
its tables II and III.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..audio import SAMPLE_RATE, spectrogram
from ..text import tokenize
from .dataset import DataSet, LazyColumn, words_of
from .german import PRONUNCIATIONS as GERMAN
from .language import caption
from .scenes import Scene, first_of_split

HOP = 80  # samples between two frames: the vocal tract moves in steps of 5 ms
FFT_SIZE = 8 * HOP  # a window of two hops, and 30 ms for its resonances to die away
MS_PER_FRAME = 1000 * HOP / SAMPLE_RATE
BANDWIDTHS = (60, 90, 150)  # Hz, of the first three formants
HIGHER_FORMANTS = (3500, 4500, 5500, 6500, 7500)  # Hz; the same for all phones
HIGHER_BANDWIDTH = 300  # Hz
GLIDE = 11  # frames from one phone's formants to the next one's
ATTACK = 3  # frames until a source has its new loudness
ECHOES = (7, 13, 23, 37, 53, 71, 97)  # milliseconds until each of the room's echoes


class Target(NamedTuple):
    """The state that the vocal tract moves to, and stays in for a while.

    duration     milliseconds at normal speed
    f1, f2, f3   the formants of a man in Hz; nan: those of the next target
    voicing      loudness of the vocal folds
    aspiration   loudness of the breath, which the vocal tract filters as well
    frication    loudness of the noise in a narrow gap, with a spectrum of its own:
    peak, width  the frequency where it is loudest, and its standard deviation, in Hz
    damping      factor on the formants' bandwidths
    accent       1 where the pitch rises, in stressed vowels
    """

    duration: float
    f1: float = math.nan
    f2: float = math.nan
    f3: float = math.nan
    voicing: float = 0.0
    aspiration: float = 0.0
    frication: float = 0.0
    peak: float = 4000.0
    width: float = 1000.0
    damping: float = 1.0
    accent: float = 0.0


class Segment(NamedTuple):
    """A phone of a spoken word, and when it starts and ends, in seconds."""

    word: str
    phone: str
    start: float
    end: float


def _vowel(duration: float, *formants: float) -> list[Target]:
    """Three formants; or six for a diphthong, the first three and the last three."""
    if len(formants) == 3:
        return [Target(duration, *formants, voicing=1.0)]
    first = formants[:3]
    last = formants[3:]
    middle = [(a + b) / 2 for a, b in zip(first, last)]
    steps = ((0.4, first), (0.2, middle), (0.4, last))
    return [Target(share * duration, *step, voicing=1.0) for share, step in steps]


def _sonorant(
    duration: float, *formants: float, voicing: float = 0.5, damping: float = 1.0
) -> list[Target]:
    return [Target(duration, *formants, voicing=voicing, damping=damping)]


def _fricative(
    duration: float, *formants: float, noise: tuple[float, float, float], voicing: float = 0.0
) -> list[Target]:
    """noise  its loudness, peak and width"""
    return [Target(duration, *formants, voicing, 0.0, *noise, damping=2.0)]


def _stop(
    *formants: float, noise: tuple[float, float, float], voiced: bool = False
) -> list[Target]:
    """The mouth closes, then opens with a burst; breath follows if the stop is voiceless."""
    if voiced:
        closure = Target(50, *formants, voicing=0.15)
        return [closure, Target(10, *formants, 0.3, 0.0, *noise)]
    closure = Target(60, *formants)
    burst = Target(10, *formants, 0.0, 0.0, *noise)
    return [closure, burst, Target(30, *formants, aspiration=1.0, damping=2.0)]


PHONES = {  # the phones of American English, as the CMU dictionary calls them
    "IY": _vowel(130, 310, 2020, 2960, 290, 2070, 2960),
    "IH": _vowel(100, 400, 1800, 2570, 470, 1600, 2600),
    "EY": _vowel(150, 480, 1720, 2520, 330, 2020, 2600),
    "EH": _vowel(120, 530, 1680, 2500, 620, 1530, 2530),
    "AE": _vowel(150, 620, 1660, 2430, 650, 1490, 2470),
    "AA": _vowel(150, 700, 1220, 2600),
    "AO": _vowel(150, 600, 990, 2570, 630, 1040, 2600),
    "AH": _vowel(110, 620, 1220, 2550),
    "AX": _vowel(70, 500, 1400, 2500),  # an unstressed AH, the vowel of "the"
    "OW": _vowel(150, 540, 1100, 2300, 450, 900, 2300),
    "UH": _vowel(100, 450, 1100, 2350, 500, 1180, 2390),
    "UW": _vowel(140, 350, 1250, 2200, 320, 900, 2200),
    "ER": _vowel(130, 470, 1270, 1540, 420, 1310, 1540),
    "AY": _vowel(190, 660, 1200, 2550, 400, 1880, 2500),
    "AW": _vowel(190, 640, 1230, 2550, 420, 940, 2350),
    "OY": _vowel(200, 550, 960, 2400, 360, 1820, 2450),
    "W": _sonorant(70, 290, 610, 2150),
    "Y": _sonorant(70, 260, 2070, 3020),
    "R": _sonorant(70, 310, 1060, 1380),
    "L": _sonorant(70, 310, 1050, 2880),
    "M": _sonorant(70, 280, 1000, 2130, voicing=0.4, damping=2.0),
    "N": _sonorant(65, 280, 1500, 2470, voicing=0.4, damping=2.0),
    "NG": _sonorant(80, 280, 2000, 2700, voicing=0.4, damping=2.0),
    "HH": [Target(60, aspiration=1.0, damping=2.0)],
    "F": _fricative(100, 340, 1100, 2080, noise=(0.12, 5000, 3000)),
    "V": _fricative(60, 220, 1100, 2080, noise=(0.08, 5000, 3000), voicing=0.3),
    "TH": _fricative(90, 320, 1290, 2540, noise=(0.1, 6000, 2500)),
    "DH": _fricative(50, 270, 1290, 2540, noise=(0.06, 6000, 2500), voicing=0.3),
    "S": _fricative(110, 320, 1390, 2530, noise=(0.5, 5800, 1200)),
    "Z": _fricative(80, 240, 1390, 2530, noise=(0.3, 5800, 1200), voicing=0.25),
    "SH": _fricative(110, 300, 1840, 2750, noise=(0.5, 3200, 900)),
    "ZH": _fricative(80, 260, 1840, 2750, noise=(0.3, 3200, 900), voicing=0.25),
    "P": _stop(400, 1100, 2150, noise=(0.5, 800, 1000)),
    "B": _stop(200, 1100, 2150, noise=(0.3, 800, 1000), voiced=True),
    "T": _stop(400, 1600, 2600, noise=(0.7, 4500, 1500)),
    "D": _stop(200, 1600, 2600, noise=(0.4, 4000, 1500), voiced=True),
    "K": _stop(300, 1990, 2850, noise=(0.7, 2000, 500)),
    "G": _stop(200, 1990, 2850, noise=(0.4, 2000, 500), voiced=True),
    "CH": [Target(60, 350, 1800, 2820), *_fricative(70, 350, 1800, 2820, noise=(0.7, 3400, 1000))],
    "JH": [Target(50, 260, 1800, 2820, voicing=0.15),
           *_fricative(50, 260, 1800, 2820, noise=(0.5, 3400, 1000), voicing=0.2)],
    # and what German has besides:
    "EE": _vowel(140, 380, 2150, 2750),  # Schnee
    "OO": _vowel(140, 400, 780, 2400),  # Mond
    "UU": _vowel(140, 320, 730, 2300),  # Blume
    "OE": _vowel(140, 390, 1480, 2250),  # König
    "UE": _vowel(140, 300, 1680, 2150),  # grün
    "RR": _sonorant(60, 450, 1250, 2400, voicing=0.4, damping=1.5),  # rot
    "HY": _fricative(90, 300, 2000, 2900, noise=(0.3, 3700, 900)),  # gleich
    "KH": _fricative(90, 450, 1200, 2400, noise=(0.35, 1500, 500)),  # nach
}  # fmt: skip
PRONUNCIATIONS = {  # as in the CMU dictionary: 1 after a vowel is the main stress, 0 is none
    "a": "AH0", "above": "AH0 B AH1 V", "airplane": "EH1 R P L EY2 N",
    "airplanes": "EH1 R P L EY2 N Z", "an": "AE1 N", "anchor": "AE1 NG K ER0",
    "anchors": "AE1 NG K ER0 Z", "and": "AH0 N D", "are": "AA1 R", "at": "AE1 T",
    "below": "B IH0 L OW1", "between": "B IH0 T W IY1 N", "big": "B IH1 G", "black": "B L AE1 K",
    "blue": "B L UW1", "bolt": "B OW1 L T", "bolts": "B OW1 L T S", "bottom": "B AA1 T AH0 M",
    "by": "B AY1", "can": "K AE1 N", "cat": "K AE1 T", "cats": "K AE1 T S", "cloud": "K L AW1 D",
    "clouds": "K L AW1 D Z", "clover": "K L OW1 V ER0", "clovers": "K L OW1 V ER0 Z",
    "colour": "K AH1 L ER0", "corner": "K AO1 R N ER0", "cow": "K AW1", "cows": "K AW1 Z",
    "cup": "K AH1 P", "cups": "K AH1 P S", "eight": "EY1 T", "envelope": "EH1 N V AH0 L OW2 P",
    "envelopes": "EH1 N V AH0 L OW2 P S", "first": "F ER1 S T", "five": "F AY1 V",
    "flag": "F L AE1 G", "flags": "F L AE1 G Z", "flower": "F L AW1 ER0",
    "flowers": "F L AW1 ER0 Z", "four": "F AO1 R", "from": "F R AH1 M", "gear": "G IH1 R",
    "gears": "G IH1 R Z", "green": "G R IY1 N", "heart": "HH AA1 R T", "hearts": "HH AA1 R T S",
    "horse": "HH AO1 R S", "horses": "HH AO1 R S AH0 Z", "how": "HH AW1", "in": "IH0 N",
    "is": "IH1 Z", "it": "IH1 T", "king": "K IH1 NG", "kings": "K IH1 NG Z", "left": "L EH1 F T",
    "lightning": "L AY1 T N IH0 NG", "many": "M EH1 N IY0", "mice": "M AY1 S",
    "middle": "M IH1 D AH0 L", "monkey": "M AH1 NG K IY0", "monkeys": "M AH1 NG K IY0 Z",
    "moon": "M UW1 N", "moons": "M UW1 N Z", "more": "M AO1 R", "mouse": "M AW1 S",
    "nine": "N AY1 N", "no": "N OW1", "note": "N OW1 T", "notes": "N OW1 T S", "of": "AH1 V",
    "on": "AA1 N", "one": "W AH1 N", "orange": "AO1 R AH0 N JH", "other": "AH1 DH ER0",
    "pair": "P EH1 R", "pairs": "P EH1 R Z", "pencil": "P EH1 N S AH0 L",
    "pencils": "P EH1 N S AH0 L Z", "picture": "P IH1 K CH ER0", "purple": "P ER1 P AH0 L",
    "red": "R EH1 D", "right": "R AY1 T", "same": "S EY1 M", "scale": "S K EY1 L",
    "scales": "S K EY1 L Z", "scissors": "S IH1 Z ER0 Z", "see": "S IY1", "seven": "S EH1 V AH0 N",
    "shows": "SH OW1 Z", "side": "S AY1 D", "six": "S IH1 K S", "skull": "S K AH1 L",
    "skulls": "S K AH1 L Z", "small": "S M AO1 L", "smiley": "S M AY1 L IY0",
    "smileys": "S M AY1 L IY0 Z", "snowflake": "S N OW1 F L EY2 K",
    "snowflakes": "S N OW1 F L EY2 K S", "snowman": "S N OW1 M AE2 N", "snowmen": "S N OW1 M EH2 N",
    "star": "S T AA1 R", "stars": "S T AA1 R Z", "sun": "S AH1 N", "suns": "S AH1 N Z",
    "telephone": "T EH1 L AH0 F OW2 N", "telephones": "T EH1 L AH0 F OW2 N Z", "than": "DH AE1 N",
    "the": "DH AH0", "there": "DH EH1 R", "thing": "TH IH1 NG", "things": "TH IH1 NG Z",
    "three": "TH R IY1", "to": "T AH0", "top": "T AA1 P", "tower": "T AW1 ER0",
    "towers": "T AW1 ER0 Z", "two": "T UW1", "umbrella": "AH0 M B R EH1 L AH0",
    "umbrellas": "AH0 M B R EH1 L AH0 Z", "what": "W AH1 T", "wheel": "W IY1 L",
    "wheels": "W IY1 L Z", "where": "W EH1 R", "white": "W AY1 T", "yellow": "Y EH1 L OW0",
    "yes": "Y EH1 S", "you": "Y UW1", "zero": "Z IH1 R OW0",
}  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PRONUNCIATIONS |= {str(i): PRONUNCIATIONS[word] for i, word in enumerate(DIGITS)}
LEXICONS = {"en": PRONUNCIATIONS, "de": GERMAN}  # the languages that it speaks
PAUSES = {",": 120, ";": 180, ":": 180, ".": 250, "!": 250, "?": 250}  # milliseconds
SILENCE = 120  # milliseconds before and after an utterance


@dataclass(frozen=True)
class Voice:
    """The voice with this number. Whatever is not given is drawn from the number.

    pitch        the mean pitch in Hz, 80 to 250
    tract        factor on all formants, 0.85 to 1.18: the shorter the vocal tract, the larger
    speed        factor on the speed of a calm speaker, 0.8 to 1.25
    pitch_range  how far the pitch moves, in octaves; 0 is monotonous
    open_phase   the fraction of a period in which the vocal folds are open
    breath       loudness of the breath in vowels
    echo         loudness of the room's first echo
    noise        loudness of the room's noise
    loudness     the largest absolute value of the speech alone

    Raises ValueError if the number is negative.
    """

    seed: int
    pitch: float | None = None
    tract: float | None = None
    speed: float | None = None
    pitch_range: float | None = None
    open_phase: float | None = None
    breath: float | None = None
    echo: float | None = None
    noise: float | None = None
    loudness: float | None = None

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"a voice's number must be 0 or more, not {self.seed}")
        draw = random.Random(f"voice {self.seed}")
        height = draw.random()  # high voices come from short vocal tracts, more or less
        drawn = {
            "pitch": 80 * (250 / 80) ** height,
            "tract": 0.88 + 0.27 * height + draw.uniform(-0.03, 0.03),
            "speed": draw.uniform(0.8, 1.25),
            "pitch_range": draw.uniform(0.1, 0.5),
            "open_phase": draw.uniform(0.45, 0.75),
            "breath": draw.uniform(0.02, 0.2),
            "echo": draw.uniform(0.0, 0.3),
            "noise": 10 ** draw.uniform(-4, -2.3),
            "loudness": draw.uniform(0.2, 0.9),
        }
        for name, value in drawn.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @classmethod
    def of_split(cls, split: str, number: int) -> "Voice":
        """Voice `number` of a split; no voice belongs to two splits."""
        return cls(first_of_split(split) + number)


def speak(text: str, voice: Voice, seed: int = 0, language: str = "en") -> np.ndarray:
    """Say a text, with silence before and after it: (S,) float32 in [-1, 1] at SAMPLE_RATE.

    Another seed gives slightly different durations and pitch. Raises ValueError if a word has no
    pronunciation in the language, "en" or "de".
    """
    return synthesize(pronounce(text, language), voice, seed)


def pronounce(text: str, language: str = "en") -> list[Target]:
    """The targets of a text's words, with its pauses."""
    if language not in LEXICONS:
        known = " and ".join(LEXICONS)
        raise ValueError(f"no voice speaks {language!r}: the languages are {known}")
    lexicon = LEXICONS[language]
    targets = [Target(SILENCE)]
    for token in tokenize(text):
        if token in PAUSES:
            targets.append(Target(PAUSES[token]))
        elif token in lexicon:
            targets += _pronounce_word(lexicon[token].split())
        else:
            known = f"the {len(lexicon)} words of scenes, questions and digits"
            file = {"en": "speech.py", "de": "german.py"}[language]
            raise ValueError(
                f"{token!r} has no pronunciation, only {known} have one:"
                f" add it to PRONUNCIATIONS in mmscratch/data/{file}"
            )
    return [*targets, Target(SILENCE)]


def _pronounce_word(symbols: Sequence[str]) -> list[Target]:
    """The targets of phones such as "T", "AH0" (unstressed), "AH1" (stressed)."""
    targets = []
    previous = ""
    for symbol in symbols:
        phone = symbol.rstrip("012")
        stress = symbol[len(phone) :]
        new = PHONES["AX" if symbol == "AH0" else phone]
        if stress == "0":
            new = [target._replace(duration=0.7 * target.duration) for target in new]
        if stress == "1":
            new = [target._replace(accent=1.0) for target in new]
        if previous == "S" and phone in ("P", "T", "K"):
            new = new[:2]  # no breath: "star", not "s-tar"
        targets += new
        previous = phone
    return targets


def segments(text: str, voice: Voice, seed: int = 0) -> list[Segment]:
    """When `speak(text, voice, seed)` says each phone of each word."""
    targets = pronounce(text)
    durations = np.array([target.duration for target in targets], dtype=np.float32)
    rng = np.random.default_rng((voice.seed, seed))
    frames = _frames_of(durations, voice, rng)
    ends = np.cumsum(frames) * MS_PER_FRAME / 1000
    found = []
    position = 1  # after the silence
    for token in tokenize(text):
        if token in PAUSES:
            position += 1
            continue
        symbols = PRONUNCIATIONS[token].split()
        first = position  # of the word
        for i, symbol in enumerate(symbols):
            start = float(ends[position - 1])
            position = first + len(_pronounce_word(symbols[: i + 1]))
            end = float(ends[position - 1])
            found.append(Segment(token, symbol.rstrip("012"), start, end))
    return found


def synthesize(targets: Sequence[Target], voice: Voice, seed: int = 0) -> np.ndarray:
    """The sound (S,) float32 of a vocal tract that moves through these targets."""
    rng = np.random.default_rng((voice.seed, seed))
    tracks = _tracks(targets, voice, rng)
    pitch = _pitch(tracks["accent"], voice, rng)
    sources = _sources(tracks, pitch, voice, rng)
    speech = _filter(*sources, tracks, voice)
    return _record(speech, voice, rng)


def _tracks(
    targets: Sequence[Target], voice: Voice, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Each field of the targets as a function of time: (K,) float32, a value per frame."""
    table = np.array(targets, dtype=np.float32)  # (P, 11)
    following = np.array([500, 1500, 2500], dtype=np.float32)  # those of a neutral tract
    for formants in table[::-1, 1:4]:
        unknown = np.isnan(formants)
        formants[unknown] = following[unknown]
        following = formants
    frames = _frames_of(table[:, 0], voice, rng)
    steps = np.repeat(table, frames, axis=0)  # (K, 11)
    tracks = dict(zip(Target._fields, steps.T))
    for name in ("f1", "f2", "f3", "damping"):
        tracks[name] = _smooth(tracks[name], GLIDE)
    loudness = tracks["frication"] + 1e-6
    for name in ("peak", "width"):  # those of the noise while it fades
        tracks[name] = _smooth(loudness * tracks[name], ATTACK) / _smooth(loudness, ATTACK)
    for name in ("voicing", "aspiration", "frication"):
        tracks[name] = _smooth(tracks[name], ATTACK)
    return tracks


def _frames_of(durations: np.ndarray, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """The number of frames of each target, from milliseconds at normal speed: (P,)."""
    durations = durations * np.exp(rng.normal(0, 0.08, len(durations))) / voice.speed
    return np.maximum(np.round(durations / MS_PER_FRAME), 1).astype(int)


def _smooth(track: np.ndarray, frames: int) -> np.ndarray:
    """The moving average over this odd number of frames, weighted by a Hann window: (K,)."""
    weights = np.hanning(frames + 2)[1:-1]
    weights = (weights / weights.sum()).astype(np.float32)
    padded = np.pad(track, frames // 2, mode="edge")
    return np.convolve(padded, weights, mode="valid")


def _pitch(accent: np.ndarray, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """The pitch in Hz of each frame (K,): it falls, rises at accents, and is never quite steady."""
    falling = np.linspace(0.5, -0.5, len(accent))
    rising = _smooth(accent, 2 * GLIDE + 1) - accent.mean()
    wandering = _smooth(rng.normal(0, 1, len(accent)), 4 * GLIDE + 1)
    octaves = voice.pitch_range * (falling + 0.5 * rising + 0.5 * wandering)
    jitter = rng.normal(0, 0.005, len(accent))
    return voice.pitch * 2**octaves * (1 + jitter)


def _sources(
    tracks: dict[str, np.ndarray], pitch: np.ndarray, voice: Voice, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What the vocal tract filters, and the noise that it does not: (S,) float32 each.

    The air that passes the vocal folds in a period is x² (1 - x) while they are open (Klatt & Klatt
    1990). What one hears of it is its change: lips radiate a derivative.
    """
    voicing = _per_sample(tracks["voicing"])
    aspiration = _per_sample(tracks["aspiration"])
    frication = _per_sample(tracks["frication"])
    increment = _per_sample(pitch) / SAMPLE_RATE  # periods per sample
    phase = np.cumsum(increment, dtype=np.float64) % 1
    x = np.minimum(phase.astype(np.float32) / voice.open_phase, 1)
    flow = x**2 * (1 - x)
    change = np.diff(flow, prepend=flow[:1]) / increment
    noise = rng.standard_normal(len(flow), dtype=np.float32)
    breath = 0.1 * (aspiration + voice.breath * voicing)
    return voicing * change + breath * noise, frication * noise


def _per_sample(track: np.ndarray) -> np.ndarray:
    """Straight lines from one frame's value to the next one's: (K,) -> (S,)."""
    frames = np.arange(len(track))
    samples = np.arange(len(track) * HOP) / HOP
    return np.interp(samples, frames, track).astype(np.float32)


def _filter(
    source: np.ndarray, frication: np.ndarray, tracks: dict[str, np.ndarray], voice: Voice
) -> np.ndarray:
    """Multiply the spectrum of every frame of the sources by its filter, and add the frames: (S,)."""
    spectrum = np.fft.rfft(_frames(source), FFT_SIZE) * _vocal_tract(tracks, voice)  # (K, N/2 + 1)
    noise = _frames(frication)
    noisy = noise.any(axis=1)  # (K,), few frames
    hertz = np.fft.rfftfreq(FFT_SIZE, 1 / SAMPLE_RATE).astype(np.float32)
    distance = hertz - voice.tract * tracks["peak"][noisy, None]
    gap = np.exp(-0.5 * (distance / tracks["width"][noisy, None]) ** 2)
    spectrum[noisy] += np.fft.rfft(noise[noisy], FFT_SIZE) * gap
    frames = np.fft.irfft(spectrum, FFT_SIZE)  # (K, N)
    return _overlap_add(frames)


def _frames(signal: np.ndarray) -> np.ndarray:
    """A window of two hops starts at each hop: (S,) -> (S / HOP, 2 HOP). Windows add up to 1."""
    window = np.hanning(2 * HOP + 1)[:-1].astype(np.float32)
    padded = np.concatenate([signal, np.zeros(HOP, np.float32)]).reshape(-1, HOP)
    return np.concatenate([padded[:-1], padded[1:]], axis=1) * window


def _overlap_add(frames: np.ndarray) -> np.ndarray:
    """Add frames that begin one hop after another: (K, N) -> (K HOP,)."""
    K = len(frames)
    parts = frames.reshape(K, -1, HOP)
    total = np.zeros((K + parts.shape[1], HOP), np.float32)
    for i in range(parts.shape[1]):
        total[i : i + K] += parts[:, i]
    return total[:K].ravel()


def _vocal_tract(tracks: dict[str, np.ndarray], voice: Voice) -> np.ndarray:
    """The transfer function of each frame, (K, N/2 + 1) complex: resonators one after another."""
    delay = np.exp(-2j * np.pi * np.arange(FFT_SIZE // 2 + 1) / FFT_SIZE)
    transfer = np.ones_like(delay)  # of the formants that do not move
    for formant in HIGHER_FORMANTS:
        if voice.tract * formant < SAMPLE_RATE / 2:
            a, b, c = _resonator(voice.tract * formant, HIGHER_BANDWIDTH)
            transfer *= a / (1 - b * delay - c * delay**2)
    gain = 1.0
    taps = np.ones((1, 1))  # of the denominators' product
    for name, bandwidth in zip(("f1", "f2", "f3"), BANDWIDTHS):
        a, b, c = _resonator(voice.tract * tracks[name], bandwidth * tracks["damping"])
        gain = gain * a[:, None]
        taps = np.pad(taps, ((0, 0), (2, 2)))
        taps = taps[:, 2:] - b[:, None] * taps[:, 1:-1] - c[:, None] * taps[:, :-2]  # (K, 3, 5, 7)
    denominator = np.fft.rfft(taps, FFT_SIZE)  # (K, N/2 + 1)
    return (transfer * gain / denominator).astype(np.complex64)


def _resonator(formant: np.ndarray, bandwidth: np.ndarray) -> tuple[np.ndarray, ...]:
    """The coefficients a, b, c of Klatt's digital resonator, with gain 1 at 0 Hz.

    y[n] = a x[n] + b y[n - 1] + c y[n - 2], so that Y / X = a / (1 - b d - c d²), where d is the
    spectrum of a delay of one sample.
    """
    c = -np.exp(-2 * np.pi * bandwidth / SAMPLE_RATE)
    b = 2 * np.exp(-np.pi * bandwidth / SAMPLE_RATE) * np.cos(2 * np.pi * formant / SAMPLE_RATE)
    return 1 - b - c, b, c


def _record(speech: np.ndarray, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """The speech as a microphone in a room hears it: loudness, echoes, noise. (S,) float32"""
    recorded = speech.copy()
    gain = voice.echo
    for milliseconds in ECHOES:
        delay = milliseconds * SAMPLE_RATE // 1000
        recorded[delay:] += gain * speech[:-delay]
        gain *= 0.7
    recorded *= voice.loudness / max(np.abs(recorded).max(), 1e-6)
    recorded += voice.noise * rng.standard_normal(len(speech), dtype=np.float32)
    return np.clip(recorded, -1, 1)


# -------------------------------------------------------------------------------------------------
# Data.


def spoken_column(
    texts: Sequence[str], split: str, num_voices: int = 1000, language: str = "en"
) -> LazyColumn:
    """The texts as spectrograms (F, 80), each spoken on access by one of a split's first voices."""
    first = first_of_split(split)
    keys = []
    for i, text in enumerate(texts):
        keys.append((text, first + _choose_voice(split, i, num_voices), i, language))
    return LazyColumn(_hear, keys, lengths=[len(text) for text in texts])


def _choose_voice(split: str, index: int, num_voices: int) -> int:
    """The voice of utterance `index`: a number from 0 to num_voices - 1, always the same one."""
    return random.Random(f"{split} {index}").randrange(num_voices)


def spoken_waveform(column: LazyColumn, index: int) -> Tensor:
    """The waveform (S,) whose spectrogram a `spoken_column` has at this index."""
    return _say(column.keys[index])


def _say(key: tuple[str, int, int, str]) -> Tensor:
    """The waveform (S,) of (text, voice, seed, language)."""
    text, voice, seed, language = key
    return torch.from_numpy(speak(text, Voice(voice), seed, language))


def _hear(key: tuple[str, int, int, str]) -> Tensor:
    """The spectrogram (F, 80) of (text, voice, seed, language)."""
    return spectrogram(_say(key), SAMPLE_RATE)


class SpokenCaptions(DataSet):
    """The first `count` scenes of a split, each with one of its captions, spoken.

    The references are the words without punctuation, which nobody hears.

    num_voices  the number of voices
    voices_of   the split that the voices belong to, if not the same one: only to show how good a
                model looks if it has heard the test set's speakers
    language    "en" or "de"
    """

    def __init__(
        self,
        split: str,
        count: int,
        num_voices: int = 1000,
        voices_of: str | None = None,
        language: str = "en",
    ):
        super().__init__()
        voices_of = voices_of or split
        first = first_of_split(split)
        sentences = [caption(Scene(first + i), i % 5, language) for i in range(count)]
        self.columns["sound"] = spoken_column(sentences, voices_of, num_voices, language)
        self.texts = [[text] for text in sentences]
        for i, text in enumerate(sentences):
            words = [word for word in words_of(text) if word not in PAUSES]
            self.references.append([words])
            voice = _choose_voice(voices_of, i, num_voices)
            self.names.append(f"{split} {i}, voice {voice}")
