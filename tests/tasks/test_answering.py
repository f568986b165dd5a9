"""Answering from the command line: drawn scenes, a folder of photographs, and easy-VQA."""

import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import error_of, parts, run_command, train_tiny_captioner
from torch.testing import assert_close

from mmscratch.__main__ import main
from mmscratch.data.answers import SceneQuestions
from mmscratch.data.scenes import Scene, render
from mmscratch.finetuning import load_run, save_run
from mmscratch.images import open_image, to_tensor
from mmscratch.metrics import bootstrap
from mmscratch.model import ModelConfig, build_model, token_embedding
from mmscratch.tasks.controls import exchange_pictures
from mmscratch.tasks.scores import mean_percentage
from mmscratch.tasks.task import image_settings
from mmscratch.text import EOS, tokenize
from mmscratch.training import Trainer

pytestmark = pytest.mark.xdist_group("answering")  # the tests share trained runs

SMALL = {"PAIRS": 37, "TEST_PAIRS": 29, "TABLE_PAIRS": 31}
TRAIN = "train --task answering --epochs 1 --batch-size 13 --precision float32"
ON_SCENES = f"{TRAIN} --data scenes --image-size 32"
ON_PHOTOS = f"{TRAIN} --data photos --image-size 16"
ON_EASY = f"{TRAIN} --data easy --layout easy-vqa --image-size 16"
QUESTIONS = """\
file_name,question,answer,split
0.png,What is it?,A cat,train
1.png,What is it?,a cat,train
2.png,What is it?,a dog,train
0.png,How many?,2,train
0.png,how  many?,two,train
0.png,How many?,3,train
1.png,How many?,3,train
2.png,Is it red?,yes,train
0.png,What is it?,the cat.,val
3.png,What is it?,a bird,val
4.png,What is it?,a dog,val
3.png,How many?,2,val
3.png,How many?,two,val
3.png,How many?,4,val
3.png,How many?,2,val
4.png,Is it blue?,no,val
5.png,Is it red?,yes,test
9.png,Is it red?,yes,val
4.png,a line without an answer
text.png,Is it red?,yes,train
4.png,Where?,left.,val
4.png,Where?,Left.,val
"""


def make_small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(f"mmscratch.tasks.answering.{name}", value)
    monkeypatch.setattr("mmscratch.tasks.captioning.TEST_SCENES", 13)
    monkeypatch.setattr("mmscratch.tasks.captioning.VALIDATION_SCENES", 3)


def make_photos(folder):
    """Six pictures with the questions above, and a file that is no picture."""
    folder.mkdir(parents=True)
    for i in range(6):
        render(Scene(i), 24).save(folder / f"{i}.png")
    (folder / "text.png").write_text("no picture")
    (folder / "questions.csv").write_text(QUESTIONS)


def make_easy(folder):
    """The layout of easy-VQA: pictures 0 to 12 for training and validation, two for testing."""
    for split, count in (("train", 13), ("test", 2)):
        images = folder / split / "images"
        images.mkdir(parents=True)
        entries = []
        for i in range(count):
            render(Scene(i), 24).save(images / f"{i}.png")
            entries.append(["what shape is it?", "circle" if i % 2 else "triangle", i])
            entries.append(["is it red?", "yes" if i % 3 else "no", i])
        (folder / split / "questions.json").write_text(json.dumps(entries))


@pytest.fixture(scope="module")
def answerers(tmp_path_factory):
    """A folder with runs on scenes, photos and easy-VQA, and a captioner; what training printed."""
    folder = tmp_path_factory.mktemp("answerers")
    make_photos(folder / "photos")
    make_easy(folder / "easy")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        make_small(monkeypatch)
        outputs = [run_command(command) for command in (ON_SCENES, ON_PHOTOS, ON_EASY)]
        train_tiny_captioner("captioner")
    assert [status for status, _ in outputs] == [0, 0, 0]
    return folder, [out for _, out in outputs]


@pytest.fixture
def answering(answerers, monkeypatch):
    """Change to that folder; the output of the trainings on scenes, photos and easy-VQA."""
    folder, outputs = answerers
    make_small(monkeypatch)
    monkeypatch.chdir(folder)
    return outputs


