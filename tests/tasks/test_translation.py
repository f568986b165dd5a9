"""Translation from the command line: drawn scenes, and Multi30k with and without photographs."""

import gzip
import io
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from command_line import error_of, fraction, parts, run_command, train_tiny_captioner

from mmscratch.__main__ import main
from mmscratch.data.language import caption, colour_of
from mmscratch.data.scenes import Scene, render
from mmscratch.data.translations import SceneTranslation
from mmscratch.decoding import generate
from mmscratch.finetuning import load_run
from mmscratch.images import open_image, to_tensor
from mmscratch.metrics import caption_scores
from mmscratch.text import detokenize, tokenize
from mmscratch.training import Trainer

pytestmark = pytest.mark.xdist_group("translation")  # the tests share a trained run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a tiny captioner."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_tiny_captioner(folder)
    return folder


PARTS = {
    "lstm": {"name": "lstm", "hidden_size": 13},
    "transformer": {"name": "transformer", "num_heads": 2, "num_layers": 2, "mlp_dim": 17},
}
ON_SCENES = "train --task translation --data scenes --image-size 32 --precision float32"
ON_MULTI30K = ("train --task translation --data multi --photographs shown --epochs 1 --batch-size 13 --image-size 32 "
               "--precision float32")  # fmt: skip


def make_small(monkeypatch):
    small = {"SCENES": 90, "CNN_SCENES": 64, "TEST_SCENES": 13, "MERGES": 60, "PARTS": PARTS}
    for name, value in small.items():
        monkeypatch.setattr(f"mmscratch.tasks.translation.{name}", value)


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    """A folder with the runs of three tiny translators: of scenes, and of Multi30k with and without photographs."""
    folder = tmp_path_factory.mktemp("translators")
    raw, splits, shown = (
        folder / "multi/data/task1/raw",
        folder / "multi/data/task1/image_splits",
        folder / "shown",
    )
    for path in (raw, splits, shown):
        path.mkdir(parents=True)
    for split, first, count in (("train", 0, 31), ("val", 100, 11), ("test_2016_flickr", 200, 5)):
        for language in ("en", "de"):
            text = "".join(f"{caption(Scene(first + i), 0, language)}\n" for i in range(count))
            (raw / f"{split}.{language}.gz").write_bytes(gzip.compress(text.encode()))
        (splits / f"{split}.txt").write_text("".join(f"{first + i}.jpg\n" for i in range(count)))
        for i in range(first, first + count, 2):
            render(Scene(i), 48).save(shown / f"{i}_0a1b.png")
    (shown / "6_0a1b.png").write_text("no picture")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        make_small(monkeypatch)
        blind = f"{ON_MULTI30K} --to runs/blind --decoder lstm --fusion prefix".replace(
            "--photographs shown ", ""
        )
        stats = [run_command(command) for command in (ON_SCENES, ON_MULTI30K, blind)]
    assert [status for status, _ in stats] == [0, 0, 0]
    return folder, [out for _, out in stats]


@pytest.fixture
def translating(translators, monkeypatch):
    """Change to that folder; the output of the trainings."""
    folder, stats = translators
    make_small(monkeypatch)
    monkeypatch.chdir(folder)
    return stats


def measures(out):
    """The scores that were printed: {condition: the numbers in its line}."""
    return {
        way.strip(): re.findall(r"[\d.]+", rest)
        for way, rest in re.findall(r"^  (.{14}) BLEU (.*)$", out, re.M)
    }


def test_a_translator_of_scenes_is_trained_and_measured(translating, capsys):
    out = translating[0]
    assert "train: 90 examples with 90 texts (90 with image, 90 with source); 0 problems" in out
    assert "runs/translation, 13 sentences of the validation split" in out
    run = Path("runs/translation")
    data = SceneTranslation("validation", 13, ("en", "de"), 32, "some")
    model, vocabularies, saved = load_run(run)
    assert vocabularies["source"] is vocabularies["target"] and len(vocabularies["target"]) < 400
    assert {name: saved["metadata"][name] for name in ("task", "data", "layout", "source", "target")} == {
        "task": "translation", "data": "scenes", "layout": "scenes", "source": "en", "target": "de",
    }  # fmt: skip
    assert saved["model_config"]["label_smoothing"] == 0.1 and saved["train_config"]["epochs"] == 1
    for way, shown in (("with-pictures", data), ("without", data.without("image"))):
        written = generate(model, vocabularies, shown, max_length=64, batch_size=7)
        lines = (
            (run / f"translations-validation-{way}.jsonl")
            .read_text("utf-8")
            .removesuffix("\n")
            .split("\n")
        )
        entries = [json.loads(line) for line in lines]
        assert [entry["translation"] for entry in entries] == list(map(detokenize, written))
        assert [tokenize(entry["source"]) for entry in entries] == data.columns["source"]
        assert [[entry["reference"]] for entry in entries] == data.texts
        numbers = measures(out)[way.replace("-", " ")]
        assert numbers[:3] == [
            f"{x:.1f}" for x in caption_scores(written, data.references)["BLEU-4"]
        ]
        assert numbers[3:6] == fraction(
            sum([tokens] == refs for tokens, refs in zip(written, data.references)), 13
        )
        assert 0 <= float(numbers[6]) <= 100 and len(numbers) == 9
    assert "python -m mmscratch translate" in out and "--run runs/translation" in out
    assert main("evaluate runs/translation".split()) == 0
    assert measures(capsys.readouterr().out) == measures(out)


