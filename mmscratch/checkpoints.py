"""What a run keeps on disk, and how it is read again."""

import contextlib
import os
import random
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from .devices import pick_device
from .finetuning import add_lora, freeze, load_trained, merge_lora, remove_lora, unfreeze
from .model import EncoderDecoder, ModelConfig, build_model
from .text import Vocabulary, vocabulary_from
from .weights import TORCHVISION, keep_rows, load_fitting, load_torchvision


def write_atomically(path: Path, state: dict) -> None:
    """torch.save to a file beside, flush, rename: whoever reads `path` finds the old file or the new one, never half.

    Raises OSError, in one line, where it cannot be written; the old file is then as it was.
    """
    beside = path.with_name(path.name + ".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # on the disk, before the name is
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a write that failed
        reason = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or str(error).splitlines()[0]
        kept = "; the one before is kept" if path.is_file() else ""
        raise OSError(f"{path} cannot be written: {reason}{kept}. Make room, or choose another folder") from None
    finally:
        with contextlib.suppress(OSError):  # which would hide the one above: there may be no such folder
            beside.unlink()


def read_checkpoint(path: Path) -> dict:
    """What `write_atomically` wrote: tensors and plain values only, nothing in it is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises several kinds, and advises to execute what is in it
        reason = getattr(error, "strerror", None) or "it is damaged, or holds more than tensors and plain values"
        raise ValueError(f"{path}: not a checkpoint that can be read: {reason}") from None


def save_run(
    folder: str | Path,
    model: EncoderDecoder,
    config: ModelConfig,
    vocabulary: Vocabulary,
    facts: dict,
    source_vocabulary: Vocabulary | None = None,
) -> None:
    """Keep a model, however it was made, as a run that `load_run` reads, and that a training can begin with."""
    state = {"model": model.state_dict(), "model_config": asdict(config), "train_config": {}, "facts": facts}
    write_atomically(Path(folder) / "best.pt", state | words_state(vocabulary, source_vocabulary))


def words_state(vocabulary: Vocabulary, source_vocabulary: Vocabulary | None) -> dict:
    """What a checkpoint keeps of the vocabularies; the source's is kept only where it is another than the target's."""
    apart = source_vocabulary is not None and source_vocabulary is not vocabulary
    return {"words": vocabulary.state(), "source_words": source_vocabulary.state() if apart else None}


def vocabularies(saved: dict) -> tuple[Vocabulary, Vocabulary | None]:
    """Of a checkpoint: the vocabulary of what is written, and that of the source, or None where there is no source."""
    vocabulary = vocabulary_from(saved["words"])
    if not saved["model_config"].get("source_vocab_size"):
        return vocabulary, None
    return vocabulary, vocabulary_from(saved["source_words"]) if saved["source_words"] else vocabulary


def load_run(folder: str | Path) -> tuple[EncoderDecoder, Vocabulary, dict]:
    """The best model of a run in eval mode, its vocabulary, and its checkpoint.

    Of a run with LoRA, which keeps only what it has trained, the run that it began with is read as well; the change is
    merged into its weights. Raises ValueError where those are no longer the same.
    """
    path = Path(folder) / "best.pt"
    saved = read_checkpoint(path)
    try:
        model, (vocabulary, source) = build_model(ModelConfig(**saved["model_config"])), vocabularies(saved)
        config = saved.get("train_config", {})
        if not config.get("lora"):
            model.load_state_dict(saved["model"])
    except (KeyError, TypeError, RuntimeError):
        raise ValueError(f"{path}: the checkpoint of something else, or of another version of this project") from None
    if config.get("lora"):
        try:
            adapt(model, vocabulary, config["start_from"], config["lora"], config["freeze"], source_vocabulary=source)
        except FileNotFoundError as error:
            raise ValueError(f"{path} is only a change of another model, but {error}") from None
        load_change(path, model, saved)
        merge_lora(model)
        remove_lora(model)
    return model.to(pick_device()).eval(), vocabulary, saved


def load_change(path: Path, model: EncoderDecoder, saved: dict) -> None:
    """Put the LoRA that is kept at `path` on a model that `adapt` has made ready."""
    try:
        load_trained(model, saved["model"], saved["base"])
    except ValueError as error:
        base = saved["train_config"]["start_from"]
        raise ValueError(f"{path} is a change of {base}, which must be as it was: {error}") from None


_A_ROW_A_WORD = re.compile(r"(.*\.)?embedding(\.words)?\.weight|decoder\.bias")


def adapt(
    model: EncoderDecoder,
    vocabulary: Vocabulary,
    start_from: str = "",
    lora: int = 0,
    frozen: tuple[str, ...] = (),
    dropout: float = 0.0,
    source_vocabulary: Vocabulary | None = None,
) -> None:
    """Make a new model ready for fine-tuning: with the weights of `start_from`, a LoRA of rank `lora` in the decoder, if
    not 0, and what is called `frozen` frozen.

    `start_from` is the folder of a run, or the name of one of torchvision's models, from which the backbone begins.
    The vocabulary may be another, and there may be more positions: what both know keeps its rows, and with LoRA all rows
    of such a table are trained.
    """
    published = start_from in TORCHVISION
    if lora and (published or not start_from):
        raise ValueError("a LoRA is a change of a trained decoder: say of which run (start_from, or --from)")
    if published:
        misfits = load_fitting(model.encoders["image"].backbone, load_torchvision(start_from).state_dict())
        if misfits.missing or misfits.other_shape:  # the classifier, which an encoder lacks, is unexpected
            raise ValueError(f"the weights of torchvision's {start_from} do not fit this model: {misfits}")
    elif start_from:
        if not Path(start_from, "best.pt").exists():
            raise FileNotFoundError(f"{start_from} holds no trained model")
        base, before, saved = load_run(start_from)
        state, ours = base.state_dict(), model.state_dict()
        common = [name for name in state if name in ours and state[name].shape[1:] == ours[name].shape[1:]]
        written, read = (before, vocabulary), (vocabularies(saved)[1], source_vocabulary)
        words = {name: read if name.startswith("encoders.") else written for name in common if _A_ROW_A_WORD.fullmatch(name)}
        rows = {name: (theirs.words, wanted.words) for name, (theirs, wanted) in words.items()}
        positions = [name for name in common if name.endswith("embedding.positions.weight")]
        rows |= {name: (range(len(state[name])), range(len(ours[name]))) for name in positions}
        for name, (theirs, wanted) in rows.items():
            state[name] = keep_rows(state[name], theirs, ours[name], wanted)
        misfits = load_fitting(model, state)
        if any(misfits):
            raise ValueError(f"the weights of {start_from} do not fit this model: {misfits}")
    if lora:
        freeze(model, "*")
        add_lora(model.decoder, lora, dropout=dropout)
        if others := [name for name, (theirs, wanted) in rows.items() if theirs != wanted]:
            unfreeze(model, *others)
    freeze(model, *frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"all of the model is frozen by {' and '.join(frozen)}: there is nothing to train")


def read_run(path: Path, settings: dict) -> dict:
    """The checkpoint of a run to go on with. Raises ValueError where it was made with other settings, and lists those."""
    saved = read_checkpoint(path)
    if not isinstance(saved, dict) or "settings" not in saved:
        raise ValueError(f"{path} is the checkpoint of something else: choose another --to, or delete it")
    if different := differences(settings, saved["settings"]):
        raise ValueError(f"{path} is of another run ({'; '.join(different)}): choose another --to, or delete it")
    return saved


def differences(ours: dict, theirs: dict) -> list[str]:
    """In words, what is not the same in two dicts: "batch_size 64, there 32"."""
    found = []
    for name in ours | theirs:
        mine, other = ours.get(name, "nothing"), theirs.get(name, "nothing")
        if mine != other:
            short = max(len(str(mine)), len(str(other))) < 100
            found.append(f"{name} {mine}, there {other}" if short else f"other {name}")
    return found


def random_state() -> dict:
    """Where all generators of random numbers stand, as plain values: Python's, NumPy's, torch's, its GPU's."""
    version, numbers, following = random.getstate()
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    return {
        "python": (version, list(numbers), following),
        "numpy": (kind, keys.tolist(), place, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "device": [(name, device.get_rng_state()) for name, device in _devices()],
    }


def set_random_state(state: dict) -> None:
    """Let all generators go on from where `random_state` found them."""
    version, numbers, following = state["python"]
    random.setstate((version, tuple(numbers), following))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    for name, device in _devices():
        if name in dict(state["device"]):
            device.set_rng_state(dict(state["device"])[name])


def _devices() -> list[tuple]:
    """Those that have a generator of their own."""
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    return [(name, getattr(torch, name)) for name, is_available in there.items() if is_available()]


def seed_everything(seed: int) -> None:
    """Begin all generators anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def random_state_kept():
    """What is drawn within disturbs nobody outside."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
