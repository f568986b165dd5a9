"""Captions: drawn scenes, folders, Flickr8k; broken lines and pictures are skipped and reported."""

import json
import os
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from grey_pictures import greys, save

from mmscratch.data.captions import (
    Flickr8k,
    FolderCaptions,
    SceneCaptions,
    judged_pairs,
    number_pictures,
    relevant_pictures,
)
from mmscratch.data.judge import judge
from mmscratch.data.language import captions
from mmscratch.data.scenes import Scene, render
from mmscratch.text import tokenize

REPOSITORY = Path(__file__).parents[2]
HEAD = "file_name,caption,split\n"
OFFICIAL = REPOSITORY.parent / "shared/flickr8k"


def read(folder):
    """{file name: captions} of the three splits together, and what was skipped."""
    found, problems = {}, set()
    for split in ("train", "validation", "test"):
        data = FolderCaptions(folder, split, size=7)
        for name, references in zip(data.names, data.references):
            found[Path(name).relative_to(folder).as_posix()] = [
                " ".join(tokens) for tokens in references
            ]
        problems.update(data.problems)
    return found, problems


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
def test_captions_are_read_in_every_format(table, text, folder):
    (folder / f"captions.{table}").write_bytes(text.encode())
    expected = {
        "a.png": ["a dog .", "two , dogs"],
        "c.png": ["ein käfer"],
        "sub/d.png": ['a " d "'],
    }
    assert read(folder) == (expected, {f"{folder / 'b.png'}: has no caption"})


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_unicode_forms_of_a_name_find_the_picture(form, tmp_path):
    save(tmp_path / unicodedata.normalize("NFD", "Käthe.png"), 1)
    (tmp_path / "captions.csv").write_text(
        unicodedata.normalize(form, "Käthe.png") + ",a woman", encoding="utf-8"
    )
    found, problems = read(tmp_path)
    assert list(found.values()) == [["a woman"]] and not problems


def tokenized(data):
    return [list(map(tokenize, texts)) for texts in data.texts]


def test_texts_are_verbatim_and_references_are_their_tokens(folder):
    lines = ["A dog 's ear.", "none", " \t ", "Two,  DOGS!", "", "a café", "C", "a dog 's ear."]
    names = ["a.png", "missing.png", "b.png", "b.png", "sub/d.png", "a.png", "c.png", "a.png"]
    table = [
        {"file_name": name, "caption": line, "split": "train"} for name, line in zip(names, lines)
    ]
    (folder / "captions.json").write_text(json.dumps(table))
    (folder / "c.png").write_text("this is not a picture")
    data = FolderCaptions(folder, "train", 7)
    assert len(data.problems) == 4, "a missing picture, two empty captions, a corrupt picture"
    assert data.texts == [["A dog 's ear.", "a café", "a dog 's ear."], ["Two,  DOGS!"]]
    assert data.references == tokenized(data) and data.references[0][0] == [
        "a",
        "dog",
        "'",
        "s",
        "ear",
        ".",
    ]
    assert [Path(name).name for name in data.names] == ["a.png", "b.png"]


def test_duplicate_captions_are_kept(folder):
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
        ("jsonl", b'{"image": "b.png", "text": "1", "text": "2"}', "captions.jsonl:2: not JSON: 'text' occurs twice"),
        ("jsonl", b'["b.png", "a cat"]', "captions.jsonl:2: a file name and a caption"),
        ("jsonl", b"[" * 100_000, "captions.jsonl:2: not JSON: "),
        ("json", b'{"file_name": "b.png", "caption": 7}', "captions.json, entry 2: a file name and a caption"),
        ("json", b'{"file_name": "b.png", "caption": ""}', "captions.json, entry 2: the caption of 'b.png' is empty"),
        ("json", b"null", "captions.json, entry 2: a file name and a caption"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)  # fmt: skip