def measures(out):
    """The measurements that were printed: {name: [value, low, high, the rest of the line]}."""
    lines = re.findall(r"^ +(\S.*?) {2,}([\d.]+) %  \(([\d.]+) to ([\d.]+)\)(.*)$", out, re.M)
    return {name: rest for name, *rest in lines}


def rows_of(run, split):
    lines = Path(run, f"answers-{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def interval(scores):
    """The mean of the scores in %, and the ends of its interval, as printed."""
    low, high = bootstrap(100 * np.array(scores, dtype=float))
    return [f"{x:.1f}" for x in (100 * np.mean(scores), low, high)]


def write_answers(monkeypatch, answer):
    """Replace each of the model's answers by answer(); returns the list of the data sets asked."""
    asked = []

    def generate(model, vocabularies, examples, num_beams):
        asked.append(examples)
        return [answer() for _ in examples]

    monkeypatch.setattr("mmscratch.tasks.answering.generate", generate)
    return asked


def closed_probabilities(image, question):
    """The probability of each training answer: by the loss of the whole model, one at a time."""
    model, vocabularies, saved = load_run("runs/answering")
    image = image.unsqueeze(0)  # (1, 3, S, S)
    source = torch.tensor([[*vocabularies["source"].encode(tokenize(question)), EOS]])
    probabilities = {}
    for answer in saved["metadata"]["answers"]:
        target = torch.tensor([[*vocabularies["target"].encode(tokenize(answer)), EOS]])
        loss, _ = model.loss({"image": image, "source": source, "target": target})
        probabilities[answer] = math.exp(-loss.item())
    total = sum(probabilities.values())
    return {answer: p / total for answer, p in probabilities.items()}


def state_of(run):
    return load_run(run)[0].state_dict()


# -------------------------------------------------------------------------------------------------
# Training.


def test_model_of_scenes_is_trained_and_measured(answering, capsys):
    out = answering[0]
    assert "train: 74 examples with 74 texts (74 with source, 74 with image); 0 problems" in out
    assert "runs/answering, 58 questions of the test split" in out
    _, vocabularies, saved = load_run("runs/answering")
    assert vocabularies["source"] is vocabularies["target"]
    metadata = saved["metadata"]
    assert metadata["task"] == "answering"
    assert metadata["data"] == metadata["layout"] == "scenes"
    training = SceneQuestions("train", 37, size=0, curriculum=True)
    answers = Counter(text for (text,) in training.texts)
    assert sorted(metadata["answers"]) == sorted(answers)
    counts = [answers[answer] for answer in metadata["answers"]]
    assert counts == sorted(counts, reverse=True)
    assert main(["evaluate", "runs/answering"]) == 0
    again = measures(capsys.readouterr().out)
    assert again == measures(out)
    controls = {"question alone", "picture alone", "another picture"}
    assert controls | {"accuracy", "both of a pair", "closed set", "count"} < again.keys()


def test_command_that_training_suggests_answers_the_question(answering, capsys):
    command = answering[0].splitlines()[-1].split("mmscratch ")[1]
    assert main(shlex.split(command)) == 0
    question = rows_of("runs/answering", "test")[0]["question"]
    assert capsys.readouterr().out.startswith(f"{question} ")
    command = answering[1].splitlines()[-1].split("mmscratch ")[1]
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out.startswith("What is it? ")


def test_broken_lines_and_pictures_are_reported_and_skipped(answering):
    out = answering[1]
    assert "train: 6 examples with 8 texts (6 with source, 6 with image)" in out
    assert "validation: 6 examples with 10 texts (6 with source, 6 with image)" in out
    assert "runs/photos, 6 questions of the validation split" in out
    problems = Path("runs/photos/problems-train.txt").read_text()
    assert "text.png: not a picture" in problems
    assert "questions.csv:20: 2 columns where 4 were expected" in problems
    problems = Path("runs/photos/problems-validation.txt").read_text()
    assert "questions.csv:19: there is no picture '9.png'" in problems


def test_model_of_easy_vqa_is_measured_on_its_test_split(answering):
    out = answering[2]
    assert "train: 22 examples with 22 texts" in out and "validation: 4 examples" in out
    assert "runs/easy, 4 questions of the test split" in out
    assert {"yes/no", "shape"} < measures(out).keys()
    assert "both of a pair" not in measures(out)
    pictures = [Path(row["picture"]).name for row in rows_of("runs/easy", "test")]
    assert pictures == ["0.png", "0.png", "1.png", "1.png"]


def test_stopped_training_resumes(answering, monkeypatch, capsys):
    step = Trainer._train_step

    def pressing(trainer, batch):
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch)

    command = [*ON_SCENES.split(), "--to", "runs/stopped"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressing)
        assert main(command) == 130
    assert "the same command" in capsys.readouterr().err
    assert main(command) == 0
    assert "resuming runs/stopped at step 3 of 6" in capsys.readouterr().out
    assert_close(state_of("runs/stopped"), state_of("runs/answering"), rtol=0, atol=0)


