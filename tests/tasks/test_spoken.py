"""Spoken questions and captions from the command line: `--spoken` for answering and retrieval."""

import io
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from command_line import error_of, measured, run_command
from torch.testing import assert_close

from mmscratch.__main__ import main
from mmscratch.audio import SAMPLE_RATE, read_wav, write_wav
from mmscratch.data.answers import SceneQuestions
from mmscratch.data.scenes import Scene, first_of_split, render
from mmscratch.data.sounds import read_sound
from mmscratch.data.speech import Voice, speak
from mmscratch.decoding import rank_answers
from mmscratch.finetuning import load_run
from mmscratch.images import open_image, to_tensor
from mmscratch.tasks import TASKS
from mmscratch.tasks.spoken import speak_sentences
from mmscratch.text import detokenize

pytestmark = pytest.mark.xdist_group("spoken")  # the tests share trained runs

SMALL = {"PAIRS": 7, "TEST_PAIRS": 5, "TABLE_PAIRS": 11}
COMMON = "--epochs 1 --batch-size 7 --precision float32 --image-size 32"
ANSWER = f"train --task answering {COMMON} --data scenes"
RETRIEVE = f"train --task retrieval {COMMON} --data scenes --scenes 13"
ANSWERER = ("--run", "runs/answering-spoken")
FINDER = ("--run", "runs/retrieval-spoken")


def make_small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(f"mmscratch.tasks.answering.{name}", value)
    monkeypatch.setattr("mmscratch.tasks.retrieval.VALIDATION_SCENES", 5)
    monkeypatch.setattr("mmscratch.tasks.retrieval.TEST_SCENES", 11)


@pytest.fixture(scope="module")
def listeners(tmp_path_factory):
    """A folder with spoken and written runs of both tasks, a picture and sounds; what was printed."""
    folder = tmp_path_factory.mktemp("listeners")
    commands = (f"{ANSWER} --spoken", f"{RETRIEVE} --spoken")
    written = (ANSWER, RETRIEVE)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        make_small(monkeypatch)
        outputs = [run_command(command) for command in commands + written]
        Path("photos").mkdir()
        for i in range(3):
            render(Scene(i), 40).save(f"photos/{i}.png")
        lines = [f"{i}.png,a cat,train\n{i}.png,a dog,val" for i in range(3)]
        Path("photos/captions.csv").write_text("\n".join(["file_name,caption,split", *lines]))
        lines = [f"{i}.png,what is it?,a cat,train" for i in range(3)]
        header = "file_name,question,answer,split"
        Path("photos/questions.csv").write_text("\n".join([header, *lines]))
        say("question.wav", "how many stars are there?", 5)
        say("caption.wav", "a big red star", 11)
        Path("song.mp3").write_bytes(b"ID3" + bytes(50))
    assert [status for status, _ in outputs] == [0] * 4
    return folder, [out for _, out in outputs[:2]]


def say(path, text, voice):
    write_wav(path, torch.from_numpy(speak(text, Voice(voice))), SAMPLE_RATE)


@pytest.fixture
def spoken(listeners, monkeypatch):
    """Change to that folder; the output of the spoken trainings, answering and retrieval."""
    folder, outputs = listeners
    make_small(monkeypatch)
    monkeypatch.chdir(folder)
    return outputs


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


# -------------------------------------------------------------------------------------------------
# Data.


def test_spoken_sentences_take_the_place_of_written_ones():
    data = SceneQuestions("test", 3, size=16)
    heard = speak_sentences(data, data.questions, "test")
    assert heard.columns.keys() == {"image", "sound"} and heard.questions == data.questions
    assert data.columns.keys() == {"source", "image"}  # as before
    example = heard[4]
    assert example.keys() == {"image", "sound"}
    assert example["sound"].shape[1] == 80
    assert torch.equal(example["image"], data[4]["image"])


