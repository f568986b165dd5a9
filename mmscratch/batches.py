"""From examples to batches on the device: padding, sentences of similar length together, loaders, copies."""

import contextlib
import hashlib
import os
import re
import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from .data.captions import CaptionData
from .engine.devices import Stopwatch
from .images import augment
from .text import EOS, PAD, Vocabulary


class CaptionPairs(Dataset):
    """Every pair of a picture and one of its captions: {"image": (3, S, S) uint8, "target": (T,) words and <eos>}.

    Of a translation, whose sentences have the words of `source_vocabulary`, also "source" (S,), words and <eos>, and, where
    only some have a picture, "has_image" (), bool; where none has, there is no "image".

    An index is a number, or a pair (number, visit). With `augmented`, every visit shows the picture in another way: an
    example then has "chances" (8,), for `images.augment` on the device. They depend on seed, visit and number only, so it
    does not matter which process loads what. A visit of None is a picture without words, which counts for nothing.
    """

    def __init__(
        self,
        data: CaptionData,
        vocabulary: Vocabulary,
        augmented: bool = False,
        seed: int = 0,
        source_vocabulary: Vocabulary | None = None,
    ):
        self.data, self.vocabulary, self.source_vocabulary = data, vocabulary, source_vocabulary
        self.augmented, self.seed = augmented, seed
        self.pairs = [(i, j) for i, captions in enumerate(data.references) for j in range(len(captions))]
        sentences = [data.references[i][j] for i, j in self.pairs]
        self.targets = [np.array([*vocabulary.encode(tokens), EOS]) for tokens in sentences]
        self.lengths = [len(target) for target in self.targets]
        self.sources = None
        if source_vocabulary:
            self.sources = [np.array([*source_vocabulary.encode(tokens), EOS]) for tokens in data.sources]
            self.lengths = [max(length, len(self.sources[i])) for length, (i, _) in zip(self.lengths, self.pairs)]
        self.pictured, self.sees = data.pictured, data.pictured is None or any(data.pictured)
        if data.sources:
            sentences = [[*tokens, *data.sources[i]] for tokens, (i, _) in zip(sentences, self.pairs)]
        self.sided = [any(token.startswith(SIDES) for token in tokens) for tokens in sentences]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int | tuple[int, int | None]) -> dict[str, Tensor]:
        index, visit = index if isinstance(index, tuple) else (index, 0)
        target = torch.tensor([PAD]) if visit is None else torch.from_numpy(self.targets[index])
        i, example = self.pairs[index][0], {"target": target}
        if self.sources:
            example["source"] = torch.from_numpy(self.sources[i])
        if not self.sees:
            return example
        example["image"] = self.data.picture(i)
        if self.pictured is not None:
            example["has_image"] = torch.tensor(self.pictured[i])
        if self.augmented:
            chances = np.frombuffer(_digest(self.seed, visit or 0, index), "<u4") >> 8  # eight numbers of 24 bits
            if self.sided[index]:
                chances[-1] = 2**24  # not mirrored
            example["chances"] = torch.from_numpy(chances.astype(np.float32) / np.float32(2**24))
        return example

    def name(self, index: int) -> str:
        """What to call an example: its picture's file."""
        return self.data.names[self.pairs[index][0]]


# Words that begin so may be false of a mirrored picture.
SIDES = ("left", "right", "link", "recht", "gauche", "droit", "vlevo", "vpravo", "左", "右")


def _digest(*numbers: int) -> bytes:
    """32 bytes that look like chance, the same for the same numbers under every Python, which hash() does not promise."""
    return hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()


def collate(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack examples to a batch; sequences (1-dimensional) are padded with <pad> to the longest."""
    batch = {}
    for name in examples[0]:
        values = [example[name] for example in examples]
        if values[0].dim() == 1:
            batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=PAD)  # (B, T)
        else:
            batch[name] = torch.stack(values)
    return batch


class BucketSampler(Sampler):
    """Batches of indices (example, epoch), shuffled anew each epoch, with sentences of similar length together.

    The examples are shuffled, cut into pools of so many batches, each pool is sorted by length and cut into batches,
    and the batches are shuffled; pools of one batch are not bucketed at all. What comes depends on seed and epoch only;
    `start(epoch, skip)` says where to begin. Of `size` processes, each gets every size-th example of each batch, beginning
    with its `rank`; where none is left for it, a picture without words, so that all have the same number of batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int = 0, pool: int = 50, rank: int = 0, size: int = 1):
        self.lengths, self.batch_size, self.seed, self.pool, self.rank, self.size = lengths, batch_size, seed, pool, rank, size
        self.start(0)

    def start(self, epoch: int, skip: int = 0) -> None:
        """The next pass is that of `epoch`, without its first `skip` batches."""
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(int.from_bytes(_digest(self.seed, self.epoch)[:7], "big"))
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches = []
        for first in range(0, len(order), self.pool * self.batch_size):
            pool = sorted(order[first : first + self.pool * self.batch_size], key=self.lengths.__getitem__)
            batches += [pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size)]
        for i in torch.randperm(len(batches), generator=generator).tolist()[self.skip :]:
            mine = batches[i][self.rank :: self.size]
            yield [(example, self.epoch) for example in mine] or [(batches[i][0], None)]


