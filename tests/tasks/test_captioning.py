"""Captioning from the command line: output, files, errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import error_of, expected_scores, fraction, measured, parse_scores, parts, train_tiny_captioner
from PIL import Image
from reference import torchvision

from mmscratch.__main__ import main
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.judge import judge, judge_captions
from mmscratch.data.language import captions
from mmscratch.data.scenes import Scene, render
from mmscratch.decoding import generate
from mmscratch.finetuning import load_run
from mmscratch.images import open_image, to_tensor
from mmscratch.metrics import (
    bleu,
    caption_tokenize,
    cider_d,
    document_frequencies,
    sentence_bleu,
)
from mmscratch.tasks.captioning import BEST
from mmscratch.tasks.quickstart import show_attention
from mmscratch.tasks.rewards import set_reward
from mmscratch.text import detokenize, tokenize

pytestmark = pytest.mark.xdist_group("captioning")  # the tests share a trained run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of 23 pictures with captions, one corrupt picture, one broken line; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "photos"
    data.mkdir()
    lines = ["file_name,caption"]
    for i in range(23):
        render(Scene(i), 96).save(data / f"{i:02}.png")
        lines += [f'{i:02}.png,"{caption}"' for caption in captions(Scene(i))]
    (data / "text.jpg").write_text("this is not a picture")
    lines += ["text.jpg,a text that was renamed", "a line without a comma"]
    (data / "captions.csv").write_text("\n".join(lines))
    return data


@pytest.fixture
def few_scenes(tmp_path, monkeypatch):
    """quickstart validates with 13 scenes and tests with 13; the working directory is empty."""
    for name in ("VALIDATION_SCENES", "TEST_SCENES"):
        monkeypatch.setattr(f"mmscratch.tasks.captioning.{name}", 13)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a model that has hardly learned anything, with pictures of 32 pixels; measured on 13 test scenes."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_tiny_captioner(folder)
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of it in the working directory, as "run"; evaluate takes 13 test scenes."""
    monkeypatch.setattr("mmscratch.tasks.captioning.TEST_SCENES", 13)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    return Path("run")


QUICKSTART = ["quickstart", "--precision", "float32", "--scenes"]


