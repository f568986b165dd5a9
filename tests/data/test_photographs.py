"""Photographs are decoded once, also by concurrent and by killed processes."""

import itertools
import json
import multiprocessing
import os
import pickle
import time
import warnings

import numpy as np
import pytest
import torch
from grey_pictures import greys, save
from PIL import ImageOps

from mmscratch.data import photographs
from mmscratch.data.captions import FolderCaptions
from mmscratch.images import open_image


def test_decoding_more_than_one_chunk(tmp_path, monkeypatch):
    def fake(path):
        if path.stem == "0502":
            raise ValueError(f"{path}: broken")
        return int(path.stem) % 251

    monkeypatch.setattr("mmscratch.data.photographs.open_image", fake)
    monkeypatch.setattr(
        "mmscratch.data.photographs.to_tensor",
        lambda grey, size: torch.full((3, size, size), grey).byte(),
    )
    for i in range(509):
        (tmp_path / f"{i:04}.png").touch()
    lines = [
        json.dumps({"file_name": f"{i:04}.png", "caption": f"{i}", "split": "train"})
        for i in range(509)
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    data = FolderCaptions(tmp_path, size=3)
    assert data.problems == [f"{tmp_path / '0502.png'}: broken"]
    assert data.references == [[[f"{i}"]] for i in range(509) if i != 502]
    assert greys(data) == [i % 251 for i in range(509) if i != 502]


def test_pictures_are_decoded_once(forty, cache, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "mmscratch.data.photographs.open_image",
        lambda path: decoded.append(path.name) or open_image(path),
    )
    first = FolderCaptions(forty, size=7)
    assert len(decoded) == 40
    second = FolderCaptions(forty, size=7)
    assert [second[i]["image"].tolist() for i in range(40)] == [
        first[i]["image"].tolist() for i in range(40)
    ]
    assert len(decoded) == 40
    assert second[3]["image"].shape == (3, 7, 7) and second[3]["image"].dtype == torch.uint8
    assert isinstance(second.columns["image"].make.__self__.pictures, np.memmap)
    assert len(list(cache.iterdir())) == 1
    FolderCaptions(forty, size=5)
    assert len(decoded) == 80


def test_a_changed_picture_is_noticed(forty):
    before = FolderCaptions(forty, size=7)
    save(forty / "5.png", 200)
    os.utime(forty / "5.png", (1, 1))
    after = FolderCaptions(forty, size=7)
    assert [grey for grey in greys(after) if grey not in greys(before)] == [200]


def test_modifying_a_picture_does_not_change_the_cache(forty):
    data = FolderCaptions(forty, size=7)
    data[11]["image"].fill_(255)
    assert data[11]["image"].max() < 40


def test_pickles_do_not_contain_the_pixels(forty):
    data = FolderCaptions(forty, size=64)
    data[0]["image"]  # from now on the file is mapped
    pickled = pickle.dumps(data)
    assert len(pickled) < 10_000  # the pictures are 491,520 bytes
    assert greys(pickle.loads(pickled)) == greys(data)


def test_decoding_does_not_change_the_warning_filters(forty, monkeypatch):
    waits, transpose = itertools.cycle([0.001, 0.004, 0.002]), ImageOps.exif_transpose
    monkeypatch.setattr(
        ImageOps, "exif_transpose", lambda image: time.sleep(next(waits)) or transpose(image)
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before = list(warnings.filters)
    FolderCaptions(forty, size=7)
    assert warnings.filters == before


def start(folder, at_each_picture):
    """Another process that reads the folder, and calls at_each_picture(path) before it opens a picture.

    It writes the grey values to the file "found". A fork, because importing torch again takes
    seconds.
    """

    def open_after_that(path):
        at_each_picture(path)
        return open_image(path)

    def read():
        photographs.open_image = open_after_that
        (folder.parent / "found").write_text(json.dumps(greys(FolderCaptions(folder, size=7))))

    process = multiprocessing.get_context("fork").Process(target=read)
    process.start()
    return process


def wait_for(file, process):
    while not file.exists():
        assert process.is_alive()
        time.sleep(0.01)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
def test_two_processes_at_once(forty, cache, monkeypatch):
    ours, theirs = forty.parent / "ours", forty.parent / "theirs"

    def open_with_us(_):
        theirs.touch()
        while not ours.exists():
            time.sleep(0.01)

    def open_with_the_other(path):
        ours.touch()
        wait_for(theirs, process)
        return open_image(path)

    process = start(forty, open_with_us)
    monkeypatch.setattr(photographs, "open_image", open_with_the_other)
    found = greys(FolderCaptions(forty, size=7))
    process.join(60)
    assert process.exitcode == 0
    assert found == json.loads((forty.parent / "found").read_text()) == sorted(range(40), key=str)
    assert [path.suffix for path in cache.iterdir()] == [""]


@needs_fork
def test_a_killed_process_leaves_the_next_one_working(forty, cache):
    now = forty.parent / "now"

    def stop_at_30(path):
        if path.name == "30.png":
            now.touch()
            time.sleep(60)

    process = start(forty, stop_at_30)
    wait_for(now, process)
    process.kill()
    process.join()
    assert [path.suffix for path in cache.iterdir()] == [".unfinished"]
    assert greys(FolderCaptions(forty, size=7)) == sorted(range(40), key=str)

    # it might belong to a running process, so it is removed only after a day
    [left] = cache.glob("*.unfinished")
    os.utime(left, (time.time() - 90_000,) * 2)
    FolderCaptions(forty, size=5)
    assert not left.exists()


def test_a_full_disk_leaves_nothing_behind(forty, cache):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            FolderCaptions(forty, size=7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(cache.iterdir())
    assert len(FolderCaptions(forty, size=7)) == 40
