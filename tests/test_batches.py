"""From examples to batches: padding, buckets, loaders, and augmentation that only the seed decides."""

import os
import pickle
import random
import re
import signal
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from mmscratch.batches import (
    BucketSampler,
    Examples,
    Prefetcher,
    collate,
    make_loader,
    numericalize,
    to_device,
)
from mmscratch.data.dataset import DataSet, LazyColumn
from mmscratch.images import augment
from mmscratch.text import EOS, PAD, Vocabulary, tokenize

CPU = torch.device("cpu")


class Pictures(DataSet):
    """Pictures whose left half is black and whose right half is white, with the captions that a test gives."""

    def __init__(self, *captions):
        super().__init__()
        self.texts = list(captions)
        self.references = [[tokenize(caption) for caption in of_one] for of_one in captions]
        self.names = [f"picture {i}" for i in range(len(captions))]
        self.columns["image"] = LazyColumn(self.picture, range(len(captions)))

    def picture(self, index):
        image = torch.zeros(3, 23, 23, dtype=torch.uint8)
        image[:, :, 12:] = 255 - index
        return image


LENGTHS = np.random.default_rng(0).integers(2, 41, 1013).tolist()


def captioned(kind=Pictures):
    """37 captions of 1 to 13 words for 19 pictures, augmented."""
    words = [" ".join(["word"] * (1 + 5 * i % 13)) for i in range(37)]
    data = kind(*(words[i : i + 2] for i in range(0, 37, 2)))
    return Examples(data, {"target": Vocabulary(["word"])}, augmented=True, seed=3)


@pytest.fixture
def pairs():
    return captioned()


def loader_of(examples, batch_size, seed=0, workers=0, shard=(0, 1)):
    return make_loader(
        examples, BucketSampler(examples.lengths, batch_size, seed, shard=shard), workers
    )


def same(batches, others):
    batches, others = list(batches), list(others)
    return len(batches) == len(others) and all(
        batch.keys() == other.keys()
        and all(torch.equal(batch[name], other[name]) for name in batch)
        for batch, other in zip(batches, others)
    )


def sampled(epoch, skip=0, **settings):
    sampler = BucketSampler(**settings)
    sampler.start(epoch, skip)
    return list(sampler)


def test_collate_pads_to_the_longest_of_the_batch():
    examples = [
        {
            "image": torch.full((3, 5, 7), i).byte(),
            "target": torch.arange(1, n + 1),
            "audio": torch.full((n * 3,), 0.5),
        }
        for i, n in enumerate((4, 2, 11))
    ]
    batch = collate(examples)
    assert batch.keys() == {"image", "target", "audio", "audio_lengths"}
    assert batch["image"].shape == (3, 3, 5, 7) and batch["image"].dtype == torch.uint8
    assert batch["target"].shape == (3, 11) and batch["target"].dtype == torch.long
    assert batch["audio"].shape == (3, 33) and batch["audio"].dtype == torch.float
    for i, n in enumerate((4, 2, 11)):
        assert batch["image"][i].unique().tolist() == [i]
        assert batch["target"][i].tolist() == [*range(1, n + 1), *[PAD] * (11 - n)]
        assert batch["audio"][i].tolist() == [0.5] * (n * 3) + [0.0] * (33 - n * 3)


def test_collate_returns_lengths_of_padded_sequences():
    def batch(*lengths):
        return collate(
            [
                {"sound": torch.full((n, 5), 0.5), "target": torch.ones(n, dtype=torch.long)}
                for n in lengths
            ]
        )

    padded = batch(7, 2, 3)
    assert padded["sound"].shape == (3, 7, 5) and padded["sound_lengths"].tolist() == [7, 2, 3]
    assert padded["sound"][1, :2].unique().tolist() == [0.5] and not padded["sound"][1, 2:].any()
    assert "target_lengths" not in padded  # the padding of words can be told from words
    equal = batch(3, 3)
    assert equal["sound"].shape == (2, 3, 5) and equal.keys() == {"sound", "target"}


