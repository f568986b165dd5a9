"""Transcription from the command line: a program's speech, a folder, spoken digits; and errors."""

import json
import math
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import torch
from command_line import error_of, run_command, train_tiny_captioner
from helpers import tone
from PIL import Image
from torch.testing import assert_close

from mmscratch.__main__ import main
from mmscratch.audio import SAMPLE_RATE, read_wav, write_wav
from mmscratch.data.language import caption
from mmscratch.data.scenes import Scene, first_of_split
from mmscratch.data.sounds import DIGITS, read_sound
from mmscratch.data.speech import SpokenCaptions, Voice, speak
from mmscratch.decoding import generate, memory_attention
from mmscratch.finetuning import load_run
from mmscratch.metrics import bootstrap
from mmscratch.tasks import TASKS
from mmscratch.tasks.evaluate import data_metadata
from mmscratch.tasks.train import make_examples, sized
from mmscratch.tasks.transcription import Transcription
from mmscratch.text import detokenize, tokenize
from mmscratch.training import TrainConfig, Trainer

pytestmark = pytest.mark.xdist_group("transcription")  # the tests share trained runs

TRAIN = "train --task transcription --epochs 1 --batch-size 5 --precision float32"
ON_SPEECH = f"{TRAIN} --data speech --utterances 13"
ON_FOLDER = f"{TRAIN} --data talks"
ON_DIGITS = f"{TRAIN} --data digits --layout fsdd"
TALKS = """\
file_name,text,split
one.wav,"A dog, a cat!",train
two.wav,a cat,train
two.wav,the cat,train
three.wav,a left dog,train
four.wav,A cat.,train
five.wav,a dog,val
six.wav,"a cat, a dog.",val
seven.wav,the dog,test
gone.wav,a dog,train
song.mp3,a song,train
broken.wav,a dog,train
empty.wav,,val
a line without a text
"""
SPEAKERS = ("anna", "bert", "carl")


def make_small(monkeypatch):
    monkeypatch.setattr("mmscratch.tasks.transcription.VALIDATION_UTTERANCES", 3)
    monkeypatch.setattr("mmscratch.tasks.transcription.TEST_UTTERANCES", 5)
    monkeypatch.setattr("mmscratch.tasks.captioning.VALIDATION_SCENES", 3)
    monkeypatch.setattr("mmscratch.tasks.captioning.TEST_SCENES", 3)


def make_talks(folder):
    """Eight sounds with the transcripts above, an MP3, and a WAV file with a broken header."""
    folder.mkdir(parents=True)
    for i, name in enumerate(("one", "two", "three", "four", "five", "six", "seven", "empty")):
        tone(folder / f"{name}.wav", 300 + 50 * i, 0.3 + 0.07 * i, rate=8000 + 2000 * (i % 3))
    (folder / "song.mp3").write_bytes(b"ID3" + bytes(100))
    content = bytearray((folder / "one.wav").read_bytes())
    content[22:24] = b"\x07\x00"  # seven channels
    (folder / "broken.wav").write_bytes(content)
    (folder / "transcripts.csv").write_text(TALKS)


def make_digits(folder):
    """The layout of FSDD: two recordings of each digit by three speakers, and a strange file."""
    recordings = folder / "recordings"
    recordings.mkdir(parents=True)
    for digit in range(10):
        for number, speaker in enumerate(SPEAKERS):
            for index in (3, 7):
                path = recordings / f"{digit}_{speaker}_{index}.wav"
                tone(path, 200 + 50 * digit, 0.2 + 0.03 * number)
    tone(recordings / "noise.wav")


@pytest.fixture(scope="module")
def transcribers(tmp_path_factory):
    """A folder with runs on speech, talks and digits, and a captioner; what training printed."""
    folder = tmp_path_factory.mktemp("transcribers")
    make_talks(folder / "talks")
    make_digits(folder / "digits")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        make_small(monkeypatch)
        outputs = [run_command(command) for command in (ON_SPEECH, ON_FOLDER, ON_DIGITS)]
        train_tiny_captioner("captioner")
    assert [status for status, _ in outputs] == [0, 0, 0]
    return folder, [out for _, out in outputs]


