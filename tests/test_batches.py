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

from mmscratch.batches import BucketSampler, CaptionPairs, Feed, collate, make_loader, to_device
from mmscratch.data.captions import CaptionData
from mmscratch.images import augment
from mmscratch.text import EOS, PAD, Vocabulary, tokenize

CPU = torch.device("cpu")


class Pictures(CaptionData):
    """Pictures whose left half is black and whose right half is white, with the captions that a test gives."""

    def __init__(self, *captions):
        self.references = [[tokenize(caption) for caption in of_one] for of_one in captions]
        self.names, self.problems, self.size = [f"picture {i}" for i in range(len(captions))], [], 23

    def picture(self, index):
        image = torch.zeros(3, 23, 23, dtype=torch.uint8)
        image[:, :, 12:] = 255 - index
        return image


LENGTHS = np.random.default_rng(0).integers(2, 41, 1013).tolist()


def captioned(kind=Pictures):
    """37 captions of 1 to 13 words to 19 pictures, augmented."""
    words = [" ".join(["word"] * (1 + 5 * i % 13)) for i in range(37)]
    data = kind(*(words[i : i + 2] for i in range(0, 37, 2)))
    return CaptionPairs(data, Vocabulary(["word"]), augmented=True, seed=3)


@pytest.fixture
def pairs():
    return captioned()


def same(batches, others):
    batches, others = list(batches), list(others)
    return len(batches) == len(others) and all(
        batch.keys() == other.keys() and all(torch.equal(batch[name], other[name]) for name in batch)
        for batch, other in zip(batches, others)
    )


def sampled(epoch, skip=0, **settings):
    sampler = BucketSampler(**settings)
    sampler.start(epoch, skip)
    return list(sampler)


def test_collate_pads_to_the_longest_of_the_batch():
    examples = [
        {"image": torch.full((3, 5, 7), i).byte(), "target": torch.arange(1, n + 1), "audio": torch.full((n * 3,), 0.5)}
        for i, n in enumerate((4, 2, 11))
    ]
    batch = collate(examples)
    assert list(batch) == ["image", "target", "audio"]
    assert batch["image"].shape == (3, 3, 5, 7) and batch["image"].dtype == torch.uint8
    assert batch["target"].shape == (3, 11) and batch["target"].dtype == torch.long
    assert batch["audio"].shape == (3, 33) and batch["audio"].dtype == torch.float
    for i, n in enumerate((4, 2, 11)):
        assert batch["image"][i].unique().tolist() == [i]
        assert batch["target"][i].tolist() == [*range(1, n + 1), *[0] * (11 - n)]
        assert batch["audio"][i].tolist() == [0.5] * (n * 3) + [0.0] * (33 - n * 3)


@pytest.mark.parametrize("count, size", [(1013, 16), (1013, 1), (48, 16), (49, 16), (16, 16), (5, 16), (1, 1), (1, 16)])
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
def test_start_goes_on_where_another_stopped(skip):
    first, second = (BucketSampler(LENGTHS, 16, seed=5) for _ in range(2))
    first.start(2)
    second.start(2, skip)
    assert list(second) == list(first)[skip:]


