"""From examples to batches on the device: padding, bucketing by length, loaders, prefetching."""

import contextlib
import hashlib
import math
import re
import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from .audio import augment_spectrogram
from .engine.devices import Stopwatch
from .images import augment
from .text import EOS, PAD


class Examples(Dataset):
    """The examples of a data set as tensors, one item per reference of each example.

        {"image": (3, S, S) uint8, "source": (N,) words and <eos>,
         "target": (T,) words and <eos>, …}

    With `references_at_once` = K above 1, an item has K references of an example, the last one of
    an example perhaps fewer: "target" is then (K, T). A model encodes the example once for all.

    A modality that an example lacks is not in its dict. `vocabularies` turn words into numbers:
    vocabularies["target"] those of the references, vocabularies[modality] those of an input text.

    An index is a number, or a pair (number, epoch). With `augmented`, each epoch shows a picture
    or a sound differently: an item then has "augmentation" (8,), for `images.augment` or
    `audio.augment_spectrogram` on the device. It depends only on seed, epoch and number, so it does
    not matter which process loads which item.
    With an epoch of None, an item has no target words and does not count in the loss.

    With `features`, a `FeatureCache`, "image" is what a frozen backbone makes of a view of the
    picture: (C, h, w) float16.
    """

    def __init__(
        self,
        data: Sequence,
        vocabularies: dict,
        augmented: bool = False,
        seed: int = 0,
        references_at_once: int = 1,
    ):
        self.data = data
        self.vocabularies = vocabularies
        self.augmented = augmented
        self.seed = seed
        self.features = None
        self.items = []  # (example, which of its references)
        self.targets = []  # the words of these references, (T,) or (K, T)
        most = max(map(len, data.references), default=1)
        at_once = min(references_at_once, most)
        for i, references in enumerate(data.references):
            for first in range(0, len(references), at_once):
                chosen = references[first : first + at_once]
                self.items.append((i, range(first, first + len(chosen))))
                encoded = [encode_words(vocabularies["target"], words) for words in chosen]
                self.targets.append(encoded[0] if at_once == 1 else pad_to_largest(encoded))
        self.texts = {}  # modality -> the words of each example
        for modality in vocabularies.keys() - {"target"}:
            vocabulary = vocabularies[modality]
            self.texts[modality] = [
                encode_words(vocabulary, words) for words in data.columns[modality]
            ]
        self.lengths = []  # the longest text of each item, in words
        for (i, _), target in zip(self.items, self.targets):
            lengths = [target.size(-1)] + [len(texts[i]) for texts in self.texts.values()]
            self.lengths.append(max(lengths))
        self.sizes = self.lengths  # by which similar items come into one batch
        sound_lengths = getattr(data.columns.get("sound"), "lengths", None)
        if sound_lengths:  # there are many more frames than words
            self.sizes = [sound_lengths[i] for i, _ in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | tuple[int, int | None]) -> dict[str, Tensor]:
        index, epoch = index if isinstance(index, tuple) else (index, 0)
        i, references = self.items[index]
        example = (self.data.without("image") if self.features else self.data)[i]
        for modality, texts in self.texts.items():
            example[modality] = texts[i]
        target = self.targets[index]  # (T,) or (K, T)
        example["target"] = torch.full([1] * target.dim(), PAD) if epoch is None else target
        draws = None
        has_image = "image" in example or self.features is not None
        if self.augmented and (has_image or "sound" in example):
            may_flip = not has_image or all(self.data.may_flip(i, j) for j in references)
            draws = augmentation_draws(self.seed, epoch or 0, index, may_flip)  # (8,)
        if self.features:
            example |= self.features.example(i, draws)
        elif draws is not None:
            example["augmentation"] = draws
        return example

    def name(self, index: int) -> str:
        """The name of an example, for messages."""
        return self.data.name(self.items[index][0])


def encode_words(vocabulary, words: Sequence[str]) -> Tensor:
    """The numbers of words, followed by <eos>: (T,)."""
    return torch.tensor([*vocabulary.encode(words), EOS])