@pytest.fixture
def transcription(transcribers, monkeypatch):
    """Change to that folder; the output of the trainings on speech, talks and digits."""
    folder, outputs = transcribers
    make_small(monkeypatch)
    monkeypatch.chdir(folder)
    return outputs


def measures(out):
    """The measurements that were printed: {name: [value, low, high]}."""
    lines = re.findall(r"^  (\S.*?) {2,}([\d.]+) %  \(([\d.]+) to ([\d.]+)\)$", out, re.M)
    return {name: numbers for name, *numbers in lines}


def rows_of(run, split):
    lines = Path(run, f"transcripts-{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def state_of(run):
    return load_run(run)[0].state_dict()


def write_transcripts(monkeypatch, transcripts):
    """Replace what the model writes by these transcripts."""
    tokens = [tokenize(text) for text in transcripts]
    monkeypatch.setattr("mmscratch.tasks.transcription.generate", lambda *_: tokens)


# -------------------------------------------------------------------------------------------------
# Training.


def test_model_of_speech_is_trained_and_measured(transcription, capsys):
    out = transcription[0]
    assert "train: 13 examples with 13 texts (13 with sound); 0 problems" in out
    assert "validation: 3 examples with 3 texts (3 with sound); 0 problems" in out
    assert "runs/transcription, 5 sounds of the test split" in out
    model, vocabularies, saved = load_run("runs/transcription")
    assert list(model.encoders) == ["sound"] and vocabularies.keys() == {"target"}
    expected = {"task": "transcription", "data": "speech", "layout": "speech", "utterances": 13}
    assert saved["metadata"] == expected | {"held-out": None}
    assert main(["evaluate", "runs/transcription"]) == 0
    again = measures(capsys.readouterr().out)
    assert again == measures(out) and again.keys() == {"WER", "CER", "exact match"}
    with Image.open("runs/transcription/transcripts-test.png") as sheet:
        assert min(sheet.size) > 500
    spoken = []
    for i in range(5):
        text = caption(Scene(first_of_split("test") + i), i % 5)
        spoken.append([text])
    assert [row["references"] for row in rows_of("runs/transcription", "test")] == spoken


def test_only_recordings_are_augmented(transcription, no_training):
    on_speech = f"{TRAIN} --layout speech --utterances 7"  # as --data speech
    for number, command in enumerate((on_speech, ON_FOLDER, ON_DIGITS)):
        assert main(f"{command} --to runs/a{number}".split()) == 130
    assert [trainer.train.augmented for trainer in no_training] == [False, True, True]
    assert not any(trainer.validation.augmented for trainer in no_training)
    dropouts = [trainer.model.encoders["sound"].dropout for trainer in no_training]
    assert dropouts == [trainer.model.decoder.dropout for trainer in no_training] == [0, 0.1, 0.1]


def test_broken_lines_and_sounds_are_reported_and_skipped(transcription):
    out = transcription[1]
    assert "train: 4 examples with 5 texts (4 with sound); 4 problems" in out
    assert "validation: 2 examples with 2 texts (2 with sound)" in out
    assert "runs/talks, 2 sounds of the validation split" in out
    problems = Path("runs/talks/problems-train.txt").read_text()
    assert "transcripts.csv:10: there is no sound 'gone.wav'" in problems
    assert "song.mp3: MP3, not a WAV file" in problems
    assert "broken.wav: its header contradicts itself: 7 channels" in problems
    assert "transcripts.csv:14: 1 columns where 3 were expected" in problems
    problems = Path("runs/talks/problems-validation.txt").read_text()
    assert "transcripts.csv:13: the transcript of 'empty.wav' is empty" in problems


def test_last_speaker_of_the_digits_is_held_out(transcription):
    out = transcription[2]
    assert "train: 36 examples with 36 texts (36 with sound); 1 problems" in out
    assert "validation: 4 examples" in out
    assert "runs/digits, 20 sounds of the test split" in out
    rows = rows_of("runs/digits", "test")
    for row in rows:
        digit, speaker, _ = Path(row["sound"]).stem.split("_")
        assert speaker == "carl" and row["references"] == [DIGITS[int(digit)]]
    assert len(rows) == 20


@pytest.mark.parametrize("held_out, tested", [("bert,anna", {"bert", "anna"}), ("", set(SPEAKERS))])
def test_held_out_speakers_are_those_named(transcription, no_training, held_out, tested):
    command = [*ON_DIGITS.split(), "--held-out", held_out, "--to", f"runs/held-out{held_out}"]
    assert main(command) == 130
    (trainer,) = no_training
    assert trainer.metadata["held-out"] == held_out
    test = TASKS["transcription"].read(trainer.metadata, "test", 0)
    speakers = {Path(name).stem.split("_")[1] for name in test.names}
    assert speakers == tested
    names = trainer.train.data.names
    heard = {Path(name).stem.split("_")[1] for name in names}
    assert heard == (set(SPEAKERS) - tested or set(SPEAKERS))


@pytest.mark.parametrize("command, run, steps", [
    (ON_SPEECH, "runs/transcription", 3),
    (ON_FOLDER, "runs/talks", 1),
])  # fmt: skip
def test_stopped_training_resumes_exactly(transcription, monkeypatch, capsys, command, run, steps):
    """With recordings, so do the draws of their augmentation."""
    epochs = 3 if run == "runs/talks" else 1
    command = f"{command} --epochs {epochs} --to"
    step = Trainer._train_step

    def pressing(trainer, batch):
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch)

    stopped = f"{run}-stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressing)
        assert main([*command.split(), stopped]) == 130
    assert "the same command" in capsys.readouterr().err
    assert main([*command.split(), stopped]) == 0
    assert f"resuming {stopped} at step 2 of {epochs * steps}" in capsys.readouterr().out
    straight = run
    if epochs > 1:
        straight = f"{run}-straight"
        assert main([*command.split(), straight]) == 0
    assert_close(state_of(stopped), state_of(straight), rtol=0, atol=0)