# -------------------------------------------------------------------------------------------------
# Measurements.


def test_accuracies_of_scenes_equal_those_of_the_written_rows(answering, monkeypatch, capsys):
    data = SceneQuestions("test", 29, size=0)
    right = {i: data.references[i][0] for i in range(58) if i % 5 and i % 7}
    calls = itertools.count()
    write_answers(monkeypatch, lambda: right.get(next(calls), ["nonsense"]))
    assert main(["evaluate", "runs/answering"]) == 0
    found = measures(capsys.readouterr().out)
    rows = rows_of("runs/answering", "test")
    assert [row["question"] for row in rows] == data.questions
    scores = [row["people"] == [row["answer"]] for row in rows]
    pairs = list(zip(scores[::2], scores[1::2]))
    means = [sum(pair) / 2 for pair in pairs]
    assert found["accuracy"][:3] == interval(means)
    assert found["both of a pair"] == [*interval([all(pair) for pair in pairs]), "; 29 pairs"]
    assert found["accuracy"][1:3] != interval(scores)[1:]  # those of independent questions
    by_kind = defaultdict(list)
    for row, mean in zip(rows[::2], means):
        by_kind[row["kind"]].append(mean)
    for kind, kind_means in by_kind.items():
        questions = f"; {2 * len(kind_means)} questions"
        assert found[kind] == [*interval(kind_means), questions]
    assert len(by_kind) >= 5


def test_controls_of_scenes_equal_those_of_the_written_rows(answering, capsys):
    assert main(["evaluate", "runs/answering", "--split", "compositional_test"]) == 0
    out = capsys.readouterr().out
    assert "runs/answering, 58 questions of the compositional_test split" in out
    found = measures(out)
    rows = rows_of("runs/answering", "compositional_test")
    closed = [row["people"] == [row["closed"]] for row in rows]
    means = [(a + b) / 2 for a, b in zip(closed[::2], closed[1::2])]
    assert found["closed set"][:3] == interval(means)
    answers = load_run("runs/answering")[2]["metadata"]["answers"]
    assert {row["closed"] for row in rows} <= set(answers)
    data = SceneQuestions("compositional_test", 29, size=32)
    for i in (0, 17, 57):
        expected = closed_probabilities(data[i]["image"], data.questions[i])
        assert rows[i]["closed"] == max(expected, key=expected.get)

    training = SceneQuestions("train", SMALL["TABLE_PAIRS"], size=0, curriculum=True)
    answers_to = defaultdict(Counter)
    for question, (text,) in zip(training.questions, training.texts):
        answers_to[question][text] += 1
        answers_to["any"][text] += 1
    guesses = []
    for row in rows:
        counts = answers_to.get(row["question"], answers_to["any"])
        guesses.append(counts.most_common(1)[0][0])
    right = [row["people"] == [guess] for row, guess in zip(rows, guesses)]
    means = [(a + b) / 2 for a, b in zip(right[::2], right[1::2])]
    note = "; 58 questions, its most frequent training answer"
    assert found["question alone"] == [*interval(means), note]
    covered = [row["people"][0] in answers_to["any"] for row in rows]
    coverage = f"an answer of {100 * sum(covered) / 58:.1f} % of the questions"
    assert f"  also in training     0 of 58 pictures; {coverage}\n" in out
    assert 0 < sum(covered) < 58