def test_collate_marks_missing_modalities():
    image, sound, row = (
        torch.full((3, 5, 7), 9).byte(),
        torch.ones(4, 2),
        torch.tensor([0.5, 2.0, -1.0]),
    )
    words = torch.tensor([6, 5, 2])
    batch = collate([
        {"target": words, "sound": sound, "row": row},
        {"target": words[1:], "image": image, "source": words[2:], "row": row},
        {"target": words, "sound": sound[:3], "source": words, "row": row},
        {"target": words[1:], "row": row},
    ])  # fmt: skip
    has = {name: batch.pop(f"has_{name}") for name in ("image", "sound", "source")}
    assert {name: values.tolist() for name, values in has.items()} == {
        "image": [False, True, False, False],
        "sound": [True, False, True, False],
        "source": [False, True, True, False],
    }
    assert all(values.dtype == torch.bool for values in has.values())
    assert batch.keys() == {
        "target",
        "image",
        "sound",
        "sound_lengths",
        "source",
        "row",
    }  # no has_target, no has_row
    assert batch["image"].dtype == torch.uint8 and torch.equal(batch["image"][1], image)
    assert batch["source"].tolist() == [[PAD] * 3, [2, PAD, PAD], [6, 5, 2], [PAD] * 3]
    assert batch["sound_lengths"].tolist() == [4, 0, 3, 0] and batch["sound"].sum(
        (1, 2)
    ).tolist() == [8, 0, 6, 0]
    for name, there in has.items():
        assert not batch[name][~there].any()  # zeros
    assert torch.equal(batch["row"], row.expand(4, 3))


def test_collate_ignores_the_order_of_keys():
    one, other = (
        {"image": torch.ones(3, 2, 2), "target": torch.tensor([5, 2])},
        {"target": torch.tensor([2])},
    )
    for examples in ([one, other], [other, one]):
        batch = collate(examples)
        assert batch.keys() == {"image", "has_image", "target"}
        assert batch["has_image"].tolist() == [example is one for example in examples]
        assert batch["image"].sum((1, 2, 3)).tolist() == [
            12 if example is one else 0 for example in examples
        ]