def numericalize(example: dict, vocabularies: dict) -> dict[str, Tensor]:
    """An example whose words are numbers, in each modality that has a vocabulary."""
    example = dict(example)
    for name in vocabularies.keys() & example.keys():
        example[name] = encode_words(vocabularies[name], example[name])
    return example


def augmentation_draws(seed: int, epoch: int, index: int, may_flip: bool) -> Tensor:
    """Eight numbers in [0, 1) that decide how an example is augmented (see `Examples`).

    Without `may_flip` the last one is 1: not mirrored.
    """
    draws = np.frombuffer(_digest(seed, epoch, index), "<u4") >> 8  # eight numbers of 24 bits
    if not may_flip:
        draws[-1] = 2**24
    return torch.from_numpy(draws.astype(np.float32) / np.float32(2**24))


def _digest(*numbers: int) -> bytes:
    """32 pseudo-random bytes, the same for the same numbers in every Python, unlike hash()."""
    return hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()


def seed_of(*numbers: int) -> int:
    """The seed of a random generator, the same for the same numbers."""
    return int.from_bytes(_digest(*numbers)[:7], "big")


def collate(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Examples -> a batch: stack tensors of one shape, and pad sequences to the longest.

    Words, (T,) or (K, T) int64, are padded with <pad>. Other sequences, (F, …) of different
    lengths F, are padded with zeros, and batch["<modality>_lengths"] (B,) holds their lengths. If
    only some examples have a modality, the others get zeros, and batch["has_<modality>"] (B,) bool
    says which have it.
    """
    batch = {}
    modalities = dict.fromkeys(name for example in examples for name in example)
    for modality in modalities:
        present = [modality in example for example in examples]
        values = [example[modality] for example in examples if modality in example]
        lengths = [len(value) if value.dim() else 0 for value in values]
        is_text = values[0].dim() in (1, 2) and values[0].dtype == torch.int64
        if is_text and values[0].dim() == 2:
            padded = pad_to_largest(values)  # (B, K, T)
        elif is_text or len(set(lengths)) > 1:
            padded = pad_sequence(values, batch_first=True, padding_value=PAD)  # (B, F, …)
        else:
            padded = torch.stack(values)  # (B, …)
        if not is_text and len(set(lengths)) > 1:
            batch[f"{modality}_lengths"] = _fill_absent(present, torch.tensor(lengths))
        if not all(present):
            batch[f"has_{modality}"] = torch.tensor(present)
        batch[modality] = _fill_absent(present, padded)
    return batch


def pad_to_largest(values: Sequence[Tensor]) -> Tensor:
    """Stack words, all (T,) or all (K, T), padded with <pad> to the largest sizes: (B, …)."""
    shape = torch.tensor([value.shape for value in values]).amax(0).tolist()
    padded = values[0].new_full((len(values), *shape), PAD)
    for row, value in zip(padded, values):
        row[tuple(map(slice, value.shape))] = value
    return padded


def inputs_of(batch: dict[str, Tensor], modality: str) -> list[Tensor]:
    """What the encoder of a modality gets from a batch: its tensor, and its lengths if padded."""
    inputs = [batch[modality]]
    if f"{modality}_lengths" in batch:
        inputs.append(batch[f"{modality}_lengths"])
    return inputs


def _fill_absent(present: list[bool], values: Tensor) -> Tensor:
    """One row per example: a row of `values` for each that is present, zeros for the others."""
    if all(present):
        return values
    rows = values.new_zeros(len(present), *values.shape[1:])
    rows[torch.tensor(present)] = values
    return rows


class BucketSampler(Sampler):
    """Batches of indices (example, epoch), shuffled each epoch, of sentences of similar length.

    The examples are shuffled and cut into buckets of `bucket_batches` batches; each bucket is
    sorted by length and cut into batches, and the batches are shuffled. With None there is no
    bucketing. The batches depend on seed and epoch only; `start(epoch, skip)` sets where to start.
    Without `shuffle`, examples and batches keep the order of the data, for a curriculum.

    With shard = (rank, world_size), each of world_size processes gets every world_size-th example
    of each batch, starting from its rank. If none is left for a process, it gets an example without
    target words, so that all processes have the same number of batches.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int = 0,
        bucket_batches: int | None = 50,
        shard: tuple[int, int] = (0, 1),
        shuffle: bool = True,
    ):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.bucket_size = batch_size * (bucket_batches or 1)
        self.rank, self.world_size = shard
        self.start(0)

    def start(self, epoch: int, skip: int = 0) -> None:
        """Make the next pass that of `epoch`, without its first `skip` batches."""
        self.epoch = epoch
        self.skip = skip

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        order = list(range(len(self.lengths)))
        if self.shuffle:
            order = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches = []
        for first in range(0, len(order), self.bucket_size):
            bucket = sorted(order[first : first + self.bucket_size], key=self.lengths.__getitem__)
            for i in range(0, len(bucket), self.batch_size):
                batches.append(bucket[i : i + self.batch_size])
        if self.shuffle:
            shuffled = torch.randperm(len(batches), generator=generator).tolist()
            batches = [batches[i] for i in shuffled]
        for batch in batches[self.skip :]:
            shard = batch[self.rank :: self.world_size]
            if shard:
                yield [(example, self.epoch) for example in shard]
            else:
                yield [(batch[0], None)]