def test_accuracies_of_photographs(answering, monkeypatch, capsys):
    """All by hand: questions 0 to 5 of the validation split, in the order of the file."""
    written = ["cat", "a dog", "a dog", "two", "no", "left."]
    answers = itertools.cycle(map(tokenize, written))
    asked = write_answers(monkeypatch, lambda: next(answers))
    assert main(["evaluate", "runs/photos"]) == 0
    out = capsys.readouterr().out
    found = measures(out)
    # "How many?" is answered 2, two, 4 and 2. Among the other three people, three agree with
    # "two" if the 4 is left out, and two otherwise.
    how_many = (1 + 3 * 2 / 3) / 4
    # Both people answer "left." as a model writes it, with the full stop at the word.
    scores = [1, 0, 1, how_many, 1, 1]
    assert found["accuracy"] == [*interval(scores), ""]
    assert found["number"] == [*interval([how_many]), "; 1 questions"]
    assert found["other"] == [*interval([1, 0, 1, 1]), "; 4 questions"]
    assert found["yes/no"] == [*interval([1]), "; 1 questions"]
    # "What is it?" -> cat; "How many?" -> 2, as often as 3 but earlier; "Is it blue?" and
    # "Where?" are new, and the most frequent answer of all is cat, as often as 2 and 3 but earlier.
    assert found["question alone"][:3] == interval([1, 0, 0, how_many, 0, 0])
    assert "3 questions" in found["another picture"][3]
    coverage = "an answer of 50.0 % of the questions"  # not a bird, no, left
    assert f"  also in training     1 of 3 pictures; {coverage}\n" in out
    assert ["source" in data.columns for data in asked] == [True, False, True]
    rows = rows_of("runs/photos", "validation")
    assert [row["answer"] for row in rows] == written
    assert rows[3]["people"] == ["2", "two", "4", "2"] and rows[3]["kind"] == "number"
    assert [Path(row["picture"]).name[0] for row in rows] == [*"034344"]


def test_pictures_are_exchanged_within_equal_questions_only(answering):
    data = SceneQuestions("test", 29, size=32)
    exchanged = exchange_pictures(data)
    assert len(exchanged) == 58 and exchanged.pairs == data.pairs
    pictures = [data[i]["image"] for i in range(58)]
    used = Counter()
    for i in range(58):
        assert exchanged[i]["source"] == data[i]["source"]
        sources = []
        for j, picture in enumerate(pictures):
            if torch.equal(picture, exchanged[i]["image"]):
                sources.append(j)
        assert i not in sources
        assert all(data.questions[j] == data.questions[i] for j in sources)
        used.update(sources)
    assert used == Counter(range(58))  # each picture once


def test_interval_of_pairs_resamples_pairs():
    scores = [1, 0, 0, 1, 1, 0, 1, 0, 0, 1]
    pairs = [7, 7, 3, 3, 5, 5, 11, 11, 2, 2]
    assert mean_percentage(scores, pairs) == "50.0 %  (50.0 to 50.0)"
    order = [9, 2, 4, 0, 6, 1, 3, 8, 5, 7]  # a pair's examples need not be neighbours
    shuffled = [scores[i] for i in order]
    assert mean_percentage(shuffled, [pairs[i] for i in order]) == "50.0 %  (50.0 to 50.0)"
    assert mean_percentage(scores) != mean_percentage(scores, pairs)
    doubled = [score for score in scores for _ in range(2)]
    same = [i for i in range(10) for _ in range(2)]
    assert mean_percentage(doubled, same) == mean_percentage(scores)


