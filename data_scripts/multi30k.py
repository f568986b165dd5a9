"""Multi30k: sentences about photographs in English, German, French and Czech. Run: python -m data_scripts.multi30k

Into data/multi30k come the raw files and the lists of pictures of task 1, in the layout of github.com/multi30k/dataset.
Every file is held to the SHA-256 in multi30k.sha256. Source: Elliott et al. 2016 and 2017, Barrault et al. 2018.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for python data_scripts/multi30k.py
from data_scripts.fetch import download, find, main, sha256

FOLDER = Path("data/multi30k")
ADDRESS = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1"
SUMS = {
    name: digest
    for digest, name in map(
        str.split, Path(__file__).with_suffix(".sha256").read_text().splitlines()
    )
}
LICENCE = (
    "Multi30k's sentences are for non-commercial use, with their source named, and shared alike (CC BY-NC-SA 4.0). "
    "Its photographs are not part of it: they are those of Flickr30k and COCO, whose own terms hold."
)
OFFLINE = "Without a network, put a copy of github.com/multi30k/dataset into a folder and give it as --from FOLDER"
MOST = 10_000_000  # bytes of a file; the largest has 0.7 million


def fetch(
    source: Path | None,
    folder: Path = FOLDER,
    address: str = ADDRESS,
    sums: Mapping[str, str] = SUMS,
) -> None:
    """Bring what `folder` lacks, from the network, or from anywhere below `source` as far as it is there.

    Raises ValueError if there are then no two languages with training and validation sentences.
    """
    task = folder / "data/task1"
    lacking = [
        name for name in sums if not (task / name).is_file() or sha256(task / name) != sums[name]
    ]
    if not lacking:
        print(f"{task}: nothing to do: all {len(sums)} files are there, and their sums are right")
        return
    if source is None:
        for name in lacking:
            download(f"{address}/{name}", task / name, sums[name], MOST)
        print(
            f"{task}: all {len(sums)} files are there, {len(lacking)} of them new, and their sums are right"
        )
        return
    found = find(source, {Path(name).name for name in lacking})
    for name in list(lacking):
        for path in found[Path(name).name]:
            if not path.is_file() or sha256(path) != sums[name]:
                print(
                    f"{path}: not taken, since it is not the official {name} (its SHA-256 is another)"
                )
                continue
            unfinished = task / f"{name}.part"
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            os.replace(shutil.copyfile(path, unfinished), task / name)
            lacking.remove(name)
            break
    there = sums.keys() - lacking
    print(f"{task}: {len(there)} of {len(sums)} files are there, and their sums are right")
    if lacking:
        print(f"not below {source}: {', '.join(Path(name).name for name in lacking)}")
    if (
        sum(
            {f"raw/train.{language}.gz", f"raw/val.{language}.gz"} <= there
            for language in ("en", "de", "fr", "cs")
        )
        < 2
    ):
        raise ValueError(
            f"{source}: train.LANGUAGE.gz and val.LANGUAGE.gz of two languages are needed, and not all there"
        )


if __name__ == "__main__":
    sys.exit(main(fetch, LICENCE, OFFLINE))
