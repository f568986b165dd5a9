"""easy-VQA: 48,248 questions about 5,000 drawn pictures. Run: python -m data_scripts.easy_vqa

Puts train/ and test/ into data/easy-vqa, each with images/ and questions.json. They are in the
Python package easy-vqa 1.0, which pip downloads from the index that it is configured for; the
package must have the SHA-256 below, and is not installed. Source: Zhou 2019,
github.com/vzhou842/easy-VQA.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for python data_scripts/easy_vqa.py
from data_scripts.fetch import find, main, new_folder, sha256, unpack
from mmscratch.data.records import load_json, numbered

FOLDER = Path("data/easy-vqa")
WHEEL = "easy_vqa-1.0-py3-none-any.whl"
SHA256 = "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
COUNTS = {"train": (4000, 38_575), "test": (1000, 9673)}  # pictures and questions
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
PIP += ["--no-deps", "--only-binary=:all:"]
LICENCE = "easy-VQA is under the MIT licence. Copyright (c) 2019 Victor Zhou"
OFFLINE = (
    f"Without a network, put {WHEEL} (pip download easy-vqa==1.0 --no-deps) into a folder, "
    "and give it as --from FOLDER"
)


def fetch(
    source: Path | None,
    folder: Path = FOLDER,
    expected: str = SHA256,
    counts: Mapping[str, tuple[int, int]] = COUNTS,
) -> None:
    """Get the pictures and questions, from pip's index or from below `source`, and check them."""
    if folder.is_dir():
        _check(folder, counts, f"delete {folder} and run again")
        print(f"{folder}: nothing to do: all pictures and questions exist")
        return
    with tempfile.TemporaryDirectory() as temporary:
        if source is None:
            source = _download(Path(temporary, "wheel"))
        root = _find_data(source, Path(temporary, "unpacked"), expected)
        _check(root, counts, f"give another copy as --from FOLDER, or put {WHEEL} there")
        with new_folder(folder) as unfinished:
            for part in counts:
                _copy(root / part, unfinished / part)
    pictures = sum(pictures for pictures, _ in counts.values())
    questions = sum(questions for _, questions in counts.values())
    print(f"{folder}: {pictures:,} pictures and {questions:,} questions")


def _download(folder: Path) -> Path:
    """Let pip download the package into a folder; returns the folder."""
    command = [*PIP, "--dest", str(folder), "easy-vqa==1.0"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or ["no message"]
        raise ConnectionError(f"pip download easy-vqa==1.0 fails: {lines[-1]}")
    return folder


def _find_data(source: Path, folder: Path, expected: str) -> Path:
    """The folder of train/ and test/ below `source`; a package is unpacked as `folder` first."""
    found = find(source, (WHEEL, "questions.json"))
    if found[WHEEL]:
        wheel = found[WHEEL][0]
        if sha256(wheel) != expected:
            raise ValueError(f"{wheel}: not the official package: its SHA-256 is {sha256(wheel)}")
        unpack(wheel, folder)
        found = find(folder, ("questions.json",))
    for questions in found["questions.json"]:
        root = questions.parents[1]
        if all((root / part / "questions.json").is_file() for part in COUNTS):
            return root
    parts = "train/questions.json and test/questions.json"
    raise FileNotFoundError(f"{source}: neither {WHEEL} nor its {parts} are below it")


def _check(root: Path, counts: Mapping[str, tuple[int, int]], advice: str) -> None:
    """Count the pictures and questions. Raises ValueError if some are missing."""
    for part, numbers in counts.items():
        pictures = len(list((root / part / "images").glob("*.png")))
        table = root / part / "questions.json"
        questions = 0
        if table.is_file():
            questions = len(list(numbered(table, load_json(table))))
        if (pictures, questions) != numbers:
            found = f"{pictures:,} pictures and {questions:,} questions"
            expected = " and ".join(f"{number:,}" for number in numbers)
            raise ValueError(f"{root / part}: {found}, not {expected}: {advice}")


def _copy(part: Path, target: Path) -> None:
    pictures = target / "images"
    pictures.mkdir(parents=True)
    shutil.copyfile(part / "questions.json", target / "questions.json")
    for picture in (part / "images").glob("*.png"):
        shutil.copyfile(picture, pictures / picture.name)


if __name__ == "__main__":
    sys.exit(main(fetch, LICENCE, OFFLINE))