class _Watched(Dataset):
    """The examples of a data set; notes where all processes see it which one each worker reads."""

    def __init__(self, dataset: CaptionPairs, workers: int):
        self.dataset, self.reading = dataset, torch.zeros(workers, 2, dtype=torch.long).share_memory_()  # (W, process and example)

    def __getitem__(self, index: tuple[int, int | None]) -> dict[str, Tensor]:
        if worker := get_worker_info():
            self.reading[worker.id] = torch.tensor([os.getpid(), index[0]])
        try:
            return self.dataset[index]
        except Exception as error:
            reason = " ".join(f"{error}".split()) or type(error).__name__
            raise ValueError(f"{self.dataset.name(index[0])} cannot be read: {reason}") from error


def make_loader(
    dataset: CaptionPairs, batch_size: int, seed: int = 0, workers: int = 0, pool: int = 50, rank: int = 0, size: int = 1
) -> DataLoader:
    """Shuffled, bucketed batches; `loader.batch_sampler.start(epoch)` before each pass. Pinned memory if CUDA is there.

    Pinned memory stays where it is, so that a GPU can fetch it by itself while the CPU goes on.
    """
    return DataLoader(
        _Watched(dataset, workers),
        batch_sampler=BucketSampler(dataset.lengths, batch_size, seed, pool, rank, size),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # the loader draws a number for each pass, and not from the model's dropout
    )


def _ignore_signals(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then ends its workers


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch of a loader as the model takes it: on the device, its pictures augmented there, if they are to be."""
    batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    if "chances" in batch:
        batch["image"] = augment(batch["image"], batch.pop("chances"))
    return batch


class Feed:
    """The batches of a loader, on the device. `waiting` adds up how long the device waited for them.

    `prefetch`, called while the device is still busy with a batch, fetches the next one. On a GPU it is copied on a
    stream of its own, a second queue of work beside the one that computes; before the batch is used, the computing
    queue waits for the mark at the end of the copy, and neither waits for the CPU.
    """

    def __init__(self, loader: DataLoader, device: torch.device):
        self.loader, self.device, self.waiting = loader, device, Stopwatch(device)
        self.copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.source, self.ahead = iter(()), None

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
                with self.waiting:
                    torch.cuda.current_stream(self.device).wait_stream(self.copies)
                for value in batch.values():
                    value.record_stream(torch.cuda.current_stream(self.device))  # its memory is in use there, too
            yield batch

    def prefetch(self) -> None:
        """Have the next batch ready; nothing, if it is."""
        if self.ahead is not None:
            return
        with self.waiting, self.explained():
            batch = next(self.source, None)
        with torch.cuda.stream(self.copies) if self.copies else contextlib.nullcontext():
            self.ahead = _END if batch is None else to_device(batch, self.device)

    @contextlib.contextmanager
    def explained(self):
        """Within it, a worker that dies is reported with the file that it was reading, and one that fails in one line.

        Torch says that a worker has died whenever the news comes, not only to whoever waits for a batch.
        """
        try:
            yield
        except Exception as error:
            text, watched = f"{error} {error.__cause__}", self.loader.dataset
            reading, dead = dict(watched.reading.tolist()), re.search(r"worker \(pid(?:\(s\))? (\d+)", text)
            if dead:
                kind, example = re.search(r"killed by signal: ([\w ]+)", text), reading.get(int(dead[1]))
                how = f"was killed ({kind[1]})" if kind else "ended"
                when = "before it read anything" if example is None else f"while it was reading {watched.dataset.name(example)}"
                raise ChildProcessError(f"the data worker of process {dead[1]} {how} {when}") from None
            if "in DataLoader worker" in text:  # with a whole traceback in its text
                error.__traceback__ = None  # else torch's frames keep the workers, in a circle
                raise ChildProcessError(f"a data worker failed: {str(error).strip().splitlines()[-1]}") from None
            raise


_END: dict = {}  # stands after the last batch
