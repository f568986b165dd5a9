"""The index of pictures: only new and changed files are embedded, and nothing is ever lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from mmscratch.images import open_image, to_tensor
from mmscratch.reliability import write_atomically
from mmscratch.search import search
from mmscratch.tasks import index as index_module
from mmscratch.tasks.index import LAYOUT, Changes, PictureIndex


class Embedder:
    """Embeds a picture as its mean colour, and remembers what it was asked for."""

    def __init__(self):
        self.seen = []
        self.batch_sizes = []

    def __call__(self, paths):
        self.batch_sizes.append(len(paths))
        vectors = [torch.zeros(0, 3)]
        problems = {}
        for path in paths:
            assert path.is_absolute()
            self.seen.append(path.name)
            try:
                picture = to_tensor(open_image(path), 2)
            except (ValueError, OSError) as error:
                problems[path] = str(error)
                continue
            vectors.append(picture.float().mean((1, 2)).unsqueeze(0))  # (1, 3)
        return torch.cat(vectors), problems


@pytest.fixture
def embed():
    return Embedder()


@pytest.fixture
def folder(tmp_path):
    """Three pictures: a.png is red 1, b.png red 2, c.png red 3."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for red, name in enumerate("abc", 1):
        paint(folder / f"{name}.png", red)
    return folder


def paint(path, red):
    Image.new("RGB", (5, 7), (red, 0, 0)).save(path)


def pictures(folder):
    return sorted(folder.iterdir())


def open_index(folder, fingerprint="model 1"):
    return PictureIndex(folder.parent / "run" / "index.pt", fingerprint)


def reds(index):
    """{name of the file: the red of its vector}."""
    vectors = index.vectors.tolist()
    assert len(vectors) == len(index.names)
    return {Path(name).name: vector[0] for name, vector in zip(index.names, vectors)}


def test_a_first_update_embeds_every_picture(folder, embed):
    index = open_index(folder)
    assert index.names == [] and index.vectors.shape == (0, 0)
    assert index.update(pictures(folder), embed) == Changes(3, 0, 0, 0)
    assert index.names == [str(path) for path in pictures(folder)]
    assert_close(index.vectors, torch.tensor([[1, 0, 0], [2, 0, 0], [3, 0, 0]]).half())
    assert index.problems == [] and os.listdir(index.path.parent) == ["index.pt"]


def test_a_second_run_embeds_and_writes_nothing(folder, embed):
    first = open_index(folder)
    first.update(pictures(folder), embed)
    written = first.path.stat()
    embed.seen.clear()
    second = open_index(folder)
    assert second.update(pictures(folder), embed) == Changes(0, 0, 0, 0)
    assert embed.seen == []
    assert second.names == first.names
    assert_close(second.vectors, first.vectors, rtol=0, atol=0)
    assert second.path.stat().st_mtime_ns == written.st_mtime_ns


@pytest.mark.parametrize("reopened", [True, False])
def test_only_new_and_changed_pictures_are_embedded(folder, embed, reopened):
    index = open_index(folder)
    index.update(pictures(folder), embed)
    embed.seen.clear()
    paint(folder / "b.png", 20)
    paint(folder / "d.png", 40)
    if reopened:
        index = open_index(folder)
    assert index.update(pictures(folder), embed) == Changes(1, 1, 0, 0)
    assert sorted(embed.seen) == ["b.png", "d.png"]
    assert reds(index) == {"a.png": 1, "b.png": 20, "c.png": 3, "d.png": 40}
    again = open_index(folder)
    again.update(pictures(folder), embed)
    assert reds(again) == reds(index) and len(embed.seen) == 2


def test_a_picture_has_changed_if_its_size_or_its_time_has(folder, embed):
    index = open_index(folder)
    index.update(pictures(folder), embed)
    embed.seen.clear()
    path = folder / "a.png"
    stat = path.stat()
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.utime(folder / "c.png", ns=(0, 1))
    assert index.update(pictures(folder), embed) == Changes(0, 2, 0, 0)
    assert embed.seen == ["a.png", "c.png"]


