"""Captions as people have them: spreadsheets' separators, column names, Kaggle, COCO, Karpathy."""

import json
import os

import pytest
from grey_pictures import greys, save

from mmscratch.data.captions import FolderCaptions
from mmscratch.data.records import files_below


def pictures(folder, count=6):
    for i in range(count):
        save(folder / f"{i:02}.jpg", 10 * i)


def captions(folder, split="train", size=7):
    data = FolderCaptions(folder, split, size)
    return {os.path.basename(name): texts for name, texts in zip(data.names, data.texts)}, data


ROWS = (("00.jpg", "a dog; red, fast"), ("01.jpg", "a cat"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [("filename", "Caption"), ("Image Name", "description"), None])
def test_separators_and_column_names_are_recognised(tmp_path, delimiter, header):
    pictures(tmp_path, 2)
    rows = [header, *ROWS] if header else ROWS
    lines = [delimiter.join(f'"{cell}"' for cell in row) for row in rows]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    data = FolderCaptions(tmp_path, "train", 7)
    found = {**captions(tmp_path)[0], **captions(tmp_path, "validation")[0]}
    assert found == {name: [text] for name, text in ROWS} and not data.problems


def test_a_column_that_is_missing_is_named_once(tmp_path):
    (tmp_path / "captions.csv").write_text("id,words\n1,a dog\n")
    with pytest.raises(
        ValueError, match="captions.csv:1: no column is called file_name; it has: id"
    ):
        FolderCaptions(tmp_path)


def test_a_newline_in_quotes_is_a_space(tmp_path):
    pictures(tmp_path, 3)
    (tmp_path / "captions.csv").write_text(
        'file_name,caption,split\n00.jpg,"a boat\non a\n\nlake",train\n01.jpg,"never closed,train\n'
        "02.jpg,a cat,train\n"
    )
    found, data = captions(tmp_path)
    assert found == {"00.jpg": ["a boat on a lake"], "02.jpg": ["a cat"]}
    assert f"{tmp_path}/captions.csv:6: unexpected end of data" in data.problems


def test_quotes_in_a_table_with_tabs(tmp_path):
    pictures(tmp_path, 3)
    (tmp_path / "captions.tsv").write_text(
        'file_name\tcaption\tsplit\n00.jpg\t"a ""big"" dog"\ttrain\n01.jpg\ta 5" disk\ttrain\n'
        '02.jpg\t"no" or "yes"\ttrain\n'
    )
    assert captions(tmp_path)[0] == {
        "00.jpg": ['a "big" dog'],
        "01.jpg": ['a 5" disk'],
        "02.jpg": ['"no" or "yes"'],
    }


@pytest.mark.parametrize("folder", ["train2017", "."])
def test_coco(tmp_path, folder):
    pictures(tmp_path / folder)
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        content = {
            "images": [{"id": i, "file_name": f"{i:02}.jpg"} for i in numbers],
            "annotations": [
                {"id": 9, "image_id": i, "caption": f"a {word}"} for i in numbers for word in "xy"
            ],
        }
        content["annotations"].append({"image_id": 77, "caption": "nothing"})
        (tmp_path / f"captions_{split}2017.json").write_text(json.dumps(content))
    found, data = captions(tmp_path)
    assert found == {f"{i:02}.jpg": ["a x", "a y"] for i in range(4)}
    assert greys(data) == [0, 10, 20, 30]
    assert set(captions(tmp_path, "validation")[0]) == {"04.jpg", "05.jpg"}
    problem = f"{tmp_path}/captions_train2017.json, entry 9: a caption and the image_id"
    assert any(each.startswith(problem) for each in data.problems)


def test_karpathy(tmp_path):
    pictures(tmp_path / "images")
    splits = ("train", "restval", "val", "test", "train", "train")
    images = [
        {"filename": f"{i:02}.jpg", "split": split, "sentences": [{"raw": "A dog."}, {"raw": "b"}]}
        for i, split in enumerate(splits)
    ]
    del images[5]["sentences"]
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    found, data = captions(tmp_path)
    assert found == {name: ["A dog.", "b"] for name in ("00.jpg", "01.jpg", "04.jpg")}
    expected = f"{tmp_path}/dataset_flickr8k.json, entry 6: a filename, a split and sentences"
    assert any(each.startswith(expected) for each in data.problems)
    assert [set(captions(tmp_path, s)[0]) for s in ("validation", "test")] == [
        {"02.jpg"},
        {"03.jpg"},
    ]


@pytest.mark.parametrize(
    "table, lines",
    [
        ("captions.txt", ["image,caption", "{}.jpg,a dog , red ."]),
        ("results.csv", ["image_name| comment_number| comment", "{}.jpg| 0| a dog , red ."]),
    ],
)
def test_kaggle(tmp_path, table, lines):
    pictures(tmp_path / "Images", 20)
    rows = [lines[1].format(f"{i:02}") for i in range(20)]
    (tmp_path / table).write_text("\n".join([lines[0], *rows]))
    found, data = captions(tmp_path)
    assert len(found) == 16 and set(map(tuple, found.values())) == {("a dog , red .",)}
    assert not data.problems


@pytest.mark.parametrize("suffix, says", [("xlsx", "save it as CSV"), ("parquet", "save it as CSV")])
def test_what_is_not_read_is_named(tmp_path, suffix, says):
    (tmp_path / f"captions.{suffix}").write_bytes(b"PK")
    with pytest.raises(ValueError, match=says):
        FolderCaptions(tmp_path)


@pytest.mark.parametrize(
    "table, content, says",
    [
        ("captions_train2017.json", "[]", "COCO's images and annotations were expected"),
        ("captions_train2017.json", '{"images": [], "annotations": 3}', "a list was expected"),
        ("dataset_coco.json", "[]", "Karpathy's list of images was expected"),
    ],
)
def test_broken_tables_of_published_sets(tmp_path, table, content, says):
    (tmp_path / table).write_text(content)
    with pytest.raises(ValueError, match=says):
        FolderCaptions(tmp_path)


def test_linked_folders_are_read_and_loops_end(tmp_path):
    pictures(tmp_path / "disk", 2)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "images").symlink_to(tmp_path / "disk")
    (folder / "images/loop").symlink_to(folder)
    (folder / "captions.csv").write_text("images/00.jpg,a dog\nimages/01.jpg,a cat\n")
    names = [f"{path.relative_to(folder)}" for path in files_below(folder)]
    assert "images/00.jpg" in names and len(names) < 20
    assert sum(len(captions(folder, split)[0]) for split in ("train", "validation")) == 2


def test_hidden_and_system_files_are_no_pictures(tmp_path):
    pictures(tmp_path, 2)
    for name in ("._00.jpg", ".cache/x.jpg", "__MACOSX/00.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "captions.csv").write_text("00.jpg,a dog,train\n01.jpg,a cat,train\n")
    assert sorted(path.name for path in files_below(tmp_path)) == [
        "00.jpg",
        "01.jpg",
        "captions.csv",
    ]
