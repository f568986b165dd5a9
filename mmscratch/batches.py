"""From examples to batches: padding, sentences of similar length together, loaders."""

import hashlib
import signal
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .datasets import CaptionData
from .images import Augment
from .text import EOS, PAD, Vocabulary


class CaptionPairs(Dataset):
    """Every pair of a picture and one of its captions: {"image": (3, S, S) uint8, "target": (T,) words and <eos>}.

    An index is a number, or a pair (number, visit): with an `augment`, every visit shows the picture in another way, and
    always in the same way for the same seed, so that results do not depend on which process loads it.
    """

    def __init__(self, data: CaptionData, vocabulary: Vocabulary, augment: Augment | None = None, seed: int = 0):
        self.data, self.vocabulary, self.augment, self.seed = data, vocabulary, augment, seed
        self.pairs = [(i, j) for i, captions in enumerate(data.references) for j in range(len(captions))]
        self.lengths = [len(data.references[i][j]) + 1 for i, j in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Tensor]:
        index, visit = index if isinstance(index, tuple) else (index, 0)
        picture, caption = self.pairs[index]
        tokens, image = self.data.references[picture][caption], self.data.picture(picture)
        if self.augment:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(_one_seed(self.seed, visit, index))  # not that of a GPU
                image = self.augment(image, mirror=not any(token.startswith(SIDES) for token in tokens))
        return {"image": image, "target": torch.tensor([*self.vocabulary.encode(tokens), EOS])}


SIDES = ("left", "right", "link", "recht", "左", "右")  # words that begin so may be false of a mirrored picture


def _one_seed(*numbers: int) -> int:
    """One seed from several numbers, the same under every Python, which hash() does not promise."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()[:7], "big")


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
    `start(epoch, skip)` says where to begin.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int = 0, pool: int = 50):
        self.lengths, self.batch_size, self.seed, self.pool = lengths, batch_size, seed, pool
        self.start(0)

    def start(self, epoch: int, skip: int = 0) -> None:
        """The next pass is that of `epoch`, without its first `skip` batches."""
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(_one_seed(self.seed, self.epoch))
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches = []
        for first in range(0, len(order), self.pool * self.batch_size):
            pool = sorted(order[first : first + self.pool * self.batch_size], key=self.lengths.__getitem__)
            batches += [pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size)]
        for i in torch.randperm(len(batches), generator=generator).tolist()[self.skip :]:
            yield [(example, self.epoch) for example in batches[i]]


def make_loader(dataset: CaptionPairs, batch_size: int, seed: int = 0, workers: int = 0, pool: int = 50) -> DataLoader:
    """Shuffled, bucketed batches; `loader.batch_sampler.start(epoch)` before each pass. Pinned memory if CUDA is there."""
    return DataLoader(
        dataset,
        batch_sampler=BucketSampler(dataset.lengths, batch_size, seed, pool),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # the loader draws a number for each pass, and not from the model's dropout
    )


def _ignore_interrupt(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then ends its workers