def test_evaluating_a_translator_reports_right_colours(translating, monkeypatch, capsys):
    data = SceneTranslation("test", 13, ("en", "de"), 32, "some")
    right, asked = [list(refs[0]) for refs in data.references], []
    wrong = [
        ["blauer" if colour_of(token, "de") == "red" else token for token in tokens]
        for tokens in right
    ]

    def write(model, vocabularies, examples, num_beams, max_length):
        asked.append(num_beams)
        return right if "image" in examples[0] else wrong

    monkeypatch.setattr("mmscratch.tasks.translation.generate", write)
    assert main("evaluate runs/translation --split test --beams 3".split()) == 0
    out = capsys.readouterr().out
    colours = [
        colour_of(token, "de") for tokens in right for token in tokens if colour_of(token, "de")
    ]
    found = measures(out)
    assert found["with pictures"] == ["100.0"] * 9 and asked == [3, 3]
    assert found["without"][3:6] == fraction(sum(a == b for a, b in zip(right, wrong)), 13)
    assert (
        found["without"][6:] == fraction(sum(colour != "red" for colour in colours), len(colours))
        and "red" in colours
    )
    assert Path("runs/translation/translations-test-without.jsonl").exists()


def test_translate_takes_arguments_or_standard_input_pictures_and_beams(
    translating, monkeypatch, capsys
):
    model, vocabularies, _ = load_run("runs/translation")
    longest, sentences = 64, ["A big red star.", "a small [v] cat at the top"]
    render(Scene(3), 80).save("scene.png")
    picture = to_tensor(open_image(Path("scene.png")), 32)

    tokens = [
        generate(model, vocabularies, [{"source": tokenize(text)}], max_length=longest)[0]
        for text in sentences
    ]
    assert main(["translate", *sentences]) == 0  # with the run of scenes
    assert capsys.readouterr().out == "".join(
        " ".join(detokenize(sentence).split()) + "\n" for sentence in tokens
    )
    asked = []

    def write(model, vocabularies, examples, num_beams, max_length):
        asked.append((examples[0].get("image"), max_length, num_beams))
        return [["also", *example["source"]] for example in examples]

    monkeypatch.setattr("mmscratch.tasks.translation.generate", write)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{sentences[0]}\n\n  {sentences[1]} "))
    assert main(["translate", "--run", "runs/translation", "--image", "scene.png"]) == 0
    assert capsys.readouterr().out == "also a big red star.\n\nalso a small [v] cat at the top\n"
    assert len(asked) == 2 and all(
        torch.equal(shown, picture) and rest == [longest, 1] for shown, *rest in asked
    )
    assert main(["translate", *sentences, "--beams", "3"]) == 0
    assert asked[2:] == [(None, longest, 3)] * 2


def test_a_translator_of_multi30k_uses_the_existing_photographs(translating, capsys):
    out = translating[1]
    assert (
        "train: 31 examples with 31 texts (31 with source, 15 with image); 1 problems" in out
        and "6_0a1b.png" in out
    )
    assert "validation: 11 examples with 11 texts (11 with source, 6 with image); 0 problems" in out
    assert "6_0a1b.png: not a picture" in Path("runs/multi/problems-train.txt").read_text()
    assert measures(out).keys() == {"with pictures", "without"} and "colours right" not in out
    assert main("evaluate runs/multi".split()) == 0
    assert measures(capsys.readouterr().out) == measures(out)
    assert main("evaluate runs/multi --split test --data multi".split()) == 0
    assert "5 sentences of the test split" in capsys.readouterr().out
    assert Path("runs/multi/translations-test-without.jsonl").read_text("utf-8").count("\n") == 5


def test_a_translator_without_pictures(translating, capsys):
    out = translating[2]
    assert "31 examples with 31 texts (31 with source); 0 problems" in out
    assert (
        measures(out).keys() == {""} and Path("runs/blind/translations-validation.jsonl").exists()
    )
    model, _, _ = load_run("runs/blind")
    assert list(model.encoders) == ["source"]
    assert (type(model.decoder).__name__, model.decoder.fusion) == ("LSTMDecoder", "prefix")
    assert main("translate star --run runs/blind".split()) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_stopped_translator_resumes(translating, monkeypatch, capsys):
    step = Trainer._train_step

    def pressing(trainer, batch):
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch)

    command = [*ON_MULTI30K.split(), "--to", "runs/stopped"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressing)
        assert main(command) == 130
    assert "the same command" in capsys.readouterr().err
    assert main(command) == 0
    assert "resuming runs/stopped at step 2 of 3" in capsys.readouterr().out
    ours, whole = (load_run(run)[0].state_dict() for run in ("runs/stopped", "runs/multi"))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)
    assert main([*command, "--source", "de", "--target", "en"]) == 2
    assert "source de, there en" in error_of(capsys)


