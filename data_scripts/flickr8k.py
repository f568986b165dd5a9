"""Flickr8k: 8,000 photographs, each with five captions. Run: python -m data_scripts.flickr8k

Into data/flickr8k come Flicker8k_Dataset/ (so it is spelled) and Flickr8k_text/, from two archives (1.1 GB) that are removed
when they are unpacked. They have no official sums, so what is in them is checked: every picture that Flickr8k.token.txt
names must open. Source: Hodosh, Young & Hockenmaier 2013.
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
PICTURES, TEXTS = "Flicker8k_Dataset", "Flickr8k_text"
ARCHIVES = {PICTURES: "Flickr8k_Dataset.zip", TEXTS: "Flickr8k_text.zip"}
TOKENS = "Flickr8k.token.txt"
LICENCE = (
    "Flickr8k is for research and education, not for commercial use. The photographs belong to those who took them and "
    "put them on Flickr, whose terms hold: do not pass them on."
)
OFFLINE = f"Without a network, put {' and '.join(ARCHIVES.values())} of {ADDRESS} into a folder and give it as --from FOLDER"
MAX_MISSING = 0.01  # of all pictures; the official token file names one that was never there


def fetch(source: Path | None, folder: Path = FOLDER, address: str = ADDRESS) -> None:
    """Bring the pictures and the texts, each if it is not there, from the network or from below `source`, and check them."""
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
            raise ValueError(f"{error}. It is deleted: run again to fetch it anew") from None
    if source is None:
        for archive in ARCHIVES.values():
            (folder / archive).unlink(missing_ok=True)
    check(folder, partial=source is not None)


def _take(source: Path, part: str, target: Path) -> None:
    """Unpack or copy a part of the data set from wherever it lies below `source`."""
    found = find(source, (ARCHIVES[part], PICTURES, TOKENS))
    if archives := found[ARCHIVES[part]]:
        return unpack(archives[0], target)
    unpacked = found[PICTURES] if part == PICTURES else [path.parent for path in found[TOKENS]]
    if not unpacked:
        raise FileNotFoundError(
            f"{source}: neither {ARCHIVES[part]} nor what is in it ({part}) is there or below"
        )
    with new_folder(target) as unfinished:
        for path in unpacked[0].glob("*.jpg" if part == PICTURES else "Flickr*.txt"):
            shutil.copyfile(path, unfinished / path.name)


def check(folder: Path, partial: bool = False) -> None:
    """Open every picture that the captions name, and say which do not open.

    Raises ValueError if these are more than MAX_MISSING, or with `partial` (a part of the data set was given) all. What
    was found is kept in `folder`/.checked, and holds as long as no file comes, goes or changes its size.
    """
    files = [path for part in ARCHIVES for path in (folder / part).iterdir()]
    state = hashlib.sha256(
        repr(sorted((path.name, path.stat().st_size) for path in files)).encode()
    ).hexdigest()
    tokens, checked = folder / TEXTS / TOKENS, folder / ".checked"
    if not tokens.is_file():
        raise FileNotFoundError(f"{tokens}: not there; delete {folder / TEXTS} and run again")
    lines = tokens.read_text(encoding="utf-8", errors="replace").splitlines()
    names = sorted({line.partition("\t")[0].rpartition("#")[0] for line in lines} - {""})
    known, *lacking = checked.read_text(encoding="utf-8").splitlines() if checked.exists() else [""]
    if known == state:
        print(f"{folder}: nothing to do: the files are those that were checked")
    else:
        lacking = []
        with progress() as show:
            for i, name in enumerate(names, 1):
                try:
                    open_image(folder / PICTURES / name)
                except (ValueError, OSError) as error:
                    lacking.append(str(error))
                show(f"{folder}: {i:,} of {len(names):,} pictures opened")
    for problem in lacking[:5]:
        print(f"  {problem}")
    print(
        f"{folder}: {len(names):,} pictures have captions; {len(lacking):,} of them are missing or do not open"
    )
    for split in ("train", "dev", "test"):
        if not (folder / TEXTS / f"Flickr_8k.{split}Images.txt").is_file():
            print(f"  without Flickr_8k.{split}Images.txt there is no {split} split")
    if len(lacking) >= len(names) or not partial and len(lacking) > MAX_MISSING * len(names):
        raise ValueError(
            f"{folder / PICTURES}: too many pictures are missing or do not open: delete {folder} and run again"
        )
    checked.write_text("\n".join([state, *lacking]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(fetch, LICENCE, OFFLINE))
