"""Checkpoints: read back, or refused in one line."""

import os

import pytest
import torch

from mmscratch.engine.runs import VERSION, check_version, differences, read_checkpoint, read_run
from mmscratch.finetuning import load_run
from mmscratch.reliability import write_atomically


@pytest.fixture
def path(tmp_path):
    """An existing checkpoint, alone in its folder."""
    path = tmp_path / "run" / "last.pt"
    write_atomically(path, {"step": 1})
    return path


def broken(path):
    """The error about a checkpoint that cannot be read, one line."""
    with pytest.raises(ValueError) as caught:
        read_checkpoint(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: not a checkpoint that can be read")
    # torch's message is not shown
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None
    return line


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", b"PK\x03\x04 torn", b"\x80\x02", bytes(1009)]
)
def test_a_file_that_is_not_a_checkpoint_is_reported(tmp_path, content):
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    broken(path)
    with pytest.raises(ValueError, match="best.pt: not a checkpoint"):
        load_run(tmp_path)


def test_a_truncated_checkpoint_is_reported(path):
    write_atomically(path, {"weights": torch.randn(101, 103)})
    whole = path.read_bytes()
    for size in range(1, len(whole), 997):
        path.write_bytes(whole[:size])
        broken(path)


def test_a_folder_is_not_a_checkpoint(tmp_path):
    broken(tmp_path)


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="last.pt"):
        read_checkpoint(tmp_path / "last.pt")


class Evil:
    """Unpickling it creates a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False])
def test_reading_a_checkpoint_executes_nothing(tmp_path, zipped):
    path, folder = tmp_path / "best.pt", tmp_path / "evil"
    torch.save({"model": Evil(folder)}, path, _use_new_zipfile_serialization=zipped)
    line = broken(path)
    assert not folder.exists() and "weights_only" not in line
    torch.load(path, weights_only=False)
    assert folder.exists()  # so it was malicious


def test_each_difference_is_reported_with_both_values(path):
    ours = {"same": 3, "batch_size": 67, "only here": 2.5, "depth": (1, 1), "none": None}
    theirs = {"same": 3, "depth": (1, 3), "batch_size": 31, "none": None, "only there": True}
    found = sorted(differences(ours, theirs))
    assert len(found) == 4
    for line, (name, mine, other) in zip(
        found,
        [
            ("batch_size", "67", "31"),
            ("depth", "(1, 1)", "(1, 3)"),
            ("only here", "2.5", ""),
            ("only there", "", "True"),
        ],
    ):
        here, there = line.split(", there ")
        assert here.startswith(name) and mine in here and other in there
    assert differences(ours, ours) == differences({}, {}) == []
    write_atomically(path, ours)
    assert differences(ours, read_checkpoint(path)) == []  # tuples stay tuples


def test_a_long_difference_is_abbreviated():
    words = [f"word{number}" for number in range(29)]  # 200 letters
    for ours, theirs in (
        ({"words": words}, {"words": words[:-1]}),
        ({"words": words}, {}),
        ({}, {"words": words}),
    ):
        (line,) = differences(ours, theirs)
        assert "words" in line and len(line) < 50


SAVED = {"version": VERSION, "model_config": {}, "settings": {"batch_size": 32}}


def test_a_checkpoint_of_this_layout_is_read(path):
    write_atomically(path, SAVED)
    check_version(path, SAVED)
    assert read_run(path, {"batch_size": 32}) == SAVED


@pytest.mark.parametrize("version", [None, 1, VERSION + 1])
def test_a_checkpoint_of_another_layout_is_refused_in_one_line(version, path):
    saved = SAVED | {"version": version}
    if version is None:  # as in checkpoints from before layouts had numbers
        del saved["version"]
    write_atomically(path, saved)
    line = (
        f"{path} is of layout {version or 1}, and this version of the project reads layout {VERSION}: "
        "train it again, with another --to"
    )
    for read in (lambda: check_version(path, saved), lambda: read_run(path, {"batch_size": 32})):
        with pytest.raises(ValueError) as caught:
            read()
        assert str(caught.value) == line


@pytest.mark.parametrize(
    "saved", [[1, 2], {"weight": torch.zeros(2)}, None], ids=["a list", "weights", "nothing"]
)
def test_a_checkpoint_of_something_else_is_refused_in_one_line(saved, path):
    write_atomically(path, saved)
    for read in (lambda: check_version(path, saved), lambda: read_run(path, {})):
        with pytest.raises(ValueError) as caught:
            read()
        assert (
            str(caught.value)
            == f"{path} is the checkpoint of something else: choose another --to, or delete it"
        )


def test_a_best_model_alone_cannot_be_resumed(path):
    saved = {name: value for name, value in SAVED.items() if name != "settings"}
    write_atomically(path, saved)
    check_version(path, saved)
    with pytest.raises(ValueError, match="the checkpoint of something else"):
        read_run(path, {})


def test_a_run_with_other_settings_is_refused_with_the_differences(path):
    write_atomically(path, SAVED)
    with pytest.raises(
        ValueError,
        match="last.pt belongs to another run .batch_size 64, there 32.: choose another --to",
    ):
        read_run(path, {"batch_size": 64})
