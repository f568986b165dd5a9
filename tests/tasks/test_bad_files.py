"""All commands with folders and files that cannot be used: one line, exit code 2, no traceback.

What was tried: no such folder, an empty one, a file, tables of garbage, of nothing, of another
shape, broken tar files; runs without a checkpoint, with garbage, a folder or a pipe in its place,
and checkpoints that lack a part, or have a number in its place, or sizes that cannot be.
"""

import os
import signal
from pathlib import Path

import pytest
import torch
from command_line import error_of, train_tiny_captioner
from PIL import Image

from mmscratch.__main__ import main
from mmscratch.tasks import TASKS
from mmscratch.tasks.task import DRAWN

pytestmark = [
    pytest.mark.xdist_group("bad files"),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here"),
]

TABLES = {".csv": b"\xff\xfe\x00garbage", ".json": b"{}", ".jsonl": b"[]\n", ".tsv": b"\n"}
VERBS = {
    "caption": ["p.png"],
    "translate": ["a dog"],
    "ask": ["p.png", "what?"],
    "find": ["a dog", "."],
    "transcribe": ["p.png"],
    "predict": ["rows.csv"],
    "chat": ["hello"],
}
NEEDED = ("model", "model_config", "train_config", "vocabularies", "metadata")  # of a checkpoint


def write(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with bad data in bad-*, and bad runs in runs/."""
    folder = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("bad-empty").mkdir()
        write("bad-file", b"x")
        for stem in ("captions", "questions", "transcripts"):
            for suffix, content in TABLES.items():
                write(f"bad-{stem}{suffix}/{stem}{suffix}", content)
        write("bad-table/table.csv", b"\xff")
        write("bad-other-table/table.csv", b"a,b\n1,2\n")
        write("bad-tars/0.tar", b"nope")
        write("bad-tars/1.tar", b"")
        write("rows.csv", b"a\n1\n")
        Image.new("RGB", (9, 9)).save("p.png")
        make_runs()
    return folder


def make_runs():
    train_tiny_captioner("good")
    saved = torch.load("good/best.pt", weights_only=True)
    Path("runs/empty").mkdir(parents=True)
    Path("runs/folder/best.pt").mkdir(parents=True)
    Path("runs/pipe").mkdir()
    os.mkfifo("runs/pipe/best.pt")
    write("runs/garbage/best.pt", b"garbage")
    write("runs/nothing/best.pt", b"")
    config = saved["model_config"]
    image = config["encoders"]["image"]
    bad = {
        "of-a-future": {"version": 99},
        "of-an-unknown-task": {"metadata": saved["metadata"] | {"task": "juggling"}},
        "without-metadata": {"metadata": {}},
        "without-pixels": {"model_config": config | {"encoders": {"image": image | {"image_size": 0}}}},
        "of-no-width": {"model_config": config | {"embed_dim": -1}},
        "not-a-number": {"model": {k: torch.full_like(x, torch.nan) if x.is_floating_point() else x
                                   for k, x in saved["model"].items()}},
    }  # fmt: skip
    for name in NEEDED:
        bad[f"number-for-{name}"] = {name: 3}
    for name, change in bad.items():
        Path("runs", name).mkdir()
        torch.save(saved | change, f"runs/{name}/best.pt")
    for name in NEEDED:
        Path(f"runs/no-{name}").mkdir()
        torch.save({k: x for k, x in saved.items() if k != name}, f"runs/no-{name}/best.pt")


def outcome(command, capsys):
    """Run a command, for 20 seconds at most -> its exit code, and whether it ends with an error."""

    def stop(*_):
        raise RuntimeError(f"{command} hangs")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    try:
        status = main(command)
        lines = capsys.readouterr().err.strip().splitlines()
        return status, bool(lines) and lines[-1].startswith("error: ")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("name", TASKS)
def test_data_that_cannot_be_used(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    options = {"translation": ["--source", "en", "--target", "de"], "prediction": ["--target", "b"]}
    for layout in set(TASKS[name].layouts) - set(DRAWN):
        for data in ("nowhere", *sorted(str(path) for path in Path().glob("bad-*"))):
            command = ["train", "--task", name, "--layout", layout, "--data", data, "--to", "new"]
            command += options.get(name, [])
            assert outcome(command, capsys) == (2, True), command


@pytest.mark.parametrize("verb", ["evaluate", "train", *VERBS])
def test_runs_that_cannot_be_used(verb, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for run in ("nowhere", "bad-file", *sorted(str(path) for path in Path("runs").iterdir())):
        if verb == "evaluate":
            command = ["evaluate", run]
        elif verb == "train":
            if run.endswith(("unknown-task", "not-a-number")):
                continue  # its weights can be used
            command = ["train", "--data", "scenes", "--scenes", "20", "--from", run, "--to", "new"]
        else:
            command = [verb, *VERBS[verb], "--run", run]
        assert outcome(command, capsys) == (2, True), command


def test_words_of_a_strange_model_cannot_steer_the_terminal(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    saved = torch.load("good/best.pt", weights_only=True)
    words = saved["vocabularies"]["target"]
    words[:] = [f"\x1b[2J{i}\u202e" for i in range(len(words))]
    Path("steers").mkdir()
    torch.save(saved, "steers/best.pt")
    assert main(["caption", "p.png", "--run", "steers"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out
    assert out.count("\n") == 1 and "\\x1b[2J" in out and "\\u202e" in out


def test_names_of_files_cannot_steer_the_terminal(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["caption", "\x1b[2J\nerror: no.png", "--run", "good"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err and err.count("\n") == 1


def test_a_run_is_used_whatever_its_task_is_called(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["evaluate", "runs/of-an-unknown-task"]) == 2
    assert "is a run of an unknown task, 'juggling'" in error_of(capsys)
