"""Sounds with transcripts: folders and FSDD; broken lines and sounds are skipped and reported."""

import os
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import tone

from mmscratch.audio import read_wav, spectrogram
from mmscratch.batches import collate
from mmscratch.data.dataset import Subset
from mmscratch.data.sounds import DIGITS, FSDD, FolderSounds, list_recordings, read_sound

REPOSITORY = Path(__file__).parents[2]
OFFICIAL = REPOSITORY.parent / "shared/fsdd"
HEAD = "file_name,text,split\n"


@pytest.fixture
def folder(tmp_path):
    """Four sounds, to which a test adds transcripts."""
    for i, name in enumerate(("a.wav", "b.wav", "c.wav", "sub/d.wav")):
        tone(tmp_path / "sounds" / name, 300 + 100 * i, 0.11 + 0.02 * i)
    tone(tmp_path / "secret.wav")
    return tmp_path / "sounds"


def read(folder):
    """{file name: transcripts} of the three splits together, and what was skipped."""
    found, problems = {}, set()
    for split in ("train", "validation", "test"):
        data = FolderSounds(folder, split)
        for name, texts in zip(data.names, data.texts):
            found[Path(name).relative_to(folder).as_posix()] = texts
        problems.update(data.problems)
    return found, problems


@pytest.mark.parametrize(
    "table, text",
    [
        ("csv", 'file_name,text\na.wav,A dog.\na.wav,"Two, dogs"\nc.wav,ein Käfer\nsub/d.wav,"a ""d"""\n'),
        ("csv", '\ufeffa.wav,A dog.\r\n\r\n./A.WAV,"Two, dogs"\r\nc.wav,ein Käfer\r\nSub\\d.wav,"a ""d"""'),
        ("csv", 'Sentence , AUDIO,age\nA dog., a.wav,7\n"Two, dogs", a.wav,7\nein Käfer, c.wav,7\n"a ""d""", sub/d.wav,7\n'),
        ("tsv", 'sound\ttranscript\na.wav\tA dog.\na.wav\tTwo, dogs\nc.wav\tein Käfer\nsub/d.wav\ta "d"\n'),
        ("tsv", 'file\tsentence\na.wav\tA dog.\na.wav\tTwo, dogs\nc.wav\tein Käfer\nsub/d.wav\ta "d"\n'),
        ("json", '{"a.wav": ["A dog.", "Two, dogs"], "c.wav": "ein K\\u00e4fer", "sub/d.wav": "a \\"d\\""}'),
        ("json", '[{"file_name": "a.wav", "text": ["A dog.", "Two, dogs"]}, {"audio": "c.wav",'
                 '"sentence": "ein Käfer"}, {"sound": "sub/d.wav", "transcript": "a \\"d\\"", "id": 7}]'),
        ("jsonl", '{"file_name": "a.wav", "text": "A dog."}\n{"file": "a.wav", "text": "Two, dogs"}\n\n'
                  '{"audio": "c.wav", "sentence": "ein Käfer"}\r\n{"sound": "sub/d.wav", "transcript": ["a \\"d\\""]}'),
    ],
)  # fmt: skip
def test_transcripts_are_read_in_every_format(table, text, folder):
    (folder / f"transcripts.{table}").write_bytes(text.encode())
    expected = {"a.wav": ["A dog.", "Two, dogs"], "c.wav": ["ein Käfer"], "sub/d.wav": ['a "d"']}
    assert read(folder) == (expected, {f"{folder / 'b.wav'}: has no transcript"})