def test_quickstart_then_caption_then_evaluate(few_scenes, tmp_path, capsys):
    assert main([*QUICKSTART, "130"]) == 0
    out = capsys.readouterr().out
    assert "true by judge" in out and "BLEU-4" in out
    run = tmp_path / "runs" / "quickstart"
    for name in ("best.pt", "last.pt", "metrics.jsonl", "captions-test.jsonl"):
        assert (run / name).stat().st_size > 0
    for name in ("learning_curves", "captions-test", "attention"):
        with Image.open(run / f"{name}.png") as picture:
            assert min(picture.size) > 100
    entries = [json.loads(line) for line in (run / "captions-test.jsonl").read_text().splitlines()]
    assert len(entries) == 13 and all(len(entry["references"]) == 5 for entry in entries)

    data = SceneCaptions("test", 13)
    show_attention(run, data, [captions[0] for captions in data.references])
    assert "% within the object that a noun or colour names" in capsys.readouterr().out

    assert main(["caption", "runs/quickstart/pictures"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert main(["evaluate", "runs/quickstart", "--split", "compositional_test"]) == 0
    assert "13 pictures of the compositional_test split" in capsys.readouterr().out

    before = (run / "best.pt").read_bytes()
    assert main([*QUICKSTART, "130"]) == 0  # a second time: nothing left to train
    assert (run / "best.pt").read_bytes() == before
    assert main([*QUICKSTART, "140"]) == 2
    assert "another run" in error_of(capsys)


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
@pytest.mark.parametrize("fusion", ["prefix", "cross_attention"])
def test_quickstart_trains_each_variant_in_its_own_folder(few_scenes, tmp_path, decoder, fusion):
    best = BEST == {"decoder": decoder, "fusion": fusion}
    command = [
        "quickstart",
        "--scenes",
        "50",
        "--precision",
        "float32",
        "--decoder",
        decoder,
        "--fusion",
        fusion,
    ]
    assert main(command) == 0
    [run] = (tmp_path / "runs").iterdir()
    assert run.name == ("quickstart" if best else f"quickstart-{decoder}-{fusion}")
    model, _, _ = load_run(run)
    assert (type(model.decoder).__name__.lower(), model.decoder.fusion) == (
        f"{decoder}decoder",
        fusion,
    )
    assert (run / "attention.png").exists() == ((decoder, fusion) != ("lstm", "prefix"))


def test_train_on_a_folder_skips_and_reports_broken_files(folder, capsys):
    assert main(["train", "--data", "photos", "--epochs", "1", "--image-size", "32"]) == 0
    out = capsys.readouterr().out
    assert "text.jpg" in out and "captions.csv:118" in out
    assert main(["evaluate", "runs/photos"]) == 0
    again = measured(capsys.readouterr().out)
    assert (
        "BLEU-4" in again
        and again.split("BLEU-4")[1] == out.split("BLEU-4")[1].split("\n\nLook")[0] + "\n"
    )
    assert main(["evaluate", "runs/photos", "--data", "photos", "--split", "test"]) == 0


def test_a_corrupt_picture_is_reported_and_the_others_get_captions(folder, capsys):
    main("train --data photos --epochs 1 --image-size 32 --precision float32".split())
    phone = Image.new("RGB", (3000, 2000), "white")
    exif = phone.getexif()
    exif[0x0112] = 6  # held upright
    phone.save("phone.jpg", exif=exif)
    capsys.readouterr()
    assert (
        main(
            [
                "caption",
                "photos/text.jpg",
                "phone.jpg",
                "missing.jpg",
                "photos",
                "--run",
                "runs/photos",
            ]
        )
        == 2
    )
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 24 and "phone.jpg: " in out
    assert (
        len(err.splitlines()) == 3
        and "photos/text.jpg: not a picture" in err
        and "missing.jpg" in err
    )


def test_train_starts_from_another_run(folder, run, capsys):
    base, vocabularies, _ = load_run("run")
    words = vocabularies["target"]
    frozen = "--freeze encoders.image.backbone --freeze *.norm.*"
    assert (
        main(f"train --data photos --from run --epochs 1 --precision float32 {frozen}".split()) == 0
    )
    table = parts(capsys.readouterr().out)
    model, vocabularies, saved = load_run("runs/photos")
    assert vocabularies["target"].words[: len(words)] == words.words
    assert saved["model_config"]["encoders"]["image"]["image_size"] == 32
    counts = {name: p.numel() for name, p in model.named_parameters()}
    frozen = {name: n for name, n in counts.items() if "backbone" in name or ".norm." in name}
    assert table["all"] == (
        sum(counts.values()),
        pytest.approx(100 - 100 * sum(frozen.values()) / sum(counts.values()), abs=0.05),
    )
    assert (
        table["encoders.image.backbone"][1] == table["encoders.image.norm"][1] == 0
        and table["decoder.lstm"][1] == 100
    )
    theirs = dict(base.named_parameters())
    assert all(
        torch.equal(p, theirs[name]) == (name in frozen)
        for name, p in model.named_parameters()
        if "embedding" not in name
    )
    assert main("train --data photos --from run --image-size 64 --to other".split()) == 2
    assert "--image-size is 32 in run, and cannot become 64" in error_of(capsys)


def test_a_lora_run_is_saved_without_its_base_and_used_as_any_run(folder, run, capsys):
    with (folder / "captions.csv").open("a") as file:
        file.write("\n01.png,a zebra")
    for _ in range(2):  # the second time nothing is left to do
        assert (
            main("train --data photos --from run --lora 2 --epochs 1 --precision float32".split())
            == 0
        )
        table = parts(capsys.readouterr().out)
        assert (
            table["LoRA"][1] == table["decoder.embedding"][1] == 100
            and table["decoder.lstm"][1] == 0
        )
        assert table["encoders.image.backbone"][1] == 0 and 0 < table["all"][1] < 50
    assert {"decoder.lstm.lora.weight_hh_l0.a", "decoder.embedding.weight"} < set(
        load_run("runs/photos")[2]["model"]
    )
    assert not any("lora" in name for name in load_run("runs/photos")[0].state_dict())
    assert (
        main("evaluate runs/photos".split())
        == main("caption photos/00.png --run runs/photos".split())
        == 0
    )
    capsys.readouterr()
    train_tiny_captioner("other", seed=1)
    shutil.copy("other/best.pt", "run/best.pt")
    assert main("evaluate runs/photos".split()) == 2
    assert "runs/photos/best.pt is a change of run, which must be as it was" in error_of(capsys)


def test_train_starts_from_a_cnn_of_torchvision(folder, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", "hub")
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18()
    path = Path(
        "hub/hub/checkpoints", torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    )
    path.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), path)
    size = "--epochs 1 --batch-size 200 --image-size 32 --precision float32"
    assert (
        main(f"train --data photos --from resnet18 --freeze encoders.image.backbone {size}".split())
        == 0
    )
    assert parts(capsys.readouterr().out)["encoders.image.backbone"][1] == 0
    model, _, saved = load_run("runs/photos")
    ours = model.encoders["image"].backbone.state_dict()
    assert (
        all(torch.equal(x, theirs.state_dict()[name]) for name, x in ours.items())
        and len(ours) == 120
    )
    assert main("train --data photos --from resnet18 --lora 2 --to other".split()) == 2
    assert "a LoRA would change a trained decoder" in error_of(capsys)


def test_train_starts_from_a_file_of_published_weights(folder, capsys):
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2().features.state_dict()
    theirs = {f"features.{name}": x for name, x in theirs.items()}  # without the classifier
    torch.save(theirs, "mobilenet.pth")
    command = "train --data photos --from mobilenet_v2 --weights mobilenet.pth --epochs 1"
    command += " --batch-size 200 --image-size 32 --precision float32"
    assert main([*command.split(), "--freeze", "encoders.image.backbone"]) == 0
    model, _, saved = load_run("runs/photos")
    ours = model.encoders["image"].backbone.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())
    assert saved["train_config"]["weights"] == str(Path("mobilenet.pth").resolve())
    capsys.readouterr()
    wrong = {
        "--weights mobilenet.pth": "--weights needs the CNN that they are of",
        "--from runs/photos --weights mobilenet.pth": "--weights needs the CNN that they are of",
        "--from mobilenet_v2 --weights nowhere.pth": "nowhere.pth: no such file",
        "--from resnet18 --weights mobilenet.pth": "not the weights of resnet18",
    }
    for options, says in wrong.items():
        assert main(f"train --data photos --to other {options}".split()) == 2
        assert says in error_of(capsys)