def make_loader(dataset: Examples, batch_sampler: BucketSampler, workers: int = 0) -> DataLoader:
    """Loads the batches of a sampler; call `loader.batch_sampler.start(epoch)` before each pass.

    If CUDA is available, batches are in pinned memory, which a GPU can copy by itself.
    """
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # its own: the model's dropout must not depend on the loader
    )


def _ignore_signals(_: int) -> None:
    # Ctrl-C is for the trainer, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move a batch to the device, and augment its pictures and sounds there if it has draws."""
    batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    if "augmentation" in batch:
        batch.pop("has_augmentation", None)
        draws = batch.pop("augmentation")  # (B, 8)
        if "image" in batch:
            batch["image"] = augment(batch["image"], draws)
        if "sound" in batch:
            lengths = batch.get("sound_lengths")
            batch["sound"] = augment_spectrogram(batch["sound"], lengths, draws)
    return batch


class Prefetcher:
    """The batches of a loader, on the device. `data_time` adds up how long the device waits.

    `prefetch`, called while the device still computes with one batch, fetches the next. On a GPU
    it is copied on a stream of its own, a second queue of work next to the one that computes.
    Before the batch is used, the computing stream waits for the end of the copy; neither stream
    waits for the CPU.
    """

    def __init__(self, loader: DataLoader, device: torch.device):
        self.loader = loader
        self.device = device
        self.data_time = Stopwatch(device)
        self.copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.iterator = iter(())
        self.next_batch = None

    def batches(self, epoch: int, skip: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch, without the first `skip`."""
        self.loader.batch_sampler.start(epoch, skip)
        self.iterator = iter(self.loader)
        self.next_batch = None
        while True:
            self.prefetch()
            if self.next_batch is _END:
                return
            batch = self.next_batch
            self.next_batch = None
            if self.copy_stream:
                stream = torch.cuda.current_stream(self.device)
                with self.data_time:
                    stream.wait_stream(self.copy_stream)
                for value in batch.values():
                    value.record_stream(stream)  # its memory must not be reused before
            yield batch

    def prefetch(self) -> None:
        """Fetch the next batch, unless it is already here."""
        if self.next_batch is not None:
            return
        with self.data_time, self.worker_errors():
            batch = next(self.iterator, None)
        with torch.cuda.stream(self.copy_stream) if self.copy_stream else contextlib.nullcontext():
            self.next_batch = _END if batch is None else to_device(batch, self.device)

    @contextlib.contextmanager
    def worker_errors(self):
        """A context in which a data worker that dies or fails is reported in one line.

        Torch reports a dead worker at any time, not only to code that waits for a batch.
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
                error.__traceback__ = None  # or a reference cycle keeps the workers alive
                last_line = str(error).strip().splitlines()[-1]
                raise ChildProcessError(f"a data worker failed: {last_line}") from None
            raise


_END = {}  # follows the last batch
