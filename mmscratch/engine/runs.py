"""What a run keeps on disk, and how it is read again."""

from pathlib import Path

import torch

VERSION = 3  # of the layout of checkpoints


def read_checkpoint(path: Path) -> dict:
    """What `write_atomically` wrote: tensors and plain values only, nothing in it is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises several kinds, and advises to execute what is in it
        reason = (
            getattr(error, "strerror", None)
            or "it is damaged, or holds more than tensors and plain values"
        )
        raise ValueError(f"{path}: not a checkpoint that can be read: {reason}") from None


def check_version(path: Path, saved: object) -> None:
    """Raise ValueError where a checkpoint is of another layout than this version of the project writes."""
    if not isinstance(saved, dict) or "model_config" not in saved:
        raise ValueError(
            f"{path} is the checkpoint of something else: choose another --to, or delete it"
        )
    version = saved.get("version", 1)
    if version != VERSION:
        raise ValueError(
            f"{path} is of layout {version}, and this version of the project reads layout {VERSION}: train it again, with "
            "another --to"
        )


def read_run(path: Path, settings: dict) -> dict:
    """The checkpoint of a run to resume. Raises ValueError where it was made with other settings, and lists those."""
    saved = read_checkpoint(path)
    check_version(path, saved)
    if "settings" not in saved:
        raise ValueError(
            f"{path} is the checkpoint of something else: choose another --to, or delete it"
        )
    if different := differences(settings, saved["settings"]):
        raise ValueError(
            f"{path} is of another run ({'; '.join(different)}): choose another --to, or delete it"
        )
    return saved


def differences(ours: dict, theirs: dict) -> list[str]:
    """In words, what is not the same in two dicts, and in dicts within them: "decoder.hidden_size 64, there 32"."""
    found = []
    ours, theirs = _flat(ours), _flat(theirs)
    for name in ours | theirs:
        mine, other = ours.get(name, "nothing"), theirs.get(name, "nothing")
        if mine != other:
            short = max(len(str(mine)), len(str(other))) < 100
            found.append(f"{name} {mine}, there {other}" if short else f"other {name}")
    return found


def _flat(values: dict, before: str = "") -> dict:
    """{"decoder": {"name": "lstm"}} -> {"decoder.name": "lstm"}."""
    flat = {}
    for name, value in values.items():
        flat |= (
            _flat(value, f"{before}{name}.")
            if isinstance(value, dict)
            else {f"{before}{name}": value}
        )
    return flat
