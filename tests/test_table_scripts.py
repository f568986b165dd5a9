"""The scripts that make a table of HAM10000 and of Houses, on small copies of their layout."""

import csv
import os


import pytest
from PIL import Image

from data_scripts import ham10000, houses
from data_scripts.fetch import main
from mmscratch.data.tables import TableData, TableOptions

METADATA = """\
lesion_id,image_id,dx,dx_type,age,sex,localization
HAM_1,ISIC_1,nv,histo,80.0,male,scalp
HAM_1,ISIC_2,nv,histo,80.0,male,scalp
HAM_2,ISIC_3,mel,follow_up,,unknown,unknown
HAM_3,ISIC_9,df,histo,30.0,female,back
"""
HOUSES = "4 4 4053 85255 869500\n\n2 1.5 900 36372 100000\n3 2 1500 36372 250000\n"


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (len(path.name), 3, 7)).save(path)


@pytest.fixture
def skin(tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given/HAM10000_metadata.csv").write_text(METADATA)
    for number in (1, 2, 3):
        picture(tmp_path / f"given/HAM10000_images_part_{1 + number % 2}/ISIC_{number}.jpg")
    return tmp_path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_ham10000_becomes_a_table_of_the_pictures_at_hand(skin, capsys):
    ham10000.fetch(skin / "given", skin / "new")
    assert capsys.readouterr().out == f"{skin}/new/table.csv: 3 rows\n"
    rows = rows_of(skin / "new/table.csv")
    assert [row["file_name"] for row in rows] == ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg"]
    assert rows[2] == {
        "file_name": "ISIC_3.jpg",
        "lesion_id": "HAM_2",
        "diagnosis": "melanoma",
        "age (years)": "",
        "sex": "unknown",
        "site": "unknown",
        "dx_type": "follow_up",
    }
    for row in rows:
        (source,) = (skin / "given").rglob(row["file_name"])
        assert (skin / "new" / row["file_name"]).read_bytes() == source.read_bytes()
    ham10000.fetch(skin / "given", skin / "new")  # again: nothing changes
    assert rows_of(skin / "new/table.csv") == rows
    options = TableOptions("diagnosis", "lesion_id", fold=None)
    with pytest.raises(ValueError, match="2 groups cannot be split into 3 parts"):
        TableData(skin / "new", "train", 4, options)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda text: text.replace("mel", "wart"), "HAM10000_metadata.csv:4: unknown diagnosis"),
        (lambda text: text.replace("dx_type", "type"), "no column dx_type"),
        (lambda text: text.replace("ISIC_", "X"), "none of the pictures of its table"),
    ],
)
def test_other_tables_are_refused(change, says, skin):
    (skin / "given/HAM10000_metadata.csv").write_text(change(METADATA))
    with pytest.raises(ValueError, match=says):
        ham10000.fetch(skin / "given", skin / "new")


def test_houses_become_a_table_with_four_pictures_each(tmp_path):
    source = tmp_path / "given/Houses Dataset"
    for house, rooms in ((1, houses.ROOMS), (3, houses.ROOMS), (4, houses.ROOMS[:3])):
        for room in rooms:
            picture(source / f"{house}_{room}.jpg")
    (source / houses.TABLE).write_text(HOUSES)
    houses.fetch(tmp_path / "given", tmp_path / "new")
    one, other = rows_of(tmp_path / "new/table.csv")
    assert one["file_name"].split(";") == [f"1_{room}.jpg" for room in houses.ROOMS]
    assert other["file_name"].startswith("3_") and other["bathrooms"] == "1.5"
    assert one["price (USD)"] == "869500" and one["zip"] == "zip 85255"
    (source / houses.TABLE).write_text(HOUSES + "five rooms\n")
    with pytest.raises(ValueError, match="HousesInfo.txt:5: five numbers were expected"):
        houses.fetch(tmp_path / "given", tmp_path / "new")


@pytest.mark.parametrize("script", [ham10000, houses])
def test_nothing_is_downloaded_and_the_licence_is_shown(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(script.fetch, script.LICENCE, script.OFFLINE, []) == 2
    out, err = capsys.readouterr()
    assert out == f"{script.LICENCE}\n"
    assert err.startswith("error: nothing is downloaded. Get ") and "--from FOLDER" in err
    assert main(script.fetch, script.LICENCE, script.OFFLINE, ["--from", "."]) == 2
    assert "below. Get " in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_pictures_are_copied_where_links_are_not_possible(skin, monkeypatch):
    def refuse(*_):
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    ham10000.fetch(skin / "given", skin / "new")
    assert len(list((skin / "new").glob("*.jpg"))) == 3
