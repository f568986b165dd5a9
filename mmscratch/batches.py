"""From examples to batches on the device: padding, sentences of similar length together, loaders, copies."""

import contextlib
import hashlib
import math
import re
import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from .engine.devices import Stopwatch
from .images import augment
from .text import EOS, PAD


class Examples(Dataset):
    """The examples of a data set as tensors, one for each pair of an example and one of its references.

        {"image": (3, S, S) uint8, "source": (S,) words and <eos>, "target": (T,) words and <eos>, …}

    A modality that an example lacks is not in its dict. `vocabularies` turn words into numbers: vocabularies["target"]
    those of the references, and vocabularies[modality] those of each text that is given.

    An index is a number, or a pair (number, epoch). With `augmented`, each epoch shows a picture in another way: an example
    then has "augmentation" (8,), for `images.augment` on the device, which depends on seed, epoch and number only, so it does
    not matter which process loads what. An epoch of None is an example without target words, which counts for nothing.
    """

    def __init__(self, data: Sequence, vocabularies: dict, augmented: bool = False, seed: int = 0):
        self.data = data
        self.vocabularies = vocabularies
        self.augmented = augmented
        self.seed = seed
        self.pairs = [
            (i, j) for i, references in enumerate(data.references) for j in range(len(references))
        ]
        self.targets = [
            encode(vocabularies["target"], data.references[i][j]) for i, j in self.pairs
        ]
        self.texts = {}  # modality -> the words of each example of the data set
        for modality in vocabularies.keys() - {"target"}:
            self.texts[modality] = [
                encode(vocabularies[modality], words) for words in data.columns[modality]
            ]
        self.lengths = [
            max(len(target), *(len(texts[i]) for texts in self.texts.values()), 0)
            for target, (i, _) in zip(self.targets, self.pairs)
        ]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int | tuple[int, int | None]) -> dict[str, Tensor]:
        index, epoch = index if isinstance(index, tuple) else (index, 0)
        i, which = self.pairs[index]
        example = self.data[i]
        for modality, texts in self.texts.items():
            example[modality] = torch.from_numpy(texts[i])
        example["target"] = (
            torch.tensor([PAD]) if epoch is None else torch.from_numpy(self.targets[index])
        )
        if self.augmented and "image" in example:
            may_flip = self.data.may_flip(i, which)
            example["augmentation"] = augmentation_draws(self.seed, epoch or 0, index, may_flip)
        return example

    def name(self, index: int) -> str:
        """What to call an example in a message."""
        return self.data.name(self.pairs[index][0])


def encode(vocabulary, words: Sequence[str]) -> np.ndarray:
    """The numbers of words, and <eos> behind them."""
    return np.array([*vocabulary.encode(words), EOS])


def numericalize(example: dict, vocabularies: dict) -> dict[str, Tensor]:
    """An example of a data set as tensors: the words of each modality that has a vocabulary become numbers."""
    texts = {
        name: torch.from_numpy(encode(vocabularies[name], example[name]))
        for name in vocabularies
        if name in example
    }
    return example | texts


def augmentation_draws(seed: int, epoch: int, index: int, may_flip: bool) -> Tensor:
    """Eight numbers in [0, 1) that decide how `images.augment` shows an example; the last one decides about the mirror."""
    draws = np.frombuffer(_digest(seed, epoch, index), "<u4") >> 8  # eight numbers of 24 bits
    if not may_flip:
        draws[-1] = 2**24  # that is 1: not mirrored
    return torch.from_numpy(draws.astype(np.float32) / np.float32(2**24))


def _digest(*numbers: int) -> bytes:
    """32 bytes that look random, the same for the same numbers in every Python, which hash() does not promise."""
    return hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()