def test_a_broken_line_is_reported_and_the_others_are_kept(table, content, problem, folder):
    first, last, between = {
        "csv": (b"a.png,a dog", b"c.png,a bird", b"\n"),
        "tsv": (b"a.png\ta dog", b"c.png\ta bird", b"\n"),
        "json": (
            b'[{"file_name": "a.png", "caption": "a dog"}',
            b'{"file_name": "c.png", "caption": "a bird"}]',
            b",",
        ),
        "jsonl": (
            b'{"file_name": "a.png", "caption": "a dog"}',
            b'{"file_name": "c.png", "caption": "a bird"}',
            b"\n",
        ),
    }[table]
    (folder / f"captions.{table}").write_bytes(between.join([first, content, last]))
    found, problems = read(folder)
    assert found == {"a.png": ["a dog"], "c.png": ["a bird"]}
    [named] = [p for p in problems if not p.endswith("has no caption")]
    assert named.startswith(f"{folder}{os.sep}{problem}") and "\n" not in named


def test_an_absolute_path_outside_the_folder_is_not_read(folder):
    (folder / "captions.csv").write_text(f"a.png,a dog\n{folder.parent / 'secret.png'},a cat\n")
    found, problems = read(folder)
    assert list(found) == ["a.png"] and any(
        "captions.csv:2: there is no picture" in problem for problem in problems
    )


def test_a_picture_without_caption_is_reported_and_other_files_are_not(folder):
    (folder / "captions.csv").write_text("a.png,a dog\nb.png,a cat\n")
    (folder / "readme.txt").write_text("mine")
    assert read(folder)[1] == {
        f"{folder / name}: has no caption" for name in ("c.png", "sub/d.png")
    }


def test_names_that_differ_only_in_case_are_reported(folder):
    save(folder / "A.png", 50)
    if len(list(folder.glob("?.png"))) < 4:
        pytest.skip("this file system does not tell a.png from A.png")
    (folder / "captions.csv").write_text("a.png,a dog\nA.png,a cat\na.PNG,a cow\n")
    found, problems = read(folder)
    assert found == {"a.png": ["a dog"], "A.png": ["a cat"]}
    for line in (1, 2, 3):
        assert (
            f"{folder / 'captions.csv'}:{line}: A.png and a.png differ only in upper and lower case"
            in problems
        )
    assert f"{folder / 'captions.csv'}:3: there is no picture 'a.PNG'" in problems


