"""Houses: 535 houses, four photographs each. Run: python -m data_scripts.houses --from FOLDER

Puts table.csv and the pictures into data/houses, for `train --task prediction`. The columns:
file_name (bathroom, bedroom, front, kitchen), bedrooms, bathrooms, area (sqft), zip, and price
(USD), the target. Source: Ahmed & Moustafa 2016, "House price estimation from visual and textual
features", github.com/emanhamed/Houses-dataset.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for python data_scripts/houses.py
from data_scripts.fetch import find, main
from data_scripts.tables import place, write_table

FOLDER = Path("data/houses")
TABLE = "HousesInfo.txt"
ROOMS = ("bathroom", "bedroom", "frontal", "kitchen")
COLUMNS = ("bedrooms", "bathrooms", "area (sqft)", "zip", "price (USD)")
LICENCE = (
    "The Houses dataset has no stated licence: cite Ahmed & Moustafa 2016, and do not pass it on."
)
OFFLINE = (
    "Get the repository github.com/emanhamed/Houses-dataset (Code, Download ZIP), unpack it, and "
    "give its folder as --from FOLDER"
)


def fetch(source: Path | None, folder: Path = FOLDER) -> None:
    """Write the table of the houses whose four pictures are below `source`.

    Raises ValueError if there is none, or for a line that is not five numbers.
    """
    if source is None:
        raise ValueError(f"nothing is downloaded. {OFFLINE}")
    found = find(source, (TABLE,))[TABLE]
    if not found:
        raise ValueError(f"{source}: no {TABLE} below. {OFFLINE}")
    rows = []
    for number, line in enumerate(found[0].read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != len(COLUMNS) or not all(cell.replace(".", "").isdigit() for cell in cells):
            raise ValueError(f"{found[0]}:{number}: five numbers were expected, not {line[:60]!r}")
        row = dict(zip(COLUMNS, cells))
        row["zip"] = f"zip {row['zip']}"  # a place, and not a number
        pictures = [found[0].with_name(f"{number}_{room}.jpg") for room in ROOMS]
        if all(picture.is_file() for picture in pictures):
            for picture in pictures:
                place(picture, folder / picture.name)
            rows.append({"file_name": ";".join(picture.name for picture in pictures)} | row)
    write_table(folder / "table.csv", rows, source)


if __name__ == "__main__":
    sys.exit(main(fetch, LICENCE, OFFLINE))