@pytest.mark.parametrize("decoder, fusion", [
    ("lstm", "prefix"),
    ("lstm", "cross_attention"),
    ("transformer", "prefix"),
])  # fmt: skip
def test_each_decoder_is_trained_and_drawn(transcription, decoder, fusion):
    run = Path(f"runs/{decoder}-{fusion}")
    command = f"{ON_FOLDER} --decoder {decoder} --fusion {fusion} --to {run}"
    assert main(command.split()) == 0
    model, _, _ = load_run(run)
    assert type(model.decoder).__name__.lower() == f"{decoder}decoder"
    assert model.decoder.fusion == fusion
    with Image.open(run / "transcripts-validation.png") as sheet:
        assert min(sheet.size) > 150
    if (decoder, fusion) != ("lstm", "prefix"):
        check_memory_attention(run)


def check_memory_attention(run):
    """They are distributions over the sound's positions, one for each word."""
    model, vocabularies, _ = load_run(run)
    sound = read_sound(Path("talks/one.wav"))
    maps = memory_attention(model, vocabularies, {"sound": sound}, ["a", "dog"])
    assert maps.shape == (2, math.ceil(len(sound) / 2))
    assert_close(maps.sum(1), torch.ones(2))
    assert not torch.equal(maps[0], maps[1])


# -------------------------------------------------------------------------------------------------
# Measurements.