def test_the_split_column_determines_the_split(folder):
    lines = [
        "a.png,a dog,train",
        "b.png,a cat,Dev",
        "c.png,a bird,holdout",
        "sub/d.png,a cow,",
        "a.png,a pup,TRAIN",
    ]
    (folder / "captions.csv").write_text("\n".join(["file_name,caption,split", *lines]))
    train, validation, test = (
        FolderCaptions(folder, split, 7) for split in ("train", "validation", "test")
    )
    assert train.references == [[["a", "dog"], ["a", "pup"]]]
    assert validation.references == [[["a", "cat"]]]
    assert len(test) == 0
    for words in (
        "csv:4: the split 'holdout' is none of train",
        "csv:5: the split '' is none of train",
    ):
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
        ({"captions.json": b'{"a.png": "1", "a.png": "2"}'}, "train", "captions.json: not JSON: 'a.png' occurs twice"),
        ({"captions.json": b"[" * 100_000}, "train", "captions.json: not JSON"),
        ({"captions.json": b'{"a.png": "a caf\xe9"}'}, "train", "captions.json: not JSON"),
        ({"captions.json": b'"a.png"'}, "train", "captions.json: a list, or a map"),
    ],
)  # fmt: skip
def test_an_unusable_folder_raises_an_error_of_one_line(files, split, words, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        FolderCaptions(folder, split)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        FolderCaptions(tmp_path / "nowhere")


def test_corrupt_pictures_are_reported_and_the_others_keep_their_captions(forty):
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
        assert data.texts == [[f"number {i}"] for i in left]
        assert [Path(name).name for name in data.names] == [f"{i}.png" for i in left]
        assert len(data.problems) == 4
        for name in ("2.png", "7.png", "39.png"):
            assert any(problem.startswith(f"{forty / name}: ") for problem in data.problems)
        assert f"{forty / 'captions.csv'}:22: there is no picture '20.png'" in data.problems


@pytest.fixture(params=[".", "Flickr8k_text"])
def flickr(request, tmp_path):
    root = tmp_path / "flickr8k"
    for i, name in enumerate(
        ("11_a.jpg", "22_b.jpg", "33_c.jpg", "44_d.jpg", "2258277193_586949ec62.jpg")
    ):
        save(root / "Flicker8k_Dataset" / name, 10 * i)
    texts = root / request.param
    texts.mkdir(exist_ok=True)
    captioned = ("11_a.jpg", "22_b.jpg", "33_c.jpg")
    lines = [f"{name}#{i}\tCaption {i} of {name[3]} .\n" for name in captioned for i in range(5)]
    lines += [
        f"2258277193_586949ec62.jpg.1#{i}\tThe odd line of the real file .\n" for i in range(5)
    ]
    (texts / "Flickr8k.token.txt").write_text("".join(lines))
    (texts / "Flickr_8k.trainImages.txt").write_text("22_b.jpg\n11_a.jpg\n")
    (texts / "Flickr_8k.devImages.txt").write_text("33_c.jpg\n")
    (texts / "Flickr_8k.testImages.txt").write_text("44_d.jpg\n55_e.jpg\n")
    return root, texts


def test_flickr8k_in_its_official_layout(flickr):
    root, texts = flickr
    train, validation, test = (
        Flickr8k(root, split, 7) for split in ("train", "validation", "test")
    )
    assert train.references == [
        [["caption", str(i), "of", letter, "."] for i in range(5)] for letter in "ab"
    ]
    assert train.texts == [[f"Caption {i} of {letter} ." for i in range(5)] for letter in "ab"]
    assert greys(train) == [0, 10] and greys(validation) == [20]
    assert not train.problems and not validation.problems and len(test) == 0
    listed = texts / "Flickr_8k.testImages.txt"
    assert test.problems == [
        f"{listed}: {name} has no caption" for name in ("44_d.jpg", "55_e.jpg")
    ]
    assert Flickr8k(root, "dev", 7).names == Flickr8k(root, "val", 7).names == validation.names


def test_flickr8k_with_faults(flickr):
    root, texts = flickr
    tokens = texts / "Flickr8k.token.txt"
    added = [
        b"11_a.jpg#5 tab",
        b"22_b.jpg#5\ta caf\xe9",
        b"22_b.jpg#6\t",
        b"66_f.jpg#0\ta cat",
        b"77_g.jpg#0\ta cat",
    ]
    tokens.write_bytes(tokens.read_bytes() + b"\r\n".join(added))
    chosen = ["11_a.jpg", "22_b.jpg", "33_c.jpg", "66_f.jpg", "77_g.jpg"]
    (texts / "Flickr_8k.trainImages.txt").write_bytes("\r\n".join(chosen).encode())
    (root / "Flicker8k_Dataset/33_c.jpg").write_text("<html>not found</html>")
    (root / "Flicker8k_Dataset/77_g.jpg").symlink_to("nothing")
    data = Flickr8k(root, "train", 7)
    assert greys(data) == [0, 10] and [len(references) for references in data.references] == [5, 5]
    assert data.references == tokenized(data) and data.texts[1][4] == "Caption 4 of b ."
    expected = [f"{tokens}:21: a name, a tab", f"{tokens}:22: not UTF-8", f"{tokens}:23: the caption of '22_b.jpg'",
                f"{tokens}:24: there is no picture '66_f.jpg'", f"{root / 'Flicker8k_Dataset/33_c.jpg'}: not a picture",
                f"{root / 'Flicker8k_Dataset/77_g.jpg'}: no such file"]  # fmt: skip
    assert [sum(problem.startswith(words) for problem in data.problems) for words in expected] == [
        1
    ] * 6
    assert len(data.problems) == 6


@pytest.mark.parametrize("name", ["Flickr_8k.testImages.txt", "Flickr8k.token.txt"])
def test_flickr8k_reports_which_file_is_missing(name, flickr):
    root, texts = flickr
    (texts / name).unlink()
    with pytest.raises(FileNotFoundError, match=name + ": not found"):
        Flickr8k(root, "test")
    with pytest.raises(ValueError, match="no split 'all': choose train, validation or test"):
        Flickr8k(root, "all")


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="Flickr8k is not here")
def test_flickr8k_has_its_official_numbers(monkeypatch):
    monkeypatch.setattr("mmscratch.data.photographs.open_image", lambda path: path.stat())
    monkeypatch.setattr(
        "mmscratch.data.photographs.to_tensor",
        lambda _, size: torch.zeros(3, size, size, dtype=torch.uint8),
    )
    train, validation = (Flickr8k(OFFICIAL, split, 2) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (6000, 1000)
    assert {len(references) for data in (train, validation) for references in data.references} == {
        5
    }
    assert not set(train.names) & set(validation.names)
    assert not train.problems and not validation.problems


@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_scene_captions(language):
    data = SceneCaptions("test", 7, language, size=37)
    assert len(data) == len(data.names) == len(data.references) == 7 and not data.problems
    for i in range(7):
        scene = Scene(2 * 10**9 + i)
        assert np.array_equal(data[i]["image"].permute(1, 2, 0), render(scene, 37))
        assert data.references[i] == [tokenize(sentence) for sentence in captions(scene, language)]
        assert data.texts[i] == list(captions(scene, language)) and len(data.references[i]) == 5
    one_caption_each = SceneCaptions("test", 7, language, one_caption_each=True)
    assert one_caption_each.references == [[data.references[i][i % 5]] for i in range(7)]
    assert one_caption_each.texts == [[data.texts[i][i % 5]] for i in range(7)]


def test_scene_captions_lists_the_known_splits():
    with pytest.raises(ValueError, match="no split 'val': choose one of train, validation, test"):
        SceneCaptions("val", 3)


# -------------------------------------------------------------------------------------------------
# Which captions are about which pictures.


def similar_scenes(first):
    """Eight scenes with numbers from `first`; every other one has the objects of the one before."""
    scenes = []
    for i in (4, 5, 6, 7):
        scene = Scene(i)
        attributes = [(obj.size, obj.colour, obj.noun) for obj in scene.objects]
        scenes += [scene, Scene.compose(random.Random(i), attributes)]
    for i, scene in enumerate(scenes):
        scene.seed = first + i
    return scenes


def test_judged_pairs_are_those_of_the_judge_in_any_order():
    train = SceneCaptions("train", 1, size=0)
    train.set_scenes(similar_scenes(100), size=0, one_caption_each=True)
    validation = SceneCaptions("validation", 3, size=0, one_caption_each=True)
    same = judged_pairs(train, validation)
    scenes = [*train.scenes, *validation.scenes]
    texts = [text for data in (train, validation) for (text,) in data.texts]
    chosen = [len(train) + 2, 3, 0, 5, 1, 2, 4, 7, 6, 1, len(train)]
    expected = []
    for i in chosen:
        expected.append([judge(texts[j], scenes[i]).true for j in chosen])
    found = same(torch.tensor(chosen))
    assert found.dtype == torch.bool and found.tolist() == expected
    assert not torch.equal(found, found.T)


def test_pictures_are_numbered_over_all_data_sets(folder):
    (folder / "captions.csv").write_text(
        f"{HEAD}a.png,a dog,val\nb.png,a cat,val\nb.png,an owl,val\n"
    )
    photos = FolderCaptions(folder, "validation", size=7)
    scenes = SceneCaptions("test", 3, size=8)
    number_pictures(photos, scenes)
    numbers = [example["number"] for data in (photos, scenes) for example in data]
    assert [number.item() for number in numbers] == [0, 1, 2, 3, 4]
    assert all(number.dtype == torch.long and number.shape == () for number in numbers)
    assert photos.may_flip(0, 0)  # the number is no text


def test_relevant_pictures_of_photographs_are_those_of_the_captions(folder):
    (folder / "captions.csv").write_text(
        f"{HEAD}a.png,a dog,val\nb.png,a cat,val\nb.png,a dog,val\nc.png,an owl,val\n"
    )
    photos = FolderCaptions(folder, "validation", size=7)
    expected = [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert relevant_pictures(photos).int().tolist() == expected


def test_relevant_scenes_are_those_of_the_judge():
    data = SceneCaptions("test", 1, size=0)
    data.set_scenes(similar_scenes(0), size=0)
    expected = []
    for texts in data.texts:
        for text in texts:
            expected.append([judge(text, scene).true for scene in data.scenes])
    assert relevant_pictures(data).tolist() == expected
    assert sum(map(sum, expected)) > 40