@pytest.mark.parametrize("task, metadata", [
    ("answering", {"layout": "scenes", "pairs": 3, "spoken": True}),
    ("retrieval", {"layout": "scenes", "scenes": 6, "spoken": True}),
])  # fmt: skip
def test_voices_of_the_test_split_are_never_heard_in_training(spoken, task, metadata):
    voices = {}
    for split in ("train", "validation", "test"):
        data = TASKS[task].read(metadata, split, 0 if task == "answering" else 16)
        voices[split] = {key[1] for key in data.columns["sound"].keys}
        first = first_of_split(split)
        assert min(voices[split]) >= first and max(voices[split]) < first + 1000
        written = data.questions if task == "answering" else [text for (text,) in data.texts]
        assert [key[0] for key in data.columns["sound"].keys] == written
    assert not voices["train"] & voices["test"] and not voices["train"] & voices["validation"]


# -------------------------------------------------------------------------------------------------
# Answering.


def test_spoken_questions_are_heard_not_read(spoken, capsys):
    out = spoken[0]
    assert "train: 14 examples with 14 texts (14 with image, 14 with sound); 0 problems" in out
    assert "runs/answering-spoken, 10 questions of the test split" in out
    model, vocabularies, saved = load_run("runs/answering-spoken")
    assert set(model.encoders) == {"image", "sound"} and vocabularies.keys() == {"target"}
    assert model.encoders["image"].steered_by == "sound"
    assert saved["metadata"]["spoken"] is True
    for name in ("accuracy", "both of a pair", "question alone", "picture alone"):
        assert f"  {name}  " in out
    assert main(["evaluate", "runs/answering-spoken"]) == 0
    again = measured(capsys.readouterr().out)
    assert again.split("; in brackets")[1] in out
    data = SceneQuestions("test", 5, size=0)
    assert [
        row["question"] for row in rows_of("runs/answering-spoken/answers-test.jsonl")
    ] == data.questions


def test_control_with_the_picture_alone_hears_nothing(spoken, monkeypatch):
    asked = []

    def generate(model, vocabularies, examples, num_beams):
        asked.append(examples)
        return [["yes"] for _ in range(len(examples))]

    monkeypatch.setattr("mmscratch.tasks.answering.generate", generate)
    assert main(["evaluate", "runs/answering-spoken"]) == 0
    assert ["sound" in data.columns for data in asked] == [True, False, True]
    assert ["image" in data.columns for data in asked] == [True, True, True]


def test_answers_depend_on_the_spoken_question(spoken):
    model, vocabularies, _ = load_run("runs/answering-spoken")
    image = to_tensor(open_image(Path("photos/0.png")), 32)
    say("other.wav", "is there a cat?", 5)
    found = []
    for path in ("question.wav", "other.wav"):
        example = {"image": image, "sound": read_sound(Path(path))}
        found.append(dict_of(rank_answers(model, vocabularies, example)))
    assert found[0] != found[1]


def dict_of(ranked):
    return {detokenize(words): probability for words, probability in ranked}


def test_question_is_asked_by_a_wav_file(spoken, capsys):
    assert main(["ask", "photos/0.png", "question.wav", *ANSWERER]) == 0
    out, err = capsys.readouterr()
    model, vocabularies, _ = load_run("runs/answering-spoken")
    image = to_tensor(open_image(Path("photos/0.png")), 32)
    example = {"image": image, "sound": read_sound(Path("question.wav"))}
    expected = []
    for answer, probability in dict_of(rank_answers(model, vocabularies, example)).items():
        expected.append(f"{answer or '(nothing)'} {100 * probability:.0f} %")
    assert out == f"question.wav {', '.join(expected)}\n" and not err
    assert main(["ask", "photos/0.png", "question.wav", "--answers", "closed", *ANSWERER]) == 0
    found = re.findall(r"(\d+) %", capsys.readouterr().out)
    answers = load_run("runs/answering-spoken")[2]["metadata"]["answers"]
    assert len(found) == min(3, len(answers))


def test_wav_files_are_named_on_standard_input(spoken, monkeypatch, capsys):
    assert main(["ask", "photos/0.png", "question.wav", *ANSWERER]) == 0
    expected = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("\n question.wav \n \t\n"))
    assert main(["ask", "photos/0.png", *ANSWERER]) == 0
    assert capsys.readouterr().out == expected