def test_run_is_evaluated_on_data_of_another_layout(answering, capsys):
    assert (
        main("evaluate runs/answering --data easy --layout easy-vqa --split validation".split())
        == 0
    )
    out = capsys.readouterr().out
    assert "runs/answering, 4 questions of the validation split" in out
    assert "both of a pair" not in measures(out)
    assert "the best of" in measures(out)["closed set"][3]
    assert main("evaluate runs/photos --data scenes --split validation".split()) == 0
    assert "runs/photos, 58 questions of the validation split" in capsys.readouterr().out
    assert main("evaluate runs/photos --split test --beams 3".split()) == 0
    assert len(rows_of("runs/photos", "test")) == 1


def test_answers_are_written_even_without_the_training_data(answering, capsys):
    """The controls need the training questions: the error comes last, in one line."""
    shutil.copytree("photos", "copy")
    shutil.copytree("runs/photos", "runs/moved")
    saved = torch.load("runs/moved/best.pt", weights_only=True)
    saved["metadata"]["data"] = "gone"
    torch.save(saved, "runs/moved/best.pt")
    Path("runs/moved/answers-validation.jsonl").unlink()
    assert main("evaluate runs/moved --data copy".split()) == 2
    assert error_of(capsys) == "error: gone: no such folder"
    assert len(rows_of("runs/moved", "validation")) == 6


# -------------------------------------------------------------------------------------------------
# Asking.


def answers_in(line, question):
    """The answers in a printed line: {answer: percent}."""
    assert line.startswith(f"{question} ")
    found = re.findall(r"(.*?) (\d+) %(?:, |$)", line.removeprefix(f"{question} "))
    return {answer: int(percent) for answer, percent in found}


@pytest.fixture
def picture(answering):
    """The path of a picture."""
    render(Scene(3), 40).save("scene.png")
    return Path("scene.png")


def test_closed_answers_are_the_most_probable_training_answers(picture, capsys):
    questions = ["is there a cat?", "How many stars are there?"]
    command = ["ask", "scene.png", *questions, "--answers", "closed", "--run", "runs/answering"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line, question in zip(lines, questions):
        found = answers_in(line, question)
        expected = closed_probabilities(to_tensor(open_image(picture), 32), question)
        assert list(found) == sorted(expected, key=expected.get, reverse=True)[:3]
        for answer, percent in found.items():
            assert percent == pytest.approx(100 * expected[answer], abs=0.51)
        assert sum(found.values()) <= 101  # each is rounded


def test_open_answers_are_printed_with_their_probabilities(picture, capsys):
    assert main(["ask", "scene.png", "is there a cat?"]) == 0  # runs/answering is the default
    (line,) = capsys.readouterr().out.splitlines()
    found = answers_in(line, "is there a cat?")
    assert len(found) == 3
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) <= 101


def test_questions_come_from_standard_input(picture, monkeypatch, capsys):
    questions = ["is there a cat?", "what is red?"]
    assert main(["ask", "scene.png", *questions]) == 0
    expected = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{questions[0]}\n\n \t\n  {questions[1]} "))
    assert main(["ask", "scene.png"]) == 0
    assert capsys.readouterr().out == expected
    assert main(["ask", "scene.png", "", *questions]) == 0
    assert capsys.readouterr().out == expected


def test_terminal_gets_a_prompt_until_the_end_of_input(picture, monkeypatch, capsys):
    terminal = io.StringIO("is there a cat?\n\n")
    terminal.isatty = lambda: True
    assert main(["ask", "scene.png", "is there a cat?"]) == 0
    answer = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["ask", "scene.png"]) == 0
    assert capsys.readouterr().out == f"? {answer}? ? \n"


