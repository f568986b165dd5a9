"""Sentences that are spoken: what several tasks share about them."""

from pathlib import Path

from ..audio import SAMPLE_RATE, write_wav
from ..data.dataset import DataSet
from ..data.sounds import read_sound
from ..data.speech import spoken_column, spoken_waveform
from ..text import tokenize
from .scores import print_unknown
from .task import Metadata

SPOKEN = {"action": "store_true", "help": "hear the sentences, not read them (scenes only)"}
LISTENER = {"name": "audio", "num_layers": 2, "width": 128}  # the encoder of spoken sentences


def is_spoken(metadata: Metadata) -> bool:
    """Whether sentences are heard. Raises ValueError if there is nobody to speak them."""
    spoken = bool(metadata.get("spoken"))
    if spoken and metadata["layout"] != "scenes":
        raise ValueError("only scenes have spoken sentences: use --data scenes without --layout")
    return spoken


def read_sentence(sentence: str, modality: str, model, vocabularies: dict) -> dict:
    """A user's sentence as an input: {modality: words}, or {} if it is empty.

    If the model hears, the sentence is the name of a WAV file, and the input {"sound": (F, 80)}.
    Raises FileNotFoundError or ValueError, in one line, if it cannot be read.
    """
    sentence = sentence.strip()
    if not sentence:
        return {}
    if "sound" in model.encoders:
        try:
            return {"sound": read_sound(Path(sentence))}
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; this run hears sentences: name a WAV file") from None
    words = tokenize(sentence)
    print_unknown(words, vocabularies[modality])
    return {modality: words}


def speak_sentences(
    data: DataSet, sentences: list[str], split: str, language: str = "en"
) -> DataSet:
    """The same examples, each with its sentence spoken by a voice of the split, not written."""
    data = data.without("source")
    data.columns["sound"] = spoken_column(sentences, split, language=language)
    return data


def first_sentence(data: DataSet, sentence: str, run: Path) -> str:
    """The first example's sentence; if it is spoken, the name of a WAV file in the run's folder."""
    if "sound" not in data.columns:
        return sentence
    (path,) = write_sounds(data, run / "sounds", 1)
    return path


def write_sounds(data: DataSet, folder: Path, count: int) -> list[str]:
    """Write the first spoken sentences of a data set as WAV files; returns their names."""
    folder.mkdir(exist_ok=True)
    paths = []
    for i in range(min(count, len(data))):
        path = folder / f"sound{i}.wav"
        write_wav(path, spoken_waveform(data.columns["sound"], i), SAMPLE_RATE)
        paths.append(str(path))
    return paths
