"""Data that no memory holds: shards dealt out to processes, and their examples as a stream."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from .batches import augmentation_draws, encode_words, pad_to_largest, seed_of
from .data.dataset import mentions_a_side
from .text import PAD

WINDOW = 5000  # examples that are shuffled among themselves: a shard or less


def deal_shards(
    num_shards: int, epoch: int, seed: int = 0, rank: int = 0, world_size: int = 1
) -> list[int]:
    """The shards that the process `rank` of `world_size` reads in an epoch, in their order.

    All processes shuffle the shards in the same way, which depends on seed and epoch only, and each
    takes every world_size-th, starting from its rank: like cards. So every shard is read by one
    process, by another one in the next epoch, and their numbers differ by one at most.
    Raises ValueError if there are fewer shards than processes.
    """
    if num_shards < world_size:
        raise ValueError(
            f"{num_shards} shards for {world_size} processes: each needs one, so write smaller ones"
        )
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    order = torch.randperm(num_shards, generator=generator).tolist()
    return order[rank::world_size]


class ShardSampler(Sampler):
    """Batches of indices (example, epoch) for one process, from its own shards (`deal_shards`).

    A process goes through its shards one after the other, and shuffles the examples of each
    `WINDOW`. So it reads a tar file nearly in order, and only a window is in memory. An epoch has as
    many batches as there are whole ones in all shards. The examples of a batch are dealt to the
    processes like cards, so their parts differ by one at most. A process whose shards hold fewer
    examples begins again; one with more leaves the rest to another epoch.

    sizes: the number of examples of each shard; they have consecutive numbers.
    batch_size: of all processes together; each has every world_size-th example of a batch, starting
        from its rank. A process without any reads one example as (example, None), which does not
        count.
    `start(epoch, skip)` says where to start, in batches: nothing before it is read.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
    ):
        self.sizes = sizes
        self.starts = [0, *accumulate(sizes)]
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = shard
        deal_shards(len(sizes), 0, seed, *shard)  # raises ValueError now
        self.start(0)

    def start(self, epoch: int, skip: int = 0) -> None:
        """Make the next pass that of `epoch`, without its first `skip` batches."""
        self.epoch = epoch
        self.skip = skip

    def __len__(self) -> int:
        return max(1, self.starts[-1] // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        shards = deal_shards(len(self.sizes), self.epoch, self.seed, self.rank, self.world_size)
        ends = list(accumulate(self.sizes[shard] for shard in shards))
        share = len(range(self.rank, self.batch_size, self.world_size))  # of a batch
        place = self.skip * share
        window = None
        for _ in range(len(self) - self.skip):
            batch = []
            for _ in range(max(1, share)):
                number, i = divmod(place % ends[-1], WINDOW)
                if number != window:
                    window = number
                    examples = self._shuffled(shards, ends, window)
                batch.append((examples[i], self.epoch if share else None))
                place += 1
            yield batch

    def _shuffled(self, shards: list[int], ends: list[int], window: int) -> list[int]:
        """The examples of a window of the process's shards, shuffled."""
        first = window * WINDOW
        examples = []
        for shard, end in zip(shards, ends):
            start = end - self.sizes[shard]
            places = range(max(first, start), min(first + WINDOW, end))
            examples += [self.starts[shard] + place - start for place in places]
        seed = seed_of(self.seed, self.epoch, self.rank, window)
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
        return [examples[i] for i in order.tolist()]


class StreamedExamples(Dataset):
    """The items of `batches.Examples`, but each is read on access: nothing is known beforehand.

    data: a `ShardCaptions`. An item has all captions of a picture, "target" (K, T). A picture or a
    caption that cannot be read is named by `data.skip`, and the item has neither: only the target
    <pad>, which does not count in the loss.
    """

    def __init__(self, data, vocabularies: dict, augmented: bool = False, seed: int = 0):
        self.data = data
        self.vocabularies = vocabularies
        self.augmented = augmented
        self.seed = seed
        self.lengths = [data.max_words + 1]  # the longest that there can be
        self.features = None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int | tuple[int, int | None]) -> dict[str, Tensor]:
        index, epoch = index if isinstance(index, tuple) else (index, 0)
        nothing = {"target": torch.tensor([[PAD]])}
        try:
            captions = self.data.captions(index)
            example = {"image": self.data.picture(index)}
        except ValueError as error:
            self.data.skip(str(error))
            return nothing
        target = [encode_words(self.vocabularies["target"], words) for words in captions]
        example |= nothing if epoch is None else {"target": pad_to_largest(target)}
        if self.augmented:
            may_flip = not mentions_a_side(captions)
            example["augmentation"] = augmentation_draws(self.seed, epoch or 0, index, may_flip)
        return example

    def name(self, index: int) -> str:
        """The name of an example, for messages."""
        return self.data.name(index)
