"""What a run keeps on disk: whole whatever happens, read without executing anything; and the random numbers' places."""

import contextlib
import json
import os
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mmscratch.checkpoints import (
    adapt,
    differences,
    load_run,
    random_state,
    random_state_kept,
    read_checkpoint,
    save_run,
    seed_everything,
    set_random_state,
    vocabularies,
    words_state,
    write_atomically,
)
from mmscratch.model import ModelConfig, build_model, table
from mmscratch.text import BytePairEncoding, Vocabulary

ROOT = Path(__file__).resolve().parents[1]
BIG = 1_000_003  # numbers, 4 MB
DEVICES = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()


@pytest.fixture
def path(tmp_path):
    """A checkpoint that is there, alone in its folder."""
    path = tmp_path / "run" / "last.pt"
    write_atomically(path, {"step": 1})
    return path


def assert_nothing_has_happened(path):
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert os.listdir(path.parent) == [path.name]


def refused(path, state):
    """The one line of a failed write."""
    with pytest.raises(OSError) as caught:
        write_atomically(path, state)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path} cannot be written: ")
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None  # what torch said is not shown
    return line


def test_what_is_written_can_be_read(path):
    weights, plain = {"weight": torch.randn(5, 3), "half": torch.randn(7).bfloat16()}, [1, (2.5, None), {"a": "ä"}, True]
    write_atomically(path, {"model": weights, "plain": plain})
    state = read_checkpoint(path)
    assert_close(state["model"], weights, rtol=0, atol=0)
    assert state["plain"] == plain and os.listdir(path.parent) == ["last.pt"]


def test_all_of_it_is_on_the_disk_before_it_takes_the_place_of_the_old_one(path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def watched(file):
        events.append(("on the disk", os.fstat(file).st_size, path.stat().st_size))
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("renamed"), replace(*names)))
    old = path.stat().st_size
    write_atomically(path, {"weights": torch.randn(BIG)})
    assert events == [("on the disk", path.stat().st_size, old), "renamed"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("size", [1, BIG])  # what fails is the last flush, or a write in the midst of torch.save
def test_a_full_disk_keeps_the_old_checkpoint(path, size):
    path.with_name("last.pt.writing").symlink_to("/dev/full")
    line = refused(path, {"weights": torch.randn(size)})
    assert "No space left" in line and "the one before is kept" in line
    assert_nothing_has_happened(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_at_first(tmp_path):
    (tmp_path / "last.pt.writing").symlink_to("/dev/full")
    line = refused(tmp_path / "last.pt", {"step": 1})
    assert "No space left" in line and "kept" not in line  # for there is none
    assert os.listdir(tmp_path) == []


def test_a_file_that_may_not_be_so_big_keeps_the_old_checkpoint(path):
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG, before[1]))  # Python ignores the signal of it
    try:
        line = refused(path, {"weights": torch.randn(BIG)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "too large" in line
    assert_nothing_has_happened(path)


@pytest.mark.parametrize("below", ["last.pt", "run/last.pt"])
def test_a_folder_that_cannot_be(tmp_path, below):
    (tmp_path / "file").write_text("a file, and no folder")
    refused(tmp_path / "file" / below, {"step": 1})
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(path):
    path.parent.chmod(0o500)
    try:
        assert "ermission" in refused(path, {"step": 2})
    finally:
        path.parent.chmod(0o700)
    assert_nothing_has_happened(path)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "last.pt").mkdir()
    refused(tmp_path / "last.pt", {"step": 1})
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, KeyError])
def test_what_else_happens_while_writing_keeps_the_old_checkpoint(path, monkeypatch, error):
    def happen(_):
        raise error

    monkeypatch.setattr(os, "fsync", happen)
    with pytest.raises(error):
        write_atomically(path, {"step": 2})
    assert_nothing_has_happened(path)