def test_error_rates_are_those_of_jiwer(transcription, monkeypatch, capsys):
    jiwer = pytest.importorskip("jiwer")
    references = [" ".join(words) for (words,) in SpokenCaptions("test", 5).references]
    written = list(references)
    written[0] = written[0].replace("a ", "", 1)
    written[2] = "so " + written[2] + " it is"
    written[3] = "nothing"
    write_transcripts(monkeypatch, written)
    assert main(["evaluate", "runs/transcription"]) == 0
    out = capsys.readouterr().out
    words = jiwer.process_words(references, written)
    characters = jiwer.process_characters(references, written)
    found = measures(out)
    assert found["WER"][0] == f"{100 * words.wer:.1f}"
    assert found["CER"][0] == f"{100 * characters.cer:.1f}"
    kinds = f"{words.substitutions} substituted, {words.insertions} inserted"
    assert f"  words                {words.hits} right, {kinds}, {words.deletions} deleted\n" in out
    low, high = bootstrap([0, 100, 0, 0, 100])
    assert found["exact match"] == ["40.0", f"{low:.1f}", f"{high:.1f}"]
    value, low, high = map(float, found["WER"])
    assert low < value < high
    assert [row["transcript"] for row in rows_of("runs/transcription", "test")] == written


def test_punctuation_is_neither_right_nor_wrong(transcription, monkeypatch, capsys):
    write_transcripts(monkeypatch, ["a dog.", "A cat a dog!"])
    assert main(["evaluate", "runs/talks"]) == 0
    out = capsys.readouterr().out
    assert measures(out) == dict.fromkeys(("WER", "CER"), ["0.0"] * 3) | {
        "exact match": ["100.0"] * 3
    }
    assert "words                6 right, 0 substituted, 0 inserted, 0 deleted" in out
    rows = rows_of("runs/talks", "validation")
    assert [row["transcript"] for row in rows] == ["a dog.", "a cat a dog!"]
    assert [row["references"] for row in rows] == [["a dog"], ["a cat, a dog."]]
    assert [Path(row["sound"]).name for row in rows] == ["five.wav", "six.wav"]


def test_run_is_evaluated_on_other_splits_and_data(transcription, capsys):
    assert main("evaluate runs/talks --split test".split()) == 0
    assert "runs/talks, 1 sounds of the test split" in capsys.readouterr().out
    assert main("evaluate runs/talks --data speech --beams 2".split()) == 0
    assert "runs/talks, 5 sounds of the test split" in capsys.readouterr().out
    assert main("evaluate runs/transcription --data digits --layout fsdd".split()) == 0
    assert "runs/transcription, 20 sounds of the test split" in capsys.readouterr().out
    assert main("evaluate runs/digits --data talks --layout folder".split()) == 0
    assert "runs/digits, 2 sounds of the validation split" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------
# Transcribing.


def transcript_of(run, path, beams=1):
    model, vocabularies, _ = load_run(run)
    (words,) = generate(model, vocabularies, [{"sound": read_sound(Path(path))}], beams, 64)
    return f"{path}: {detokenize(words)}"


def test_command_that_training_suggests_transcribes_the_sound(transcription, capsys):
    runs = ("runs/transcription", "runs/talks", "runs/digits")
    for out, run in zip(transcription, runs):
        split = "validation" if run == "runs/talks" else "test"
        assert f"Look at {run}/transcripts-{split}.png. Then try\n" in out
        command = out.splitlines()[-1].split("mmscratch ")[1]
        assert main(shlex.split(command)) == 0
        path = shlex.split(command)[1]
        assert capsys.readouterr().out == f"{transcript_of(run, path)}\n"


def test_first_utterances_of_the_test_split_are_written(transcription):
    paths = sorted(Path("runs/transcription/sounds").iterdir())
    assert [path.name for path in paths] == ["sound0.wav", "sound1.wav", "sound2.wav"]
    data = SpokenCaptions("test", 5)
    for i, path in enumerate(paths):
        waveform, sample_rate = read_wav(path)
        number = int(data.names[i].rpartition(" ")[2])
        spoken = speak(data.texts[i][0], Voice.of_split("test", number), i)
        assert sample_rate == SAMPLE_RATE
        assert_close(waveform, torch.from_numpy(spoken), rtol=0, atol=2**-15)


