"""HAM10000: 10,015 dermatoscopic pictures. Run: python -m data_scripts.ham10000 --from FOLDER

Puts table.csv and the pictures into data/ham10000, for `train --task prediction`. The columns:
file_name, lesion_id (the group: a lesion has up to six pictures), diagnosis (the target), age
(years), sex, site, and dx_type, how the diagnosis was made, which nobody knows beforehand: leave it
out. Source: Tschandl, Rosendahl & Kittler 2018, doi.org/10.7910/DVN/DBW86T.
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for python data_scripts/ham10000.py
from data_scripts.fetch import find, main
from data_scripts.tables import check_columns, place, write_table

FOLDER = Path("data/ham10000")
METADATA = "HAM10000_metadata.csv"
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
DIAGNOSES = {
    "nv": "melanocytic nevus",
    "mel": "melanoma",
    "bkl": "benign keratosis",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis",
    "vasc": "vascular lesion",
    "df": "dermatofibroma",
}
LICENCE = (
    "HAM10000 is for non-commercial use, with attribution (CC BY-NC 4.0): Tschandl, Rosendahl & "
    "Kittler 2018. The pictures are of patients: do not try to find out whose."
)
OFFLINE = (
    f"Get {METADATA} and the pictures (HAM10000_images_part_1.zip and …_part_2.zip, unpacked) from "
    "doi.org/10.7910/DVN/DBW86T, after reading its terms, and give their folder as --from FOLDER"
)


def fetch(source: Path | None, folder: Path = FOLDER) -> None:
    """Write the table of the pictures that are below `source`. Raises ValueError if none is."""
    if source is None:
        raise ValueError(f"nothing is downloaded. {OFFLINE}")
    found = find(source, (METADATA,))[METADATA]
    if not found:
        raise ValueError(f"{source}: no {METADATA} below. {OFFLINE}")
    pictures = {path.stem: path for path in source.rglob("*.jpg")}
    rows = []
    with found[0].open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        check_columns(found[0], reader.fieldnames, COLUMNS)
        for row in reader:
            picture = pictures.get(row["image_id"])
            if picture is None:
                continue
            if row["dx"] not in DIAGNOSES:
                raise ValueError(f"{found[0]}:{reader.line_num}: unknown diagnosis {row['dx']!r}")
            place(picture, folder / picture.name)
            rows.append(
                {
                    "file_name": picture.name,
                    "lesion_id": row["lesion_id"],
                    "diagnosis": DIAGNOSES[row["dx"]],
                    "age (years)": row["age"],
                    "sex": row["sex"],
                    "site": row["localization"],
                    "dx_type": row["dx_type"],
                }
            )
    write_table(folder / "table.csv", rows, source)


if __name__ == "__main__":
    sys.exit(main(fetch, LICENCE, OFFLINE))