def test_sentences_of_similar_length_come_together():
    def padding(batches):
        wasted = sum(max(batch) * len(batch) - sum(batch) for batch in batches)
        return wasted / sum(max(batch) * len(batch) for batch in batches)

    bucketed, not_bucketed = (
        [[LENGTHS[index] for index, _ in batch] for batch in BucketSampler(LENGTHS, 16, pool=pool)] for pool in (50, 1)
    )
    assert padding(bucketed) < 0.06
    assert padding(not_bucketed) > 0.4
    means = [sum(batch) / len(batch) for batch in bucketed]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5  # short and long ones in turn


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("count, batch_size", [(101, 16), (97, 16), (1013, 30), (3, 16), (1, 16), (2, 1), (11, 4)])
def test_processes_share_each_batch(count, batch_size, processes):
    settings = {"lengths": LENGTHS[:count], "batch_size": batch_size, "seed": 5, "pool": 3}
    for epoch, skip in ((0, 0), (1, 0), (1, 1)):
        alone = sampled(epoch, skip, **settings)
        shares = [sampled(epoch, skip, **settings, rank=rank, size=processes) for rank in range(processes)]
        assert len(alone) == -(-count // batch_size) - skip and {len(share) for share in shares} == {len(alone)}
        for batch, *parts in zip(alone, *shares):
            assert sorted(item for part in parts for item in part if item[1] is not None) == sorted(batch)
            blanks = [part for part in parts if any(visit is None for _, visit in part)]
            assert len(blanks) == max(processes - len(batch), 0)
            assert all(len(part) == 1 and part[0][0] in range(count) for part in blanks)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1 and min(map(len, parts)) > 0


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_the_shares_of_a_batch_are_of_similar_length(processes):
    settings = {"lengths": LENGTHS[:990], "batch_size": 30, "pool": 3}
    shares = [sampled(0, **settings, rank=rank, size=processes) for rank in range(processes)]
    differences = []
    for parts in zip(*shares):
        words = [[LENGTHS[index] for index, _ in part] for part in parts]
        spread = max(map(max, words)) - min(map(min, words))
        differences.append((max(map(sum, words)) - min(map(sum, words))) / spread)
    assert max(differences) <= 1  # sorted and dealt out in turn: a sum exceeds another by the spread at most


def test_an_item_is_a_picture_and_one_of_its_captions():
    data = Pictures(["A dog.", "a cat"], [], ["two dogs"])
    pairs = CaptionPairs(data, Vocabulary(["dog", "a", "."]))  # 4, 5, 6
    assert len(pairs) == 3 and pairs.lengths == [4, 3, 3]
    assert [pairs[i]["target"].tolist() for i in range(3)] == [[5, 4, 6, EOS], [5, 3, EOS], [3, 3, EOS]]
    assert [torch.equal(pairs[i]["image"], data.picture(p)) for i, p in enumerate((0, 0, 2))] == [True] * 3
    assert all(pairs[index].keys() == {"image", "target"} for index in (2, (2, 7)))
    assert pairs[2, 7]["image"].equal(pairs[2]["image"])
    assert [pairs.name(i) for i in range(3)] == ["picture 0", "picture 0", "picture 2"]


def test_a_visit_of_none_is_a_picture_without_words(pairs):
    example = pairs[5, None]
    assert example["target"].tolist() == [PAD]
    assert list(example) == list(pairs[5, 1]) and torch.equal(example["image"], pairs[5]["image"])
    assert collate([example, pairs[4, 1]])["target"][0].unique().tolist() == [PAD]


def test_chances_depend_on_seed_visit_and_index_only(pairs):
    def chances():
        return {
            (seed, visit, index): tuple(each[index, visit]["chances"].tolist())
            for seed, each in ((3, pairs), (4, CaptionPairs(pairs.data, pairs.vocabulary, True, 4)))
            for visit in range(7)
            for index in (0, 1, 5, 36)
        }

    torch.manual_seed(1)
    before, first = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()), chances()
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    torch.manual_seed(2)
    assert chances() == first and len({*first.values()}) == len(first)
    assert tuple(pairs[5]["chances"].tolist()) == first[3, 0, 5]


