"""The task mixture: one model of many parts is trained, measured, talked to and fine-tuned."""

import io
import re

import pytest
import torch

from mmscratch.__main__ import main
from mmscratch.audio import SAMPLE_RATE, write_wav
from mmscratch.batches import Examples, collate
from mmscratch.data.mixture import Mixture
from mmscratch.data.scenes import Scene, render
from mmscratch.finetuning import load_run
from mmscratch.model import build_model
from mmscratch.tasks import TASKS
from mmscratch.tasks import mixture as module
from mmscratch.tasks.chat import guess_part
from mmscratch.tasks.mixture import MixtureOfTasks
from mmscratch.tasks.parts import MIXED, PARTS, parts_of
from mmscratch.tasks.train import make_examples, sized

pytestmark = pytest.mark.xdist_group("mixture")  # the tests share a trained run

PARTS_USED = "captions-en,questions,spoken-questions,translation-en-de,speech-en,prices"
TRAIN = f"train --task mixture --parts {PARTS_USED} --examples 96 --precision float32"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a trained run, runs/mixture."""
    folder = tmp_path_factory.mktemp("mixture")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(module, "TEST_EXAMPLES", 3)
        patch.setattr(module, "VALIDATION_EXAMPLES", 2)
        assert main([*TRAIN.split(), "--batch-size", "16"]) == 0
    render(Scene(7), 64).save(folder / "scene.png")
    write_wav(folder / "sound.wav", torch.randn(SAMPLE_RATE) / 10, SAMPLE_RATE)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch, home):
    monkeypatch.chdir(home)
    monkeypatch.setattr(module, "TEST_EXAMPLES", 3)
    monkeypatch.setattr(module, "VALIDATION_EXAMPLES", 2)


def metadata(**changes):
    defaults = {"examples": 60, "temperature": 1.0, "count-by": "word", "parts": PARTS_USED}
    return {"task": "mixture", "layout": "mixture", "data": "mixture"} | defaults | changes


def test_no_data_is_named_and_the_run_has_the_name_of_the_task(home):
    model, vocabularies, checkpoint = load_run("runs/mixture")
    assert checkpoint["metadata"]["data"] == "mixture"
    assert set(model.encoders) == {"image", "sound", "row", "source"}
    assert vocabularies["target"] is vocabularies["source"]


def test_the_model_is_small_and_the_question_steers_the_eyes_read_or_heard():
    task = MixtureOfTasks()
    data = {split: task.read(metadata(), split, 64) for split in ("train", "validation")}
    vocabularies = task.vocabularies(metadata(), data["train"], None)
    examples = make_examples(task, metadata(), data, vocabularies)
    model = build_model(sized(task.model(metadata(), {}, None), vocabularies, examples)).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) <= 5e6
    torch.nn.init.normal_(model.encoders["image"].film.linear.weight, std=0.1)
    image = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    sound = torch.randn(1, 50, 80)
    source = torch.tensor([[5, 6, 2]])
    seen = []
    for given in ({}, {"source": source}, {"sound": sound}, {"source": source, "sound": sound}):
        memory = model.encode({"image": image} | given)
        assert next(iter(model.encoders)) == "image"  # its positions come first
        seen.append(memory.tokens[:, :64])
    for i, one in enumerate(seen):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in seen[:i])


def test_training_has_the_shares_of_the_parts():
    data = MixtureOfTasks().read(metadata(examples=2000), "train", 0)
    total = sum(PARTS[name].size for name in PARTS_USED.split(","))
    for name in PARTS_USED.split(","):
        share = data.part_of.count(name) / 2000
        assert share == pytest.approx(PARTS[name].size / total, abs=0.002)
    even = MixtureOfTasks().read(metadata(examples=600, temperature=1e6), "train", 0)
    assert {even.part_of.count(name) for name in PARTS_USED.split(",")} == {100}


def test_by_default_all_parts_that_have_a_size_are_mixed():
    options = MixtureOfTasks.options
    assert options["--parts"]["default"] == MIXED
    assert parts_of({"parts": MIXED}) == [name for name in PARTS if PARTS[name].size]
    assert len(parts_of({"parts": MIXED})) == 12


def test_every_part_is_read_for_every_split_and_scored(home):
    model, vocabularies, _ = load_run("runs/mixture")
    for name, part in PARTS.items():
        texts = []
        for split in ("train", "validation", "test"):
            data = part.read(split, 3, 64)
            assert 3 <= len(data) <= 4
            texts.append([repr(value) for value in (data.texts, data.columns.get("source"))])
        examples = Mixture({name: data}, [name] * len(data))
        scores = part.score(model, vocabularies, examples, data)
        assert len(scores) == len(data) and all(score <= 1 for score in scores), name


@pytest.mark.parametrize("name", [name for name in PARTS if name != "prices"])
def test_the_references_themselves_are_right(name, monkeypatch):
    data = PARTS[name].read("test", 5, 0)

    def written(model, vocabularies, examples, *_):
        return [references[0] for references in examples.references]

    monkeypatch.setattr("mmscratch.tasks.parts.generate", written)
    examples = Mixture({name: data}, [name] * len(data))
    assert PARTS[name].score(None, {}, examples, data) == [1.0] * len(data)
    examples.references = examples.references[1:] + examples.references[:1]
    assert sum(PARTS[name].score(None, {}, examples, data)) < len(data)


def test_prices_are_right_as_far_as_their_variance_is_explained(monkeypatch):
    data = PARTS["prices"].read("test", 40, 0)
    classes = data.target.classes

    def certain(model, vocabularies, examples, candidates):
        scores = torch.full((len(examples), len(classes)), -1e3)
        for row, label in zip(scores, data.labels):
            row[classes.index(label)] = 0
        return scores

    monkeypatch.setattr("mmscratch.tasks.parts.candidate_log_probs", certain)
    examples = Mixture({"prices": data}, ["prices"] * 40)
    scores = PARTS["prices"].score(None, {}, examples, data)
    assert 0.9 < sum(scores) / 40 < 1


def test_each_part_is_measured_apart_with_new_wordings(home, capsys):
    assert main("evaluate runs/mixture".split()) == 0
    out = capsys.readouterr().out
    for name in PARTS_USED.split(","):
        (line,) = re.findall(rf"^  {name} .*$", out, re.MULTILINE)
        assert re.fullmatch(
            rf"  {name} +\d+\.\d{{3}}  -?[\d.]+ %  \(.*\) +-?[\d.]+ %  \(.*\)", line
        )


def test_every_example_may_count_the_same(home):
    command = TRAIN.replace("96", "48") + " --count-by example --batch-size 16 --to runs/counted"
    assert main(command.split()) == 0
    task = MixtureOfTasks()
    data = {split: task.read(metadata(examples=30), split, 64) for split in ("train", "validation")}
    vocabularies = task.vocabularies(metadata(), data["train"], None)
    examples = make_examples(task, metadata(), data, vocabularies)

    class Trainer:
        train, validation = examples
        model = build_model(sized(task.model(metadata(), {}, None), vocabularies, examples))

    task.prepare(Trainer, metadata(**{"count-by": "example"}))
    weights = Trainer.model.objective.weights
    batch = collate([Trainer.train[i] for i in range(30)])
    _, count = Trainer.model.loss(batch)
    assert count.item() == pytest.approx((batch["target"] > 0).sum().item(), rel=1e-4)
    words = {}
    for name, target in zip(data["train"].part_of, examples[0].targets):
        words.setdefault(name, []).append(len(target))
    names = list(data["train"].parts)
    products = [float(weights[names.index(name)]) * sum(x) / len(x) for name, x in words.items()]
    assert max(products) == pytest.approx(min(products), rel=1e-4)


def test_chat_says_what_it_took_a_line_for(home, capsys, monkeypatch):
    assert main(["chat", "--image", "scene.png", "describe the picture in english"]) == 0
    assert re.fullmatch(r"\[[\w-]+\] .*\n", capsys.readouterr().out)
    monkeypatch.setattr("sys.stdin", io.StringIO("what is the price?\n\nis there a cat?\n"))
    assert main("chat --image scene.png --sound sound.wav".split()) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"(\[spoken-questions\] .*\n){2}", out)  # the only part with both
    assert main(["chat", "--sound", "sound.wav", "write what you hear"]) == 0
    assert capsys.readouterr().out.startswith("[speech-en] ")


def test_a_line_is_taken_for_the_part_whose_instructions_it_is_like(home):
    model, vocabularies, checkpoint = load_run("runs/mixture")
    data = MixtureOfTasks().read(metadata(examples=120), "train", 64)
    right = []
    for i, name in enumerate(data.part_of):
        right.append(guess_part(model, vocabularies, checkpoint["metadata"], data[i]) == name)
    assert sum(right) / len(right) > 0.9


BAD = (
    (f"{TRAIN.replace('captions-en', 'poems')} --to x", "there is no 'poems': choose among"),
    ("train --task mixture --parts , --to x", "--parts names none"),
    (f"{TRAIN} --temperature 0 --to x", "must be above 0"),
    (f"{TRAIN} --layout scenes --to x", "mixture has no layout scenes"),
    ("chat hello --run nothing", "nothing holds no trained model"),
    ("chat hello --image nothing.png", "nothing.png"),
    ("chat hello --sound nothing.wav", "nothing.wav"),
    ("chat hello --run runs/mixture+nothing", "nothing"),
    ("caption scene.png --run runs/mixture", "is a run of the task mixture, and caption needs"),
)


@pytest.mark.parametrize("command, message", BAD, ids=[message for _, message in BAD])
def test_bad_arguments_give_one_line_and_exit_code_2(command, message, home, capsys):
    assert main(command.split()) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("way", ["--lora 2", "--adapters 3", "--prompt 3", "--biases"])
def test_a_new_part_is_learned_by_a_small_change_and_swapped_by_name(way, home, capsys):
    name = way.split()[0].strip("-")
    command = (
        "train --task mixture --parts translation-de-en --examples 16 --precision float32 "
        f"--from runs/mixture {way} --to runs/{name}"
    )
    assert main(command.split()) == 0
    changed = (home / f"runs/{name}/best.pt").stat().st_size
    assert changed < (home / "runs/mixture/best.pt").stat().st_size / 2
    capsys.readouterr()
    assert main(["chat", "translate into english: ein roter Stern", "--run", f"runs/{name}"]) == 0
    own = capsys.readouterr().out
    assert own.startswith("[translation-de-en]")


def test_two_changes_at_once_are_refused_by_the_command_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main("train --task mixture --from runs/mixture --lora 2 --prompt 3".split())
    assert stop.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_stopped_mixture_resumes_to_the_bit(home):
    from mmscratch.training import TrainConfig, Trainer

    task = MixtureOfTasks()
    info = metadata(examples=48, parts="captions-en,translation-en-de,prices")
    data = {split: task.read(info, split, 64) for split in ("train", "validation")}
    vocabularies = task.vocabularies(info, data["train"], None)
    examples = make_examples(task, info, data, vocabularies)
    config = task.settings(info) | {"batch_size": 8, "evaluate_every": 3, "precision": "float32"}
    settings = sized(task.model(info, {}, None), vocabularies, examples)

    def trainer(name):
        return Trainer(settings, TrainConfig(**config), examples, home / name, info)

    whole = trainer("whole")
    whole.fit()
    parted = trainer("parted")
    parted._evaluate = lambda progress: parted.signals._handle()
    with pytest.raises(KeyboardInterrupt):
        parted.fit()
    resumed = trainer("parted")
    assert 0 < resumed.step < resumed.steps
    resumed.fit()
    for name, x in whole.model.state_dict().items():
        assert torch.equal(x, resumed.model.state_dict()[name]), name


def test_the_task_is_registered():
    assert TASKS["mixture"].verb == "chat"


def test_examples_hold_what_the_model_reads():
    data = MixtureOfTasks().read(metadata(examples=12), "train", 64)
    vocabularies = MixtureOfTasks().vocabularies(metadata(), data, None)
    for i in range(12):
        example = Examples(data, vocabularies)[i]
        assert example["source"][-1] == 2 and example["target"][-1] == 2