def test_bad_sounds_are_reported_and_the_others_transcribed(transcription, capsys):
    Path("long.wav").unlink(missing_ok=True)
    tone(Path("long.wav"), seconds=31)
    paths = ["talks/one.wav", "talks/song.mp3", "talks/broken.wav", "gone.wav", "talks/two.wav"]
    assert main(["transcribe", *paths, "long.wav", "--run", "runs/talks"]) == 2
    out, err = capsys.readouterr()
    expected = [transcript_of("runs/talks", path) for path in ("talks/one.wav", "talks/two.wav")]
    assert out.splitlines() == expected
    lines = err.splitlines()
    assert len(lines) == 4 and all(line.startswith("error: ") for line in lines)
    assert "talks/song.mp3: MP3, not a WAV file: convert it" in lines[0]
    assert "talks/broken.wav: its header contradicts itself" in lines[1]
    assert lines[2] == "error: gone.wav: no such file"
    assert "long.wav: 31.0 seconds are too long: cut it" in lines[3]


def test_all_sounds_of_a_folder_are_transcribed(transcription, tmp_path, capsys):
    for name in ("b.WAV", "a.wav"):
        shutil.copy("talks/one.wav", tmp_path / name)
    (tmp_path / "notes.txt").write_text("no sound")
    assert main(["transcribe", str(tmp_path), "--run", "runs/talks", "--beams", "3"]) == 0
    expected = [transcript_of("runs/talks", tmp_path / name, 3) for name in ("a.wav", "b.WAV")]
    assert capsys.readouterr().out.splitlines() == expected


def test_sound_of_any_rate_is_heard(transcription, tmp_path, capsys):
    speech = torch.from_numpy(speak("a big red star", Voice(5)))
    write_wav(tmp_path / "a.wav", speech, SAMPLE_RATE)
    write_wav(tmp_path / "short.wav", speech[:3], 44_100)
    assert main(["transcribe", str(tmp_path)]) == 0  # runs/transcription is the default
    assert len(capsys.readouterr().out.splitlines()) == 2


# -------------------------------------------------------------------------------------------------
# Starting from another run.


def test_training_on_a_folder_starts_from_a_run_on_speech(transcription, no_training):
    assert main(f"{ON_FOLDER} --from runs/transcription --to runs/more".split()) == 130
    (trainer,) = no_training
    base, vocabularies, _ = load_run("runs/transcription")
    words = trainer.train.vocabularies["target"].words
    count = len(vocabularies["target"])
    assert words[:count] == vocabularies["target"].words and "dog" in words[count:]
    state = trainer.model.state_dict()
    for name, tensor in base.state_dict().items():
        assert_close(state[name][: len(tensor)], tensor, rtol=0, atol=0)
    assert trainer.model.encoders["sound"].dropout == trainer.model.decoder.dropout == 0.1


# -------------------------------------------------------------------------------------------------
# Errors.