def test_chances_leave_the_generator_of_the_gpu_alone(pairs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU's generator was seeded"))
    assert pairs[0]["chances"].shape == (8,)


def test_chances_are_uniform(pairs):
    chances = torch.stack([pairs[index, visit]["chances"] for index in range(37) for visit in range(29)])  # (1073, 8)
    assert chances.dtype == torch.float32 and 0 <= chances.min() < 0.01 and 0.99 < chances.max() < 1
    assert (chances.mean(0) - 1 / 2).abs().max() < 0.04  # 4 deviations of such a mean
    assert (chances.square().mean(0) - 1 / 3).abs().max() < 0.04
    assert (torch.corrcoef(chances.T) - torch.eye(8)).abs().max() < 0.15


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
def test_a_caption_that_speaks_of_sides_is_never_mirrored(caption, may_be_mirrored):
    pairs, others = (CaptionPairs(Pictures([words]), Vocabulary([]), True) for words in (caption, "word"))
    batch, other = (collate([each[0, visit] for visit in range(200)]) for each in (pairs, others))
    mirror = batch["chances"][:, -1]
    assert torch.equal(batch["chances"][:, :-1], other["chances"][:, :-1])
    assert 70 < (mirror < 0.5).sum() < 130 and mirror.max() < 1 if may_be_mirrored else mirror.unique().tolist() == [1]
    looks = to_device(batch, CPU)["image"].float()  # (200, 3, 23, 23): the left half is black
    assert torch.equal(looks[..., 0].mean((1, 2)) > looks[..., -1].mean((1, 2)), mirror < 0.5)


def test_a_loader_gives_the_sampler_s_batches(pairs):
    loader = make_loader(pairs, 8, seed=7)
    sampler = BucketSampler(pairs.lengths, 8, seed=7)
    sampler.start(3, skip=1)
    loader.batch_sampler.start(3, skip=1)
    before = torch.get_rng_state()
    assert same(loader, [collate([pairs[index] for index in batch]) for batch in sampler])
    assert torch.equal(torch.get_rng_state(), before)  # the model's dropout is not disturbed
    assert len(loader) == 5


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_the_loaders_of_all_processes_give_each_caption_once(processes, pairs):
    loaders = [make_loader(pairs, 8, seed=7, rank=rank, size=processes) for rank in range(processes)]
    batches = [list(loader) for loader in loaders]
    assert [*map(len, batches)] == [*map(len, loaders)] == [5] * processes
    words = Counter(n for of_one in batches for batch in of_one for n in (batch["target"] != PAD).sum(1).tolist())
    blanks = words.pop(0, 0)
    assert words == Counter(pairs.lengths)
    assert blanks == max(processes - 37 % 8, 0)  # of the batch of 5


def test_to_device_augments_what_has_chances(pairs):
    batch = collate([pairs[i, 2] for i in range(5)])
    before = dict(batch)
    moved = to_device(batch, CPU)
    assert batch.keys() == before.keys() and all(batch[name] is before[name] for name in before)
    assert same([moved], [{"image": augment(batch["image"], batch["chances"]), "target": batch["target"]}])
    assert not torch.equal(moved["image"], batch["image"])
    del batch["chances"]
    assert same([to_device(batch, CPU)], [batch])


def a_feed_of(kind, workers, start_method="fork"):
    loader = make_loader(captioned(kind), 8, seed=7, workers=workers)
    if workers:
        if start_method not in torch.multiprocessing.get_all_start_methods():
            pytest.skip(f"no {start_method} here")
        loader.multiprocessing_context = start_method
    return Feed(loader, CPU)


def fed(feed, epoch, skip=0, prefetches=0):
    """The batches of a feed, of which others are fetched ahead meanwhile."""
    for batch in islice(feed.batches(epoch, skip), 99):  # more than there are: a feed without an end is a wrong one
        for _ in range(prefetches):
            feed.prefetch()
        yield batch


def expected(pairs, epoch, skip=0):
    for batch in sampled(epoch, skip, lengths=pairs.lengths, batch_size=8, seed=7):
        yield to_device(collate([pairs[index] for index in batch]), CPU)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_feed_gives_the_sampler_s_batches_augmented(workers, pairs):
    feed = a_feed_of(Pictures, workers)
    for epoch, skip, prefetches in ((0, 0, 0), (1, 2, 1), (1, 0, 2), (2, 4, 1), (2, 5, 1), (4, 0, 1)):
        batches = list(fed(feed, epoch, skip, prefetches))
        assert len(batches) == 5 - skip and same(batches, expected(pairs, epoch, skip))


@pytest.mark.parametrize("workers", [0, 2])
def test_of_an_epoch_left_early_nothing_is_left(workers, pairs):
    feed = a_feed_of(Pictures, workers)
    for _ in fed(feed, 0, prefetches=1):
        break
    assert same(fed(feed, 1), expected(pairs, 1))


def test_prefetch_fetches_one_batch_ahead(monkeypatch):
    read = []
    monkeypatch.setattr(Pictures, "picture", lambda data, index: read.append(index) or torch.zeros(3, 23, 23).byte())
    feed = a_feed_of(Pictures, 0)
    for epoch, ahead in ((0, False), (1, True)):
        so_far = np.cumsum([len(batch) for batch in sampled(epoch, lengths=captioned().lengths, batch_size=8, seed=7)])
        read.clear()
        for i, _ in enumerate(feed.batches(epoch)):
            assert len(read) == so_far[i]
            if ahead:
                feed.prefetch()
                feed.prefetch()
                assert len(read) == so_far[min(i + 1, 4)]


@pytest.mark.parametrize("prefetches", [0, 1])
def test_waiting_is_the_time_that_reading_took(prefetches, monkeypatch):
    now = [1000.0]  # a clock that only this test moves

    def picture(data, index):
        now[0] += 0.25
        return torch.zeros(3, 23, 23, dtype=torch.uint8)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Pictures, "picture", picture)
    feed = Feed(make_loader(captioned(), 1), CPU)  # 37 batches
    seconds = []
    for _ in fed(feed, 0, prefetches=prefetches):
        seconds.append(feed.waiting.seconds())
        now[0] += 100  # the model computes
        assert feed.waiting.seconds() == 0
    assert seconds == ([0.5] + [0.25] * 35 + [0] if prefetches else [0.25] * 37)