def test_an_example_is_the_spectrogram_of_its_file_and_the_words_of_its_transcript(folder):
    lines = "a.wav,A dog.,train\nsub/d.wav,two dogs,train\nb.wav,no,test\n"
    (folder / "transcripts.csv").write_text(HEAD + lines)
    data = FolderSounds(folder, "train")
    assert len(data) == data.count("sound") == 2
    assert data.names == [str(folder / "a.wav"), str(folder / "sub/d.wav")]
    assert data.references == [[["a", "dog", "."]], [["two", "dogs"]]]
    for i, name in enumerate(data.names):
        assert data[i].keys() == {"sound"}
        sound = data[i]["sound"]
        assert sound.dtype == torch.float32 and sound.size(1) == 80
        assert torch.equal(sound, spectrogram(*read_wav(name)))
        assert torch.equal(sound, read_sound(Path(name)))
    assert [len(data[i]["sound"]) for i in range(2)] == [11, 17], "a frame every 10 ms"
    assert data.columns["sound"].lengths == [11, 17]
    batch = collate([data[0], data[1]])
    assert batch["sound"].shape == (2, 17, 80) and batch["sound_lengths"].tolist() == [11, 17]


def test_files_are_read_once(folder):
    (folder / "transcripts.csv").write_text(HEAD + "a.wav,a dog,train\nb.wav,a cat,train\n")
    data = FolderSounds(folder, "train")
    before = [data[i]["sound"].clone() for i in range(2)]
    for path in folder.glob("*.wav"):
        path.unlink()
    assert torch.equal(data[1]["sound"], before[1])
    assert torch.equal(Subset(data, [1])[0]["sound"], before[1])
    assert torch.equal(pickle.loads(pickle.dumps(data))[0]["sound"], before[0])
    assert data.may_flip(0, 0), "a sound is no text"