def collate(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Examples -> a batch: tensors of one shape are stacked, and sequences padded to the longest.

    Words (1-dimensional, integers) are padded with <pad>. Other sequences, (F, …) of different lengths F, are padded with
    zeros, and batch["<modality>_lengths"] (B,) says how long each is. Where only some examples have a modality, the others
    get zeros, and batch["has_<modality>"] (B,) bool says which have it.
    """
    batch = {}
    for modality in dict.fromkeys(name for example in examples for name in example):
        has = [modality in example for example in examples]
        values = [example[modality] for example in examples if modality in example]
        lengths = [len(value) if value.dim() else 0 for value in values]
        is_text = values[0].dim() == 1 and not values[0].is_floating_point()
        if is_text or len(set(lengths)) > 1:
            padded = nn.utils.rnn.pad_sequence(
                values, batch_first=True, padding_value=PAD
            )  # (B, F, …)
        else:
            padded = torch.stack(values)  # (B, …)
        if not is_text and len(set(lengths)) > 1:
            batch[f"{modality}_lengths"] = _at(has, torch.tensor(lengths))
        if not all(has):
            batch[f"has_{modality}"] = torch.tensor(has)
        batch[modality] = _at(has, padded)
    return batch


def _at(has: list[bool], values: Tensor) -> Tensor:
    """One row for each example: the next of `values` where it has one, zeros elsewhere."""
    if all(has):
        return values
    rows = values.new_zeros(len(has), *values.shape[1:])
    rows[torch.tensor(has)] = values
    return rows


class BucketSampler(Sampler):
    """Batches of indices (example, epoch), shuffled for each epoch, with sentences of similar length together.

    The examples are shuffled and cut into buckets of `bucket_batches` batches; each bucket is sorted by length and cut into
    batches, and the batches are shuffled. With None there is no bucketing. The batches depend on seed and epoch only;
    `start(epoch, skip)` says where to begin. With shard (rank, world_size), one of several processes gets every
    world_size-th example of each batch, beginning with its rank; where none is left for it, an example without target words,
    so that all have the same number of batches.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int = 0,
        bucket_batches: int | None = 50,
        shard: tuple[int, int] = (0, 1),
    ):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.bucket_size = batch_size * (bucket_batches or 1)
        self.rank, self.world_size = shard
        self.start(0)

    def start(self, epoch: int, skip: int = 0) -> None:
        """The next pass is that of `epoch`, without its first `skip` batches."""
        self.epoch = epoch
        self.skip = skip

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        seed = int.from_bytes(_digest(self.seed, self.epoch)[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches = []
        for first in range(0, len(order), self.bucket_size):
            bucket = sorted(order[first : first + self.bucket_size], key=self.lengths.__getitem__)
            batches += [
                bucket[i : i + self.batch_size] for i in range(0, len(bucket), self.batch_size)
            ]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        for i in shuffled[self.skip :]:
            mine = batches[i][self.rank :: self.world_size]
            yield [(example, self.epoch) for example in mine] or [(batches[i][0], None)]


def make_loader(dataset: Examples, batch_sampler: BucketSampler, workers: int = 0) -> DataLoader:
    """The batches of a sampler; call `loader.batch_sampler.start(epoch)` before each pass.

    If CUDA is available they come in pinned memory, which stays where it is, so that a GPU can copy it by itself.
    """
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # the loader draws a number for each pass, and not from the model's dropout
    )


def _ignore_signals(_: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the trainer, which then ends its workers


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch of a loader as the model takes it: on the device, its pictures augmented there, if they are to be."""
    batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    if "augmentation" in batch:
        batch.pop("has_augmentation", None)
        batch["image"] = augment(batch["image"], batch.pop("augmentation"))
    return batch


class Prefetcher:
    """The batches of a loader, on the device. `data_time` adds up how long the device waited for them.

    `prefetch`, called while the device is still busy with a batch, fetches the next one. On a GPU it is copied on a
    stream of its own, a second queue of work beside the one that computes; before the batch is used, the computing
    queue waits for the mark at the end of the copy, and neither waits for the CPU.
    """

    def __init__(self, loader: DataLoader, device: torch.device):
        self.loader = loader
        self.device = device
        self.data_time = Stopwatch(device)
        self.copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.source = iter(())
        self.ahead = None

    def batches(self, epoch: int, skip: int = 0) -> Iterator[dict[str, Tensor]]:
        """Those of an epoch, without the first `skip`."""
        self.loader.batch_sampler.start(epoch, skip)
        self.source, self.ahead = iter(self.loader), None
        while True:
            self.prefetch()
            if self.ahead is _END:
                return
            batch, self.ahead = self.ahead, None
            if self.copies:
                with self.data_time:
                    torch.cuda.current_stream(self.device).wait_stream(self.copies)
                for value in batch.values():
                    value.record_stream(
                        torch.cuda.current_stream(self.device)
                    )  # its memory is in use there, too
            yield batch

    def prefetch(self) -> None:
        """Have the next batch ready; nothing, if it is."""
        if self.ahead is not None:
            return
        with self.data_time, self.worker_errors():
            batch = next(self.source, None)
        with torch.cuda.stream(self.copies) if self.copies else contextlib.nullcontext():
            self.ahead = _END if batch is None else to_device(batch, self.device)

    @contextlib.contextmanager
    def worker_errors(self):
        """Within it, a data worker that dies or fails is reported in one line.

        Torch says that a worker has died whenever the news comes, not only to the code that waits for a batch.
        """
        try:
            yield
        except Exception as error:
            text = f"{error} {error.__cause__}"
            dead = re.search(r"worker \(pid(?:\(s\))? (\d+)", text)
            if dead:
                killed = re.search(r"killed by signal: ([\w ]+)", text)
                how = f"was killed ({killed[1]})" if killed else "ended"
                raise ChildProcessError(f"the data worker of process {dead[1]} {how}") from None
            if "in DataLoader worker" in text:  # with a whole traceback in its text
                error.__traceback__ = None  # else torch's frames keep the workers, in a circle
                raise ChildProcessError(
                    f"a data worker failed: {str(error).strip().splitlines()[-1]}"
                ) from None
            raise


_END: dict = {}  # stands after the last batch
