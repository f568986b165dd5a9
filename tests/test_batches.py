"""From examples to batches: padding, buckets, loaders, and augmentation that only the seed decides."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from mmscratch.batches import BucketSampler, CaptionPairs, collate, make_loader
from mmscratch.datasets import CaptionData
from mmscratch.images import Augment
from mmscratch.text import EOS, PAD, Vocabulary, tokenize


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


@pytest.fixture
def pairs():
    """37 captions of 1 to 13 words to 19 pictures, augmented."""
    words = [" ".join(["word"] * (1 + 5 * i % 13)) for i in range(37)]
    data = Pictures(*(words[i : i + 2] for i in range(0, 37, 2)))
    return CaptionPairs(data, Vocabulary(["word"]), Augment(17), seed=3)


def same(batches, others):
    return len(batches) == len(others) and all(
        batch.keys() == other.keys() and all(torch.equal(batch[name], other[name]) for name in batch)
        for batch, other in zip(batches, others)
    )


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


def test_an_item_is_a_picture_and_one_of_its_captions():
    data = Pictures(["A dog.", "a cat"], [], ["two dogs"])
    pairs = CaptionPairs(data, Vocabulary(["dog", "a", "."]))  # 4, 5, 6
    assert len(pairs) == 3 and pairs.lengths == [4, 3, 3]
    assert [pairs[i]["target"].tolist() for i in range(3)] == [[5, 4, 6, EOS], [5, 3, EOS], [3, 3, EOS]]
    assert [torch.equal(pairs[i]["image"], data.picture(p)) for i, p in enumerate((0, 0, 2))] == [True] * 3
    assert pairs[2, 7]["image"].equal(pairs[2]["image"])


def test_augmentation_depends_on_seed_visit_and_index_only(pairs):
    other_seed = CaptionPairs(pairs.data, pairs.vocabulary, pairs.augment, seed=4)
    looks = [pairs[5, 0], pairs[5], pairs[5, 1], pairs[4, 0], other_seed[5, 0]]
    torch.manual_seed(1)
    assert same([pairs[5, 0], pairs[5, 0], pairs[5, 1], pairs[4, 0], other_seed[5, 0]], looks)
    assert len({look["image"].numpy().tobytes() for look in looks}) == 4  # the first two are one
    assert looks[0]["image"].shape == (3, 17, 17)


def test_augmentation_leaves_the_random_state_alone(pairs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU's generator was seeded"))
    before = torch.get_rng_state()
    pairs[0]
    assert torch.equal(torch.get_rng_state(), before)


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
    pairs = CaptionPairs(Pictures([caption]), Vocabulary([]), Augment(17))
    looks = [pairs[0, visit]["image"].float() for visit in range(40)]
    mirrored = sum(bool(look[:, :, 0].mean() > look[:, :, -1].mean()) for look in looks)
    assert 8 < mirrored < 32 if may_be_mirrored else mirrored == 0


def test_a_loader_gives_the_sampler_s_batches(pairs):
    loader = make_loader(pairs, 8, seed=7)
    sampler = BucketSampler(pairs.lengths, 8, seed=7)
    sampler.start(3, skip=1)
    loader.batch_sampler.start(3, skip=1)
    before = torch.get_rng_state()
    assert same(list(loader), [collate([pairs[index] for index in batch]) for batch in sampler])
    assert torch.equal(torch.get_rng_state(), before)  # the model's dropout is not disturbed
    assert len(loader) == 5


@pytest.mark.parametrize("workers, start_method", [(1, "fork"), (2, "fork"), (1, "spawn")])
def test_workers_change_nothing(workers, start_method, pairs):
    if start_method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start_method} here")
    plain, loader = make_loader(pairs, 8), make_loader(pairs, 8, workers=workers)
    loader.multiprocessing_context = start_method
    for epoch, skip in ((0, 0), (1, 2)):
        for each in (plain, loader):
            each.batch_sampler.start(epoch, skip)
        batches = list(loader)
        assert len(batches) == 5 - skip and same(batches, list(plain))
        shown = Counter(n for batch in batches for n in (batch["target"] != PAD).sum(1).tolist())
        assert skip or shown == Counter(pairs.lengths)


def test_pinned_memory_where_there_is_cuda(pairs, monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        assert make_loader(pairs, 8).pin_memory == there


def test_pairs_can_be_sent_to_another_process(pairs):
    again = pickle.loads(pickle.dumps(pairs))
    assert same([again[3, 1]], [pairs[3, 1]])