@pytest.mark.parametrize(
    "table, line, problem",
    [
        ("csv", b"missing.wav,a cat", "transcripts.csv:2: there is no sound 'missing.wav'"),
        ("csv", b"../secret.wav,a cat", "transcripts.csv:2: there is no sound '../secret.wav'"),
        ("csv", b"sub,a cat", "transcripts.csv:2: there is no sound 'sub'"),
        ("csv", b'b.wav," \t "', "transcripts.csv:2: the transcript of 'b.wav' is empty"),
        ("csv", b"b.wav", "transcripts.csv:2: 1 columns where 2 were expected"),
        ("csv", b"b.wav,a, b", "transcripts.csv:2: 3 columns where 2 were expected; a transcript with a comma needs"),
        ("csv", b"b.wav,a caf\xe9", "transcripts.csv:2: not UTF-8"),
        ("csv", b'b.wav,"a cat', "transcripts.csv:2: unexpected end of data"),
        ("tsv", b"b.wav\ta cat\tmeows", "transcripts.tsv:2: 3 columns where 2 were expected"),
        ("jsonl", b'{"file_name": "b.wav", "text": "a c', "transcripts.jsonl:2: not JSON: Unterminated string"),
        ("jsonl", b'{"file_name": "b.wav", "text": null}', "transcripts.jsonl:2: a file name and a text were"),
        ("jsonl", b'{"file_name": "b.wav", "text": 7}', "transcripts.jsonl:2: a file name and a text were"),
        ("jsonl", b'{"file_name": "b.wav", "text": []}', "transcripts.jsonl:2: a file name and a text were"),
        ("jsonl", b'{"text": "a cat"}', "transcripts.jsonl:2: a file name and a text were expected"),
        ("jsonl", b'{"audio": "b.wav", "text": "1", "text": "2"}', "transcripts.jsonl:2: not JSON: 'text' occurs"),
        ("json", b"null", "transcripts.json, entry 2: a file name and a text were expected"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)  # fmt: skip
def test_a_broken_line_is_reported_and_the_others_are_kept(table, line, problem, folder):
    first = b'{"file_name": "a.wav", "text": "a dog"}'
    last = b'{"file_name": "c.wav", "text": "a bird"}'
    content = {
        "csv": b"a.wav,a dog\n" + line + b"\nc.wav,a bird",
        "tsv": b"a.wav\ta dog\n" + line + b"\nc.wav\ta bird",
        "json": b"[" + b", ".join([first, line, last]) + b"]",
        "jsonl": b"\n".join([first, line, last]),
    }[table]
    (folder / f"transcripts.{table}").write_bytes(content)
    found, problems = read(folder)
    assert found == {"a.wav": ["a dog"], "c.wav": ["a bird"]}
    [named] = [p for p in problems if not p.endswith("has no transcript")]
    assert named.startswith(f"{folder}{os.sep}{problem}") and "\n" not in named


@pytest.mark.parametrize(
    "fault, words",
    [
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.write_text("<html>not found</html>"), ""),
        (lambda path: path.write_bytes(b"ID3\x03" + bytes(997)), ""),
        (lambda path: path.write_bytes(path.read_bytes()[:31]), ""),
        (lambda path: tone(path, seconds=0), ""),
        (lambda path: tone(path, seconds=30.02, rate=500), "30.0 seconds are too long: cut it"),
        (lambda path: tone(path, seconds=61, rate=700), "61.0 seconds are too long: cut it into"),
    ],
    ids=["empty", "text", "mp3", "no header", "no samples", "just too long", "too long"],
)
def test_a_sound_that_cannot_be_used_is_reported_and_the_others_are_kept(fault, words, folder):
    fault(folder / "b.wav")
    table = [f"{name}.wav,sound {name},train\n" for name in ("a", "b", "c", "sub/d")]
    (folder / "transcripts.csv").write_text(HEAD + "".join(table))
    data = FolderSounds(folder)
    assert [Path(name).name for name in data.names] == ["a.wav", "c.wav", "d.wav"]
    assert data.texts == [["sound a"], ["sound c"], ["sound sub/d"]]
    assert [len(data[i]["sound"]) for i in range(3)] == [11, 15, 17]
    [problem] = data.problems
    assert problem.startswith(f"{folder / 'b.wav'}: {words}") and "\n" not in problem
    with pytest.raises(ValueError, match="b.wav: "):
        read_sound(folder / "b.wav")


def test_a_sound_of_30_seconds_is_kept(folder):
    tone(folder / "b.wav", seconds=30)
    (folder / "transcripts.csv").write_text(HEAD + "b.wav,a long tone,train\n")
    data = FolderSounds(folder)
    assert len(data) == 1 and data[0]["sound"].shape == (3000, 80)


def test_a_spectrogram_that_cannot_be_computed_is_reported_with_its_file(folder, monkeypatch):
    def refuse(waveform, sample_rate):
        raise ValueError("a rate of 8000 is too odd")

    monkeypatch.setattr("mmscratch.data.sounds.spectrogram", refuse)
    (folder / "transcripts.csv").write_text(HEAD + "b.wav,a cat,train\n")
    data = FolderSounds(folder)
    assert len(data) == 0
    assert f"{folder / 'b.wav'}: a rate of 8000 is too odd" in data.problems


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.wav: no such file"):
        read_sound(tmp_path / "nowhere.wav")


def test_sounds_without_transcript_are_reported_and_other_files_are_not(folder):
    (folder / "transcripts.csv").write_text("a.wav,a dog\nb.wav,a cat\n")
    for name in ("e.mp3", "F.FLAC", "readme.txt", "picture.png"):
        (folder / name).write_bytes(b"x")
    unheard = ("c.wav", "sub/d.wav", "e.mp3", "F.FLAC")
    assert read(folder)[1] == {f"{folder / name}: has no transcript" for name in unheard}


def test_the_split_column_determines_the_split(folder):
    lines = ["a.wav,a dog,train", "b.wav,a cat,Dev", "c.wav,a bird,holdout", "sub/d.wav,a cow,test"]
    (folder / "transcripts.csv").write_text(HEAD + "\n".join(lines))
    splits = [FolderSounds(folder, split) for split in ("train", "validation", "test")]
    assert [data.texts for data in splits] == [[["a dog"]], [["a cat"]], [["a cow"]]]
    assert any("csv:4: the split 'holdout' is none of train" in p for p in splits[0].problems)


def test_without_a_split_column_every_tenth_sound_is_held_out(tmp_path):
    for i in range(40):
        tone(tmp_path / f"{i}.wav", 200 + i, 0.03)
    (tmp_path / "transcripts.csv").write_text("".join(f"{i}.wav,sound {i}\n" for i in range(40)))
    splits = [FolderSounds(tmp_path, split) for split in ("train", "validation", "test")]
    assert [len(data) for data in splits] == [32, 4, 4]
    assert len({name for data in splits for name in data.names}) == 40


@pytest.mark.parametrize(
    "files, split, words",
    [
        ({}, "train", "no transcripts.csv, transcripts.tsv"),
        ({"captions.csv": b"a.wav,a dog"}, "train", "has no transcripts.csv"),
        ({"transcripts.csv": b"a.wav,a", "transcripts.json": b"{}"}, "train", "s.csv and transcripts.json"),
        ({"transcripts.csv": b"a.wav,a dog"}, "val", "no split 'val': choose train, validation"),
        ({"transcripts.json": b'{"a.wav": "a dog"'}, "train", "transcripts.json: not JSON"),
        ({"transcripts.json": b'{"a.wav": "1", "a.wav": "2"}'}, "train", "'a.wav' occurs twice: give it a list of texts"),
        ({"transcripts.json": b'"a.wav"'}, "train", "transcripts.json: a list, or a map from file names to texts"),
    ],
)  # fmt: skip
def test_an_unusable_folder_raises_an_error_of_one_line(files, split, words, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        FolderSounds(folder, split)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        FolderSounds(tmp_path / "nowhere")


# -------------------------------------------------------------------------------------------------
# Free Spoken Digit Dataset.

SPEAKERS = ("ann", "bob", "eve")


@pytest.fixture(scope="module")
def fsdd_folder(tmp_path_factory):
    """Three speakers, each with ten digits times 50 recordings; the files are empty."""
    root = tmp_path_factory.mktemp("fsdd")
    (root / "recordings").mkdir()
    for speaker in SPEAKERS:
        for digit in range(10):
            for i in range(50):
                (root / f"recordings/{digit}_{speaker}_{i}.wav").touch()
    return root


@pytest.fixture
def fsdd(fsdd_folder, monkeypatch):
    """The same folder, where a recording sounds as its digit and index, in one number."""

    def fake_sound(path):
        digit, _, index = path.stem.split("_")
        return torch.full((3, 80), 100.0 * int(digit) + int(index))

    monkeypatch.setattr("mmscratch.data.sounds.read_sound", fake_sound)
    return fsdd_folder


def all_splits(root, held_out=None):
    return [FSDD(root, split, held_out) for split in ("train", "validation", "test")]


def parts(data):
    """(digit, speaker, index) of each example, as strings."""
    return [tuple(Path(name).stem.split("_")) for name in data.names]


@pytest.mark.parametrize(
    "held_out, tested",
    [(None, {"eve"}), ("eve", {"eve"}), ("ann", {"ann"}), ("bob,ann", {"ann", "bob"})],
)
def test_speakers_of_the_test_split_are_never_heard_in_training(held_out, tested, fsdd):
    train, validation, test = all_splits(fsdd, held_out)
    others = set(SPEAKERS) - tested
    assert {speaker for _, speaker, _ in parts(test)} == tested
    for data in (train, validation):
        assert {speaker for _, speaker, _ in parts(data)} == others
    assert len(test) == 500 * len(tested)
    assert len(validation) == 50 * len(others) and len(train) == 450 * len(others)
    names = [name for data in (train, validation, test) for name in data.names]
    assert len(names) == len(set(names)) == 1500
    assert not train.problems and not validation.problems and not test.problems


def test_the_published_split_tests_the_first_recordings_of_every_speaker(fsdd):
    train, validation, test = all_splits(fsdd, "")
    assert {index for *_, index in parts(test)} == {"0", "1", "2", "3", "4"}
    assert Counter(speaker for _, speaker, _ in parts(test)) == dict.fromkeys(SPEAKERS, 50)
    both = parts(train) + parts(validation)
    assert {index for *_, index in both} == {str(i) for i in range(5, 50)}
    assert (len(train), len(validation), len(test)) == (1215, 135, 150)
    assert len(set(both)) == 1350


@pytest.mark.parametrize("held_out", ["", "bob"])
def test_every_digit_and_speaker_is_in_validation(held_out, fsdd):
    _, validation, _ = all_splits(fsdd, held_out)
    counts = Counter((digit, speaker) for digit, speaker, _ in parts(validation))
    assert len(counts) == 10 * (3 if held_out == "" else 2)
    assert set(counts.values()) <= {4, 5}


def test_a_recording_has_its_own_sound_and_its_digit_as_text(fsdd):
    data = FSDD(fsdd, "test", "bob")
    for i, (digit, _, index) in enumerate(parts(data)):
        assert data.texts[i] == [DIGITS[int(digit)]]
        assert data.references[i] == [[DIGITS[int(digit)]]]
        assert data[i]["sound"][0, 0] == 100 * int(digit) + int(index)
    assert DIGITS[7] == "seven" and len(DIGITS) == 10


def test_recordings_are_listed_by_digit_speaker_and_index(fsdd_folder):
    recordings = list_recordings(fsdd_folder, [])
    assert [(each.digit, each.speaker, each.index) for each in recordings] == [
        (digit, speaker, i) for digit in range(10) for speaker in SPEAKERS for i in range(50)
    ]
    assert recordings[102].name == "0_eve_2.wav"


def test_recordings_with_other_names_are_reported(tmp_path):
    tone(tmp_path / "recordings/0_ann_0.wav")
    wrong = ["10_ann_3.wav", "7_ann.wav", "seven_ann_3.wav", "7_ann_3b.wav", "7__3.wav", "x.wav"]
    for name in (*wrong, "notes.txt"):
        (tmp_path / "recordings" / name).touch()
    data = FSDD(tmp_path, "test", "")
    assert data.texts == [["zero"]]
    assert [Path(problem.partition(": ")[0]).name for problem in data.problems] == sorted(wrong)
    assert data.problems[0].endswith("not named as {digit}_{speaker}_{index}.wav")


@pytest.mark.parametrize(
    "held_out, split, words",
    [
        ("zoe", "train", "no speaker 'zoe' to hold out: choose among ann, bob, eve"),
        ("ann,", "train", "no speaker '' to hold out"),
        ("eve,ann,bob", "train", "no speaker is left for training: eve,ann,bob are all"),
        (None, "val", "no split 'val': choose train, validation or test"),
    ],
)
def test_unusable_settings_raise_an_error_of_one_line(held_out, split, words, fsdd):
    with pytest.raises(ValueError, match=words) as error:
        FSDD(fsdd, split, held_out)
    assert "\n" not in str(error.value)


def test_a_folder_without_recordings_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder; is .* the Free Spoken Digit D"):
        FSDD(tmp_path)
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings/x.wav").write_text("")
    with pytest.raises(ValueError, match="no recordings named {digit}_{speaker}_{index}.wav"):
        FSDD(tmp_path)


def test_broken_recordings_are_reported(tmp_path):
    for digit in range(3):
        tone(tmp_path / f"recordings/{digit}_ann_0.wav")
        tone(tmp_path / f"recordings/{digit}_bob_0.wav")
    (tmp_path / "recordings/1_bob_0.wav").write_text("<html>")
    data = FSDD(tmp_path, "test", "bob")
    assert data.texts == [["zero"], ["two"]]
    [problem] = data.problems
    assert problem.startswith(f"{tmp_path / 'recordings/1_bob_0.wav'}: ")


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="FSDD is not here")
def test_fsdd_has_its_official_numbers(monkeypatch):
    recordings = list_recordings(OFFICIAL, [])
    counts = Counter((recording.digit, recording.speaker) for recording in recordings)
    assert set(counts.values()) == {50} and len(counts) in (50, 60)
    data = FSDD(OFFICIAL, "test", "")
    assert len(data) == 5 * len(counts) and not data.problems
    seconds = [len(data[i]["sound"]) / 100 for i in range(len(data))]
    assert 0.1 < min(seconds) and max(seconds) < 2.3
