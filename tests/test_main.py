"""The command line, as a user meets it: what it prints, what it leaves, how it fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from mmscratch.__main__ import BEST, _show_attention, main
from mmscratch.checkpoints import load_run
from mmscratch.datasets import SceneCaptions
from mmscratch.scenes import Scene, captions, render

ROOT = Path(__file__).resolve().parents[1]


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


def error_of(capsys) -> str:
    """The one line that a failing command prints."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_quickstart_then_caption_then_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmscratch.__main__.TEST_SCENES", 13)
    assert main(["quickstart", "--scenes", "130"]) == 0
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
    _show_attention(run, data, [captions[0] for captions in data.references])
    assert "% within the thing that a noun or colour names" in capsys.readouterr().out

    assert main(["caption", "runs/quickstart/pictures"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert main(["evaluate", "runs/quickstart", "--split", "compositional_test"]) == 0
    assert "13 pictures of the compositional_test split" in capsys.readouterr().out

    before = (run / "best.pt").read_bytes()
    assert main(["quickstart", "--scenes", "130"]) == 0  # a second time: nothing left to train
    assert (run / "best.pt").read_bytes() == before
    assert main(["quickstart", "--scenes", "140"]) == 2
    assert "another run" in error_of(capsys)


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
@pytest.mark.parametrize("fusion", ["prefix", "cross_attention"])
def test_quickstart_trains_what_is_asked_for_in_a_folder_of_its_own(tmp_path, monkeypatch, capsys, decoder, fusion):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmscratch.__main__.TEST_SCENES", 13)
    best = BEST == {"decoder": decoder, "fusion": fusion}
    assert main(["quickstart", "--scenes", "50", "--decoder", decoder, "--fusion", fusion]) == 0
    [run] = (tmp_path / "runs").iterdir()
    assert run.name == ("quickstart" if best else f"quickstart-{decoder}-{fusion}")
    model, _, _ = load_run(run)
    assert (type(model.decoder).__name__.lower(), model.decoder.fusion) == (f"{decoder}decoder", fusion)
    assert (run / "attention.png").exists() == ((decoder, fusion) != ("lstm", "prefix"))


def test_train_on_a_folder_names_and_skips_what_is_broken(folder, capsys):
    assert main(["train", "--data", "photos", "--epochs", "1", "--image-size", "32"]) == 0
    out = capsys.readouterr().out
    assert "text.jpg" in out and "captions.csv:118" in out
    assert main(["evaluate", "runs/photos"]) == 0
    again = capsys.readouterr().out
    assert "BLEU-4" in again and again.split("BLEU-4")[1] == out.split("BLEU-4")[1].split("\n\nLook")[0] + "\n"
    assert main(["evaluate", "runs/photos", "--data", "photos", "--split", "test"]) == 0


def test_a_corrupt_picture_among_good_ones_is_named_and_the_others_get_captions(folder, capsys):
    main(["train", "--data", "photos", "--epochs", "1", "--image-size", "32"])
    phone = Image.new("RGB", (3000, 2000), "white")
    exif = phone.getexif()
    exif[0x0112] = 6  # held upright
    phone.save("phone.jpg", exif=exif)
    capsys.readouterr()
    assert main(["caption", "photos/text.jpg", "phone.jpg", "missing.jpg", "photos", "--run", "runs/photos"]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 24 and "phone.jpg: " in out
    assert len(err.splitlines()) == 3 and "photos/text.jpg: not a picture" in err and "missing.jpg" in err


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("caption x.jpg", "python -m mmscratch quickstart first"),
        ("evaluate runs/nothing", "holds no trained model"),
        ("train --data nowhere", "nowhere: no such folder"),
        ("train --data photos --layout flickr8k", "official layout"),
        ("train --data photos --epochs 0", "--epochs must be at least 1"),
        ("train --data photos --image-size -5", "--image-size must be at least 1"),
        ("quickstart --scenes 0", "--scenes"),
    ],
)
def test_bad_use_gets_one_line_and_2(folder, capsys, arguments, says):
    assert main(arguments.split()) == 2
    assert says in error_of(capsys)


def test_an_unknown_command_or_option_exits_with_2(capsys):
    for arguments in (["fly"], ["quickstart", "--fusion", "hot"], []):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_doctor_finds_nothing_wrong_here_and_names_a_missing_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("Python", "torch", "torchvision", "device", "cores", "memory", "nothing is wrong"):
        assert what in out
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["doctor"]) == 2
    assert "matplotlib cannot be imported" in capsys.readouterr().out


def test_ctrl_c_keeps_the_checkpoint_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "-u", "-m", "mmscratch", "quickstart", "--scenes", "4000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "precision" not in first.stdout.readline():
        assert first.poll() is None
    time.sleep(1)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "Traceback" not in err and "the same command goes on" in err
    assert (tmp_path / "runs/quickstart/last.pt").exists()
    second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert second.returncode == 0 and "going on with runs/quickstart at step" in second.stdout
