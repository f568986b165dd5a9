"""Free Spoken Digit Dataset: 3,000 recordings of ten digits. Run: python -m data_scripts.fsdd

Puts recordings/{digit}_{speaker}_{index}.wav into data/fsdd, 500 of each of six speakers, from an
archive of version 1.0.10 (16 MB) that is removed after unpacking. The recordings of each speaker
must have the SHA-256 below. Source: Jackson et al. 2018,
github.com/Jakobovski/free-spoken-digit-dataset.
"""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for python data_scripts/fsdd.py
from data_scripts.fetch import download, find, main, unpack

FOLDER = Path("data/fsdd")
ADDRESS = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip"
ARCHIVE = "free-spoken-digit-dataset-1.0.10.zip"
MAX_BYTES = 100_000_000  # of the archive, and of its contents
SUMS = {  # of each speaker's recordings, one after the other
    "george": "314b34bbd5dcd2bc4baf35fdaf7820cf401f43b60cce0c7d6298ef261c5948fd",
    "jackson": "a225c20182fa25f5412994c2da1b8280d176a053042b96af2df7754644475490",
    "lucas": "d8e5192a0476dfa86fc6cdc7aa71ccd727f9f9934a351584fac79b6ffa654ffb",
    "nicolas": "fb041904d00a3ca9e8da3fd8b2a7162488e1c72151165a49cadac7627104bf30",
    "theo": "292f14c019dbba2a9508ba1ee26f5b5a25061e3a7a0ad444e25856b9a87c160e",
    "yweweler": "d9f468e7f1c5159d4c91fb4b5bf248087609b219f73d628e14fd78581a43932e",
}
LICENCE = (
    "The Free Spoken Digit Dataset is for any use, with attribution and under the same licence "
    "(CC BY-SA 4.0). Copyright its makers, Zohar Jackson et al."
)
OFFLINE = (
    f"Without a network, put {ARCHIVE} from {ADDRESS} into a folder, and give it as --from FOLDER"
)


def fetch(
    source: Path | None,
    folder: Path = FOLDER,
    address: str = ADDRESS,
    sums: Mapping[str, str] = SUMS,
) -> None:
    """Get the recordings of the speakers that `folder` lacks, from the network or below `source`.

    Raises ValueError if the network's archive lacks a speaker, or `source` has none of them.
    """
    recordings = folder / "recordings"
    missing = _missing(recordings, sums)
    if not missing:
        print(f"{recordings}: nothing to do: all recordings exist, and their checksums are right")
        return
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = Path(temporary, "unpacked")
        if source is None:
            _download(folder / ARCHIVE, unpacked, address)
            _copy(unpacked, recordings, missing, sums)
        else:
            _take(source, unpacked, recordings, missing, sums)
    missing = _missing(recordings, sums)
    present = sums.keys() - missing
    if not present or (missing and source is None):
        problem = f"no complete official recordings of {', '.join(missing)}"
        raise ValueError(f"{source or address}: {problem}; give another copy as --from FOLDER")
    (folder / ARCHIVE).unlink(missing_ok=True)
    print(
        f"{recordings}: all recordings of {', '.join(sorted(present))}; their checksums are right"
    )
    if missing:
        print(f"not below {source}, or not the official ones: {', '.join(missing)}")


def _names(speaker: str) -> list[str]:
    """The names of a speaker's recordings, by digit and number."""
    return [f"{digit}_{speaker}_{i}.wav" for digit in range(10) for i in range(50)]


def _missing(recordings: Path, sums: Mapping[str, str]) -> list[str]:
    """The speakers whose recordings are not all in this folder, with the right checksum."""
    missing = []
    for speaker, expected in sums.items():
        digest = hashlib.sha256()
        for name in _names(speaker):
            if (recordings / name).is_file():
                digest.update((recordings / name).read_bytes())
        if digest.hexdigest() != expected:
            missing.append(speaker)
    return missing


def _download(archive: Path, unpacked: Path, address: str) -> None:
    download(address, archive, max_bytes=MAX_BYTES)
    try:
        unpack(archive, unpacked, MAX_BYTES)
    except ValueError as error:
        archive.unlink()
        raise ValueError(f"{error}. It is deleted: run again to fetch it again") from None


def _take(
    source: Path,
    unpacked: Path,
    recordings: Path,
    speakers: Iterable[str],
    sums: Mapping[str, str],
) -> None:
    """Copy recordings from below `source`, or else from an archive that is below it."""
    _copy(source, recordings, speakers, sums)
    missing = _missing(recordings, sums)
    archives = find(source, (ARCHIVE,))[ARCHIVE]
    if missing and archives:
        unpack(archives[0], unpacked, MAX_BYTES)
        _copy(unpacked, recordings, missing, sums)


def _copy(source: Path, recordings: Path, speakers: Iterable[str], sums: Mapping[str, str]) -> None:
    """Copy the official recordings of these speakers from any folder below `source`."""
    first_names = {speaker: _names(speaker)[0] for speaker in speakers}
    found = find(source, first_names.values())
    for speaker, name in first_names.items():
        for path in found[name]:
            if _missing(path.parent, {speaker: sums[speaker]}):
                continue
            recordings.mkdir(parents=True, exist_ok=True)
            for each in _names(speaker):
                shutil.copyfile(path.with_name(each), recordings / each)
            break


if __name__ == "__main__":
    sys.exit(main(fetch, LICENCE, OFFLINE))