def test_a_translator_starts_from_another(translating, capsys):
    command = "train --task translation --data multi --from runs/translation --epochs 1 --freeze encoders --to runs/more --precision float32"
    assert main(command.split()) == 0
    table = parts(capsys.readouterr().out)
    assert {fraction for name, (_, fraction) in table.items() if name.startswith("encoders")} == {0}
    assert 100 in {fraction for name, (_, fraction) in table.items() if name.startswith("decoder")}
    base, words, _ = load_run("runs/translation")
    model, vocabularies, saved = load_run("runs/more")
    assert (
        vocabularies["target"].state() == words["target"].state()
        and saved["model_config"]["joint_vocabulary"]
    )
    state = model.state_dict()
    frozen = [name for name in base.state_dict() if name.startswith("encoders") or "words" in name]
    assert all(
        torch.equal(
            old := base.state_dict()[name], state[name][: len(old)] if old.dim() else state[name]
        )
        for name in frozen
    )
    assert any(
        not torch.equal(weight, state[name])
        for name, weight in base.state_dict().items()
        if name not in frozen
    )
    assert main(f"{command} --image-size 48".split()) == 2
    assert "--image-size is 32 in runs/translation, and cannot become 48" in error_of(capsys)


@pytest.mark.parametrize("command, base", [
    (f"{ON_SCENES} --from captioner --to runs/from-captioner", "captioner"),
    ("train --data scenes --scenes 7 --precision float32 --from runs/translation --to runs/from-translator", "runs/translation"),
])  # fmt: skip
def test_runs_of_another_task_share_the_image_encoder(
    translating, trained, monkeypatch, capsys, command, base
):
    monkeypatch.setattr("mmscratch.tasks.captioning.TEST_SCENES", 13)
    monkeypatch.setattr("mmscratch.tasks.captioning.VALIDATION_SCENES", 3)
    shutil.copytree(trained, "captioner", dirs_exist_ok=True)
    assert main([*command.split(), "--freeze", "encoders.image"]) == 0
    assert f"from {base}: encoders.image\nall else is new\n" in capsys.readouterr().out
    now = load_run(command.split()[-1])[0].state_dict()
    names = [name for name in now if name.startswith("encoders.image.")]
    assert len(names) > 50
    theirs = load_run(base)[0].state_dict()
    assert all(torch.equal(now[name], theirs[name]) for name in names)


@pytest.mark.parametrize("arguments, says", [
    ("caption scene.png --run runs/translation", "runs/translation is a run of the task translation, and caption needs one of the task captioning"),
    ("translate star --run captioner", "captioner is a run of the task captioning, and translate needs one of the task translation"),
    ("translate star --run nowhere", "nowhere holds no trained model"),
    ("translate star --run runs/blind --image scene.png", "scene.png: this model was trained without pictures"),
    ("translate star --run runs/translation --image nothing.png", "nothing.png"),
    ("translate star --run runs/translation --image multi/data/task1/raw/val.de.gz", "not a picture"),
    ("translate star --run runs/translation --beams 0", "num_beams must be at least 1, not 0"),
    (f"{ON_SCENES} --source de --target de", "'de' is the language of source and target: choose two"),
    (f"{ON_SCENES} --target fr", "fr"),
    (f"{ON_SCENES} --from captioner --lora 2 --to lora", "captioner has other encoders: its decoder is no base for a LoRA"),
    ("train --task translation --data multi --from captioner --to runs/none", "captioner has encoders for image, and this model for source"),
    (f"{ON_SCENES} --from nowhere", "nowhere holds no trained model"),
    (f"{ON_SCENES} --epochs 0", "--epochs must be at least 1"),
    (f"{ON_MULTI30K} --target fr", "train.fr: not found, nor train.fr.gz; its folder has test_2016_flickr.de"),
    (f"{ON_MULTI30K} --photographs nowhere", "nowhere: no such folder of photographs"),
    ("train --task translation --data nowhere", "its folder has nothing"),
    ("evaluate runs/multi --split test_2017", "test_2017.en: not found"),
    ("train --data photos --from runs/translation --image-size 48", "--image-size is 32 in runs/translation, and cannot become 48"),
])  # fmt: skip
def test_bad_arguments_of_a_translator_give_one_line_and_exit_code_2(
    translating, trained, capsys, arguments, says
):
    shutil.copytree(trained, "captioner", dirs_exist_ok=True)
    Path("photos").mkdir(exist_ok=True)
    for name in ("scene.png", "photos/a.png", "photos/b.png"):
        render(Scene(3), 48).save(name)
    Path("photos/captions.csv").write_text(
        "file_name,caption,split\na.png,a star,train\nb.png,a cat,val"
    )
    assert main(arguments.split()) == 2
    assert says in error_of(capsys)