def test_vanished_and_renamed_pictures(folder, embed):
    open_index(folder).update(pictures(folder), embed)
    embed.seen.clear()
    (folder / "a.png").unlink()
    (folder / "b.png").rename(folder / "z.png")
    index = open_index(folder)
    assert index.update(pictures(folder), embed) == Changes(1, 0, 2, 0)
    assert embed.seen == ["z.png"] and reds(index) == {"c.png": 3, "z.png": 2}
    state = torch.load(index.path, weights_only=True)
    assert [Path(name).name for name in state["names"]] == ["c.png", "z.png"]
    assert {Path(name).name for name in state["versions"]} == {"c.png", "z.png"}
    (folder / "c.png").unlink()
    assert open_index(folder).update([], embed) == Changes(0, 0, 1, 0)
    assert open_index(folder).update([], embed) == Changes(0, 0, 0, 0), "it was written"


def test_pictures_that_are_not_given_are_kept_but_not_searched(folder, embed):
    index = open_index(folder)
    index.update(pictures(folder), embed)
    assert index.update([folder / "b.png"], embed) == Changes(0, 0, 0, 0)
    assert reds(index) == {"b.png": 2}
    index = open_index(folder)
    assert index.update(reversed(pictures(folder)), embed) == Changes(0, 0, 0, 0)
    assert list(reds(index).items()) == [("c.png", 3), ("b.png", 2), ("a.png", 1)]
    assert len(embed.seen) == 3


def test_one_file_under_several_paths_is_embedded_once(folder, embed, monkeypatch):
    monkeypatch.chdir(folder)
    index = open_index(folder)
    same = [Path("a.png"), folder / "a.png", Path("../pictures/a.png"), Path("b.png")]
    assert index.update(same, embed) == Changes(2, 0, 0, 0)
    assert index.names == [str(folder / "a.png"), str(folder / "b.png")]


def test_an_unreadable_picture_is_named_and_not_tried_again_until_it_changes(folder, embed):
    (folder / "b.png").write_text("no picture")
    (folder / "link.png").symlink_to(folder / "nothing")
    index = open_index(folder)
    changes = index.update(pictures(folder), embed)
    assert changes == Changes(2, 0, 0, 2)
    assert str(changes) == "2 new, 0 changed, 0 vanished, 2 unreadable"
    expected = [f"{folder / 'b.png'}: not a picture", f"{folder / 'link.png'}: no such file"]
    assert index.problems == expected and reds(index) == {"a.png": 1, "c.png": 3}

    embed.seen.clear()
    index = open_index(folder)
    assert index.update(pictures(folder), embed) == Changes(0, 0, 0, 2)
    assert embed.seen == [] and index.problems == expected

    paint(folder / "b.png", 20)
    (folder / "a.png").write_text("a picture no more")
    assert index.update(pictures(folder), embed) == Changes(0, 1, 0, 2)
    assert embed.seen == ["a.png", "b.png"]
    assert [problem.split(":")[0] for problem in index.problems] == [
        str(folder / "a.png"),
        str(folder / "link.png"),
    ]
    assert reds(index) == reds_of_new(folder) == {"b.png": 20, "c.png": 3}


def reds_of_new(folder):
    """What an index that is read again from its file holds."""
    index = open_index(folder)
    index.update(pictures(folder), None)  # embeds nothing
    return reds(index)


def test_no_readable_picture_at_all(folder, embed):
    for path in pictures(folder):
        path.write_text("no picture")
    index = open_index(folder)
    assert index.update(pictures(folder), embed) == Changes(0, 0, 0, 3)
    assert index.names == [] and len(index.vectors) == 0
    assert open_index(folder).update(pictures(folder), None) == Changes(0, 0, 0, 3)


def test_pictures_are_embedded_in_batches_with_progress(folder, embed, monkeypatch, capsys):
    monkeypatch.setattr(index_module, "BATCH_SIZE", 2)
    index = open_index(folder)
    index.update(pictures(folder), embed)
    assert embed.batch_sizes == [2, 1]
    assert capsys.readouterr().out.endswith("\rembedding pictures, once: 3 of 3\n")
    assert reds(index) == {"a.png": 1, "b.png": 2, "c.png": 3}