KILLED = """if True:
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    from mmscratch.checkpoints import write_atomically

    torch.set_num_threads(1)  # of the threads of others, a forked process has none

    path, numbers, found = Path(sys.argv[1]), torch.arange(300_007), set()
    write_atomically(path, {"step": 0, "numbers": numbers})
    for _ in range(20):
        first = torch.load(path, weights_only=True)["step"] + 1
        child = os.fork()
        if child == 0:
            for step in range(first, first + 10**6):
                write_atomically(path, {"step": step, "numbers": numbers + step})
        time.sleep(random.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found |= set(os.listdir(path.parent))
        state = torch.load(path, weights_only=True)
        assert torch.equal(state["numbers"], numbers + state["step"])
    print(state["step"], *sorted(found))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows")
def test_a_process_that_is_killed_while_writing_leaves_a_whole_checkpoint(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "last.pt")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    steps, *found = run.stdout.split()
    assert int(steps) > 3 and found == ["last.pt", "last.pt.writing"]  # so it was killed while writing
    write_atomically(tmp_path / "last.pt", {"step": 1})
    assert_nothing_has_happened(tmp_path / "last.pt")


def broken(path):
    """The one line about a checkpoint that cannot be read."""
    with pytest.raises(ValueError) as caught:
        read_checkpoint(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: not a checkpoint that can be read")
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None  # what torch said is not shown
    return line


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 torn", b"\x80\x02", bytes(1009)])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    broken(path)
    with pytest.raises(ValueError, match="best.pt: not a checkpoint"):
        load_run(tmp_path)


def test_half_a_checkpoint_is_named(path):
    write_atomically(path, {"weights": torch.randn(101, 103)})
    whole = path.read_bytes()
    for size in range(1, len(whole), 997):
        path.write_bytes(whole[:size])
        broken(path)


def test_a_folder_is_no_checkpoint(tmp_path):
    broken(tmp_path)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="last.pt"):
        read_checkpoint(tmp_path / "last.pt")


class Evil:
    """What opens it as a pickle makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_executes_nothing_and_nobody_is_told_to_let_it(tmp_path, zipped):
    path, folder = tmp_path / "best.pt", tmp_path / "evil"
    torch.save({"model": Evil(folder)}, path, _use_new_zipfile_serialization=zipped)
    line = broken(path)
    assert not folder.exists() and "weights_only" not in line
    torch.load(path, weights_only=False)
    assert folder.exists()  # so it was evil


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with the best model of a run, that model, and what was written."""
    monkeypatch.setattr("mmscratch.checkpoints.pick_device", lambda: torch.device("cpu"))
    config = ModelConfig(7, depth=(1, 1), width=5, image_size=37, embed_dim=22, hidden_size=13)
    model = build_model(config)
    model.encoders["image"].backbone.bn1.running_mean.normal_()
    saved = {
        "model": model.state_dict(),
        "model_config": asdict(config),
        "words": ["a", "red", "circle"],
        "facts": {"data": "x"},
    }
    write_atomically(tmp_path / "best.pt", saved)
    return tmp_path, model, saved


def test_a_run_is_loaded_as_it_was(run):
    folder, model, saved = run
    for where in (folder, str(folder)):
        loaded, vocabulary, checkpoint = load_run(where)
        assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert vocabulary.words[4:] == saved["words"] and not loaded.training
        assert checkpoint["facts"] == {"data": "x"} and checkpoint["model_config"] == saved["model_config"]


def test_a_run_that_was_saved_before_there_were_sources_is_loaded(run):
    folder, model, saved = run
    since = ("source_vocab_size", "source_layers", "joint_vocabulary", "modality_dropout", "feedforward_size")
    old = saved | {"model_config": {name: value for name, value in saved["model_config"].items() if name not in since}}
    write_atomically(folder / "best.pt", old)
    loaded, vocabulary, checkpoint = load_run(folder)
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert "source_words" not in old and vocabularies(checkpoint)[1] is None
    assert vocabularies(checkpoint)[0].words == vocabulary.words


ENGLISH, GERMAN = Vocabulary(["a", "red", "circle", "in", "rot"]), Vocabulary(["rot", "ein", "kreis", "in", "a", "und", "ist"])
PIECES = BytePairEncoding.learn([["kreis", "kreise", "kreisel"], ["circle", "circles"]], 7)


@pytest.mark.parametrize("written, read", [(GERMAN, ENGLISH), (PIECES, ENGLISH), (GERMAN, PIECES), (GERMAN, None), (PIECES, None)])
def test_vocabularies_that_are_apart_come_back(written, read):
    state = json.loads(json.dumps(words_state(written, read)))  # plain values only
    first, second = vocabularies(state | {"model_config": {"source_vocab_size": len(read or ())}})
    assert type(first) is type(written) and first.words == written.words and first.state() == written.state()
    assert type(second) is type(read) and (read is None or second.state() == read.state())


@pytest.mark.parametrize("vocabulary", [GERMAN, PIECES], ids=["words", "pieces"])
@pytest.mark.parametrize("joint", [True, False])
def test_one_vocabulary_for_both_is_kept_once_and_comes_back_as_one(vocabulary, joint):
    state = words_state(vocabulary, vocabulary)
    assert state["words"] == vocabulary.state() and state["source_words"] is None
    sizes = {"vocab_size": len(vocabulary), "source_vocab_size": len(vocabulary), "joint_vocabulary": joint}
    first, second = vocabularies(state | {"model_config": sizes})
    assert first is second and first.state() == vocabulary.state()


SEEN = {"depth": (1, 1), "width": 5, "image_size": 37, "embed_dim": 22, "hidden_size": 13, "num_heads": 2}


def translator(written, read, **part):
    return ModelConfig(len(written), source_vocab_size=len(read), **SEEN | part)


@pytest.fixture(params=["lstm", "transformer"])
def saved_translator(request, tmp_path, monkeypatch):
    """Writes a translator's run, and gives its config, its model and the folder."""
    monkeypatch.setattr("mmscratch.checkpoints.pick_device", lambda: torch.device("cpu"))

    def make(written, read, **part):
        config = translator(written, read, decoder=request.param, **part)
        model = build_model(config)
        save_run(tmp_path, model, config, written, {"task": "translation"}, read)
        return config, model, tmp_path

    return make