def test_train_on_a_reward(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmscratch.tasks.captioning.TEST_SCENES", 20)
    train_tiny_captioner("run")
    command = "train --data scenes --scenes 32 --from run --reward cider_d --to better"
    command += " --epochs 2 --batch-size 16 --precision float32"
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert "step 4/4" in out and "CIDEr-D" in out
    _, _, saved = load_run("better")
    assert saved["metadata"]["reward"] == "cider_d"
    assert all(-10 <= loss <= 0 for _, loss in saved["history"])  # minus the mean reward
    assert main("evaluate better".split()) == 0


def test_rewards_are_those_of_the_picture_with_the_number():
    training = SceneCaptions("train", 3, size=8)
    validation = SceneCaptions("validation", 2, size=8)
    both = (training, validation)
    data = [SimpleNamespace(data=each, vocabularies={"target": None}) for each in both]
    texts = training.texts + validation.texts
    scenes = training.scenes + validation.scenes
    config = SimpleNamespace(start_from="run")
    references = [[caption_tokenize(text) for text in several] for several in texts]
    for name in ("truth", "bleu", "cider_d"):
        model = SimpleNamespace()
        trainer = SimpleNamespace(train=data[0], validation=data[1], config=config, model=model)
        set_reward(trainer, name)
        numbers = [example["number"].item() for each in both for example in each]
        assert numbers == [0, 1, 2, 3, 4]
        captions = [tokenize(texts[i][1]) for i in (0, 4, 3)]
        found = model.objective.reward(captions, [0, 4, 1])
        plain = [caption_tokenize(detokenize(words)) for words in captions]
        theirs = [references[i] for i in (0, 4, 1)]
        if name == "truth":
            expected = [1.0, 1.0, float(judge(texts[3][1], scenes[1]).true)]
        elif name == "bleu":
            pairs = zip(plain, theirs)
            expected = [sentence_bleu(caption, refs).score / 100 for caption, refs in pairs]
        else:  # common n-grams are those of the training captions
            expected = cider_d(plain, theirs, document_frequencies(references[:3])).scores
        assert found == pytest.approx(expected) and found[0] > found[2]


def test_rewards_need_a_trained_captioner_and_the_truth_needs_scenes(folder, capsys):
    train_tiny_captioner("run")
    wrong = {
        "--data photos --reward cider_d": "--reward improves a captioner that is trained already",
        "--data photos --reward truth --from run": "only of scenes is the truth known",
    }
    for options, says in wrong.items():
        assert main(f"train {options} --to other".split()) == 2
        assert says in error_of(capsys)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("caption x.jpg", "python -m mmscratch quickstart first"),
        ("evaluate runs/nothing", "holds no trained model"),
        ("train --data nowhere", "nowhere: no such folder"),
        ("train --data photos --layout flickr8k", "official layout"),
        ("train --data photos --epochs 0", "--epochs must be at least 1"),
        ("train --data photos --learning-rate 0", "--learning-rate must be at least 1e-09"),
        ("train --data photos --image-size -5", "--image-size must be at least 1"),
        ("train --data photos --lora 3", "name its run (start_from, or --from)"),
        ("train --data photos --lora -1", "--lora must be at least 0"),
        ("train --data photos --from nowhere", "nowhere holds no trained model"),
        (
            "train --data photos --freeze encoder",
            "called 'encoder'; the model's parts are encoders.image.position, encoders.image.backbone",
        ),
        ("train --data photos --freeze encoders --freeze decoder", "there is nothing to train"),
        ("quickstart --scenes 0", "--scenes"),
        ("score nothing.txt nothing.txt", "nothing.txt"),
        ("score photos photos", "photos"),
    ],
)
def test_bad_arguments_give_one_line_and_exit_code_2(folder, capsys, arguments, says):
    assert main(arguments.split()) == 2
    assert says in error_of(capsys)


