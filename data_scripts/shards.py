"""Shards of pictures with captions: python -m data_scripts.shards FOLDER --to DIR [--layout NAME]

Writes tar files of 1,000 pictures each, in the WebDataset convention, to DIR/train, DIR/validation
and DIR/test, for `train --layout shards --data DIR`. Pictures are copied as they are, in an order
that is shuffled once. FOLDER is one that `train` reads: of the layout folder (the default) or
flickr8k.
"""

import argparse
import io
import json
import random
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for python data_scripts/shards.py
from mmscratch.data.captions import Flickr8k, FolderCaptions
from mmscratch.engine.cache import report_progress

LAYOUTS = {"folder": FolderCaptions, "flickr8k": Flickr8k}
PER_SHARD = 1000  # pictures
SPLITS = ("train", "validation", "test")


def write_shards(source: Path, target: Path, layout: str = "folder") -> None:
    """Write all splits of a folder. Raises ValueError if there are shards in the target already."""
    for split in SPLITS:
        if list((target / split).glob("*.tar")):
            raise ValueError(f"{target / split} has tar files already: choose another --to")
    for split in SPLITS:
        try:
            data = LAYOUTS[layout](source, split, size=0)
        except FileNotFoundError:
            if split == "test":  # which a user may not have
                continue
            raise
        order = list(range(len(data)))
        random.Random(0).shuffle(order)
        for problem in data.problems[:5]:
            print(f"  skipped: {problem}")
        for first in range(0, len(order), PER_SHARD):
            path = target / split / f"{first // PER_SHARD:05}.tar"
            chosen = order[first : first + PER_SHARD]
            _write_shard(path, [(data.names[i], data.texts[i]) for i in chosen], first)
            report_progress(f"{split}: writing shards", first + len(chosen), len(order))


def _write_shard(path: Path, examples: list[tuple[str, list[str]]], first: int) -> None:
    """Write pictures, by file name, and their captions; the file has its name once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as tar:
        for number, (name, texts) in enumerate(examples, first):
            key = f"{number:09}"
            record = json.dumps({"captions": texts}, ensure_ascii=False)
            _add(tar, key + Path(name).suffix.lower(), Path(name).read_bytes())
            _add(tar, f"{key}.json", record.encode())
    unfinished.rename(path)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without owner and date: the same files give the same shard
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR")
    parser.add_argument("--layout", choices=tuple(LAYOUTS), default="folder")
    args = parser.parse_args(arguments)
    try:
        write_shards(args.folder, args.to, args.layout)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