class Deadly(Pictures):
    """Picture 11 does something to a worker that reads it; slowly, so that the trainer is waiting for the batch."""

    harmless = 0  # times before

    def picture(self, index):
        if index == 11 and get_worker_info():
            self.harmless -= 1
            if self.harmless < 0:
                time.sleep(0.5)
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
            raise ValueError("broken\nin two")
        return super().picture(index)


def complaint(feed, epoch=0):
    """What a feed says whose worker dies or fails."""
    try:
        list(fed(feed, epoch))
    except ChildProcessError as error:
        error.__context__.__traceback__ = None  # it holds the workers in a circle, which ends them slowly, at any time
        return str(error)
    pytest.fail("all went well")


@pytest.mark.parametrize("kind, workers", [(Killing, 1), (Killing, 2), (Exiting, 2)])
def test_of_a_worker_that_dies_the_file_is_named(kind, workers):
    said = complaint(a_feed_of(kind, workers))
    assert re.fullmatch(r"the data worker of process \d+ .* while it was reading picture 11", said)


def test_a_spawned_worker_changes_nothing_and_is_watched_as_well():
    feed = a_feed_of(KillingLater, 1, "spawn")
    assert same(fed(feed, 0), expected(captioned(), 0))
    assert complaint(feed, 1).endswith("while it was reading picture 11")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_while_the_model_computes_is_reported_as_well(workers):
    feed = a_feed_of(Killing, workers)
    says = r"the data worker of process \d+ was killed \(Killed\) while it was reading picture 11$"
    with pytest.raises(ChildProcessError, match=says), feed.explained():
        for _ in feed.batches(0):
            time.sleep(2)  # the news comes within


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_fails_of_is_said_in_one_line_with_its_file(workers):
    says = r"a data worker failed: .*picture 11 cannot be read: broken in two"
    assert re.fullmatch(says, complaint(a_feed_of(Broken, workers)))


def test_without_workers_what_cannot_be_read_is_named_as_well():
    with pytest.raises(ValueError, match="^picture 11 cannot be read: broken in two$"):
        list(fed(a_feed_of(Broken, 0), 0))


