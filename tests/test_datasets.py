"""Pictures with captions: every layout and every way in which one can be broken, and the cache of decoded pictures."""

import gzip
import itertools
import json
import os
import pickle
import subprocess
import sys
import time
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mmscratch.datasets import Flickr8k, FolderCaptions, Multi30k, SceneCaptions, SceneTranslation, read_lines
from mmscratch.images import open_image
from mmscratch.scenes import LANGUAGES, Scene, caption, captions, judge, mask_colours, mask_noun, name_thing, render
from mmscratch.text import MASKED, detokenize, tokenize

REPOSITORY = Path(__file__).parents[1]
OFFICIAL = REPOSITORY.parent / "shared/flickr8k"
OFFICIAL_TRANSLATIONS = REPOSITORY.parent / "shared/multi30k"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("mmscratch.datasets.CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def save(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (11, 13), grey).save(path)


@pytest.fixture
def folder(tmp_path):
    """Pictures that a test captions."""
    for name, grey in (("a.png", 10), ("b.png", 20), ("c.png", 30), ("sub/d.png", 40)):
        save(tmp_path / "photos" / name, grey)
    save(tmp_path / "secret.png", 99)
    return tmp_path / "photos"


@pytest.fixture
def forty(tmp_path):
    """Forty captioned pictures, picture i of grey i."""
    for i in range(40):
        save(tmp_path / f"forty/{i}.png", i)
    table = ["file_name,caption,split", *(f"{i}.png,number {i},train" for i in range(40))]
    (tmp_path / "forty/captions.csv").write_text("\n".join(table))
    return tmp_path / "forty"


def read(folder):
    """{file name: captions} of the three splits together, and what was skipped."""
    found, problems = {}, set()
    for split in ("train", "validation", "test"):
        data = FolderCaptions(folder, split, size=7)
        for name, references in zip(data.names, data.references):
            found[Path(name).relative_to(folder).as_posix()] = [" ".join(tokens) for tokens in references]
        problems.update(data.problems)
    return found, problems


def greys(data):
    return [int(data.picture(i).float().mean()) for i in range(len(data))]


@pytest.mark.parametrize(
    "table, text",
    [
        ("csv", 'file_name,caption\na.png,A dog.\na.png,"Two, dogs"\nc.png,ein Käfer\nsub/d.png,"a ""d"""\n'),
        ("csv", 'a.png,A dog.\na.png,"Two, dogs"\nc.png,ein Käfer\nsub/d.png,"a ""d"""'),
        ("csv", '\ufefffile_name,caption\na.png,A dog.\na.png,"Two, dogs"\nc.png,ein Käfer\nsub/d.png,"a ""d"""\n'),
        ("csv", 'a.png,A dog.\r\n\r\na.png,"Two, dogs"\r\nc.png,ein Käfer\r\n  \r\nsub\\d.png,"a ""d"""\r\n'),
        ("csv", 'Caption , IMAGE\nA dog., a.png\n"Two, dogs", a.png\nein Käfer, c.png\n"a ""d""", sub/d.png\n'),
        ("csv", './a.png,A dog.\nA.PNG,"Two, dogs"\nC.png,ein Käfer\n.\\Sub/./d.png,"a ""d"""\n'),
        ("csv", 'id,file,text\n1,a.png,A dog.\n2,a.png,"Two, dogs"\n3,c.png,ein Käfer\n4,sub/d.png,"a ""d"""\n'),
        ("tsv", 'a.png\tA dog.\na.png\tTwo, dogs\nc.png\tein Käfer\nsub/d.png\ta "d"\n'),
        ("tsv", 'image\tcaption\r\na.png\tA dog.\r\na.png\tTwo, dogs\r\nc.png\tein Käfer\r\nsub/d.png\ta "d"\r\n'),
        ("json", '{"a.png": ["A dog.", "Two, dogs"], "c.png": "ein K\\u00e4fer", "sub/d.png": "a \\"d\\""}'),
        ("json", '[{"file_name": "a.png", "captions": ["A dog.", "Two, dogs"]}, {"image": "c.png",'
                 '"text": "ein Käfer"}, {"file": "sub/d.png", "caption": "a \\"d\\"", "id": 7}]'),
        ("json", '\ufeff{"a.png": ["A dog.", "Two, dogs"],\r\n"c.png": "ein Käfer", "sub/d.png": ["a \\"d\\""]}\r\n'),
        ("jsonl", '{"file_name": "a.png", "caption": "A dog."}\n{"file_name": "a.png", "caption": "Two, dogs"}\n\n'
                  '{"image": "c.png", "text": "ein Käfer"}\r\n{"file": "sub/d.png", "captions": ["a \\"d\\""]}'),
    ],
)  # fmt: skip
def test_captions_are_read_in_every_form(table, text, folder):
    (folder / f"captions.{table}").write_bytes(text.encode())
    expected = {"a.png": ["a dog .", "two , dogs"], "c.png": ["ein käfer"], "sub/d.png": ['a " d "']}
    assert read(folder) == (expected, {f"{folder / 'b.png'}: has no caption"})


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_unicode_forms_of_a_name_find_the_picture(form, tmp_path):
    save(tmp_path / unicodedata.normalize("NFD", "Käthe.png"), 1)
    (tmp_path / "captions.csv").write_text(unicodedata.normalize(form, "Käthe.png") + ",a woman", encoding="utf-8")
    found, problems = read(tmp_path)
    assert list(found.values()) == [["a woman"]] and not problems


def tokenized(data):
    return [list(map(tokenize, texts)) for texts in data.captions]


def test_captions_are_kept_as_they_were_written_each_beside_its_tokens(folder):
    lines = ["A dog 's ear.", "none", " \t ", "Two,  DOGS!", "", "a café", "C", "a dog 's ear."]
    names = ["a.png", "missing.png", "b.png", "b.png", "sub/d.png", "a.png", "c.png", "a.png"]
    table = [{"file_name": name, "caption": line, "split": "train"} for name, line in zip(names, lines)]
    (folder / "captions.json").write_text(json.dumps(table))
    (folder / "c.png").write_text("this is not a picture")
    data = FolderCaptions(folder, "train", 7)
    assert len(data.problems) == 4, "a missing picture, two empty captions, a corrupt picture"
    assert data.captions == [["A dog 's ear.", "a café", "a dog 's ear."], ["Two,  DOGS!"]]
    assert data.references == tokenized(data) and data.references[0][0] == ["a", "dog", "'", "s", "ear", "."]
    assert [Path(name).name for name in data.names] == ["a.png", "b.png"]


def test_a_caption_may_stand_twice(folder):
    (folder / "captions.csv").write_text("a.png,a dog\na.png,a dog\n")
    assert read(folder)[0] == {"a.png": ["a dog", "a dog"]}


@pytest.mark.parametrize(
    "table, content, problem",
    [
        ("csv", b"missing.png,a cat", "captions.csv:2: there is no picture 'missing.png'"),
        ("csv", b"../secret.png,a cat", "captions.csv:2: there is no picture '../secret.png'"),
        ("csv", b"sub/../../secret.png,a cat", "captions.csv:2: there is no picture"),
        ("csv", b"sub,a cat", "captions.csv:2: there is no picture 'sub'"),
        ("csv", b",a cat", "captions.csv:2: there is no picture ''"),
        ("csv", b"b.png,", "captions.csv:2: the caption of 'b.png' is empty"),
        ("csv", b'b.png," \t "', "captions.csv:2: the caption of 'b.png' is empty"),
        ("csv", b"b.png", "captions.csv:2: 1 columns where 2 were expected"),
        ("csv", b"b.png,a, b", "captions.csv:2: 3 columns where 2 were expected; a caption with a comma needs quotes"),
        ("csv", b"b.png,a caf\xe9", "captions.csv:2: not UTF-8"),
        ("csv", b"b.png,a\0cat", "captions.csv:2: not UTF-8"),
        ("csv", b'b.png,"a cat', "captions.csv:2: unexpected end of data"),
        ("csv", b'b.png,"a" cat', "captions.csv:2: "),
        ("csv", b"b.png," + b"x" * 200_000, "captions.csv:2: field larger than field limit"),
        ("tsv", b"b.png", "captions.tsv:2: 1 columns where 2 were expected"),
        ("tsv", b"b.png\ta cat\tin a hat", "captions.tsv:2: 3 columns where 2 were expected"),
        ("jsonl", b'{"file_name": "b.png", "caption": "a c', "captions.jsonl:2: not JSON: Unterminated string"),
        ("jsonl", b'{"file_name": "b.png", "caption": null}', "captions.jsonl:2: a file name and a caption"),
        ("jsonl", b'{"file_name": "b.png", "caption": ["a cat", 3]}', "captions.jsonl:2: a file name and a caption"),
        ("jsonl", b'{"file_name": "b.png", "captions": []}', "captions.jsonl:2: a file name and a caption"),
        ("jsonl", b'{"file_name": "b.png"}', "captions.jsonl:2: a file name and a caption"),
        ("jsonl", b'{"caption": "a cat"}', "captions.jsonl:2: a file name and a caption"),
        ("jsonl", b'{"image": "b.png", "text": "1", "text": "2"}', "captions.jsonl:2: not JSON: 'text' is there twice"),
        ("jsonl", b'["b.png", "a cat"]', "captions.jsonl:2: a file name and a caption"),
        ("jsonl", b"[" * 100_000, "captions.jsonl:2: not JSON: "),
        ("json", b'{"file_name": "b.png", "caption": 7}', "captions.json, entry 2: a file name and a caption"),
        ("json", b'{"file_name": "b.png", "caption": ""}', "captions.json, entry 2: the caption of 'b.png' is empty"),
        ("json", b"null", "captions.json, entry 2: a file name and a caption"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)  # fmt: skip
def test_a_broken_line_is_named_and_the_others_are_kept(table, content, problem, folder):
    first, last, between = {
        "csv": (b"a.png,a dog", b"c.png,a bird", b"\n"),
        "tsv": (b"a.png\ta dog", b"c.png\ta bird", b"\n"),
        "json": (b'[{"file_name": "a.png", "caption": "a dog"}', b'{"file_name": "c.png", "caption": "a bird"}]', b","),
        "jsonl": (b'{"file_name": "a.png", "caption": "a dog"}', b'{"file_name": "c.png", "caption": "a bird"}', b"\n"),
    }[table]
    (folder / f"captions.{table}").write_bytes(between.join([first, content, last]))
    found, problems = read(folder)
    assert found == {"a.png": ["a dog"], "c.png": ["a bird"]}
    [named] = [p for p in problems if not p.endswith("has no caption")]
    assert named.startswith(f"{folder}{os.sep}{problem}") and "\n" not in named


def test_an_absolute_path_out_of_the_folder_is_not_read(folder):
    (folder / "captions.csv").write_text(f"a.png,a dog\n{folder.parent / 'secret.png'},a cat\n")
    found, problems = read(folder)
    assert list(found) == ["a.png"] and any("captions.csv:2: there is no picture" in problem for problem in problems)


def test_a_picture_without_caption_is_named_and_other_files_are_not(folder):
    (folder / "captions.csv").write_text("a.png,a dog\nb.png,a cat\n")
    (folder / "readme.txt").write_text("mine")
    assert read(folder)[1] == {f"{folder / name}: has no caption" for name in ("c.png", "sub/d.png")}


def test_names_that_differ_in_case_only_are_named(folder):
    save(folder / "A.png", 50)
    if len(list(folder.glob("?.png"))) < 4:
        pytest.skip("this file system does not tell a.png from A.png")
    (folder / "captions.csv").write_text("a.png,a dog\nA.png,a cat\na.PNG,a cow\n")
    found, problems = read(folder)
    assert found == {"a.png": ["a dog"], "A.png": ["a cat"]}
    for line in (1, 2, 3):
        assert f"{folder / 'captions.csv'}:{line}: A.png and a.png differ only in upper and lower case" in problems
    assert f"{folder / 'captions.csv'}:3: there is no picture 'a.PNG'" in problems


def test_the_split_column_decides(folder):
    lines = ["a.png,a dog,train", "b.png,a cat,Dev", "c.png,a bird,holdout", "sub/d.png,a cow,", "a.png,a pup,TRAIN"]
    (folder / "captions.csv").write_text("\n".join(["file_name,caption,split", *lines]))
    train, validation, test = (FolderCaptions(folder, split, 7) for split in ("train", "validation", "test"))
    assert train.references == [[["a", "dog"], ["a", "pup"]]]
    assert validation.references == [[["a", "cat"]]]
    assert len(test) == 0
    for words in ("csv:4: the split 'holdout' is none of train", "csv:5: the split '' is none of train"):
        assert any(words in problem for problem in train.problems)


def test_without_a_split_column_every_tenth_picture_is_held_out(forty):
    (forty / "captions.csv").write_text("".join(f"{i % 40}.png,number {i}\n" for i in range(80)))
    splits = [FolderCaptions(forty, split, 7) for split in ("train", "validation", "test")]
    assert [len(data) for data in splits] == [32, 4, 4]
    assert len({name for data in splits for name in data.names}) == 40
    assert all(len(references) == 2 for data in splits for references in data.references)
    assert FolderCaptions(forty, "test", 7).names == splits[2].names


@pytest.mark.parametrize(
    "files, split, words",
    [
        ({}, "train", "no captions.csv"),
        ({"captions.csv": b"a.png,a dog", "captions.json": b"{}"}, "train", "captions.csv and captions.json"),
        ({"captions.csv": b"a.png,a dog"}, "val", "no split 'val': choose train, validation or test"),
        ({"captions.json": b'{"a.png": "a dog"'}, "train", "captions.json: not JSON"),
        ({"captions.json": b'{"a.png": "1", "a.png": "2"}'}, "train", "captions.json: not JSON: 'a.png' is there"),
        ({"captions.json": b"[" * 100_000}, "train", "captions.json: not JSON"),
        ({"captions.json": b'{"a.png": "a caf\xe9"}'}, "train", "captions.json: not JSON"),
        ({"captions.json": b'"a.png"'}, "train", "captions.json: a list, or a map"),
    ],
)  # fmt: skip
def test_what_cannot_go_on_stops_with_one_line(files, split, words, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        FolderCaptions(folder, split)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        FolderCaptions(tmp_path / "nowhere")


def test_corrupt_pictures_are_named_and_the_others_keep_their_captions(forty):
    whole = (forty / "2.png").read_bytes()
    (forty / "2.png").write_bytes(whole[: len(whole) // 2])
    (forty / "7.png").write_text("<html>not found</html>")
    (forty / "39.png").write_bytes(b"")
    (forty / "20.png").unlink()
    (forty / "20.png").symlink_to("nothing")
    for _ in range(2):  # the second time from the cache
        data = FolderCaptions(forty, size=5)
        left = sorted(set(range(40)) - {2, 7, 20, 39}, key=str)
        assert greys(data) == left
        assert data.references == [[["number", str(i)]] for i in left]
        assert data.captions == [[f"number {i}"] for i in left]
        assert [Path(name).name for name in data.names] == [f"{i}.png" for i in left]
        assert len(data.problems) == 4
        for name in ("2.png", "7.png", "39.png"):
            assert any(problem.startswith(f"{forty / name}: ") for problem in data.problems)
        assert f"{forty / 'captions.csv'}:22: there is no picture '20.png'" in data.problems


def test_decoding_more_than_one_chunk(tmp_path, monkeypatch):
    def fake(path):
        if path.stem == "0502":
            raise ValueError(f"{path}: broken")
        return int(path.stem) % 251

    monkeypatch.setattr("mmscratch.datasets.open_image", fake)
    monkeypatch.setattr("mmscratch.datasets.to_tensor", lambda grey, size: torch.full((3, size, size), grey).byte())
    for i in range(509):
        (tmp_path / f"{i:04}.png").touch()
    lines = [json.dumps({"file_name": f"{i:04}.png", "caption": f"{i}", "split": "train"}) for i in range(509)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    data = FolderCaptions(tmp_path, size=3)
    assert data.problems == [f"{tmp_path / '0502.png'}: broken"]
    assert data.references == [[[f"{i}"]] for i in range(509) if i != 502]
    assert greys(data) == [i % 251 for i in range(509) if i != 502]


def test_pictures_are_decoded_once(forty, cache, monkeypatch):
    decoded = []
    monkeypatch.setattr("mmscratch.datasets.open_image", lambda path: decoded.append(path.name) or open_image(path))
    first = FolderCaptions(forty, size=7)
    assert len(decoded) == 40
    second = FolderCaptions(forty, size=7)
    assert [second.picture(i).tolist() for i in range(40)] == [first.picture(i).tolist() for i in range(40)]
    assert len(decoded) == 40
    assert second.picture(3).shape == (3, 7, 7) and second.picture(3).dtype == torch.uint8
    assert isinstance(second.photographs.pictures, np.memmap)
    assert len(list(cache.iterdir())) == 1
    FolderCaptions(forty, size=5)
    assert len(decoded) == 80


def test_a_changed_picture_is_noticed(forty):
    before = FolderCaptions(forty, size=7)
    save(forty / "5.png", 200)
    os.utime(forty / "5.png", (1, 1))
    after = FolderCaptions(forty, size=7)
    assert [grey for grey in greys(after) if grey not in greys(before)] == [200]


def test_who_changes_a_picture_does_not_change_the_cache(forty):
    data = FolderCaptions(forty, size=7)
    data.picture(11).fill_(255)
    assert data.picture(11).max() < 40


def test_pickling_leaves_the_pixels_out(forty):
    data = FolderCaptions(forty, size=64)
    data.picture(0)
    pickled = pickle.dumps(data)
    assert len(pickled) < 10_000  # the pictures are 491,520 bytes
    assert greys(pickle.loads(pickled)) == greys(data)


def test_decoding_leaves_the_warning_filters_as_they_were(forty, monkeypatch):
    waits, transpose = itertools.cycle([0.001, 0.004, 0.002]), ImageOps.exif_transpose
    monkeypatch.setattr(ImageOps, "exif_transpose", lambda image: time.sleep(next(waits)) or transpose(image))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before = list(warnings.filters)
    FolderCaptions(forty, size=7)
    assert warnings.filters == before


def start(folder, cache, at_each_picture):
    """Another process that reads the folder and prints its grey values; `path` is the picture at hand."""
    code = f"""
import os, time
from pathlib import Path
from mmscratch import datasets

original, datasets.CACHE, marks = datasets.open_image, Path({str(cache)!r}), Path({str(folder.parent)!r})

def open_image(path):
    {at_each_picture}
    return original(path)

datasets.open_image = open_image
data = datasets.FolderCaptions({str(folder)!r}, size=7)
print([int(data.picture(i).float().mean()) for i in range(len(data))])
"""
    return subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once(forty, cache, monkeypatch):
    def open_with_the_other(path):
        (forty.parent / "ours").touch()
        while not (forty.parent / "theirs").exists():
            assert process.poll() is None
            time.sleep(0.01)
        return open_image(path)

    monkeypatch.setattr("mmscratch.datasets.open_image", open_with_the_other)
    wait = '(marks / "theirs").touch()\n    while not (marks / "ours").exists(): time.sleep(0.01)'
    process = start(forty, cache, wait)
    ours = greys(FolderCaptions(forty, size=7))
    theirs, _ = process.communicate(timeout=60)
    assert ours == json.loads(theirs) == sorted(range(40), key=str)
    assert [path.suffix for path in cache.iterdir()] == [""]


def test_a_killed_process_leaves_the_next_one_working(forty, cache):
    process = start(forty, cache, 'if path.name == "30.png": (marks / "now").touch(), time.sleep(60)')
    while not (forty.parent / "now").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert [path.suffix for path in cache.iterdir()] == [".unfinished"]
    assert greys(FolderCaptions(forty, size=7)) == sorted(range(40), key=str)

    [left] = cache.glob("*.unfinished")  # it might be that of a living process: it goes after a day
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


@pytest.fixture(params=[".", "Flickr8k_text"])
def flickr(request, tmp_path):
    root = tmp_path / "flickr8k"
    for i, name in enumerate(("11_a.jpg", "22_b.jpg", "33_c.jpg", "44_d.jpg", "2258277193_586949ec62.jpg")):
        save(root / "Flicker8k_Dataset" / name, 10 * i)
    texts = root / request.param
    texts.mkdir(exist_ok=True)
    captioned = ("11_a.jpg", "22_b.jpg", "33_c.jpg")
    lines = [f"{name}#{i}\tCaption {i} of {name[3]} .\n" for name in captioned for i in range(5)]
    lines += [f"2258277193_586949ec62.jpg.1#{i}\tThe odd line of the real file .\n" for i in range(5)]
    (texts / "Flickr8k.token.txt").write_text("".join(lines))
    (texts / "Flickr_8k.trainImages.txt").write_text("22_b.jpg\n11_a.jpg\n")
    (texts / "Flickr_8k.devImages.txt").write_text("33_c.jpg\n")
    (texts / "Flickr_8k.testImages.txt").write_text("44_d.jpg\n55_e.jpg\n")
    return root, texts


def test_flickr8k_in_its_official_layout(flickr):
    root, texts = flickr
    train, validation, test = (Flickr8k(root, split, 7) for split in ("train", "validation", "test"))
    assert train.references == [[["caption", str(i), "of", letter, "."] for i in range(5)] for letter in "ab"]
    assert train.captions == [[f"Caption {i} of {letter} ." for i in range(5)] for letter in "ab"]
    assert greys(train) == [0, 10] and greys(validation) == [20]
    assert not train.problems and not validation.problems and len(test) == 0
    listed = texts / "Flickr_8k.testImages.txt"
    assert test.problems == [f"{listed}: {name} has no caption" for name in ("44_d.jpg", "55_e.jpg")]
    assert Flickr8k(root, "dev", 7).names == Flickr8k(root, "val", 7).names == validation.names


def test_flickr8k_with_faults(flickr):
    root, texts = flickr
    tokens = texts / "Flickr8k.token.txt"
    added = [b"11_a.jpg#5 tab", b"22_b.jpg#5\ta caf\xe9", b"22_b.jpg#6\t", b"66_f.jpg#0\ta cat", b"77_g.jpg#0\ta cat"]
    tokens.write_bytes(tokens.read_bytes() + b"\r\n".join(added))
    chosen = ["11_a.jpg", "22_b.jpg", "33_c.jpg", "66_f.jpg", "77_g.jpg"]
    (texts / "Flickr_8k.trainImages.txt").write_bytes("\r\n".join(chosen).encode())
    (root / "Flicker8k_Dataset/33_c.jpg").write_text("<html>not found</html>")
    (root / "Flicker8k_Dataset/77_g.jpg").symlink_to("nothing")
    data = Flickr8k(root, "train", 7)
    assert greys(data) == [0, 10] and [len(references) for references in data.references] == [5, 5]
    assert data.references == tokenized(data) and data.captions[1][4] == "Caption 4 of b ."
    expected = [f"{tokens}:21: a name, a tab", f"{tokens}:22: not UTF-8", f"{tokens}:23: the caption of '22_b.jpg'",
                f"{tokens}:24: there is no picture '66_f.jpg'", f"{root / 'Flicker8k_Dataset/33_c.jpg'}: not a picture",
                f"{root / 'Flicker8k_Dataset/77_g.jpg'}: no such file"]  # fmt: skip
    assert [sum(problem.startswith(words) for problem in data.problems) for words in expected] == [1] * 6
    assert len(data.problems) == 6


@pytest.mark.parametrize("name", ["Flickr_8k.testImages.txt", "Flickr8k.token.txt"])
def test_flickr8k_without_one_of_its_files_says_which(name, flickr):
    root, texts = flickr
    (texts / name).unlink()
    with pytest.raises(FileNotFoundError, match=name + ": not there"):
        Flickr8k(root, "test")
    with pytest.raises(ValueError, match="no split 'all': choose train, validation or test"):
        Flickr8k(root, "all")


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="Flickr8k is not here")
def test_flickr8k_has_its_official_numbers(monkeypatch):
    monkeypatch.setattr("mmscratch.datasets.open_image", lambda path: path.stat())
    monkeypatch.setattr("mmscratch.datasets.to_tensor", lambda _, size: torch.zeros(3, size, size, dtype=torch.uint8))
    train, validation = (Flickr8k(OFFICIAL, split, 2) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (6000, 1000)
    assert {len(references) for data in (train, validation) for references in data.references} == {5}
    assert not set(train.names) & set(validation.names)
    assert not train.problems and not validation.problems


@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_scene_captions(language):
    data = SceneCaptions("test", 7, language, size=37)
    assert len(data) == len(data.names) == len(data.references) == 7 and not data.problems
    for i in range(7):
        scene = Scene(2 * 10**9 + i)
        assert np.array_equal(data.picture(i).permute(1, 2, 0), render(scene, 37))
        assert data.references[i] == [tokenize(sentence) for sentence in captions(scene, language)]
        assert data.captions[i] == list(captions(scene, language)) and len(data.references[i]) == 5
    one_each = SceneCaptions("test", 7, language, one_each=True)
    assert one_each.references == [[data.references[i][i % 5]] for i in range(7)]
    assert one_each.captions == [[data.captions[i][i % 5]] for i in range(7)]


def test_scene_captions_names_the_splits():
    with pytest.raises(ValueError, match="no split 'val': choose one of train, validation, test"):
        SceneCaptions("val", 3)


# ---------------------------------------------------------------------------------------------------------------------
# Sentences and their translations.


@pytest.mark.parametrize("source, target", [*itertools.permutations(LANGUAGES, 2)])
def test_both_languages_of_a_scene_say_the_same_and_it_is_true(source, target):
    data = SceneTranslation("validation", 61, source, target, size=0)
    assert len(data) == len(data.sources) == len(data.references) == 61 and data.names[3] == "validation 3"
    phrases = []
    for i, (tokens, [translation]) in enumerate(zip(data.sources, data.captions)):
        scene = data.scene(i)
        assert data.references[i] == [tokenize(translation)] and scene.seed == SceneCaptions("validation", 61).scenes[i].seed
        if i % 6 == 5:
            phrases.append([k for k in range(3) if tokens == tokenize(name_thing(scene, k, source))])
            assert [k for k in range(3) if translation == name_thing(scene, k, target)] == phrases[-1]
        else:
            assert tokens == tokenize(caption(scene, i % 5, source)) and translation == caption(scene, i % 5, target)
            for text, language in ((detokenize(tokens), source), (translation, target)):
                judgement = judge(text, scene, language)
                assert judgement.true and judgement.well_formed
    assert sorted(map(str, phrases)) == sorted(["[0]", "[1]", "[2]"] * 3 + ["[0]"])


def test_the_languages_are_english_and_german_unless_others_are_asked_for():
    data = SceneTranslation("train", 7, size=0)
    assert data.sources[1] == tokenize(caption(Scene(1), 1)) and data.captions[1] == [caption(Scene(1), 1, "de")]


@pytest.mark.parametrize("source, target", [("en", "de"), ("de", "zh"), ("zh", "en")])
def test_what_is_hidden_is_hidden_in_the_source_alone(source, target):
    plain, colours, noun = (SceneTranslation("train", 97, source, target, 0, hidden) for hidden in ("", "colours", "noun"))
    assert colours.captions == noun.captions == plain.captions and colours.references == noun.references == plain.references
    for whole, no_colour, no_noun in zip(plain.sources, colours.sources, noun.sources):
        text, mentions = detokenize(whole), mask_colours(detokenize(whole), source).count(MASKED)
        assert no_colour == tokenize(mask_colours(text, source)) == tokenize(mask_colours(detokenize(no_colour), source))
        assert no_colour.count(MASKED) == mentions and MASKED not in whole
        assert no_noun.count(MASKED) == 1 and no_noun in [tokenize(mask_noun(text, which, source)) for which in range(3)]
        for tokens in (no_colour, no_noun):
            assert ("an", MASKED) not in zip(tokens, tokens[1:])
    places = {tokenize(mask_noun(detokenize(whole), 0, source)) == masked for whole, masked in zip(plain.sources, noun.sources)}
    assert places == {True, False}  # not always the first noun


def test_some_is_a_third_of_each_kind_whatever_the_phrasing():
    plain, some = (SceneTranslation("train", 540, size=0, hidden=hidden) for hidden in ("", "some"))
    of_each, of_phrases = Counter(), Counter()
    for i, (whole, tokens) in enumerate(zip(plain.sources, some.sources)):
        kind = "" if tokens == whole else "colours" if tokens == tokenize(mask_colours(detokenize(whole))) else "noun"
        if i % 6 < 5:
            of_each[i % 5, kind] += 1
        else:
            left_out = next(k for k in range(3) if whole == tokenize(name_thing(plain.scene(i), k)))
            of_phrases[left_out, kind] += 1
    assert of_each == {(phrasing, kind): 30 for phrasing in range(5) for kind in ("", "colours", "noun")}
    expected = {(left_out, kind): 10 for left_out in (0, 2) for kind in ("", "colours", "noun")}
    assert of_phrases == expected | {(1, ""): 20, (1, "noun"): 10}  # a phrase without its colour has none to hide
    assert some.captions == plain.captions


def test_a_translation_of_scenes_has_their_pictures_or_none():
    data, none = SceneTranslation("test", 5, size=23), SceneTranslation("test", 5, size=0)
    assert data.pictured is None and none.pictured == [False] * 5 and data.sources == none.sources
    for i in range(5):
        assert torch.equal(data.picture(i), SceneCaptions("test", 5, size=23).picture(i))


@pytest.mark.parametrize("arguments, says", [
    (("train", 3, "en", "de", 0, "nouns"), "what is hidden is one of .*'noun', 'some'.*not 'nouns'"),
    (("train", 3, "de", "de"), "'de' is the language of source and target: choose two"),
    (("train", 3, "en", "fr"), "fr"),
    (("train", 3, "cs", "en"), "cs"),
    (("val", 3), "no split 'val'"),
])  # fmt: skip
def test_a_translation_of_scenes_that_cannot_be_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        SceneTranslation(*arguments)


ENGLISH = ["Two dogs, running.", "A man's \u2028hat", "  A café  ", "Snow."]
GERMAN = ["Zwei Hunde.", "Ein Hut", "Ein Käfer", "Schnee fällt."]
IMAGES = ["1000.jpg", "20.jpg", "333.jpg", "4.jpg"]


def multi30k(root, split="train", images=None, **languages):
    """The official layout with these files, each a list of lines or the bytes; en_gz is packed."""
    raw, splits = root / "data/task1/raw", root / "data/task1/image_splits"
    for language, lines in languages.items():
        content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
        raw.mkdir(parents=True, exist_ok=True)
        packed = language.endswith("_gz")
        (raw / f"{split}.{language.replace('_', '.')}").write_bytes(gzip.compress(content) if packed else content)
    if images is not None:
        splits.mkdir(parents=True, exist_ok=True)
        (splits / f"{split}.txt").write_text("".join(f"{name}\n" for name in images))
    return root


@pytest.fixture
def shown(tmp_path):
    """Multi30k with four photographs, of grey 10, 20, 30 and 40, which have the names of both data sets."""
    for i, name in enumerate(["1000.jpg", "20_0a1b.jpg", "333.JPG", "4_99_f.png", "55.jpg"]):
        save(tmp_path / "photographs" / name, 10 * (i + 1))
    return multi30k(tmp_path, en=ENGLISH, de=GERMAN, images=IMAGES)


@pytest.mark.parametrize("start, end", [("", "\n"), ("", "\r\n"), ("\ufeff", "\n"), ("\ufeff", "\r\n")])
@pytest.mark.parametrize("packed", ["", "_gz"], ids=["plain", "packed"])
def test_multi30k_is_read_in_every_form(packed, start, end, tmp_path):
    files = {"en" + packed: (start + end.join(ENGLISH) + end * (end == "\n")).encode(), "de": GERMAN}
    data = Multi30k(multi30k(tmp_path, **files))
    assert data.sources == [["two", "dogs", ",", "running", "."], ["a", "man's", "hat"], ["a", "café"], ["snow", "."]]
    assert data.captions == [[text] for text in GERMAN] and data.references[3] == [["schnee", "fällt", "."]]
    assert data.pictured == [False] * 4 and not data.problems and len(data) == 4
    assert data.names[2] == f"{tmp_path / 'data/task1/raw/train.en'}{packed.replace('_', '.')}:3"
    assert data.picture(1).shape == (3, 64, 64) and not data.picture(1).any()


def test_any_two_languages_of_multi30k_are_read(tmp_path):
    multi30k(tmp_path, cs=["pes"], fr=["Un chien."], de=["ein Hund"], en=["a dog"])
    texts = {"cs": "pes", "fr": "Un chien.", "de": "ein Hund", "en": "a dog"}
    for source, target in itertools.permutations(texts, 2):
        data = Multi30k(tmp_path, "train", source, target)
        assert data.sources == [tokenize(texts[source])] and data.captions == [[texts[target]]]
    with pytest.raises(ValueError, match="'de' is the language of source and target"):
        Multi30k(tmp_path, "train", "de", "de")


def test_the_splits_of_multi30k_have_the_names_of_all_and_those_of_their_files(tmp_path):
    for name in ("train", "val", "test_2016_flickr", "test_2017_mscoco"):
        multi30k(tmp_path, name, en=[f"a {name}"], de=["eins"])
    for split, name in (("train", "train"), ("validation", "val"), ("val", "val"), ("test", "test_2016_flickr"),
                        ("test_2016_flickr", "test_2016_flickr"), ("test_2017_mscoco", "test_2017_mscoco")):  # fmt: skip
        assert Multi30k(tmp_path, split).sources == [tokenize(f"a {name}")]


def test_photographs_stand_beside_their_sentences_under_both_kinds_of_names(shown):
    data = Multi30k(shown, photographs=shown / "photographs", size=7)
    assert data.pictured is None and greys(data) == [10, 20, 30, 40] and not data.problems
    again = pickle.loads(pickle.dumps(data))
    assert greys(again) == [10, 20, 30, 40] and again.sources == data.sources
    assert len(pickle.dumps(data)) < 10_000, "the pictures are not sent"


def test_a_name_with_its_folder_and_its_number_of_a_caption_is_found(shown):
    multi30k(shown, images=["flickr30k-images/1000.jpg", " 20.jpg#0", "333.jpg#1", "5.jpg"])
    data = Multi30k(shown, photographs=str(shown / "photographs"), size=7)
    assert data.pictured == [True, True, True, False] and greys(data) == [10, 20, 30, 0]


@pytest.mark.parametrize("all_pictured", [False, True])
def test_some_sentences_have_a_photograph(all_pictured, shown):
    (shown / "photographs/1000.jpg").unlink()
    (shown / "photographs/333.JPG").write_text("no picture")
    data = Multi30k(shown, "train", "de", "en", shown / "photographs", 7, all_pictured)
    (problem,) = data.problems
    assert problem.startswith(f"{shown / 'photographs/333.JPG'}: not a picture")
    if all_pictured:
        assert data.sources == [["ein", "hut"], ["schnee", "fällt", "."]] and data.pictured is None and greys(data) == [20, 40]
        assert [name.rpartition(":")[2] for name in data.names] == ["2", "4"]
    else:
        assert len(data) == 4 and data.pictured == [False, True, False, True] and greys(data) == [0, 20, 0, 40]


def test_empty_sentences_are_named_and_the_others_keep_their_photographs(shown):
    multi30k(shown, en=["", "A man's hat", " \t", "Snow."], de=["Zwei Hunde.", "", "\u00a0", "Schnee."])
    data = Multi30k(shown, photographs=shown / "photographs", size=7)
    raw = shown / "data/task1/raw"
    assert data.problems == [f"{raw / 'train.en'}:1: the sentence is empty", f"{raw / 'train.de'}:2: the sentence is empty",
                             f"{raw / 'train.en'}:3: the sentence is empty"]  # fmt: skip
    assert data.sources == [["snow", "."]] and greys(data) == [40] and data.names == [f"{raw / 'train.en'}:4"]


def test_photographs_of_others_are_none(shown):
    multi30k(shown, images=["6.jpg", "7.jpg", "8.jpg", "9.jpg"])
    data = Multi30k(shown, photographs=shown / "photographs", size=7)
    assert data.pictured == [False] * 4 and greys(data) == [0] * 4
    assert len(Multi30k(shown, photographs=shown / "photographs", size=7, all_pictured=True)) == 0


def not_to_be_read(root, **options):
    """The one line that says why."""
    with pytest.raises((ValueError, OSError)) as caught:
        Multi30k(root, **options)
    (line,) = str(caught.value).splitlines()
    return line


def test_files_that_are_not_in_parallel_are_named_with_their_lengths(shown):
    raw = shown / "data/task1/raw"
    multi30k(shown, de=GERMAN[:3])
    assert f"{raw / 'train.en'} has 4 lines, but {raw / 'train.de'} 3: they must be in parallel" == not_to_be_read(shown)
    multi30k(shown, de=GERMAN, images=[*IMAGES, "5.jpg"])
    photographs = shown / "photographs"
    assert f"{shown / 'data/task1/image_splits/train.txt'} 5: they" in not_to_be_read(shown, photographs=photographs)
    assert len(Multi30k(shown)) == 4  # the list of photographs is not asked for


def test_a_language_or_a_split_that_is_not_there_is_told_with_what_is(tmp_path):
    line = not_to_be_read(multi30k(tmp_path, en_gz=ENGLISH, de=GERMAN), target="fr")
    assert f"{tmp_path / 'data/task1/raw/train.fr'}: not there, nor as .gz; there is train.de, train.en" == line
    assert "val.en: not there" in not_to_be_read(tmp_path, split="validation")
    assert not_to_be_read(tmp_path / "nowhere").endswith("there is nothing")


def test_photographs_that_are_not_there_are_told(shown):
    assert "nowhere: no such folder of photographs" in not_to_be_read(shown, photographs=shown / "nowhere")
    assert f"{shown / 'data'}: no pictures in this folder" == not_to_be_read(shown, photographs=shown / "data")
    (shown / "data/task1/image_splits/train.txt").unlink()
    assert "image_splits/train.txt" in not_to_be_read(shown, photographs=shown / "photographs")


PACKED = gzip.compress("ein Käfer\nund noch ein Käfer\n".encode())


@pytest.mark.parametrize("name, content, lines", [
    ("a", b"a\nb\n", ["a", "b"]), ("a", b"a\n\nb", ["a", "", "b"]), ("a", b"\n", [""]), ("a", b"a\n\n", ["a", ""]),
    ("a", b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]), ("a.txt", "a\u2028b\x85c\x0cd\n".encode(), ["a\u2028b\x85c\x0cd"]),
    ("a.en.gz", PACKED, ["ein Käfer", "und noch ein Käfer"]), ("a.gz", gzip.compress(b"\xef\xbb\xbfa\r\n\r\nb"), ["a", "", "b"]),
])  # fmt: skip
def test_lines_are_read_with_their_places_kept(name, content, lines, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert read_lines(tmp_path / name) == lines


@pytest.mark.parametrize("name, content, says", [
    ("a", b"", "the file is empty"), ("a", b"\xef\xbb\xbf", "the file is empty"), ("a.gz", b"", "the file is empty"),
    ("a.gz", gzip.compress(b""), "the file is empty"), ("a.gz", gzip.compress(b"\xff"), "byte 0 is not UTF-8"),
    ("a", b"ein K\xe4fer", "byte 5 is not UTF-8 text; save it as UTF-8"),
    ("a.gz", PACKED[:-3], "damaged, .*; fetch it again"), ("a.gz", PACKED[:-8] + bytes(8), "damaged, .*; fetch it again"),
    ("a.gz", PACKED[:20] + b"\0\0\0" + PACKED[23:], "damaged, .*; fetch it again"),
    ("a.gz", PACKED[:10] + b"\xff" + PACKED[11:], "damaged, .*; fetch it again"),  # no such kind of block
    ("a.gz", b"a plain text\n", "damaged, .*; fetch it again"),
])  # fmt: skip
def test_lines_that_cannot_be_read_are_told_with_their_file(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        read_lines(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(not OFFICIAL_TRANSLATIONS.is_dir(), reason="the official files are not here")
@pytest.mark.parametrize("split, count, pictured", [("train", 29000, 6043), ("validation", 1014, 210)])
def test_the_official_multi30k_has_as_many_sentences_and_photographs_as_it_should(split, count, pictured, monkeypatch):
    paths = []
    monkeypatch.setattr("mmscratch.datasets._decode_once", lambda found, size: (paths.extend(found), {}))  # that takes a while
    photographs = OFFICIAL / "Flicker8k_Dataset" if OFFICIAL.is_dir() else None
    data = Multi30k(OFFICIAL_TRANSLATIONS, split, photographs=photographs)
    assert (len(data), len(data.sources), data.problems) == (count, count, [])
    assert sum(data.pictured) == (pictured if photographs else 0)
    listed = read_lines(OFFICIAL_TRANSLATIONS / f"data/task1/image_splits/{split.removesuffix('idation')}.txt")
    for name, place in zip(data.names, data.places):
        number = listed[int(name.rpartition(":")[2]) - 1].removesuffix(".jpg")
        assert place is None or paths[place].name.startswith(f"{number}_")