@pytest.mark.parametrize("written, read, part", [
    (GERMAN, ENGLISH, {}), (GERMAN, ENGLISH, {"backbone": ""}), (PIECES, PIECES, {"joint_vocabulary": True}),
], ids=["apart", "no pictures", "joint"])  # fmt: skip
def test_a_translator_is_loaded_as_it_was(written, read, part, saved_translator):
    config, model, folder = saved_translator(written, read, **part)
    loaded, vocabulary, checkpoint = load_run(folder)
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert not loaded.training and checkpoint["facts"] == {"task": "translation"}
    assert ModelConfig(**checkpoint["model_config"]) == config
    assert vocabulary.state() == written.state()
    assert [v.state() for v in vocabularies(checkpoint)] == [written.state(), read.state()]


def rows(reader, vocabulary):
    return dict(zip(vocabulary.words, table(reader).weight.detach().clone()))


def test_a_translator_begins_with_another_and_each_table_keeps_the_rows_of_its_own_words(saved_translator):
    config, base, folder = saved_translator(GERMAN, ENGLISH)
    written = Vocabulary(["in", "kreis", "blau", "circle", "ein"])
    read = Vocabulary(["circle", "kreis", "in", "blue", "green", "a"])
    model = build_model(translator(written, read, decoder=config.decoder))
    fresh = [rows(reader, v) for reader, v in ((model.decoder, written), (model.encoders["source"], read))]
    adapt(model, written, str(folder), source_vocabulary=read)
    for now, old, new, common in (
        (rows(model.decoder, written), rows(base.decoder, GERMAN), fresh[0], {"in", "kreis", "ein"}),
        (rows(model.encoders["source"], read), rows(base.encoders["source"], ENGLISH), fresh[1], {"circle", "in", "a"}),
    ):
        common = common | {"<pad>", "<bos>", "<eos>", "<unk>"}
        assert len(now) > len(common) + 1
        for word, row in now.items():
            assert_close(row, (old if word in common else new)[word], rtol=0, atol=0)
    others = [name for name in base.state_dict() if "embedding" not in name and name != "decoder.bias"]
    assert_close({n: model.state_dict()[n] for n in others}, {n: base.state_dict()[n] for n in others}, rtol=0, atol=0)


def test_a_joint_vocabulary_that_has_grown_keeps_its_rows_and_stays_joint(saved_translator):
    config, base, folder = saved_translator(GERMAN, GERMAN, joint_vocabulary=True)
    more = Vocabulary(["blau", *GERMAN.state()[::-1], "circle"])
    model = build_model(translator(more, more, decoder=config.decoder, joint_vocabulary=True))
    adapt(model, more, str(folder), source_vocabulary=more)
    assert table(model.encoders["source"]).weight is table(model.decoder).weight
    now, old = rows(model.decoder, more), rows(base.decoder, GERMAN)
    assert len(now) == len(old) + 2
    for word, row in old.items():
        assert_close(now[word], row, rtol=0, atol=0)