def test_words_that_the_model_does_not_know_are_named_once(picture, capsys):
    question = "is the Zebra a zebra or a quagga?"
    assert main(["ask", "scene.png", question, "is there a cat?", "zebra"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.splitlines() == [
        "not in the model's vocabulary: zebra, or, quagga",
        "not in the model's vocabulary: zebra",
    ]


# -------------------------------------------------------------------------------------------------
# Starting from another run.


@pytest.fixture
def no_training(monkeypatch):
    """Stop each training before its first step; returns a list of the models."""
    models = []

    def fit(trainer, profile):
        models.append(trainer.model)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", fit)
    return models


def rows_by_word(model, vocabularies):
    return dict(zip(vocabularies["target"].words, token_embedding(model.decoder).weight))


def test_answering_starts_from_a_captioner(answering, no_training, capsys):
    command = f"{TRAIN} --data scenes --from captioner --to runs/started"
    assert main(command.split()) == 130
    out = capsys.readouterr().out
    message = "from captioner: encoders.image and decoder without encoders.image.block"
    assert message in out and "and 8 more\nall else is new\n" in out
    (model,) = no_training
    now = model.state_dict()
    base, vocabularies, _ = load_run("captioner")
    new_words = ("decoder.embedding.weight", "decoder.bias")
    compared = 0
    for name, tensor in base.state_dict().items():
        if not name.startswith(("encoders.image.block", *new_words)):
            assert_close(now[name], tensor, rtol=0, atol=0)
            compared += 1
    assert compared > 50
    source = token_embedding(model.encoders["source"])
    assert source.weight is token_embedding(model.decoder).weight


def test_first_layers_of_a_captioner_stay_as_they_were(answering):
    assert main(f"{TRAIN} --data scenes --from captioner --to runs/stem".split()) == 0
    old = load_run("captioner")[0].encoders["image"].backbone.state_dict()
    new = load_run("runs/stem")[0].encoders["image"].backbone.state_dict()
    first = [name for name in old if name.startswith(("conv1.", "bn1.", "layer1."))]
    assert len(first) > 15
    for name, tensor in old.items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, new[name]) == (name in first), name


def test_answering_starts_from_a_captioner_without_a_resnet(answering, no_training):
    _, vocabularies, checkpoint = load_run("captioner")
    settings = checkpoint["model_config"]
    settings["encoders"] = {"image": {"name": "vit", "image_size": 32, "hidden_dim": 64}}
    config = ModelConfig(**settings)
    save_run("vit", build_model(config), config, vocabularies, checkpoint["metadata"])
    assert main(f"{TRAIN} --data scenes --from vit --to runs/vit".split()) == 130
    (model,) = no_training
    assert all(parameter.requires_grad for parameter in model.encoders["image"].parameters())


def test_words_that_a_captioner_knows_keep_their_rows(answering):
    options = "--from captioner --freeze decoder --freeze encoders.source --to runs/frozen"
    assert main(f"{TRAIN} --data scenes {options}".split()) == 0
    model, vocabularies, _ = load_run("runs/frozen")
    base, base_vocabularies, _ = load_run("captioner")
    rows = rows_by_word(model, vocabularies)
    old_rows = rows_by_word(base, base_vocabularies)
    common = rows.keys() & old_rows.keys()
    assert {"star", "red", "the"} < common and "what" not in old_rows and "what" in rows
    for word in common:
        assert_close(rows[word], old_rows[word], rtol=0, atol=0)


def test_answering_goes_on_with_more_data_and_keeps_its_words(answering, no_training):
    command = f"{TRAIN} --data photos --from runs/answering --to runs/more"
    assert main(command.split()) == 130
    (model,) = no_training
    base, vocabularies, _ = load_run("runs/answering")
    old = base.state_dict()
    now = model.state_dict()
    embedding = "decoder.embedding.weight"
    count = len(old[embedding])
    assert count < len(now[embedding])
    assert_close(now[embedding][:count], old[embedding], rtol=0, atol=0)
    for name, tensor in old.items():
        assert_close(
            now[name][: len(tensor)] if tensor.dim() else now[name], tensor, rtol=0, atol=0
        )


def test_larger_vocabulary_of_a_further_training_is_saved(answering, capsys):
    command = f"{TRAIN} --data photos --from runs/answering --to runs/larger"
    assert main(command.split()) == 0
    _, old, _ = load_run("runs/answering")
    _, new, saved = load_run("runs/larger")
    assert new["target"].words[: len(old["target"])] == old["target"].words
    assert new["source"] is new["target"]
    assert sorted(saved["metadata"]["answers"]) == ["2", "3", "a cat", "a dog", "two", "yes"]


def test_captioner_starts_from_an_answering_run(answering, no_training, capsys):
    command = "train --data scenes --scenes 7 --precision float32 --from runs/answering --to runs/c"
    assert main(command.split()) == 130
    (model,) = no_training
    now = model.state_dict()
    base = state_of("runs/answering")
    names = [name for name in now if name.startswith("encoders.image.")]
    assert len(names) > 50 and not any(".film." in name for name in now)
    for name in names:
        assert_close(now[name], base[name], rtol=0, atol=0)
    assert "from runs/answering: encoders.image" in capsys.readouterr().out


def test_lora_run_answers_as_any_run(picture, capsys):
    command = f"{TRAIN} --data photos --from runs/answering --lora 2 --to runs/lora"
    assert main(command.split()) == 0
    assert parts(capsys.readouterr().out)["encoders.image.backbone"][1] == 0
    assert main(["ask", "scene.png", "is there a cat?", "--run", "runs/lora"]) == 0
    assert len(answers_in(capsys.readouterr().out.strip(), "is there a cat?")) == 3


# -------------------------------------------------------------------------------------------------
# Errors.


@pytest.mark.parametrize("arguments, says", [
    ("ask scene.png what? --run nowhere", "nowhere holds no trained model: run python"),
    ("ask scene.png what? --run captioner", "captioning, and ask needs one of the task answering"),
    ("caption scene.png --run runs/answering", "runs/answering is a run of the task answering"),
    ("ask nothing.png what?", "nothing.png: no such file"),
    ("ask photos/text.png what?", "photos/text.png: not a picture"),
    ("ask photos what?", "photos: cannot be read as a picture"),
    ("evaluate runs/answering --split dev", "the scenes have no split 'dev'"),
    ("evaluate runs/photos --split compositional_test", "no split 'compositional_test'"),
    ("evaluate runs/answering --layout flickr8k", "answering has no layout flickr8k"),
    ("evaluate runs/answering --data photos --beams 0", "num_beams must be at least 1, not 0"),
    (f"{TRAIN} --data nowhere", "nowhere: no such folder"),
    (f"{TRAIN} --data easy", "exactly one questions file is needed"),
    (f"{TRAIN} --data photos --layout easy-vqa", "in its official layout?"),
    (f"{TRAIN} --data photos --layout vqa-rad", "in its official layout?"),
    (f"{TRAIN} --data lonely", "2 examples to train on and 0 to validate with"),
    (f"{TRAIN} --data unreadable", "0 examples to train on and 0 to validate with"),
    (f"{ON_SCENES} --from captioner --lora 2 --to lora", "captioner has other encoders: its decoder is no base for a LoRA"),
    (f"{TRAIN} --data scenes --from captioner --image-size 48", "32 in captioner"),
    (f"{TRAIN} --data scenes --from runs/answering --decoder transformer", "and cannot become"),
    (f"{ON_SCENES} --from nowhere", "nowhere holds no trained model"),
])  # fmt: skip
def test_bad_arguments_give_one_line_and_exit_code_2(picture, capsys, arguments, says):
    for folder, pictures in (("lonely", ("a.png", "b.png")), ("unreadable", ())):
        Path(folder).mkdir(exist_ok=True)
        for name in pictures:
            shutil.copy(picture, Path(folder, name))
        lines = [
            "file_name,question,answer,split",
            "a.png,what?,a cat,train",
            "b.png,what?,3,train",
        ]
        Path(folder, "questions.csv").write_text("\n".join(lines))
    assert main([*arguments.split()]) == 2
    assert says in error_of(capsys)


def test_default_run_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("ask scene.png what?".split()) == 2
    assert "runs/answering holds no trained model" in error_of(capsys)


def test_steered_encoder_gets_its_additional_blocks_once():
    plain = {"name": "resnet", "depth": (1, 1), "image_size": 32}
    steered = image_settings({}, {"image": plain}, film="source")
    assert steered == plain | {"depth": (1, 5), "num_layers": 0, "film": "source"}
    assert image_settings({}, {"image": steered}, film="source") == steered
    assert image_settings({}, {"image": steered}) == plain | {"depth": (1, 5), "num_layers": 0}
