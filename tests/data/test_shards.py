"""Tar files of pictures and captions: against webdataset, damaged, hostile, and in training."""

import gc
import io
import json
import math
import os
import signal
import tarfile
import tracemalloc
from itertools import chain

import numpy as np
import pytest
import torch
import webdataset
from command_line import error_of
from helpers import in_processes, tiny_config
from PIL import Image

from data_scripts import shards as script
from mmscratch import streaming
from mmscratch.__main__ import main
from mmscratch.batches import Examples, make_loader
from mmscratch.data import shards
from mmscratch.data.captions import FolderCaptions
from mmscratch.data.shards import ShardCaptions, list_shard
from mmscratch.engine import distributed
from mmscratch.finetuning import load_run
from mmscratch.images import open_image, to_tensor
from mmscratch.streaming import ShardSampler, StreamedExamples
from mmscratch.text import Vocabulary, tokenize
from mmscratch.training import TrainConfig, Trainer


def jpeg(number, size=9):
    """A picture that differs from those of other numbers."""
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_tar(path, members):
    """A tar file of (name, content); content may be a TarInfo instead, for what is no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def example(number, caption=None):
    """As img2dataset writes it."""
    key = f"{number:09}"
    caption = caption or f"picture number {number}"
    record = json.dumps({"caption": caption, "url": "https://example.org", "status": "success"})
    return [
        (f"{key}.jpg", jpeg(number)),
        (f"{key}.json", record.encode()),
        (f"{key}.txt", caption.encode()),
    ]


def write_shards(folder, *sizes):
    """Shards of so many examples, numbered on."""
    number = 0
    for i, size in enumerate(sizes):
        members = []
        for _ in range(size):
            members += example(number)
            number += 1
        write_tar(folder / f"{i:05}.tar", members)


def test_examples_are_those_of_webdataset(tmp_path):
    write_shards(tmp_path, 5, 3, 1)
    data = ShardCaptions(tmp_path, "train", 7)
    urls = [str(tmp_path / f"{i:05}.tar") for i in range(2)]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert data.shard_sizes == [5, 3] and len(data) == len(theirs) == 8
    for i, expected in enumerate(theirs):
        assert data.name(i) == f"{urls[i // 5]}: {expected['__key__']}"
        assert data.captions(i) == [tokenize(expected["txt"].decode())]
        picture = to_tensor(open_image(io.BytesIO(expected["jpg"])), 7)
        assert torch.equal(data.picture(i), picture)
    assert data.count("image") == 8 and torch.equal(data[3]["image"], data.picture(3))
    assert data.references == [data.captions(i) for i in range(8)] and data.problems == []


def test_the_last_shard_is_for_validation_or_a_folder(tmp_path):
    write_shards(tmp_path / "a", 2, 2, 3)
    assert len(ShardCaptions(tmp_path / "a", "train", 5)) == 4
    held_out = ShardCaptions(tmp_path / "a", "validation", 5)
    assert held_out.texts == [[f"picture number {i}"] for i in (4, 5, 6)]
    assert [example["image"].shape for example in held_out] == [(3, 5, 5)] * 3
    assert held_out.names[0].endswith("00002.tar: 000000004")
    write_shards(tmp_path / "b/train", 2)
    write_shards(tmp_path / "b/validation", 1)
    assert len(ShardCaptions(tmp_path / "b", "train", 5)) == 2
    assert len(ShardCaptions(tmp_path / "b", "validation", 5)) == 1
    with pytest.raises(FileNotFoundError, match="b/test: no tar files there"):
        ShardCaptions(tmp_path / "b", "test", 5)
    write_shards(tmp_path / "c", 2)
    with pytest.raises(ValueError, match="c: 1 tar files; at least two are needed"):
        ShardCaptions(tmp_path / "c", "train", 5)


def test_captions_are_in_txt_or_json(tmp_path):
    several = json.dumps({"captions": ["one dog", " two dogs "]}).encode()
    members = [
        ("a/1.jpg", jpeg(1)),
        ("a/1.json", several),
        ("2.png", jpeg(2)),
        ("2.json", b'{"caption": "a cat"}'),
        ("3.webp", jpeg(3)),
        ("3.txt", "größer".encode()),
        ("4.jpg", jpeg(4)),
        ("4.seg.png", jpeg(5)),
        ("4.txt", b" ".join([b"word"] * 99)),
    ]
    write_tar(tmp_path / "train/0.tar", members)
    write_shards(tmp_path / "validation", 1)
    data = ShardCaptions(tmp_path, "train", 9)
    assert data.captions(0) == [["one", "dog"], ["two", "dogs"]]
    assert data.captions(1) == [["a", "cat"]] and data.captions(2) == [["größer"]]
    assert data.captions(3) == [["word"] * 64]
    assert torch.equal(data.picture(3), to_tensor(open_image(io.BytesIO(jpeg(4))), 9))


def special(name, kind, link="/etc/passwd"):
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = link
    return member


def test_members_that_are_traps_are_named_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_PICTURE", 1000)
    members = [
        *example(1),
        ("", special("2.jpg", tarfile.SYMTYPE)),
        ("2.txt", b"a link"),
        ("", special("3.jpg", tarfile.LNKTYPE)),
        ("", special("4.jpg", tarfile.CHRTYPE)),
        ("../../5.jpg", jpeg(5)),
        ("../../5.txt", b"outside"),
        ("/6.jpg", jpeg(6)),
        ("/6.txt", b"absolute"),
        ("7.jpg", bytes(1001)),
        ("7.txt", b"a bomb"),
        ("8\x1b[31m.jpg", jpeg(8)),
        ("9.txt", b"no picture"),
        ("10.csv", b""),
        ("folder", special("folder", tarfile.DIRTYPE)),
    ]
    path = tmp_path / "0.tar"
    write_tar(path, members)
    problems = []
    entries = list_shard(path, problems)
    assert [entry.key for entry in entries] == ["000000001", "5", "6"]
    expected = [
        "2.jpg: no file, not read",
        "3.jpg: no file, not read",
        "4.jpg: no file, not read",
        "2 has no picture",
        "7.jpg: 1,001 bytes, not read",
        "7 has no picture",
        "8\\x1b[31m has no caption (.txt or .json)",
        "9 has no picture",
        "10 has no picture",
    ]
    assert sorted(problems) == sorted(f"{path}: {problem}" for problem in expected)
    assert [p.name for p in tmp_path.iterdir()] == ["0.tar"]


@pytest.mark.parametrize("cut", [1, 600, 2000])
def test_of_a_truncated_tar_file_the_beginning_is_used(tmp_path, cut):
    write_shards(tmp_path, 5)
    path = tmp_path / "00000.tar"
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-3]
    path.write_bytes(path.read_bytes()[: last.offset_data + last.size - cut])
    problems = []
    assert [entry.key for entry in list_shard(path, problems)] == [f"{i:09}" for i in range(4)]
    assert problems[0].startswith(f"{path}: damaged, 3 examples before the damage: ")


def test_a_file_that_is_no_tar_file(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"not a tar file" * 100)
    write_tar(tmp_path / "1.tar", example(1))
    problems = []
    assert list_shard(tmp_path / "0.tar", problems) == [] and "damaged, 0 examples" in problems[0]
    with pytest.raises(ValueError, match="its tar files hold no pictures with captions"):
        ShardCaptions(tmp_path, "train", 5)


def broken_shards(folder):
    """Ten examples: the second has a broken picture, the fifth a caption that is no text."""
    members = [example(i) for i in range(10)]
    members[1][0] = (members[1][0][0], b"no picture")
    members[4][2] = (members[4][2][0], b"\xff\xfe\xff")
    write_tar(folder / "train/0.tar", sum(members, []))
    write_shards(folder / "validation", 2)


def test_what_cannot_be_decoded_is_named_and_does_not_count(tmp_path):
    broken_shards(tmp_path)
    data = ShardCaptions(tmp_path, "train", 5)
    data.log = tmp_path / "skipped.txt"
    examples = StreamedExamples(data, {"target": Vocabulary(["picture"])})
    assert examples[1].keys() == {"target"} and examples[1]["target"].tolist() == [[0]]
    assert examples[4].keys() == {"target"}
    assert examples[0].keys() == {"target", "image"} and examples[0]["target"].shape == (1, 4)
    lines = sorted(set(data.log.read_text().splitlines()))
    assert lines[0] == f"{data.paths[0]}: 000000001: not a picture"
    assert lines[1] == f"{data.paths[0]}: 000000004: its caption cannot be read"
    assert data.problems == lines[1:]  # captions are read at once, for the vocabulary


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_a_later_start_see_the_same_batches(tmp_path, workers):
    write_shards(tmp_path, 7, 5, 9, 6, 2)
    data = ShardCaptions(tmp_path, "train", 5)
    examples = StreamedExamples(data, {"target": Vocabulary(["picture"])}, True, seed=3)

    def batches(skip):
        sampler = ShardSampler(data.shard_sizes, 4, seed=3)
        sampler.start(2, skip)
        return list(make_loader(examples, sampler, workers))

    whole = batches(0)
    assert len(whole) == 27 // 4
    for a, b in zip(batches(3), whole[3:], strict=True):
        assert a.keys() == b.keys() == {"image", "target", "augmentation"}
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path, monkeypatch):
    """Thousands of small members: what is allocated after 60 shards is what it was after 20."""
    monkeypatch.setattr(streaming, "WINDOW", 60)
    monkeypatch.setattr(shards, "OPEN_EXAMPLES", 100)
    members = sum([example(i) for i in range(40)], [])
    write_tar(tmp_path / "00000.tar", members)
    content = (tmp_path / "00000.tar").read_bytes()
    for i in range(1, 61):
        (tmp_path / f"{i:05}.tar").write_bytes(content)
    data = ShardCaptions(tmp_path, "train", 5)
    data.references = data.texts = []  # 100,000 captions are the vocabulary's
    examples = StreamedExamples(data, {"target": Vocabulary(["picture"])})
    sampler = ShardSampler(data.shard_sizes, 40)
    tracemalloc.start()
    try:
        used = []
        for i, batch in enumerate(sampler):
            for index in batch:
                examples[index]
            if i in (19, 59):
                gc.collect()
                used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert used[1] < used[0] + 100_000
    assert len(data.opened) == 2


def test_shards_of_a_window_stay_open(tmp_path, monkeypatch):
    """Each is listed once, though the examples of the window are shuffled."""
    write_shards(tmp_path, *[3] * 9)
    data = ShardCaptions(tmp_path, "train", 5)
    listed = []
    list_once = shards.list_shard
    monkeypatch.setattr(
        shards, "list_shard", lambda *given: listed.append(given) or list_once(*given)
    )
    for batch in ShardSampler(data.shard_sizes, 1):
        data.picture(batch[0][0])
    assert len(listed) <= 8


def test_a_folder_becomes_shards(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "PER_SHARD", 4)
    lines = ["file_name,caption,split"]
    for i in range(13):
        name = f"picture {i}.PNG"
        split = "train" if i < 10 else "validation" if i < 12 else "test"
        (tmp_path / name).write_bytes(jpeg(i))
        lines += [f"{name},a dog {i},{split}", f"{name},größer {i},{split}"]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    assert script.main([str(tmp_path), "--to", str(tmp_path / "shards")]) == 0
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("shards/*/*"))
    assert found == [
        "shards/test/00000.tar",
        *(f"shards/train/0000{i}.tar" for i in range(3)),
        "shards/validation/00000.tar",
    ]
    data = ShardCaptions(tmp_path / "shards", "train", 7)
    folder = FolderCaptions(tmp_path, "train", 7)
    theirs = {tuple(map(tuple, folder.references[i])): folder[i]["image"] for i in range(10)}
    assert data.shard_sizes == [4, 4, 2] and data.references != folder.references
    for i in range(10):
        assert torch.equal(data.picture(i), theirs.pop(tuple(map(tuple, data.captions(i)))))
    before = (tmp_path / found[0]).read_bytes()
    assert script.main([str(tmp_path), "--to", str(tmp_path / "shards")]) == 2
    assert "has tar files already: choose another --to" in error_of(capsys)
    assert script.main([str(tmp_path), "--to", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other/test/00000.tar").read_bytes() == before


TRAIN = "train --data shards --layout shards --image-size 32 --epochs 2 --batch-size 8"


def test_train_on_shards(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "shards", 20, 20, 12, 3)
    broken = example(60)
    broken[0] = (broken[0][0], b"broken")
    write_tar(tmp_path / "shards/00002.tar", [*broken, *example(61)])
    assert main([*TRAIN.split(), "--precision", "float32"]) == 0
    out = capsys.readouterr().out
    _, _, saved = load_run("runs/shards")
    assert not saved["train_config"]["freeze"]  # the eyes learn as well
    assert "train: 42 examples in 3 shards" in out and "step 10/10" in out
    skipped = set((tmp_path / "runs/shards/skipped.txt").read_text().splitlines())
    assert skipped == {f"{tmp_path}/shards/00002.tar: 000000060: not a picture"}
    assert "1 examples could not be read: see runs/shards/skipped.txt" in out
    command = "train --data shards --layout shards --reward cider_d --from runs/shards --to x"
    assert main(command.split()) == 2
    assert "shards are read as a stream" in error_of(capsys)


def stream_trainer(folder, root, **settings):
    """A trainer of a tiny captioner that reads shards, with dropout and augmentation."""
    data = ShardCaptions(root, "train", 32)
    validation = ShardCaptions(root, "validation", 32)
    vocabularies = {"target": Vocabulary.build(chain.from_iterable(data.references))}
    examples = StreamedExamples(data, vocabularies, True), Examples(validation, vocabularies)
    config = TrainConfig(epochs=2, batch_size=8, precision="float32", **settings)
    return Trainer(tiny_config(len(vocabularies["target"])), config, examples, folder)


def kill_in_step(trainer, step):
    """Save after each step, and kill this process within the given one."""
    take = trainer._train_step

    def save_or_die(batch):
        if trainer.step + 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)
        trainer.saved_at = -math.inf  # it is time to save
        return take(batch)

    trainer._train_step = save_or_die
    trainer.fit()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_run_killed_within_a_shard_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # a fork could not use it
    root = tmp_path / "shards"
    write_shards(root, 11, 7, 13, 2)  # of 31 examples, 3 batches an epoch
    whole = stream_trainer(tmp_path / "whole", root)
    whole.fit()
    for step in (3, 5):  # the first epoch's last shard, the second epoch's first
        child = os.fork()
        if child == 0:
            try:
                kill_in_step(stream_trainer(tmp_path / "killed", root), step)
            finally:
                os._exit(3)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    read = []
    monkeypatch.setattr(ShardCaptions, "picture", counting(ShardCaptions.picture, read))
    resumed = stream_trainer(tmp_path / "killed", root)
    assert resumed.step == 4
    read.clear()  # those of validation
    resumed.fit()
    assert len(read) == 16  # of two steps: nothing before them is read again
    weights = resumed.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def counting(read, indices):
    """The method `read` of a data set, which also notes the indices that are read."""

    def noting(data, index):
        indices.append(index)
        return read(data, index)

    return noting


def train_and_note(folder):
    """Train in one of several processes, and write down what it read, and its weights."""
    distributed.start()
    read = []
    ShardCaptions.picture = counting(ShardCaptions.picture, read)
    trainer = stream_trainer(folder / "run", folder / "shards")
    read.clear()
    trainer.fit()
    noted = {"read": read, "weights": trainer.model.state_dict()}
    torch.save(noted, folder / f"{distributed.rank()}.pt")


def test_two_processes_train_on_different_shards(tmp_path):
    write_shards(tmp_path / "shards", 8, 8, 8, 8, 2)
    assert in_processes(2, train_and_note, tmp_path) == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for epoch in range(2):
        halves = [set(rank["read"][16 * epoch : 16 * epoch + 16]) for rank in (one, other)]
        assert halves[0] | halves[1] == set(range(32)) and not halves[0] & halves[1]
    for name, value in one["weights"].items():
        if "running" not in name and "num_batches" not in name:  # batch norm is not shared
            assert torch.equal(value, other["weights"][name]), name