@pytest.fixture
def deaf():
    """A trainer that only notes SIGTERM; workers inherit that."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_a_worker(deaf):
    assert complaint(a_feed_of(Terminating, 1)).endswith("picture 11")


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_does_not_end_a_worker(workers):
    assert same(fed(a_feed_of(Interrupting, workers), 0), expected(captioned(), 0))


def test_pinned_memory_where_there_is_cuda(pairs, monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        assert make_loader(pairs, 8).pin_memory == there


def test_pairs_can_be_sent_to_another_process(pairs):
    for dataset in (pairs, make_loader(pairs, 8, workers=2).dataset):
        again = pickle.loads(pickle.dumps(dataset))
        assert same([again[3, 1]], [pairs[3, 1]])


def compute(device):
    """Keeps a GPU busy for some milliseconds."""
    matrix = torch.full((4001, 4001), 0.001, device=device)
    for _ in range(5):
        matrix = matrix @ matrix


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_the_side_stream_changes_nothing(workers, pairs):
    feed = Feed(make_loader(pairs, 8, seed=7, workers=workers), torch.device("cuda"))
    for epoch, skip, prefetches in ((0, 0, 0), (1, 2, 1), (2, 0, 2)):
        copies = []
        for batch in feed.batches(epoch, skip):
            compute("cuda")
            copies.append({name: value.clone() for name, value in batch.items()})  # queued behind it
            for _ in range(prefetches):  # which must not take the memory that the clone has yet to read
                feed.prefetch()
        others = list(expected(pairs, epoch, skip))
        assert len(copies) == len(others) == 5 - skip
        for copy, other in zip(copies, others):
            assert list(copy) == list(other) and all(value.is_cuda for value in copy.values())
            assert torch.equal(copy["target"].cpu(), other["target"])
            assert (copy["image"].cpu().int() - other["image"].int()).abs().max() <= 1


@pytest.mark.gpu
def test_a_feed_s_memory_on_the_gpu_is_flat(pairs):
    feed, used = Feed(make_loader(pairs, 8), torch.device("cuda")), []
    for epoch in range(40):  # of 5 batches
        for _ in fed(feed, epoch, prefetches=1):
            torch.mm(torch.ones(257, 257, device="cuda"), torch.ones(257, 257, device="cuda"))
        torch.cuda.synchronize()
        used.append(torch.cuda.memory_allocated())
    assert max(used[20:]) - min(used[:20]) < 20 * 8 * 3 * 23 * 23  # of the 100 batches between, no more than 20 are left


class Translated(Pictures):
    """Of each sentence one translation, and a picture where `pictured` says so."""

    def __init__(self, pictured, *pairs):
        super().__init__(*([translation] for _, translation in pairs))
        self.sources, self.pictured = [tokenize(source) for source, _ in pairs], pictured


SENTENCES = [("one", "eins zwei drei"), ("one two three four five", "eins"), ("two one", "zwei eins")]
SOURCE, TARGET = Vocabulary(["one", "two", "three", "four", "five"]), Vocabulary(["drei", "eins", "zwei"])


def translations(pictured=None, sentences=SENTENCES, **options):
    return CaptionPairs(Translated(pictured, *sentences), TARGET, source_vocabulary=SOURCE, **options)


def test_pairs_of_a_translation_have_the_words_of_both_languages():
    pairs = translations()
    assert pairs.lengths == [4, 6, 3] and len(pairs) == 3  # of the longer of both, with <eos>
    assert [pairs[i]["source"].tolist() for i in range(3)] == [[4, EOS], [4, 5, 6, 7, 8, EOS], [5, 4, EOS]]
    assert [pairs[i]["target"].tolist() for i in range(3)] == [[5, 6, 4, EOS], [5, EOS], [6, 5, EOS]]
    assert pairs[2]["source"].dtype == pairs[2]["target"].dtype == torch.long
    assert [pairs[i]["image"][0, 0, -1].item() for i in range(3)] == [255, 254, 253]
    assert pairs[1, None]["target"].tolist() == [PAD]  # without words to write, it counts for nothing


@pytest.mark.parametrize("pictured, names", [
    (None, {"target", "source", "image"}),
    ([True, False, True], {"target", "source", "image", "has_image"}),
    ([False, False, False], {"target", "source"}),
])  # fmt: skip
def test_has_image_is_there_where_some_lack_one_and_image_where_some_have_one(pictured, names):
    pairs = translations(pictured, augmented=True)
    assert pairs[0].keys() == pairs[1, None].keys() == names | ({"chances"} if "image" in names else set())
    batch = collate([pairs[i] for i in range(3)])
    assert batch["source"].tolist() == [[4, EOS] + [PAD] * 4, [4, 5, 6, 7, 8, EOS], [5, 4, EOS] + [PAD] * 3]
    assert batch["target"].shape == (3, 4)
    if "has_image" in names:
        assert batch["has_image"].dtype == torch.bool and batch["has_image"].tolist() == pictured


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_each_sentence_with_its_own_picture(workers):
    words = [(" ".join(["one"] * (1 + i % 3)), " ".join(["eins"] * (1 + 5 * i % 7))) for i in range(23)]
    pairs = translations([i % 2 == 0 for i in range(23)], words)
    seen = []
    for batch in fed(Feed(make_loader(pairs, 5, seed=1, workers=workers), CPU), 0):
        for image, source, target, there in zip(*(batch[name] for name in ("image", "source", "target", "has_image")), strict=True):
            i = 255 - image[0, 0, -1].item()
            assert (source > EOS).sum() == 1 + i % 3 and (target > EOS).sum() == 1 + 5 * i % 7 and there == (i % 2 == 0)
            seen.append(i)
    assert sorted(seen) == list(range(23)) and seen != sorted(seen)


@pytest.mark.parametrize("source, target", [
    ("a cat on the left", "eine Katze links"), ("a cat", "eine Katze auf der rechten Seite"), ("a cat on the left", "un chat"),
])  # fmt: skip
def test_no_mirrored_picture_beside_a_sentence_that_names_a_side(source, target):
    pairs = translations(None, [(source, target), ("a cat", "eine Katze")], augmented=True)
    mirrored = [[pairs[i, visit]["chances"][-1] < 0.5 for visit in range(29)] for i in range(2)]
    assert not any(mirrored[0]) and 5 < sum(mirrored[1]) < 25
