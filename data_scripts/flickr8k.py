"""Flickr8k: 8,000 photographs, each with five captions. Run: python -m data_scripts.flickr8k

Puts Flicker8k_Dataset/ (this is how it is spelled) and Flickr8k_text/ into data/flickr8k, from two
archives (1.1 GB) that are removed after unpacking. They have no official checksums, so the contents
are checked: every picture that Flickr8k.token.txt names must open. Source: Hodosh, Young &
Hockenmaier 2013.
"""

import hashlib
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for python data_scripts/flickr8k.py
from data_scripts.fetch import download, find, main, new_folder, progress, unpack
from mmscratch.images import open_image

FOLDER = Path("data/flickr8k")
ADDRESS = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
PICTURES = "Flicker8k_Dataset"
TEXTS = "Flickr8k_text"
ARCHIVES = {PICTURES: "Flickr8k_Dataset.zip", TEXTS: "Flickr8k_text.zip"}
TOKENS = "Flickr8k.token.txt"
LICENCE = (
    "Flickr8k is for research and education, not for commercial use. The photographs belong to those who took them and "
    "put them on Flickr, whose terms apply: do not redistribute them."
)
OFFLINE = (
    f"Without a network, put {' and '.join(ARCHIVES.values())} from {ADDRESS} into a folder, "
    "and give it as --from FOLDER"
)
MAX_MISSING = 0.01  # fraction of all pictures; the official token file names one that never existed


def fetch(source: Path | None, folder: Path = FOLDER, address: str = ADDRESS) -> None:
    """Get the missing pictures and texts, from the network or from below `source`, and check them."""
    for part, archive in ARCHIVES.items():
        if (folder / part).is_dir():
            continue
        if source is not None:
            _take(source, part, folder / part)
            continue
        download(f"{address}/{archive}", folder / archive)
        try:
            unpack(folder / archive, folder / part)
        except ValueError as error:
            (folder / archive).unlink()
            raise ValueError(f"{error}. It is deleted: run again to fetch it again") from None
    if source is None:
        for archive in ARCHIVES.values():
            (folder / archive).unlink(missing_ok=True)
    check(folder, partial=source is not None)


def _take(source: Path, part: str, target: Path) -> None:
    """Unpack or copy a part of the data set, which may be anywhere below `source`."""
    archive = ARCHIVES[part]
    found = find(source, (archive, PICTURES, TOKENS))
    if found[archive]:
        return unpack(found[archive][0], target)
    unpacked = found[PICTURES] if part == PICTURES else [path.parent for path in found[TOKENS]]
    if not unpacked:
        raise FileNotFoundError(
            f"{source}: neither {archive} nor its contents ({part}) are below it"
        )
    with new_folder(target) as unfinished:
        for path in unpacked[0].glob("*.jpg" if part == PICTURES else "Flickr*.txt"):
            shutil.copyfile(path, unfinished / path.name)


def check(folder: Path, partial: bool = False) -> None:
    """Open every picture that the captions name, and report those that do not open.

    Raises ValueError if these are more than the fraction MAX_MISSING or, with `partial` (only a
    part of the data set was given), all. The result is kept in `folder`/.checked, and is valid
    until a file is added, removed or resized.
    """
    files = [path for part in ARCHIVES for path in (folder / part).iterdir()]
    sizes = sorted((path.name, path.stat().st_size) for path in files)
    state = hashlib.sha256(repr(sizes).encode()).hexdigest()
    tokens = folder / TEXTS / TOKENS
    if not tokens.is_file():
        raise FileNotFoundError(f"{tokens}: not found; delete {folder / TEXTS} and run again")
    lines = tokens.read_text(encoding="utf-8", errors="replace").splitlines()
    names = sorted({line.partition("\t")[0].rpartition("#")[0] for line in lines} - {""})
    checked = folder / ".checked"
    known, *problems = (
        checked.read_text(encoding="utf-8").splitlines() if checked.exists() else [""]
    )
    if known == state:
        print(f"{folder}: nothing to do: the files have been checked before")
    else:
        problems = _open_pictures(folder, names)
    for problem in problems[:5]:
        print(f"  {problem}")
    count = f"{len(problems):,} of them are missing or do not open"
    print(f"{folder}: {len(names):,} pictures have captions; {count}")
    for split in ("train", "dev", "test"):
        if not (folder / TEXTS / f"Flickr_8k.{split}Images.txt").is_file():
            print(f"  without Flickr_8k.{split}Images.txt there is no {split} split")
    too_many = len(problems) > MAX_MISSING * len(names) and not partial
    if too_many or len(problems) >= len(names):
        problem = "too many pictures are missing or do not open"
        raise ValueError(f"{folder / PICTURES}: {problem}: delete {folder} and run again")
    checked.write_text("\n".join([state, *problems]), encoding="utf-8")


def _open_pictures(folder: Path, names: list[str]) -> list[str]:
    """Open these pictures; returns why some cannot be opened."""
    problems = []
    with progress() as show:
        for i, name in enumerate(names, 1):
            try:
                open_image(folder / PICTURES / name)
            except (ValueError, OSError) as error:
                problems.append(str(error))
            show(f"{folder}: {i:,} of {len(names):,} pictures opened")
    return problems


if __name__ == "__main__":
    sys.exit(main(fetch, LICENCE, OFFLINE))
