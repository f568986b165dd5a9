"""Recorded sounds with transcripts, on disk in common layouts."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..audio import read_wav, spectrogram
from .dataset import DataSet, LazyColumn
from .records import (
    FILE_NAMES,
    Record,
    RecordSchema,
    assign_splits,
    check_split,
    read_folder,
    records_of_split,
    texts_by_file,
)
from .speech import DIGITS

MAX_SECONDS = 30  # of a sound: longer ones are skipped
SOUND_SUFFIXES = {".wav", ".wave", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aif", ".aiff"}

SCHEMA = RecordSchema(
    noun="transcript",
    texts="text",
    expected="a file name and a text",
    columns={
        "file_name": (*FILE_NAMES, "sound", "audio"),
        "text": ("text", "transcript", "sentence"),
    },
    item="sound",
    suffixes=SOUND_SUFFIXES,
)


def read_sound(path: Path) -> Tensor:
    """Read a WAV file as a spectrogram, (F, 80) float32.

    Raises FileNotFoundError or ValueError, in one line that names the file, if it is missing,
    cannot be read, or is longer than `MAX_SECONDS`.
    """
    waveform, sample_rate = read_wav(path)
    seconds = len(waveform) / sample_rate
    if seconds > MAX_SECONDS:
        advice = f"cut it into parts of at most {MAX_SECONDS}"
        raise ValueError(f"{path}: {seconds:.1f} seconds are too long: {advice}")
    try:
        return spectrogram(waveform, sample_rate)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class Sounds(DataSet):
    """Sounds with transcripts, from the records that a layout's reader yields.

    Each file is read once, here, and all spectrograms stay in memory: 115 MB for an hour of sound.
    Whatever cannot be used (a missing, broken or too long sound, an empty transcript) is left out
    and reported in `problems`.
    """

    def __init__(
        self, root: Path, files: Iterable[str], records: Iterable[Record], problems: list[str]
    ):
        super().__init__()
        self.problems = problems
        sounds = []
        for name, transcripts in texts_by_file(files, records, problems, SCHEMA).items():
            path = root / name
            try:
                sounds.append(read_sound(path))
            except (ValueError, OSError) as error:
                problems.append(str(error))
                continue
            self.sources.append(path)
            self.names.append(str(path))
            self.texts.append([text for text, _ in transcripts])
            self.references.append([words for _, words in transcripts])
        lengths = [len(sound) for sound in sounds]
        self.columns["sound"] = LazyColumn(sounds.__getitem__, range(len(sounds)), lengths)


class FolderSounds(Sounds):
    """A folder of WAV files with transcripts.csv, transcripts.tsv, .json or .jsonl.

    Every line or entry has a file name and a text. Columns or keys are called "file_name" and
    "text" ("sound", "file" or "audio", "transcript" or "sentence" also work), and an optional
    third, "split", is train, validation or test. Without any split, every tenth sound by name is
    for validation and every tenth for test, so the same people speak in all three: only a split
    column can keep speakers apart. A table without column names has the file name first. JSON may
    also map file names to texts.
    """

    def __init__(self, root: str | Path, split: str = "train"):
        root = Path(root)
        check_split(split)
        problems: list[str] = []
        files, records = read_folder(root, SCHEMA, problems)
        records = records_of_split(split, records, problems)
        super().__init__(root, files, records, problems)


# -------------------------------------------------------------------------------------------------
# Free Spoken Digit Dataset.

NUM_TEST = 5  # the first recordings of each digit and speaker, in the published split
TENTH_FOR_VALIDATION = ("validation", *["train"] * 9)


class Recording(NamedTuple):
    """The parts of a file name, {digit}_{speaker}_{index}.wav."""

    digit: int
    speaker: str
    index: int
    name: str


class FSDD(Sounds):
    """The Free Spoken Digit Dataset: recordings/{digit}_{speaker}_{index}.wav, in English.

    held_out  the speakers of the test split, separated by commas. No other split has any of their
              recordings. By default that is one speaker, the last by name: yweweler. With "" it is
              the published split: recordings 0 to 4 of each digit and speaker are for test, and
              the same speakers are heard in training

    Every tenth of the other recordings is for validation. The transcript is the digit's name.
    Source: Jackson et al. 2018.
    """

    def __init__(self, root: str | Path, split: str = "train", held_out: str | None = None):
        check_split(split)
        root = Path(root)
        problems: list[str] = []
        recordings = list_recordings(root, problems)
        splits = _split_recordings(recordings, held_out)
        records = []
        for recording in recordings:
            if splits[recording] == split:
                where = str(root / "recordings" / recording.name)
                records.append(Record(where, recording.name, [DIGITS[recording.digit]]))
        names = [recording.name for recording in recordings]
        super().__init__(root / "recordings", names, records, problems)


def list_recordings(root: Path, problems: list[str]) -> list[Recording]:
    """The recordings of the Free Spoken Digit Dataset, by digit, speaker and index."""
    folder = root / "recordings"
    if not folder.is_dir():
        question = f"is {root} the Free Spoken Digit Dataset?"
        raise FileNotFoundError(f"{folder}: no such folder; {question}")
    recordings = []
    for path in sorted(folder.glob("*.wav")):
        match = re.fullmatch(r"([0-9])_([^\W_]+)_([0-9]+)\.wav", path.name)
        if match:
            digit, speaker, index = match.groups()
            recordings.append(Recording(int(digit), speaker, int(index), path.name))
        else:
            problems.append(f"{path}: not named as {{digit}}_{{speaker}}_{{index}}.wav")
    if not recordings:
        raise ValueError(f"{folder}: no recordings named {{digit}}_{{speaker}}_{{index}}.wav")
    return sorted(recordings)


def _split_recordings(recordings: list[Recording], held_out: str | None) -> dict[Recording, str]:
    """{recording: its split}, as the docstring of `FSDD` says."""
    speakers = sorted({recording.speaker for recording in recordings})
    if held_out is None:
        held_out = speakers[-1]
    names = held_out.split(",") if held_out else []
    for name in names:
        if name not in speakers:
            raise ValueError(f"no speaker {name!r} to hold out: choose among {', '.join(speakers)}")
    if len(set(names)) == len(speakers):
        raise ValueError(f"no speaker is left for training: {held_out} are all")
    splits = {}
    others = []
    for recording in recordings:
        is_test = recording.speaker in names if names else recording.index < NUM_TEST
        if is_test:
            splits[recording] = "test"
        else:
            others.append(recording)
    return splits | assign_splits(others, TENTH_FOR_VALIDATION)


LAYOUTS = {"folder": FolderSounds, "fsdd": FSDD}