def test_an_interrupted_update_keeps_what_was_embedded(folder, embed, monkeypatch):
    monkeypatch.setattr(index_module, "BATCH_SIZE", 1)

    def interrupted(paths):
        if paths[0].name == "c.png":
            raise KeyboardInterrupt
        return embed(paths)

    with pytest.raises(KeyboardInterrupt):
        open_index(folder).update(pictures(folder), interrupted)
    embed.seen.clear()
    index = open_index(folder)
    assert index.update(pictures(folder), embed) == Changes(1, 0, 0, 0)
    assert embed.seen == ["c.png"] and reds(index) == {"a.png": 1, "b.png": 2, "c.png": 3}


def test_a_picture_that_changes_while_it_is_embedded_is_embedded_again(folder, embed):
    def changing(paths):
        paint(folder / "a.png", 10)
        os.utime(folder / "a.png", ns=(0, 1))
        return embed(paths)

    open_index(folder).update(pictures(folder), changing)
    assert open_index(folder).update(pictures(folder), embed) == Changes(0, 1, 0, 0)


def test_a_process_killed_while_writing_leaves_the_old_index(folder, embed):
    index = open_index(folder)
    index.update(pictures(folder), embed)
    before = index.path.read_bytes()
    code = f"""
import os, torch
from pathlib import Path
from mmscratch.tasks.index import PictureIndex
def killed(state, file):
    file.write(b"half")
    file.flush()
    os._exit(9)
torch.save = killed
paths = [Path({str(folder / "a.png")!r}), Path({str(folder / "d.png")!r})]
PictureIndex(Path({str(index.path)!r}), "model 1").update(paths, lambda p: (torch.ones(1, 3), {{}}))
"""
    paint(folder / "d.png", 4)
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert index.path.read_bytes() == before
    index = open_index(folder)
    assert index.update(pictures(folder), embed) == Changes(1, 0, 0, 0)
    assert os.listdir(index.path.parent) == ["index.pt"]


def refused(folder, fingerprint="model 1"):
    """The one line of the error, and the file is as before."""
    path = folder.parent / "run" / "index.pt"
    before = path.read_bytes()
    with pytest.raises(ValueError) as caught:
        open_index(folder, fingerprint)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(path)) and line.endswith("choose another --index, or delete it")
    assert path.read_bytes() == before
    return line


def test_the_index_of_another_model_is_refused(folder, embed):
    open_index(folder).update(pictures(folder), embed)
    assert "is the index of another model" in refused(folder, "model 2")


def test_a_damaged_index_is_refused(folder, embed):
    index = open_index(folder)
    index.update(pictures(folder), embed)
    whole = index.path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], b"", b"no index", whole[64:]):
        index.path.write_bytes(content)
        assert "not an index of pictures that can be read: it is damaged" in refused(folder)


@pytest.mark.parametrize("content", [{"model_config": {}}, [1, 2], {"layout": LAYOUT + "0"}])
def test_another_kind_of_file_is_refused(folder, content):
    write_atomically(folder.parent / "run" / "index.pt", content)
    assert "is not an index of pictures of this version" in refused(folder)


def test_a_folder_in_place_of_an_index_is_refused(folder):
    with pytest.raises(ValueError, match="index of pictures that can be read: Is a directory"):
        PictureIndex(folder, "model 1")


def test_an_index_that_cannot_be_written_is_reported(folder, embed):
    (folder.parent / "run").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="index.pt cannot be written"):
        open_index(folder).update(pictures(folder), embed)


def test_names_that_are_not_utf8_are_kept(folder, embed):
    try:
        paint(os.fsdecode(os.fsencode(folder) + b"/\xff.png"), 5)
    except OSError:
        pytest.skip("this file system only takes UTF-8")
    open_index(folder).update(pictures(folder), embed)
    index = open_index(folder)
    assert index.update(pictures(folder), embed) == Changes(0, 0, 0, 0)
    assert [red for red in reds(index).values()] == [1, 2, 3, 5]


def test_the_vectors_of_an_index_can_be_searched(folder, embed):
    index = open_index(folder)
    index.update(pictures(folder), embed)
    _, indices = search(torch.tensor([[1.0, 0, 0]]), index.vectors, 2)
    assert [Path(index.names[i]).name for i in indices[0]] == ["c.png", "b.png"]