def test_with_a_lora_the_tables_of_other_words_are_trained_and_no_other(saved_translator):
    config, _, folder = saved_translator(GERMAN, ENGLISH)
    more = Vocabulary([*ENGLISH.state(), "green"])
    model = build_model(translator(GERMAN, more, decoder=config.decoder))
    adapt(model, GERMAN, str(folder), 2, source_vocabulary=more)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "lora" not in name}
    assert {name.removesuffix(".words.weight").removesuffix(".weight") for name in trained} == {"encoders.source.embedding"}


@pytest.mark.parametrize("what", ["a list", "weights alone", "another option", "another size"])
def test_the_checkpoint_of_something_else_is_refused_in_one_line(run, what):
    folder, _, saved = run
    config = saved["model_config"]
    states = {
        "a list": [1, 2],
        "weights alone": saved["model"],
        "another option": saved | {"model_config": config | {"heads": 3}},
        "another size": saved | {"model_config": config | {"width": 7}},
    }
    torch.save(states[what], folder / "best.pt")
    with pytest.raises(ValueError) as caught:
        load_run(folder)
    assert str(folder / "best.pt") in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_each_difference_is_told_with_both_values(path):
    ours = {"same": 3, "batch_size": 67, "only here": 2.5, "depth": (1, 1), "none": None}
    theirs = {"same": 3, "depth": (1, 3), "batch_size": 31, "none": None, "only there": True}
    found = sorted(differences(ours, theirs))
    assert len(found) == 4
    for line, (name, mine, other) in zip(
        found, [("batch_size", "67", "31"), ("depth", "(1, 1)", "(1, 3)"), ("only here", "2.5", ""), ("only there", "", "True")]
    ):
        here, there = line.split(", there ")
        assert here.startswith(name) and mine in here and other in there
    assert differences(ours, ours) == differences({}, {}) == []
    write_atomically(path, ours)
    assert differences(ours, read_checkpoint(path)) == []  # tuples stay tuples


def test_a_long_difference_is_told_in_short():
    words = [f"word{number}" for number in range(29)]  # 200 letters
    for ours, theirs in (({"words": words}, {"words": words[:-1]}), ({"words": words}, {}), ({}, {"words": words})):
        (line,) = differences(ours, theirs)
        assert "words" in line and len(line) < 50


def draws():
    """From each generator, in the ways that training, and what it calls, draw."""
    numbers = [random.random(), random.gauss(0, 1), np.random.randn(), *np.random.standard_normal(2), np.random.rand()]
    for device in DEVICES:
        numbers += [*torch.randn(3, device=device).tolist(), torch.nn.Dropout()(torch.ones(53, device=device)).tolist()]
    return numbers


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_same_random_numbers_come_again(path, on_disk):
    random.gauss(0, 1), np.random.randn()  # of whose pairs the other ones are still to come
    state = random_state()
    if on_disk:
        write_atomically(path, state)
        state = read_checkpoint(path)
    expected = draws()
    assert all(a != b for a, b in zip(draws(), expected))
    for _ in range(2):  # drawing does not change what was kept
        set_random_state(state)
        assert draws() == expected


def test_a_state_that_was_kept_where_a_gpu_was_is_taken_where_none_is(monkeypatch):
    state = random_state()
    expected = draws()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_rng_state", None)  # cannot be called
    set_random_state(state | {"device": [("cuda", torch.zeros(16, dtype=torch.uint8))]})
    assert draws()[:9] == expected[:9]
    assert random_state()["device"] == []


def test_what_is_drawn_within_disturbs_nobody_outside():
    with random_state_kept():
        expected = draws()
    for error in (None, KeyError):
        with contextlib.suppress(KeyError), random_state_kept():
            draws()
            if error:
                raise error
    assert draws() == expected


def test_a_seed_begins_all_generators_anew():
    def begin(seed):
        random.gauss(0, 1), np.random.randn()  # of whose pairs the other ones are forgotten
        seed_everything(seed)
        return draws()

    with random_state_kept():
        first = begin(3)
        assert begin(3) == first
        for other in (5, 7 + 2**40):
            again = begin(other)
            assert begin(other) == again
            assert all(a != b for a, b in zip(again, first))