@pytest.mark.parametrize("arguments, says", [
    ("transcribe talks/one.wav --run nowhere", "nowhere holds no trained model: run python"),
    ("transcribe talks/one.wav --run captioner", "captioning, and transcribe needs one of the task"),
    ("caption talks/one.wav --run runs/talks", "runs/talks is a run of the task transcription"),
    ("transcribe gone.wav --run runs/talks", "gone.wav: no such file"),
    ("transcribe silent --run runs/talks", "silent: no sounds in this folder"),
    ("transcribe talks/one.wav --run runs/talks --beams 0", "num_beams must be at least 1, not 0"),
    ("evaluate runs/transcription --split dev", "the scenes have no split 'dev'"),
    ("evaluate runs/talks --split dev", "dev"),
    ("evaluate runs/talks --data silent", "silent has no transcripts.csv, transcripts.tsv"),
    ("evaluate runs/talks --data scenes --layout scenes", "transcription has no layout scenes"),
    (f"{TRAIN} --data nowhere", "nowhere: no such folder"),
    (f"{TRAIN} --data silent", "silent has no transcripts.csv, transcripts.tsv"),
    (f"{TRAIN} --data untold", "0 examples to train on and 0 to validate with: both are needed"),
    (f"{TRAIN} --data talks --layout fsdd", "talks the Free Spoken Digit Dataset?"),
    (f"{TRAIN} --data talks --held-out anna", "--held-out is for the layout fsdd: leave it out"),
    (f"{TRAIN} --data speech --held-out anna", "--held-out is for the layout fsdd: leave it out"),
    (f"{ON_DIGITS} --held-out dora --to x", "no speaker 'dora' to hold out: choose among anna, bert"),
    (f"{ON_DIGITS} --held-out anna,bert,carl --to x", "no speaker is left for training"),
    (f"{TRAIN} --data speech --utterances 0 --to x", "0 examples to train on and 3 to validate"),
    (f"{TRAIN} --data speech --utterances -7 --to x", "0 examples to train on and 3 to validate"),
    (f"{TRAIN} --data speech --utterances 14", "utterances 14, there 13"),
    (f"{ON_SPEECH} --from captioner --to x", "encoders for image, and this model for sound"),
    (f"{ON_SPEECH} --from resnet18 --to x", "resnet18 reads pictures, and this model does not"),
    (f"{ON_SPEECH} --from runs/talks --decoder lstm --to x", "and cannot become lstm"),
    ("train --data speech", "speech: no such folder"),
    ("train --task transcription", "train needs --data DIR"),
    ("train --task captioning --layout speech", "captioning has no layout speech"),
])  # fmt: skip
def test_bad_arguments_give_one_line_and_exit_code_2(transcription, capsys, arguments, says):
    for name in ("silent", "untold"):
        Path(name).mkdir(exist_ok=True)
    Path("untold/transcripts.csv").write_text("file_name,text\n")
    assert main(arguments.split()) == 2
    assert says in error_of(capsys)


def test_default_run_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("transcribe a.wav".split()) == 2
    assert "runs/transcription holds no trained model" in error_of(capsys)


def test_word_speech_names_the_layout_unless_it_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = TASKS["transcription"]
    speech = {"data": "speech", "layout": "speech"}
    assert data_metadata(task, Path("speech"), None) == speech
    assert data_metadata(task, Path("anything"), "speech") == speech
    fsdd = {"data": str(tmp_path / "speech"), "layout": "fsdd"}
    assert data_metadata(task, Path("speech"), "fsdd") == fsdd
    folder = {"data": str(tmp_path / "scenes"), "layout": "folder"}
    assert data_metadata(task, Path("scenes"), None) == folder  # no layout of this task
    Path("speech").mkdir()
    folder = {"data": str(tmp_path / "speech"), "layout": "folder"}
    assert data_metadata(task, Path("speech"), None) == folder


def test_training_batches_hold_sentences_of_similar_length(tmp_path):
    task = Transcription()
    metadata = {"layout": "speech", "data": "speech", "utterances": 64, "held-out": None}
    data = {split: task.read(metadata, split, 0) for split in ("train", "validation")}
    vocabularies = task.vocabularies(metadata, data["train"], None)
    examples = make_examples(task, metadata, data, vocabularies)
    model = sized(task.model(metadata, {}, None), vocabularies, examples)
    trainer = Trainer(model, TrainConfig(**task.settings(metadata)), examples, tmp_path, metadata)
    spans = []
    for batch in trainer.prefetcher.loader.batch_sampler:
        lengths = [len(data["train"].texts[i][0]) for i, _ in batch]
        spans.append((min(lengths), max(lengths)))
    spans.sort()
    assert len(spans) == 4
    assert all(longest <= shortest for (_, longest), (shortest, _) in zip(spans, spans[1:]))