def test_command_that_training_suggests_asks_with_a_wav_file(spoken, capsys):
    command = shlex.split(spoken[0].splitlines()[-1].split("mmscratch ")[1])
    assert command[2] == "runs/answering-spoken/sounds/sound0.wav"
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(f"{command[2]} ")
    data = TASKS["answering"].read({"layout": "scenes", "spoken": True}, "test", 0)
    text, voice, seed, _ = data.columns["sound"].keys[0]
    waveform, _ = read_wav(command[2])
    expected = torch.from_numpy(speak(text, Voice(voice), seed))
    assert text == data.questions[0]
    assert_close(waveform, expected, rtol=0, atol=2**-15)


# -------------------------------------------------------------------------------------------------
# Retrieval.


def vector(model, modality, values):
    """The vector of one example, computed alone."""
    with torch.no_grad():
        return model.embed(modality, values.unsqueeze(0))[0]


def test_spoken_captions_are_heard_not_read(spoken, capsys):
    out = spoken[1]
    assert "train: 13 examples with 13 texts (13 with image, 13 with sound); 0 problems" in out
    assert "runs/retrieval-spoken, 11 pictures of the test split" in out
    model, vocabularies, saved = load_run("runs/retrieval-spoken")
    assert list(model.encoders) == ["image", "sound"] and saved["metadata"]["spoken"] is True
    assert main(["evaluate", "runs/retrieval-spoken"]) == 0
    assert measured(capsys.readouterr().out).split("; in brackets")[1] in out
    data = TASKS["retrieval"].read(saved["metadata"], "test", 32)
    assert all(len(texts) == 1 for texts in data.texts)
    pictures = [vector(model, "image", data[i]["image"]) for i in range(11)]
    ranks = []
    for i in range(11):
        query = vector(model, "sound", data[i]["sound"])
        scores = [float(query @ picture) for picture in pictures]
        ranks.append(1 + sum(score > scores[i] for score in scores))
    rows = rows_of("runs/retrieval-spoken/retrieval-test.jsonl")
    assert [row["rank"] for row in rows] == ranks  # no caption fits two of these scenes
    assert [row["caption"] for row in rows] == [text for (text,) in data.texts]
    recall = 100 * sum(rank <= 5 for rank in ranks) / 11
    assert f"  recall at 5          {recall:.1f} %  " in out


def test_pictures_are_found_by_a_wav_file(spoken, capsys):
    assert main(["find", "caption.wav", "photos", *FINDER]) == 0
    lines = re.findall(r"^(-?[\d.]+)  (.*)$", capsys.readouterr().out, re.M)
    model = load_run("runs/retrieval-spoken")[0]
    query = vector(model, "sound", read_sound(Path("caption.wav")))
    expected = []
    for path in Path("photos").glob("*.png"):
        picture = vector(model, "image", to_tensor(open_image(path), 32))
        expected.append((float(query @ picture), path.name))
    expected.sort(reverse=True)
    assert [Path(path).name for _, path in lines] == [name for _, name in expected]
    for (score, _), (right, _) in zip(lines, expected):
        assert float(score) == pytest.approx(right, abs=2e-3)
    assert main(["find", "photos", "--like", "photos/1.png", *FINDER]) == 0
    assert "1.000  photos/1.png" in capsys.readouterr().out


def test_command_that_training_suggests_finds_with_a_wav_file(spoken, capsys):
    command = shlex.split(spoken[1].splitlines()[-1].split("mmscratch ")[1])
    assert command[1] == "runs/retrieval-spoken/sounds/sound0.wav"
    assert main(command) == 0
    assert "11 new" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------
# Starting from another run.


@pytest.mark.parametrize("command, base", [
    (f"{ANSWER} --spoken", "runs/answering"),
    (ANSWER, "runs/answering-spoken"),
    (f"{RETRIEVE} --spoken", "runs/retrieval"),
    (RETRIEVE, "runs/retrieval-spoken"),
])  # fmt: skip
def test_reader_and_listener_lend_each_other_the_image_encoder(
    spoken, no_training, capsys, command, base
):
    assert main(f"{command} --from {base} --to runs/started".split()) == 130
    assert f"from {base}: encoders.image" in capsys.readouterr().out
    (trainer,) = no_training
    ours = trainer.model.state_dict()
    theirs = load_run(base)[0].state_dict()
    names = [name for name in ours if name.startswith("encoders.image.")]
    assert len(names) > 50
    for name in names:
        assert_close(ours[name], theirs[name], rtol=0, atol=0)
    heard = "sound" in trainer.model.encoders
    assert heard == ("--spoken" in command) and len(trainer.model.encoders) == 2