@pytest.mark.parametrize(
    "count, size", [(1013, 16), (1013, 1), (48, 16), (49, 16), (16, 16), (5, 16), (1, 1), (1, 16)]
)
def test_each_example_comes_exactly_once_an_epoch(count, size):
    sampler = BucketSampler(LENGTHS[:count], size)
    for epoch in (0, 1):
        sampler.start(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == -(-count // size)
        assert sorted(index for batch in batches for index, _ in batch) == list(range(count))
        assert {visit for batch in batches for _, visit in batch} == {epoch}
        assert sum(len(batch) != size for batch in batches) == (count % size > 0)


def test_the_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        sampler = BucketSampler(LENGTHS, 16, seed)
        sampler.start(epoch)
        return [[index for index, _ in batch] for batch in sampler]

    torch.manual_seed(1)
    state = torch.get_rng_state()
    orders = {key: order(*key) for key in [(0, 0), (0, 1), (1, 0), (1, 1), (-1, 0), (-2, 0)]}
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert all(order(*key) == orders[key] for key in orders)
    assert len({str(order) for order in orders.values()}) == len(orders)
    assert orders[0, 0][0] != sorted(orders[0, 0][0])


@pytest.mark.parametrize("skip", [0, 1, 37, 63, 64])
def test_start_skips_the_first_batches(skip):
    first, second = (BucketSampler(LENGTHS, 16, seed=5) for _ in range(2))
    first.start(2)
    second.start(2, skip)
    assert list(second) == list(first)[skip:]


def test_batches_hold_sentences_of_similar_length():
    def padding(batches):
        wasted = sum(max(batch) * len(batch) - sum(batch) for batch in batches)
        return wasted / sum(max(batch) * len(batch) for batch in batches)

    bucketed, not_bucketed = (
        [
            [LENGTHS[index] for index, _ in batch]
            for batch in BucketSampler(LENGTHS, 16, bucket_batches=n)
        ]
        for n in (50, None)
    )
    assert padding(bucketed) < 0.06
    assert padding(not_bucketed) > 0.4
    means = [sum(batch) / len(batch) for batch in bucketed]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5  # short and long ones in turn


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize(
    "count, batch_size", [(101, 16), (97, 16), (1013, 30), (3, 16), (1, 16), (2, 1), (11, 4)]
)
def test_processes_split_each_batch(count, batch_size, processes):
    settings = {
        "lengths": LENGTHS[:count],
        "batch_size": batch_size,
        "seed": 5,
        "bucket_batches": 3,
    }
    for epoch, skip in ((0, 0), (1, 0), (1, 1)):
        alone = sampled(epoch, skip, **settings)
        fractions = [
            sampled(epoch, skip, **settings, shard=(rank, processes)) for rank in range(processes)
        ]
        assert len(alone) == -(-count // batch_size) - skip and {
            len(fraction) for fraction in fractions
        } == {len(alone)}
        for batch, *parts in zip(alone, *fractions):
            assert sorted(item for part in parts for item in part if item[1] is not None) == sorted(
                batch
            )
            blanks = [part for part in parts if any(visit is None for _, visit in part)]
            assert len(blanks) == max(processes - len(batch), 0)
            assert all(len(part) == 1 and part[0][0] in range(count) for part in blanks)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1 and min(map(len, parts)) > 0


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_shards_of_a_batch_have_similar_lengths(processes):
    settings = {"lengths": LENGTHS[:990], "batch_size": 30, "bucket_batches": 3}
    fractions = [sampled(0, **settings, shard=(rank, processes)) for rank in range(processes)]
    differences = []
    for parts in zip(*fractions):
        words = [[LENGTHS[index] for index, _ in part] for part in parts]
        spread = max(map(max, words)) - min(map(min, words))
        differences.append((max(map(sum, words)) - min(map(sum, words))) / spread)
    assert (
        max(differences) <= 1
    )  # sorted and dealt out in turn: a sum exceeds another by the spread at most


def test_an_item_is_a_picture_and_one_of_its_captions():
    data = Pictures(["A dog.", "a cat"], [], ["two dogs"])
    pairs = Examples(data, {"target": Vocabulary(["dog", "a", "."])})  # 4, 5, 6
    assert len(pairs) == 3 and pairs.lengths == [4, 3, 3]
    assert [pairs[i]["target"].tolist() for i in range(3)] == [
        [5, 4, 6, EOS],
        [5, 3, EOS],
        [3, 3, EOS],
    ]
    assert [torch.equal(pairs[i]["image"], data.picture(p)) for i, p in enumerate((0, 0, 2))] == [
        True
    ] * 3
    assert all(pairs[index].keys() == {"image", "target"} for index in (2, (2, 7)))
    assert pairs[2, 7]["image"].equal(pairs[2]["image"])
    assert [pairs.name(i) for i in range(3)] == ["picture 0", "picture 0", "picture 2"]


def test_epoch_none_gives_a_picture_without_words(pairs):
    example = pairs[5, None]
    assert example["target"].tolist() == [PAD]
    assert list(example) == list(pairs[5, 1]) and torch.equal(example["image"], pairs[5]["image"])
    assert collate([example, pairs[4, 1]])["target"][0].unique().tolist() == [PAD]


def test_augmentation_depends_on_seed_epoch_and_index_only(pairs):
    def draws():
        return {
            (seed, visit, index): tuple(each[index, visit]["augmentation"].tolist())
            for seed, each in ((3, pairs), (4, Examples(pairs.data, pairs.vocabularies, True, 4)))
            for visit in range(7)
            for index in (0, 1, 5, 36)
        }

    torch.manual_seed(1)
    before, first = (
        (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),
        draws(),
    )
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    torch.manual_seed(2)
    assert draws() == first and len({*first.values()}) == len(first)
    assert tuple(pairs[5]["augmentation"].tolist()) == first[3, 0, 5]


def test_augmentation_leaves_the_generator_of_the_gpu_alone(pairs, monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU's generator was seeded")
    )
    assert pairs[0]["augmentation"].shape == (8,)


def test_augmentation_is_uniform(pairs):
    draws = torch.stack(
        [pairs[index, visit]["augmentation"] for index in range(37) for visit in range(29)]
    )  # (1073, 8)
    assert draws.dtype == torch.float32 and 0 <= draws.min() < 0.01 and 0.99 < draws.max() < 1
    assert (draws.mean(0) - 1 / 2).abs().max() < 0.04  # 4 deviations of such a mean
    assert (draws.square().mean(0) - 1 / 3).abs().max() < 0.04
    assert (torch.corrcoef(draws.T) - torch.eye(8)).abs().max() < 0.15


@pytest.mark.parametrize(
    "caption, may_be_mirrored",
    [
        ("a dog on the left", False),
        ("Right of it, a cat", False),
        ("the leftmost dog, a left-handed man", False),
        ("links von einem Hund", False),
        ("mit der linken Hand", False),
        ("ein Hund rechts", False),
        ("der rechte Fuß", False),
        ("狗在左边", False),
        ("右侧有一只猫", False),
        ("a bright dog", True),
        ("ein flinker Hund", True),
        ("一只猫", True),
    ],
)
def test_captions_that_mention_a_side_are_never_mirrored(caption, may_be_mirrored):
    pairs, others = (
        Examples(Pictures([words]), {"target": Vocabulary([])}, True) for words in (caption, "word")
    )
    batch, other = (collate([each[0, visit] for visit in range(200)]) for each in (pairs, others))
    mirror = batch["augmentation"][:, -1]
    assert torch.equal(batch["augmentation"][:, :-1], other["augmentation"][:, :-1])
    assert (
        70 < (mirror < 0.5).sum() < 130 and mirror.max() < 1
        if may_be_mirrored
        else mirror.unique().tolist() == [1]
    )
    looks = to_device(batch, CPU)["image"].float()  # (200, 3, 23, 23): the left half is black
    assert torch.equal(looks[..., 0].mean((1, 2)) > looks[..., -1].mean((1, 2)), mirror < 0.5)


def test_loader_yields_the_batches_of_its_sampler(pairs):
    loader = loader_of(pairs, 8, seed=7)
    sampler = BucketSampler(pairs.lengths, 8, seed=7)
    sampler.start(3, skip=1)
    loader.batch_sampler.start(3, skip=1)
    before = torch.get_rng_state()
    assert same(loader, [collate([pairs[index] for index in batch]) for batch in sampler])
    assert torch.equal(torch.get_rng_state(), before)  # the model's dropout is not disturbed
    assert len(loader) == 5


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_all_processes_together_load_each_caption_once(processes, pairs):
    loaders = [loader_of(pairs, 8, seed=7, shard=(rank, processes)) for rank in range(processes)]
    batches = [list(loader) for loader in loaders]
    assert [*map(len, batches)] == [*map(len, loaders)] == [5] * processes
    words = Counter(
        n
        for of_one in batches
        for batch in of_one
        for n in (batch["target"] != PAD).sum(1).tolist()
    )
    blanks = words.pop(0, 0)
    assert words == Counter(pairs.lengths)
    assert blanks == max(processes - 37 % 8, 0)  # of the batch of 5


def test_to_device_augments_pictures_that_have_draws(pairs):
    batch = collate([pairs[i, 2] for i in range(5)])
    before = dict(batch)
    moved = to_device(batch, CPU)
    assert batch.keys() == before.keys() and all(batch[name] is before[name] for name in before)
    assert same(
        [moved],
        [{"image": augment(batch["image"], batch["augmentation"]), "target": batch["target"]}],
    )
    assert not torch.equal(moved["image"], batch["image"])
    del batch["augmentation"]
    assert same([to_device(batch, CPU)], [batch])


def a_feed_of(kind, workers, start_method="fork"):
    loader = loader_of(captioned(kind), 8, seed=7, workers=workers)
    if workers:
        if start_method not in torch.multiprocessing.get_all_start_methods():
            pytest.skip(f"no {start_method} here")
        loader.multiprocessing_context = start_method
    return Prefetcher(loader, CPU)


def fed(prefetcher, epoch, skip=0, prefetches=0):
    """The batches of a feed, of which others are fetched ahead meanwhile."""
    for batch in islice(
        prefetcher.batches(epoch, skip), 99
    ):  # more than there are: a feed without an end is a wrong one
        for _ in range(prefetches):
            prefetcher.prefetch()
        yield batch


def expected(pairs, epoch, skip=0):
    for batch in sampled(epoch, skip, lengths=pairs.lengths, batch_size=8, seed=7):
        yield to_device(collate([pairs[index] for index in batch]), CPU)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_prefetcher_yields_the_augmented_batches(workers, pairs):
    prefetcher = a_feed_of(Pictures, workers)
    for epoch, skip, prefetches in (
        (0, 0, 0),
        (1, 2, 1),
        (1, 0, 2),
        (2, 4, 1),
        (2, 5, 1),
        (4, 0, 1),
    ):
        batches = list(fed(prefetcher, epoch, skip, prefetches))
        assert len(batches) == 5 - skip and same(batches, expected(pairs, epoch, skip))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_early_leaves_no_batch_behind(workers, pairs):
    prefetcher = a_feed_of(Pictures, workers)
    for _ in fed(prefetcher, 0, prefetches=1):
        break
    assert same(fed(prefetcher, 1), expected(pairs, 1))


def test_prefetch_fetches_one_batch_ahead(monkeypatch):
    read = []
    monkeypatch.setattr(
        Pictures, "picture", lambda data, index: read.append(index) or torch.zeros(3, 23, 23).byte()
    )
    prefetcher = a_feed_of(Pictures, 0)
    for epoch, ahead in ((0, False), (1, True)):
        so_far = np.cumsum(
            [
                len(batch)
                for batch in sampled(epoch, lengths=captioned().lengths, batch_size=8, seed=7)
            ]
        )
        read.clear()
        for i, _ in enumerate(prefetcher.batches(epoch)):
            assert len(read) == so_far[i]
            if ahead:
                prefetcher.prefetch()
                prefetcher.prefetch()
                assert len(read) == so_far[min(i + 1, 4)]


@pytest.mark.parametrize("prefetches", [0, 1])
def test_data_time_is_the_time_spent_reading(prefetches, monkeypatch):
    now = [1000.0]  # a clock that only this test moves

    def picture(data, index):
        now[0] += 0.25
        return torch.zeros(3, 23, 23, dtype=torch.uint8)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Pictures, "picture", picture)
    prefetcher = Prefetcher(loader_of(captioned(), 1), CPU)  # 37 batches
    seconds = []
    for _ in fed(prefetcher, 0, prefetches=prefetches):
        seconds.append(prefetcher.data_time.seconds())
        now[0] += 100  # the model computes
        assert prefetcher.data_time.seconds() == 0
    assert seconds == ([0.5] + [0.25] * 35 + [0] if prefetches else [0.25] * 37)


class Deadly(Pictures):
    """Picture 11 does something to a worker that reads it; slowly, so that the trainer is waiting for the batch."""

    harmless = 0  # times before

    def picture(self, index):
        if index == 11 and get_worker_info():
            self.harmless -= 1
            if self.harmless < 0:
                time.sleep(0.25)
                self.strike()
        return super().picture(index)


class Killing(Deadly):
    def strike(self):
        os.kill(os.getpid(), signal.SIGKILL)


class KillingLater(Killing):
    harmless = 2  # in the first epoch, which shows it with both of its captions


class Terminating(Deadly):
    def strike(self):
        os.kill(os.getpid(), signal.SIGTERM)


class Interrupting(Deadly):
    def strike(self):
        os.kill(os.getpid(), signal.SIGINT)


class Exiting(Deadly):
    def strike(self):
        os._exit(3)


class Broken(Pictures):
    def picture(self, index):
        if index == 11:
            raise ValueError("picture 11: broken")
        return super().picture(index)


def complaint(prefetcher, epoch=0):
    """What a feed says whose worker dies or fails."""
    try:
        list(fed(prefetcher, epoch))
    except ChildProcessError as error:
        error.__context__.__traceback__ = (
            None  # it holds the workers in a circle, which ends them slowly, at any time
        )
        return str(error)
    pytest.fail("all went well")


@pytest.mark.parametrize("kind, workers", [(Killing, 1), (Killing, 2), (Exiting, 2)])
def test_a_worker_that_dies_is_reported_in_one_line(kind, workers):
    how = r"was killed \(Killed\)" if kind is Killing else "ended"
    assert re.fullmatch(
        rf"the data worker of process \d+ {how}", complaint(a_feed_of(kind, workers))
    )


def test_spawned_workers_give_the_same_batches_and_are_watched():
    prefetcher = a_feed_of(KillingLater, 1, "spawn")
    assert same(fed(prefetcher, 0), expected(captioned(), 0))
    assert re.fullmatch(
        r"the data worker of process \d+ was killed \(Killed\)", complaint(prefetcher, 1)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_while_the_model_computes_is_reported(workers):
    prefetcher = a_feed_of(Killing, workers)
    says = r"^the data worker of process \d+ was killed \(Killed\)$"
    with pytest.raises(ChildProcessError, match=says), prefetcher.worker_errors():
        for _ in prefetcher.batches(0):
            time.sleep(2)  # the news comes within


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_errors_are_reported_in_one_line(workers):
    assert (
        complaint(a_feed_of(Broken, workers))
        == "a data worker failed: ValueError: picture 11: broken"
    )


def test_errors_without_workers_are_raised_unchanged():
    with pytest.raises(ValueError, match="^picture 11: broken$"):
        list(fed(a_feed_of(Broken, 0), 0))


@pytest.fixture
def deaf():
    """A trainer that only notes SIGTERM; workers inherit that."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_a_worker(deaf):
    assert complaint(a_feed_of(Terminating, 1)).endswith("was killed (Terminated)")


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_does_not_end_a_worker(workers):
    assert same(fed(a_feed_of(Interrupting, workers), 0), expected(captioned(), 0))


def test_memory_is_pinned_with_cuda(pairs, monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        assert loader_of(pairs, 8).pin_memory == there


def test_examples_can_be_pickled(pairs):
    for dataset in (pairs, loader_of(pairs, 8, workers=2).dataset):
        again = pickle.loads(pickle.dumps(dataset))
        assert same([again[3, 1]], [pairs[3, 1]])


def compute(device):
    """Keeps a GPU busy for some milliseconds."""
    matrix = torch.full((4001, 4001), 0.001, device=device)
    for _ in range(5):
        matrix = matrix @ matrix


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_copies_on_a_side_stream_give_the_same_batches(workers, pairs):
    prefetcher = Prefetcher(loader_of(pairs, 8, seed=7, workers=workers), torch.device("cuda"))
    for epoch, skip, prefetches in ((0, 0, 0), (1, 2, 1), (2, 0, 2)):
        copies = []
        for batch in prefetcher.batches(epoch, skip):
            compute("cuda")
            copies.append(
                {name: value.clone() for name, value in batch.items()}
            )  # queued behind it
            for _ in range(
                prefetches
            ):  # which must not take the memory that the clone has yet to read
                prefetcher.prefetch()
        others = list(expected(pairs, epoch, skip))
        assert len(copies) == len(others) == 5 - skip
        for copy, other in zip(copies, others):
            assert list(copy) == list(other) and all(value.is_cuda for value in copy.values())
            assert torch.equal(copy["target"].cpu(), other["target"])
            assert (copy["image"].cpu().int() - other["image"].int()).abs().max() <= 1


@pytest.mark.gpu
def test_prefetcher_gpu_memory_is_flat(pairs):
    prefetcher, used = Prefetcher(loader_of(pairs, 8), torch.device("cuda")), []
    for epoch in range(40):  # of 5 batches
        for _ in fed(prefetcher, epoch, prefetches=1):
            torch.mm(torch.ones(257, 257, device="cuda"), torch.ones(257, 257, device="cuda"))
        torch.cuda.synchronize()
        used.append(torch.cuda.memory_allocated())
    assert (
        max(used[20:]) - min(used[:20]) < 20 * 8 * 3 * 23 * 23
    )  # of the 100 batches between, no more than 20 are left


class Translated(Pictures):
    """Sentences, each with one translation, and with a picture where `pictured` says so."""

    def __init__(self, pictured, *pairs):
        super().__init__(*([translation] for _, translation in pairs))
        self.columns["source"] = [tokenize(source) for source, _ in pairs]
        if pictured is not None:
            self.columns["image"].keys = [i if pictured[i] else None for i in range(len(pairs))]


SENTENCES = [
    ("one", "eins zwei drei"),
    ("one two three four five", "eins"),
    ("two one", "zwei eins"),
]
SOURCE, TARGET = (
    Vocabulary(["one", "two", "three", "four", "five"]),
    Vocabulary(["drei", "eins", "zwei"]),
)


def translations(pictured=None, sentences=SENTENCES, **options):
    return Examples(
        Translated(pictured, *sentences), {"target": TARGET, "source": SOURCE}, **options
    )


def test_pairs_of_a_translation_have_the_words_of_both_languages():
    pairs = translations()
    assert pairs.lengths == [4, 6, 3] and len(pairs) == 3  # of the longer of both, with <eos>
    assert [pairs[i]["source"].tolist() for i in range(3)] == [
        [4, EOS],
        [4, 5, 6, 7, 8, EOS],
        [5, 4, EOS],
    ]
    assert [pairs[i]["target"].tolist() for i in range(3)] == [
        [5, 6, 4, EOS],
        [5, EOS],
        [6, 5, EOS],
    ]
    assert pairs[2]["source"].dtype == pairs[2]["target"].dtype == torch.long
    assert [pairs[i]["image"][0, 0, -1].item() for i in range(3)] == [255, 254, 253]
    assert pairs[1, None]["target"].tolist() == [
        PAD
    ]  # without words to write, it counts for nothing


@pytest.mark.parametrize("pictured, names", [
    (None, {"target", "source", "image", "augmentation"}),
    ([True, False, True], {"target", "source", "image", "has_image", "augmentation", "has_augmentation"}),
    ([False, False, False], {"target", "source"}),
])  # fmt: skip
def test_has_image_is_in_the_batch_if_some_lack_a_picture(pictured, names):
    pairs = translations(pictured, augmented=True)
    for i in range(3):
        seen = {"image", "augmentation"} if pictured is None or pictured[i] else set()
        assert pairs[i].keys() == pairs[i, None].keys() == {"target", "source"} | seen
    batch = collate([pairs[i] for i in range(3)])
    assert batch.keys() == names
    assert batch["source"].tolist() == [
        [4, EOS] + [PAD] * 4,
        [4, 5, 6, 7, 8, EOS],
        [5, 4, EOS] + [PAD] * 3,
    ]
    assert batch["target"].shape == (3, 4)
    if "has_image" in names:
        assert batch["has_image"].dtype == torch.bool and batch["has_image"].tolist() == pictured
    moved = to_device(batch, CPU)
    assert moved.keys() == names - {"augmentation", "has_augmentation"}
    if "has_image" in names:
        seen = torch.tensor([0, 2])
        assert torch.equal(
            moved["image"][seen], augment(batch["image"][seen], batch["augmentation"][seen])
        )


def test_numericalize_converts_modalities_with_a_vocabulary():
    picture = torch.zeros(3, 2, 2)
    example = numericalize(
        {"source": ["two", "one"], "image": picture}, {"target": TARGET, "source": SOURCE}
    )
    assert example.keys() == {"source", "image"} and example["image"] is picture
    assert example["source"].tolist() == [5, 4, EOS]
    assert numericalize({"image": picture}, {"target": TARGET, "source": SOURCE}).keys() == {
        "image"
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_keeps_sentence_and_picture_together(workers):
    words = [
        (" ".join(["one"] * (1 + i % 3)), " ".join(["eins"] * (1 + 5 * i % 7))) for i in range(23)
    ]
    pairs = translations([i % 2 == 0 for i in range(23)], words)
    seen, blind = [], []
    for batch in fed(Prefetcher(loader_of(pairs, 5, seed=1, workers=workers), CPU), 0):
        for image, source, target, there in zip(
            *(batch[name] for name in ("image", "source", "target", "has_image")), strict=True
        ):
            lengths = (source > EOS).sum().item(), (target > EOS).sum().item()
            if there:
                i = 255 - image[0, 0, -1].item()
                assert lengths == (1 + i % 3, 1 + 5 * i % 7)
                seen.append(i)
            else:
                assert not image.any()
                blind.append(lengths)
    assert sorted(seen) == list(range(0, 23, 2)) and seen != sorted(seen)
    assert Counter(blind) == Counter((1 + i % 3, 1 + 5 * i % 7) for i in range(1, 23, 2))


@pytest.mark.parametrize("source, target", [
    ("a cat on the left", "eine Katze links"), ("a cat", "eine Katze auf der rechten Seite"), ("a cat on the left", "un chat"),
])  # fmt: skip
def test_pictures_are_not_mirrored_if_a_sentence_mentions_a_side(source, target):
    pairs = translations(None, [(source, target), ("a cat", "eine Katze")], augmented=True)
    mirrored = [
        [pairs[i, visit]["augmentation"][-1] < 0.5 for visit in range(29)] for i in range(2)
    ]
    assert not any(mirrored[0]) and 5 < sum(mirrored[1]) < 25
