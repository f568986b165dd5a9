"""Tables on disk: targets, splits, pictures, and everything that may be wrong with them."""

import shutil

import pytest
import torch
from PIL import Image

from mmscratch.data.tables import (
    TableData,
    TableOptions,
    Target,
    learn_target,
    mosaic,
    mosaic_side,
    read_examples,
)
from mmscratch.images import open_image, to_tensor
from mmscratch.tables import Schema

BY_PATIENT = TableOptions("dx", "patient")


def write_table(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_picture(path, number):
    colour = (40 * number % 256, 90 * number % 256, 200 - number)
    Image.new("RGB", (20, 16), colour).save(path)


def clinic(folder, patients=40):
    """Two visits of each patient, of whom every fourth is ill; every fifth row lacks its age."""
    lines = ["file_name,patient,age,sex,dx,note"]
    for i in range(2 * patients):
        patient = i // 2
        age = "" if i % 5 == 4 else 20 + patient
        dx = "ill" if patient % 4 == 0 else "well"
        lines.append(f"{i}.png,p{patient},{age},{'fm'[patient % 2]},{dx},")
    write_table(folder, *lines)
    for i in range(2 * patients):
        write_picture(folder / f"{i}.png", i)


def read_all(folder, options=BY_PATIENT, size=8):
    return {s: TableData(folder, s, size, options) for s in ("train", "validation", "test")}


def test_rows_are_split_by_group_with_their_share_of_each_class(tmp_path):
    clinic(tmp_path)
    data = read_all(tmp_path)
    groups = {split: set(part.groups) for split, part in data.items()}
    assert not groups["train"] & groups["validation"] and not groups["train"] & groups["test"]
    assert sum(map(len, groups.values())) == 40
    assert [len(part) for part in data.values()] == pytest.approx([56, 12, 12], abs=4)
    ill = [part.labels.count("ill") for part in data.values()]
    assert ill == pytest.approx([14, 3, 3], abs=2)
    assert not any(part.problems for part in data.values())
    by_row = read_all(tmp_path, BY_PATIENT._replace(by_row=True))
    assert set(by_row["train"].groups) & set(by_row["test"].groups)  # the leak


def test_examples_have_a_row_and_a_picture(tmp_path):
    clinic(tmp_path)
    data = TableData(tmp_path, "test", 8, BY_PATIENT)
    assert data.target == Target("dx", ("well", "ill"))
    assert [column.name for column in data.schema.columns] == ["age", "sex"]
    for i in range(len(data)):
        number = int(data.names[i].rpartition(":")[2]) - 2
        example = data[i]
        assert example.keys() == {"row", "image"}
        assert example["row"][0].isnan() == (number % 5 == 4)
        assert torch.equal(example["image"], to_tensor(open_image(tmp_path / f"{number}.png"), 8))
        assert data.references[i] == [[data.labels[i]]] == [data.texts[i]]


def test_the_schema_is_learned_from_training_rows_only(tmp_path):
    lines = ["age,place,dx,split"]
    lines += [f"{i},here,{'ab'[i % 2]},train" for i in range(10)]
    lines += ["1000,there,a,validation", "5,here,c,test", "5,here,b,test"]
    write_table(tmp_path, *lines)
    options = TableOptions("dx")
    data = read_all(tmp_path, options)
    age, place = data["validation"].schema.columns
    assert age.mean == 4.5 and place.values == ("here",)
    assert data["validation"][0]["row"].tolist()[1] == 0
    assert data["test"].labels == ["b"]
    assert data["test"].problems == [f"{tmp_path}/table.csv:13: column 'dx': training has no 'c'"]
    known = data["train"].schema, data["train"].target, 0
    shutil.rmtree(tmp_path)
    write_table(tmp_path, "age,place,dx,split", "9.5,,a,test")
    other = TableData(tmp_path, "test", 8, options, known)  # a run on other data
    assert other[0]["row"][0] == pytest.approx(5 / age.scale) and other[0]["row"][1].isnan()


def test_folds_take_turns(tmp_path):
    clinic(tmp_path)
    tested = []
    for fold in range(5):
        data = read_all(tmp_path, BY_PATIENT._replace(fold=(fold, 5)))
        tested += data["test"].names
        after = TableData(tmp_path, "test", 8, BY_PATIENT._replace(fold=((fold + 1) % 5, 5)))
        assert data["validation"].names == after.names
        assert len(data["train"]) == 80 - len(data["test"]) - len(data["validation"])
    assert len(tested) == len(set(tested)) == 80


@pytest.mark.parametrize("inputs, modalities", [("image", {"image"}), ("row", {"row"})])
def test_only_pictures_or_only_rows(tmp_path, inputs, modalities):
    clinic(tmp_path)
    data = TableData(tmp_path, "test", 8, BY_PATIENT._replace(inputs=inputs))
    assert data[0].keys() == modalities


def test_columns_may_be_left_out(tmp_path):
    clinic(tmp_path)
    data = TableData(tmp_path, "test", 8, BY_PATIENT._replace(left_out=("age",)))
    assert [column.name for column in data.schema.columns] == ["sex"]


def test_numbers_are_predicted_by_brackets(tmp_path):
    cells = [str(100 + i * i) for i in range(60)]
    target = learn_target("price", cells)
    assert target.is_number and len(target.classes) == 4
    labels = [target.label(cell) for cell in cells]
    assert [labels.count(name) for name in target.classes] == [15, 15, 15, 15]
    assert [target.classes.index(label) for label in labels] == sorted(
        target.classes.index(label) for label in labels
    )
    assert target.medians[0] == 100 + 7**2 and target.classes[0] == "about 149"
    assert target.label("1") == target.classes[0] and target.label("1e9") == target.classes[-1]
    with pytest.raises(ValueError, match="column 'price' holds numbers, not 'much'"):
        target.label("much")


def test_many_equal_numbers_make_fewer_brackets():
    target = learn_target("price", ["5"] * 200 + [str(i) for i in range(100, 140)])
    assert len(target.classes) == len(set(target.classes)) == len(target.medians)
    assert len(target.upper) == len(target.medians) - 1
    for name, median in zip(target.classes, target.medians):
        assert target.label(str(median)) == name


def test_few_numbers_are_classes():
    assert learn_target("stars", ["1", "2", "2", "5"]).classes == ("2", "1", "5")


# -------------------------------------------------------------------------------------------------
# Several pictures.


def test_several_pictures_become_one(tmp_path):
    lines = ["file_name,dx,split"]
    for i in range(4):
        names = ";".join(f"{i}-{j}.png" for j in range(i + 1))
        lines.append(f"{names},{'ab'[i % 2]},train")
        for j in range(i + 1):
            write_picture(tmp_path / f"{i}-{j}.png", 5 * i + j)
    lines.append(",a,train")
    write_table(tmp_path, *lines)
    (tmp_path / "2-1.png").write_bytes(b"broken")
    data = TableData(tmp_path, "train", 10, TableOptions("dx"))
    assert data.problems == [f"{tmp_path}/table.csv:4: {tmp_path}/2-1.png: not a picture"]
    three = data[3]["image"]
    for j, (top, left) in enumerate([(0, 0), (0, 5), (5, 0), (5, 5)]):
        expected = to_tensor(open_image(tmp_path / f"3-{j}.png"), 5)
        assert torch.equal(three[:, top : top + 5, left : left + 5], expected)
    assert data[0]["image"][:, :5, 5:].eq(0).all()  # black
    assert data[2]["image"].shape == (3, 10, 10) and data[4].keys() == {"row"}


def test_mosaics():
    assert [mosaic_side(n) for n in (0, 1, 2, 4, 5, 9, 10)] == [1, 1, 2, 2, 3, 3, 4]
    pictures = [torch.full((3, 2, 2), i, dtype=torch.uint8) for i in (1, 2, 3)]
    assert mosaic(pictures, 2, 5)[0].tolist() == [
        [1, 1, 2, 2, 0],
        [1, 1, 2, 2, 0],
        [3, 3, 0, 0, 0],
        [3, 3, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_rows_to_predict_need_no_target(tmp_path):
    schema = Schema.learn([{"age": "1"}, {"age": "3"}])
    write_picture(tmp_path / "a.png", 3)
    (tmp_path / "rows.csv").write_text("age,file_name\n2,a.png\n,\n")
    (where, one), (_, other) = read_examples(tmp_path / "rows.csv", None, schema, 1, 6)
    assert where == f"{tmp_path}/rows.csv:2" and one["row"].tolist() == [0]
    assert torch.equal(one["image"], to_tensor(open_image(tmp_path / "a.png"), 6))
    assert other.keys() == {"row"} and other["row"].isnan().all()
    (tmp_path / "rows.csv").write_text("age\nold\n")
    with pytest.raises(ValueError, match=r"rows.csv:2: column 'age' holds numbers, not 'old'"):
        list(read_examples(tmp_path / "rows.csv", None, schema, 1, 6))
    (tmp_path / "rows.csv").write_text("age,file_name\n3,a.png;a.png\n")
    with pytest.raises(ValueError, match="2 pictures, where training had 1"):
        list(read_examples(tmp_path / "rows.csv", None, schema, 1, 6))


# -------------------------------------------------------------------------------------------------
# What is wrong.

GOOD = ["age,g,dx,split", "1,x,a,train", "2,y,b,train", "3,z,a,test"]


@pytest.mark.parametrize(
    "change, says",
    [
        (["age,g,age,split"], ":1: the column name 'age' is empty or occurs twice"),
        (["age,g,,split"], ":1: the column name '' is empty or occurs twice"),
        (["age,g,diagnosis,split"], ": no column 'dx' among: age, g, diagnosis, split"),
        (["age,group,dx,split"], ": no column 'g' among: age, group, dx, split"),
        (
            [*GOOD[:2], "2,y,a,train", "3,z,a,test"],
            ": column 'dx' has one class only in training: a",
        ),
        ([*GOOD, "4,x,b,test"], ":5: the group 'x' is in test, and in train at"),
        ([*GOOD, "4,u,b,later"], ":5: the split 'later' is none of train, val, dev"),
        ([*GOOD, "4,u,b,"], ":5: the split '' is none of train"),
        ([GOOD[0]], ": no rows"),
        ([""], ":1: no column names"),
        ([*GOOD, '4,"u,b,test'], ": unexpected end of data"),
        ([GOOD[0], "1,x,a,test", "2,y,b,test"], ": no row is for training"),
        ([GOOD[0], "1,x,,train", "2,y,?,train"], ": no row has a 'dx'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_in_one_line(tmp_path, change, says):
    lines = change + GOOD[1:] if change[0] != GOOD[0] and change != [""] else change
    write_table(tmp_path, *lines)
    with pytest.raises(ValueError) as caught:
        TableData(tmp_path, "train", 0, TableOptions("dx", "g"))
    message = str(caught.value)
    assert says in message and message.startswith(f"{tmp_path}/table.csv") and "\n" not in message


def test_rows_that_cannot_be_used_are_named_and_left_out(tmp_path):
    lines = [*GOOD, "4,u,b", "5,v,,train", "many,w,b,test", "6,q,c,test", "", "7,r,b,test"]
    write_table(tmp_path, *lines)
    data = TableData(tmp_path, "test", 0, TableOptions("dx", "g"))
    path = tmp_path / "table.csv"
    assert data.problems == [
        f"{path}:5: 3 cells where there are 4 columns",
        f"{path}:6: column 'dx' is empty",
        f"{path}:7: column 'age' holds numbers, not 'many'",
        f"{path}:8: column 'dx': training has no 'c'",
    ]
    assert data.labels == ["a", "b"] and data.groups == ["z", "r"]


def test_a_folder_without_a_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="table.csv: not found"):
        TableData(tmp_path, "train", 0, TableOptions("dx"))
    (tmp_path / "table.csv").write_bytes(b"a,dx\n\xff,1\n")
    with pytest.raises(ValueError, match="table.csv: not UTF-8 text"):
        TableData(tmp_path, "train", 0, TableOptions("dx"))


def test_a_bom_spaces_and_quotes_are_no_problem(tmp_path):
    content = '\ufeffage, dx ,split\n1, "a, or b",train\n 2,c , train\n'
    (tmp_path / "table.csv").write_text(content, encoding="utf-8")
    data = TableData(tmp_path, "train", 0, TableOptions("dx"))
    assert data.labels == ["a, or b", "c"] and not data.problems
