"""Multi30k: sentences about photographs in four languages. Run: python -m data_scripts.multi30k

The languages are English, German, French and Czech. Puts the raw files and the lists of pictures of
task 1 into data/multi30k, in the layout of github.com/multi30k/dataset. Every file must have the
SHA-256 in multi30k.sha256. Source: Elliott et al. 2016 and 2017, Barrault et al. 2018.
"""

import os
import shutil
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for python data_scripts/multi30k.py
from data_scripts.fetch import download, find, main, sha256

FOLDER = Path("data/multi30k")
ADDRESS = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1"
_LINES = Path(__file__).with_suffix(".sha256").read_text().splitlines()
SUMS = {name: digest for digest, name in map(str.split, _LINES)}
LICENCE = (
    "Multi30k's sentences are for non-commercial use, with attribution and under the same licence (CC BY-NC-SA 4.0). "
    "Its photographs are not included: they belong to Flickr30k and COCO, under their own terms."
)
OFFLINE = "Without a network, put a copy of github.com/multi30k/dataset into a folder and give it as --from FOLDER"
MAX_BYTES = 10_000_000  # of a file; the largest has 0.7 million
LANGUAGES = ("en", "de", "fr", "cs")


def fetch(
    source: Path | None,
    folder: Path = FOLDER,
    address: str = ADDRESS,
    sums: Mapping[str, str] = SUMS,
) -> None:
    """Get the files that `folder` lacks, from the network or from anywhere below `source`.

    Raises ValueError unless two languages then have training and validation sentences.
    """
    task = folder / "data/task1"
    missing = []
    for name, expected in sums.items():
        if not (task / name).is_file() or sha256(task / name) != expected:
            missing.append(name)
    verified = f"all {len(sums)} files exist, and their checksums are right"
    if not missing:
        print(f"{task}: nothing to do: {verified}")
        return
    if source is None:
        for name in missing:
            download(f"{address}/{name}", task / name, sums[name], MAX_BYTES)
        print(f"{task}: {verified}; {len(missing)} of them are new")
        return
    missing = _copy(source, task, missing, sums)
    present = sums.keys() - missing
    print(f"{task}: {len(present)} of {len(sums)} files exist, and their checksums are right")
    if missing:
        print(f"not below {source}: {', '.join(Path(name).name for name in missing)}")
    complete = []
    for language in LANGUAGES:
        if {f"raw/train.{language}.gz", f"raw/val.{language}.gz"} <= present:
            complete.append(language)
    if len(complete) < 2:
        needed = "train.LANGUAGE.gz and val.LANGUAGE.gz of two languages are needed"
        raise ValueError(f"{source}: {needed}, and some are missing")


def _copy(source: Path, task: Path, names: Collection[str], sums: Mapping[str, str]) -> list[str]:
    """Copy these files from anywhere below `source`; returns the names that were not found."""
    found = find(source, {Path(name).name for name in names})
    missing = []
    for name in names:
        for path in found[Path(name).name]:
            if path.is_file() and sha256(path) == sums[name]:
                unfinished = task / f"{name}.part"
                unfinished.parent.mkdir(parents=True, exist_ok=True)
                os.replace(shutil.copyfile(path, unfinished), task / name)
                break
            print(f"{path}: skipped: not the official {name} (its SHA-256 differs)")
        else:
            missing.append(name)
    return missing


if __name__ == "__main__":
    sys.exit(main(fetch, LICENCE, OFFLINE))