def test_evaluate_prints_every_score_of_scenes_with_its_interval(run, monkeypatch, capsys):
    data = SceneCaptions("test", 13, size=32)
    written = [list(data.references[i][i % 5]) for i in range(13)]
    written[0] = written[1]  # not true of its scene
    written[2][-1:] = []  # neither true, nor a sentence
    written[5] = data.references[5][0][:2] + ["cat"]
    monkeypatch.setattr("mmscratch.tasks.captioning.generate", lambda *_: written)
    assert main(["evaluate", "run"]) == 0
    out = capsys.readouterr().out
    hypotheses = [caption_tokenize(detokenize(tokens)) for tokens in written]
    references = [list(map(caption_tokenize, texts)) for texts in data.texts]
    fractions, faults = judge_captions(written, data.scenes)
    right = round(13 * fractions[-1] / 100)
    assert 9 <= right < 13 and sum(faults.values()) > 2
    wanted = expected_scores(hypotheses, references) | {"true by judge": fraction(right, 13)}
    assert parse_scores(out) == wanted
    for name in ("true by judge", "exact match"):
        value, low, high = map(float, wanted[name])
        assert low < value < high
    one, two, three, _ = fractions
    assert f"; one object {one:.0f} %, two {two:.0f} %, three {three:.0f} %" in out
    assert (
        f"wrong in the others  {', '.join(f'{fault} {n}' for fault, n in faults.most_common())}\n"
        in out
    )
    whole = bleu(hypotheses, references)
    lengths = f"{whole.sys_len / 13:.1f}, closest references {whole.ref_len / 13:.1f}"
    assert f"  words per sentence   {lengths}; brevity penalty {whole.bp:.3f}\n" in out
    assert "run, 13 pictures of the test split" in out and whole.sys_len < whole.ref_len

    written[:] = [refs[1] for refs in data.references]
    assert main(["evaluate", "run"]) == 0
    out = capsys.readouterr().out
    assert (
        parse_scores(out)["true by judge"] == ["100.0"] * 3 and "wrong in the others  nothing\n" in out
    )
    assert parse_scores(out)["exact match"] == ["100.0"] * 3