def test_listener_goes_on_from_a_listener(spoken, no_training):
    assert main(f"{ANSWER} --spoken --from runs/answering-spoken --to runs/more".split()) == 130
    (trainer,) = no_training
    theirs = load_run("runs/answering-spoken")[0].state_dict()
    assert_close(trainer.model.state_dict(), theirs, rtol=0, atol=0)


def test_transcription_lends_its_hearing(spoken, request, monkeypatch, capsys):
    monkeypatch.setattr("mmscratch.tasks.transcription.VALIDATION_UTTERANCES", 3)
    monkeypatch.setattr("mmscratch.tasks.transcription.TEST_UTTERANCES", 3)
    transcribe = "train --task transcription --data speech --utterances 7 --precision float32"
    assert main(transcribe.split()) == 0
    theirs = load_run("runs/transcription")[0].encoders["sound"].state_dict()
    trainers = request.getfixturevalue("no_training")
    for command in (ANSWER, RETRIEVE):
        capsys.readouterr()
        started = f"{command} --spoken --from runs/transcription --to runs/started"
        assert main(started.split()) == 130
        assert "from runs/transcription: encoders.sound" in capsys.readouterr().out
        ours = trainers[-1].model.encoders["sound"].state_dict()
        assert_close(ours, theirs, rtol=0, atol=0)
        # and the picture's encoder of a run that is wider
        both = "runs/answering/,runs/transcription"
        assert main(f"{command} --spoken --from {both} --to runs/started".split()) == 130
        model = trainers[-1].model
        reader = load_run("runs/answering")[0]
        backbone = reader.encoders["image"].backbone.state_dict()
        assert_close(model.encoders["image"].backbone.state_dict(), backbone, rtol=0, atol=0)
        ours = model.encoders["sound"].state_dict()
        assert {name: ours.pop(name) for name in ("projection.weight", "projection.bias")}
        assert_close(ours, theirs, rtol=0, atol=0)
        assert trainers[-1].config.start_from == "runs/answering,runs/transcription"


# -------------------------------------------------------------------------------------------------
# Errors.


HEARS = "this run hears sentences: name a WAV file"


@pytest.mark.parametrize("arguments, says", [
    ("ask photos/0.png gone.wav", f"gone.wav: no such file; {HEARS}"),
    ("ask photos/0.png what?", f"what?: no such file; {HEARS}"),
    ("ask photos/0.png song.mp3", "song.mp3: MP3, not a WAV file: convert it"),
    ("ask photos/0.png photos", "photos: cannot be read: Is a directory"),
    ("find star photos", f"star: no such file; {HEARS}"),
    ("find song.mp3 photos", "song.mp3: MP3, not a WAV file: convert it"),
    ("find  photos", "the sentence has no words"),
    ("find caption.wav", "name a sentence, or a picture after --like"),
    (f"{RETRIEVE} --spoken --to runs/retrieval", "spoken True, there None"),
    (f"{ANSWER} --from runs/answering,gone --to new", "gone holds no trained model: run python"),
    ("train --task answering --data photos --spoken", "only scenes have spoken sentences"),
    ("train --task retrieval --data photos --spoken", "only scenes have spoken sentences"),
    ("evaluate runs/answering-spoken --data photos", "only scenes have spoken sentences"),
    ("evaluate runs/retrieval-spoken --data photos", "only scenes have spoken sentences"),
])  # fmt: skip
def test_bad_arguments_give_one_line_and_exit_code_2(spoken, capsys, arguments, says):
    run = {"ask": ANSWERER, "find": FINDER}.get(arguments.split()[0], [])
    assert main([*arguments.split(" "), *run]) == 2
    assert says in error_of(capsys)


def test_wav_file_is_only_a_sentence_for_a_run_that_reads(spoken, capsys):
    assert main(["find", "caption.wav", "photos", "--run", "runs/retrieval"]) == 0
    assert "not in the model's vocabulary: caption" in capsys.readouterr().err