def test_evaluate_and_caption_use_the_requested_beam_width(run, capsys):
    data = SceneCaptions("test", 13, size=32)
    model, vocabularies, _ = load_run(run)
    Path("pictures").mkdir()
    for i in range(3):
        render(Scene(i), 40).save(f"pictures/{i}.png")
    pictures = [to_tensor(open_image(path), 32) for path in sorted(Path("pictures").iterdir())]
    references = [list(map(caption_tokenize, texts)) for texts in data.texts]
    said = []
    for beams, option in ((1, []), (3, ["--beams", "3"])):
        written = generate(model, vocabularies, data, beams)
        assert main(["evaluate", "run", *option]) == 0
        found = parse_scores(capsys.readouterr().out)
        assert (
            found.items()
            >= expected_scores(
                [caption_tokenize(detokenize(tokens)) for tokens in written], references
            ).items()
        )
        entries = [
            json.loads(line)
            for line in Path("run/captions-test.jsonl").read_text("utf-8").splitlines()
        ]
        assert [entry["caption"] for entry in entries] == list(map(detokenize, written))
        assert main(["caption", "pictures", "--run", "run", *option]) == 0
        lines = capsys.readouterr().out.splitlines()
        each = [
            generate(model, vocabularies, [{"image": picture}], beams)[0] for picture in pictures
        ]
        assert lines == [
            f"{Path('pictures', f'{i}.png')}: {detokenize(tokens)}" for i, tokens in enumerate(each)
        ]
        said.append((written, found, lines))
    (greedy, of_greedy, greedy_lines), (beam, of_beam, beam_lines) = said
    assert greedy != beam and of_greedy != of_beam and greedy_lines != beam_lines


@pytest.mark.parametrize("command", ["evaluate run", "caption one.png --run run"])
@pytest.mark.parametrize("beams", ["0", "-2"])
def test_a_beam_width_below_1_is_refused(run, capsys, command, beams):
    render(Scene(0), 40).save("one.png")
    assert main([*command.split(), "--beams", beams]) == 2
    assert f"num_beams must be at least 1, not {beams}" in error_of(capsys)


def test_photographs_are_scored_against_verbatim_captions(run, monkeypatch, capsys):
    texts = [
        "A dog's ear, seen from a T-shirt.",
        "A dog 's ear (red) , and a cat can't swim !",
        "Two men at 3 p.m. in snow",
    ]
    Path("photos").mkdir()
    for i in range(3):
        render(Scene(i), 40).save(f"photos/{i}.png")
    table = [f"{i}.png\t{text}\tvalidation" for i, text in enumerate(texts)]
    Path("photos/captions.tsv").write_text(
        "\n".join(["file_name\tcaption\tsplit", *table, "9.png\tno picture\tvalidation"])
    )
    written = [
        "a dog 's ear seen from a t-shirt",
        "a dog's ear (red) and a cat can't swim",
        "two men at 3 p.m. in snow .",
    ]
    tokens = [[*text.split()] for text in written]
    monkeypatch.setattr("mmscratch.tasks.captioning.generate", lambda *_: tokens)
    assert main(["evaluate", "run", "--data", "photos"]) == 0
    out = capsys.readouterr().out
    assert (
        "validation: 3 examples with 3 texts (3 with image); 1 problems" in out
        and "true by judge" not in out
    )
    found = parse_scores(out)
    assert found == expected_scores(
        [caption_tokenize(text) for text in written], [[caption_tokenize(text)] for text in texts]
    )
    assert found["exact match"] == ["100.0"] * 3 and found["BLEU-4"][0] == "100.0"
    ours = [[caption_tokenize(detokenize(tokenize(text)))] for text in texts]
    assert expected_scores([caption_tokenize(text) for text in written], ours) != found, (
        "our tokens would give another score"
    )


def test_ctrl_c_keeps_the_checkpoint_and_the_same_command_resumes(tmp_path):
    program = (
        "import sys; from mmscratch.tasks import captioning; "
        "captioning.TEST_SCENES = captioning.VALIDATION_SCENES = 13; "
        "from mmscratch.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    options = ["quickstart", "--scenes", "250", "--precision", "float32"]
    command = [sys.executable, "-u", "-c", program, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    numbers = tmp_path / "runs/quickstart/metrics.jsonl"
    while not (numbers.exists() and numbers.read_text()):  # training has started
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "Traceback" not in err and "the same command" in err
    assert (tmp_path / "runs/quickstart/last.pt").exists()
    second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert second.returncode == 0 and "resuming runs/quickstart at step" in second.stdout
