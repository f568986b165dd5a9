"""From examples to batches: padding, buckets, loaders, prefetching and seeded augmentation."""

import os
import pickle
import random
import re
import signal
import time
from collections import Counter
from itertools import chain, islice, product

import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from mmscratch.audio import augment_spectrogram
from mmscratch.batches import (
    BucketSampler,
    Examples,
    Prefetcher,
    collate,
    inputs_of,
    make_loader,
    numericalize,
    to_device,
)
from mmscratch.data.dataset import DataSet, LazyColumn, Subset
from mmscratch.images import augment
from mmscratch.text import EOS, PAD, Vocabulary, tokenize

CPU = torch.device("cpu")


class Pictures(DataSet):
    """Pictures whose left half is black and right half white, with the captions of a test."""

    def __init__(self, *captions):
        super().__init__()
        self.texts = list(captions)
        self.references = [[tokenize(text) for text in texts] for texts in captions]
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
    sampler = BucketSampler(examples.lengths, batch_size, seed, shard=shard)
    return make_loader(examples, sampler, workers)


def same_batch(batch, other):
    return batch.keys() == other.keys() and all(torch.equal(batch[k], other[k]) for k in batch)


def same(batches, others):
    batches = list(batches)
    others = list(others)
    return len(batches) == len(others) and all(map(same_batch, batches, others))


def sampled(epoch, skip=0, **settings):
    sampler = BucketSampler(**settings)
    sampler.start(epoch, skip)
    return list(sampler)


def test_collate_pads_to_the_longest_of_the_batch():
    examples = []
    for i, n in enumerate((4, 2, 11)):
        image = torch.full((3, 5, 7), i).byte()
        audio = torch.full((n * 3,), 0.5)
        examples.append({"image": image, "target": torch.arange(1, n + 1), "audio": audio})
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
        examples = []
        for n in lengths:
            target = torch.ones(n, dtype=torch.long)
            examples.append({"sound": torch.full((n, 5), 0.5), "target": target})
        return collate(examples)

    padded = batch(7, 2, 3)
    assert padded["sound"].shape == (3, 7, 5) and padded["sound_lengths"].tolist() == [7, 2, 3]
    assert padded["sound"][1, :2].unique().tolist() == [0.5] and not padded["sound"][1, 2:].any()
    assert "target_lengths" not in padded  # <pad> already marks the padding of words
    equal = batch(3, 3)
    assert equal["sound"].shape == (2, 3, 5) and equal.keys() == {"sound", "target"}


def test_collate_marks_missing_modalities():
    image = torch.full((3, 5, 7), 9).byte()
    sound = torch.ones(4, 2)
    row = torch.tensor([0.5, 2.0, -1.0])
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
    # no has_target, no has_row
    assert batch.keys() == {"target", "image", "sound", "sound_lengths", "source", "row"}
    assert batch["image"].dtype == torch.uint8 and torch.equal(batch["image"][1], image)
    assert batch["source"].tolist() == [[PAD] * 3, [2, PAD, PAD], [6, 5, 2], [PAD] * 3]
    assert batch["sound_lengths"].tolist() == [4, 0, 3, 0]
    assert batch["sound"].sum((1, 2)).tolist() == [8, 0, 6, 0]
    for name, present in has.items():
        assert not batch[name][~present].any()  # zeros
    assert torch.equal(batch["row"], row.expand(4, 3))


def test_collate_pads_several_references_to_the_largest():
    targets = [torch.ones(2, 5, dtype=torch.long), torch.full((3, 4), 7)]
    target = collate([{"target": words} for words in targets])["target"]
    assert target.shape == (2, 3, 5)
    assert target[0].tolist() == [[1] * 5, [1] * 5, [PAD] * 5]
    assert target[1].tolist() == [[7] * 4 + [PAD]] * 3


def test_collate_ignores_the_order_of_keys():
    one = {"image": torch.ones(3, 2, 2), "target": torch.tensor([5, 2])}
    other = {"target": torch.tensor([2])}
    for examples in ([one, other], [other, one]):
        batch = collate(examples)
        assert batch.keys() == {"image", "has_image", "target"}
        assert batch["has_image"].tolist() == [example is one for example in examples]
        sums = [12 if example is one else 0 for example in examples]
        assert batch["image"].sum((1, 2, 3)).tolist() == sums


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
        assert {of_item for batch in batches for _, of_item in batch} == {epoch}
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


@pytest.mark.parametrize("skip", [0, 1, 6])
def test_without_shuffling_batches_keep_the_order_of_the_data(skip):
    settings = {"lengths": LENGTHS[:97], "batch_size": 16, "bucket_batches": None}
    for epoch in (0, 1):
        batches = sampled(epoch, skip, **settings, shuffle=False)
        assert len(batches) == 7 - skip
        for number, batch in enumerate(batches, skip):
            expected = range(16 * number, min(16 * (number + 1), 97))
            assert sorted(batch) == [(index, epoch) for index in expected]
    shards = [sampled(0, **settings, shuffle=False, shard=(rank, 3)) for rank in range(3)]
    for batch, *parts in zip(sampled(0, **settings, shuffle=False), *shards):
        assert sorted(batch) == sorted(item for part in parts for item in part if item[1] == 0)


def test_batches_hold_sentences_of_similar_length():
    def padding(batches):
        wasted = sum(max(batch) * len(batch) - sum(batch) for batch in batches)
        return wasted / sum(max(batch) * len(batch) for batch in batches)

    def lengths(bucket_batches):
        sampler = BucketSampler(LENGTHS, 16, bucket_batches=bucket_batches)
        return [[LENGTHS[index] for index, _ in batch] for batch in sampler]

    bucketed = lengths(50)
    not_bucketed = lengths(None)
    assert padding(bucketed) < 0.06
    assert padding(not_bucketed) > 0.4
    means = [sum(batch) / len(batch) for batch in bucketed]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5  # short and long ones are mixed


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize(
    "count, batch_size", [(101, 16), (97, 16), (1013, 30), (3, 16), (1, 16), (2, 1), (11, 4)]
)
def test_processes_split_each_batch(count, batch_size, processes):
    settings = {"lengths": LENGTHS[:count], "batch_size": batch_size, "seed": 5}
    settings["bucket_batches"] = 3
    for epoch, skip in ((0, 0), (1, 0), (1, 1)):
        alone = sampled(epoch, skip, **settings)
        shards = [
            sampled(epoch, skip, **settings, shard=(rank, processes)) for rank in range(processes)
        ]
        assert len(alone) == -(-count // batch_size) - skip
        assert {len(shard) for shard in shards} == {len(alone)}
        for batch, *parts in zip(alone, *shards):
            items = [item for part in parts for item in part]
            assert sorted(item for item in items if item[1] is not None) == sorted(batch)
            blanks = [part for part in parts if any(of_item is None for _, of_item in part)]
            assert len(blanks) == max(processes - len(batch), 0)
            assert all(len(part) == 1 and part[0][0] in range(count) for part in blanks)
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_shards_of_a_batch_have_similar_lengths(processes):
    settings = {"lengths": LENGTHS[:990], "batch_size": 30, "bucket_batches": 3}
    shards = [sampled(0, **settings, shard=(rank, processes)) for rank in range(processes)]
    differences = []
    for parts in zip(*shards):
        words = [[LENGTHS[index] for index, _ in part] for part in parts]
        spread = max(map(max, words)) - min(map(min, words))
        differences.append((max(map(sum, words)) - min(map(sum, words))) / spread)
    # sorted and dealt out one by one: two sums differ by the spread at most
    assert max(differences) <= 1


def test_an_item_is_a_picture_and_one_of_its_captions():
    data = Pictures(["A dog.", "a cat"], [], ["two dogs"])
    pairs = Examples(data, {"target": Vocabulary(["dog", "a", "."])})  # 4, 5, 6
    assert len(pairs) == 3 and pairs.lengths == [4, 3, 3]
    targets = [[5, 4, 6, EOS], [5, 3, EOS], [3, 3, EOS]]
    assert [pairs[i]["target"].tolist() for i in range(3)] == targets
    for i, picture in enumerate((0, 0, 2)):
        assert torch.equal(pairs[i]["image"], data.picture(picture))
    assert all(pairs[index].keys() == {"image", "target"} for index in (2, (2, 7)))
    assert pairs[2, 7]["image"].equal(pairs[2]["image"])
    assert [pairs.name(i) for i in range(3)] == ["picture 0", "picture 0", "picture 2"]


def test_an_item_has_several_references_of_an_example():
    data = Pictures(["A dog.", "a cat", "two dogs"], [], ["a"])
    vocabularies = {"target": Vocabulary(["dog", "a", "."])}  # 4, 5, 6
    examples = Examples(data, vocabularies, references_at_once=2)
    assert len(examples) == 3 and examples.lengths == [4, 3, 2]
    targets = [[[5, 4, 6, EOS], [5, 3, EOS, PAD]], [[3, 3, EOS]], [[5, EOS]]]
    assert [examples[i]["target"].tolist() for i in range(3)] == targets
    assert [examples.name(i) for i in range(3)] == ["picture 0", "picture 0", "picture 2"]
    batch = collate([examples[0], examples[2], examples[1, None]])["target"]
    padding = [PAD] * 4
    assert batch.tolist() == [targets[0], [[5, EOS, PAD, PAD], padding], [padding, padding]]
    whole = Examples(data, vocabularies, references_at_once=5)
    assert [list(whole[i]["target"].shape) for i in range(2)] == [[3, 4], [1, 2]]


def test_one_reference_each_needs_no_dimension_for_them():
    examples = Examples(Pictures(["a"], ["a a"]), {"target": Vocabulary(["a"])}, references_at_once=5)
    assert [examples[i]["target"].tolist() for i in range(2)] == [[4, EOS], [4, 4, EOS]]


@pytest.mark.parametrize("captions, flips", [(["a dog", "a cat"], 1), (["a dog", "a left paw"], 0)])
def test_a_picture_is_mirrored_if_all_its_references_allow_it(captions, flips):
    vocabularies = {"target": Vocabulary(["a"])}
    examples = Examples(Pictures(captions), vocabularies, True, references_at_once=2)
    draws = [examples[0, epoch]["augmentation"][-1].item() for epoch in range(20)]
    assert (min(draws) < 0.5) == flips


def test_epoch_none_gives_a_picture_without_words(pairs):
    example = pairs[5, None]
    assert example["target"].tolist() == [PAD]
    assert list(example) == list(pairs[5, 1]) and torch.equal(example["image"], pairs[5]["image"])
    assert collate([example, pairs[4, 1]])["target"][0].unique().tolist() == [PAD]


def test_augmentation_depends_on_seed_epoch_and_index_only(pairs):
    def draws():
        found = {}
        other = Examples(pairs.data, pairs.vocabularies, True, seed=4)
        for seed, examples in ((3, pairs), (4, other)):
            for epoch, index in product(range(7), (0, 1, 5, 36)):
                draw = examples[index, epoch]["augmentation"]
                found[seed, epoch, index] = tuple(draw.tolist())
        return found

    def generators():
        return torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    torch.manual_seed(1)
    before = generators()
    first = draws()
    after = generators()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    torch.manual_seed(2)
    assert draws() == first and len({*first.values()}) == len(first)
    assert tuple(pairs[5]["augmentation"].tolist()) == first[3, 0, 5]


def test_augmentation_leaves_the_generator_of_the_gpu_alone(pairs, monkeypatch):
    def fail(seed):
        pytest.fail("the GPU's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)
    assert pairs[0]["augmentation"].shape == (8,)


def test_augmentation_is_uniform(pairs):
    keys = product(range(37), range(29))  # (index, epoch)
    draws = torch.stack([pairs[key]["augmentation"] for key in keys])  # (1073, 8)
    assert draws.dtype == torch.float32 and 0 <= draws.min() < 0.01 and 0.99 < draws.max() < 1
    assert (draws.mean(0) - 1 / 2).abs().max() < 0.04  # 4 standard deviations
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
    def batch_of(text):
        examples = Examples(Pictures([text]), {"target": Vocabulary([])}, True)
        return collate([examples[0, epoch] for epoch in range(200)])

    batch = batch_of(caption)
    other = batch_of("word")
    mirror = batch["augmentation"][:, -1]
    assert torch.equal(batch["augmentation"][:, :-1], other["augmentation"][:, :-1])
    if may_be_mirrored:
        assert 70 < (mirror < 0.5).sum() < 130 and mirror.max() < 1
    else:
        assert mirror.unique().tolist() == [1]
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
    words = Counter()
    for batch in chain.from_iterable(batches):
        words.update((batch["target"] != PAD).sum(1).tolist())
    blanks = words.pop(0, 0)
    assert words == Counter(pairs.lengths)
    assert blanks == max(processes - 37 % 8, 0)  # of the batch of 5


def test_to_device_augments_pictures_that_have_draws(pairs):
    batch = collate([pairs[i, 2] for i in range(5)])
    before = dict(batch)
    moved = to_device(batch, CPU)
    assert batch.keys() == before.keys() and all(batch[name] is before[name] for name in before)
    augmented = augment(batch["image"], batch["augmentation"])
    assert same_batch(moved, {"image": augmented, "target": batch["target"]})
    assert not torch.equal(moved["image"], batch["image"])
    del batch["augmentation"]
    assert same_batch(to_device(batch, CPU), batch)


class Recordings(DataSet):
    """Sounds of 20 to 44 frames that have no zeros, two transcripts each; "left" is one of them."""

    def __init__(self, count=7):
        super().__init__()
        self.texts = [["left", "right it is"]] * count
        self.references = [[tokenize(text) for text in texts] for texts in self.texts]
        self.names = [f"sound {i}" for i in range(count)]
        self.columns["sound"] = LazyColumn(self.sound, range(count))

    def sound(self, index):
        generator = torch.Generator().manual_seed(index)
        return 1 + torch.rand(20 + 4 * index, 80, generator=generator)


def recorded():
    return Examples(Recordings(), {"target": Vocabulary(["left"])}, augmented=True, seed=3)


def test_inputs_of_a_modality_are_its_tensor_and_its_lengths_if_padded():
    lengths = torch.tensor([7, 2])
    batch = {"sound": torch.ones(2, 7, 3), "sound_lengths": lengths, "image": torch.ones(2, 3, 5)}
    sound, sound_lengths = inputs_of(batch, "sound")
    assert sound is batch["sound"] and sound_lengths is lengths
    (image,) = inputs_of(batch, "image")
    assert image is batch["image"]


def test_items_with_sounds_are_as_large_as_these():
    """Not as their texts, which have few words: that is what makes batches of similar sounds."""
    data = Recordings(count=3)
    vocabularies = {"target": Vocabulary(["left"])}
    examples = Examples(data, vocabularies)
    assert examples.sizes == examples.lengths == [2, 4] * 3
    data.columns["sound"].lengths = [20, 24, 28]
    examples = Examples(data, vocabularies)
    assert examples.sizes == [20, 20, 24, 24, 28, 28] and examples.lengths == [2, 4] * 3
    examples = Examples(Subset(data, [2, 0]), vocabularies, references_at_once=2)
    assert examples.sizes == [28, 20]


def test_to_device_augments_sounds_that_have_draws():
    examples = recorded()
    batch = collate([examples[i, 2] for i in (0, 5, 11)])
    assert batch["sound_lengths"].tolist() == [20, 28, 40]
    moved = to_device(batch, CPU)
    augmented = augment_spectrogram(batch["sound"], batch["sound_lengths"], batch["augmentation"])
    others = {name: batch[name] for name in ("sound_lengths", "target")}
    assert same_batch(moved, others | {"sound": augmented})
    for i, length in enumerate([20, 28, 40]):
        blanked = moved["sound"][i, :length] == 0
        assert 0 < blanked.float().mean() < 0.9
        assert (moved["sound"][i, :length][~blanked] >= 1).all()  # those values did not change


def test_augmentation_of_sounds_is_the_same_in_every_process():
    order = [(0, 1), (5, 1), (11, 1)]
    batches = [to_device(collate([recorded()[key] for key in order]), CPU) for _ in range(2)]
    assert same_batch(*batches)
    later = to_device(collate([recorded()[index, 2] for index, _ in order]), CPU)
    assert not torch.equal(later["sound"], batches[0]["sound"])
    other = Examples(Recordings(), {"target": Vocabulary(["left"])}, augmented=True, seed=4)
    other = to_device(collate([other[key] for key in order]), CPU)
    assert not torch.equal(other["sound"], batches[0]["sound"])


def test_draws_of_sounds_do_not_depend_on_the_sides_that_a_transcript_mentions():
    examples = recorded()
    last = [examples[index, epoch]["augmentation"][-1] for index in range(14) for epoch in range(9)]
    assert max(last) < 1 and len(set(map(float, last))) == len(last)


def test_sounds_are_not_augmented_unless_asked():
    examples = Examples(Recordings(), {"target": Vocabulary(["left"])})
    assert examples[3, 1].keys() == {"sound", "target"}


def prefetcher_of(kind, workers, start_method="fork"):
    loader = loader_of(captioned(kind), 8, seed=7, workers=workers)
    if workers:
        if start_method not in torch.multiprocessing.get_all_start_methods():
            pytest.skip(f"no {start_method} here")
        loader.multiprocessing_context = start_method
    return Prefetcher(loader, CPU)


def prefetched(prefetcher, epoch, skip=0, prefetches=0):
    """The batches of a prefetcher, which prefetches while each is in use."""
    # islice: a prefetcher that never ends fails its test
    for batch in islice(prefetcher.batches(epoch, skip), 99):
        for _ in range(prefetches):
            prefetcher.prefetch()
        yield batch


def expected(pairs, epoch, skip=0):
    for batch in sampled(epoch, skip, lengths=pairs.lengths, batch_size=8, seed=7):
        yield to_device(collate([pairs[index] for index in batch]), CPU)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_prefetcher_yields_the_augmented_batches(workers, pairs):
    prefetcher = prefetcher_of(Pictures, workers)
    passes = [(0, 0, 0), (1, 2, 1), (1, 0, 2), (2, 4, 1), (2, 5, 1), (4, 0, 1)]
    for epoch, skip, prefetches in passes:
        batches = list(prefetched(prefetcher, epoch, skip, prefetches))
        assert len(batches) == 5 - skip and same(batches, expected(pairs, epoch, skip))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_early_leaves_no_batch_behind(workers, pairs):
    prefetcher = prefetcher_of(Pictures, workers)
    for _ in prefetched(prefetcher, 0, prefetches=1):
        break
    assert same(prefetched(prefetcher, 1), expected(pairs, 1))


def test_prefetch_fetches_one_batch_ahead(monkeypatch):
    read = []

    def picture(data, index):
        read.append(index)
        return torch.zeros(3, 23, 23).byte()

    monkeypatch.setattr(Pictures, "picture", picture)
    prefetcher = prefetcher_of(Pictures, 0)
    for epoch, ahead in ((0, False), (1, True)):
        batches = sampled(epoch, lengths=captioned().lengths, batch_size=8, seed=7)
        so_far = np.cumsum([len(batch) for batch in batches])
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
    for _ in prefetched(prefetcher, 0, prefetches=prefetches):
        seconds.append(prefetcher.data_time.seconds())
        now[0] += 100  # the model computes
        assert prefetcher.data_time.seconds() == 0
    assert seconds == ([0.5] + [0.25] * 35 + [0] if prefetches else [0.25] * 37)


class Deadly(Pictures):
    """Picture 11 harms the worker that reads it, slowly, so that the trainer waits for the batch."""

    harmless = 0  # the number of readings before that

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
    harmless = 2  # the first epoch, which reads it for both of its captions


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


def error_message(prefetcher, epoch=0):
    """The error message of a prefetcher whose worker dies or fails."""
    try:
        list(prefetched(prefetcher, epoch))
    except ChildProcessError as error:
        # The traceback keeps the workers alive in a reference cycle.
        error.__context__.__traceback__ = None
        return str(error)
    pytest.fail("no error")


@pytest.mark.parametrize("kind, workers", [(Killing, 1), (Killing, 2), (Exiting, 2)])
def test_a_worker_that_dies_is_reported_in_one_line(kind, workers):
    how = r"was killed \(Killed\)" if kind is Killing else "ended"
    message = error_message(prefetcher_of(kind, workers))
    assert re.fullmatch(rf"the data worker of process \d+ {how}", message)


def test_spawned_workers_give_the_same_batches_and_are_watched():
    prefetcher = prefetcher_of(KillingLater, 1, "spawn")
    assert same(prefetched(prefetcher, 0), expected(captioned(), 0))
    message = error_message(prefetcher, 1)
    assert re.fullmatch(r"the data worker of process \d+ was killed \(Killed\)", message)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_while_the_model_computes_is_reported(workers):
    prefetcher = prefetcher_of(Killing, workers)
    says = r"^the data worker of process \d+ was killed \(Killed\)$"
    with pytest.raises(ChildProcessError, match=says), prefetcher.worker_errors():
        for _ in prefetcher.batches(0):
            time.sleep(2)  # long enough for the report


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_errors_are_reported_in_one_line(workers):
    message = error_message(prefetcher_of(Broken, workers))
    assert message == "a data worker failed: ValueError: picture 11: broken"


def test_errors_without_workers_are_raised_unchanged():
    with pytest.raises(ValueError, match="^picture 11: broken$"):
        list(prefetched(prefetcher_of(Broken, 0), 0))


@pytest.fixture
def sigterm_handler():
    """A trainer that ignores SIGTERM, as its workers then do by inheritance."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_a_worker(sigterm_handler):
    assert error_message(prefetcher_of(Terminating, 1)).endswith("was killed (Terminated)")


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_does_not_end_a_worker(workers):
    assert same(prefetched(prefetcher_of(Interrupting, workers), 0), expected(captioned(), 0))


def test_memory_is_pinned_with_cuda(pairs, monkeypatch):
    for available in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        assert loader_of(pairs, 8).pin_memory == available


def test_examples_can_be_pickled(pairs):
    for dataset in (pairs, loader_of(pairs, 8, workers=2).dataset):
        again = pickle.loads(pickle.dumps(dataset))
        assert same_batch(again[3, 1], pairs[3, 1])


def compute(device):
    """Keep a GPU busy for some milliseconds."""
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
            # The clones are queued behind the computation.
            copies.append({name: value.clone() for name, value in batch.items()})
            for _ in range(prefetches):  # must not overwrite memory that the clones still read
                prefetcher.prefetch()
        others = list(expected(pairs, epoch, skip))
        assert len(copies) == len(others) == 5 - skip
        for copy, other in zip(copies, others):
            assert list(copy) == list(other) and all(value.is_cuda for value in copy.values())
            assert torch.equal(copy["target"].cpu(), other["target"])
            assert (copy["image"].cpu().int() - other["image"].int()).abs().max() <= 1


@pytest.mark.gpu
def test_prefetcher_gpu_memory_is_flat(pairs):
    prefetcher = Prefetcher(loader_of(pairs, 8), torch.device("cuda"))
    used = []
    for epoch in range(40):  # of 5 batches
        for _ in prefetched(prefetcher, epoch, prefetches=1):
            torch.mm(torch.ones(257, 257, device="cuda"), torch.ones(257, 257, device="cuda"))
        torch.cuda.synchronize()
        used.append(torch.cuda.memory_allocated())
    # of the 100 batches in between, no more than 20 are still in memory
    assert max(used[20:]) - min(used[:20]) < 20 * 8 * 3 * 23 * 23


class Translated(Pictures):
    """Sentences, each with one translation, and with a picture if `has_image` says so."""

    def __init__(self, has_image, *pairs):
        super().__init__(*([translation] for _, translation in pairs))
        self.columns["source"] = [tokenize(source) for source, _ in pairs]
        if has_image is not None:
            self.columns["image"].keys = [i if has_image[i] else None for i in range(len(pairs))]


SENTENCES = [
    ("one", "eins zwei drei"),
    ("one two three four five", "eins"),
    ("two one", "zwei eins"),
]
SOURCE = Vocabulary(["one", "two", "three", "four", "five"])
TARGET = Vocabulary(["drei", "eins", "zwei"])


def translations(has_image=None, sentences=SENTENCES, **options):
    data = Translated(has_image, *sentences)
    return Examples(data, {"target": TARGET, "source": SOURCE}, **options)


def test_pairs_of_a_translation_have_the_words_of_both_languages():
    pairs = translations()
    assert pairs.lengths == [4, 6, 3] and len(pairs) == 3  # the longer of the two, with <eos>
    sources = [[4, EOS], [4, 5, 6, 7, 8, EOS], [5, 4, EOS]]
    targets = [[5, 6, 4, EOS], [5, EOS], [6, 5, EOS]]
    assert [pairs[i]["source"].tolist() for i in range(3)] == sources
    assert [pairs[i]["target"].tolist() for i in range(3)] == targets
    assert pairs[2]["source"].dtype == pairs[2]["target"].dtype == torch.long
    assert [pairs[i]["image"][0, 0, -1].item() for i in range(3)] == [255, 254, 253]
    assert pairs[1, None]["target"].tolist() == [PAD]  # no words: not in the loss


@pytest.mark.parametrize("has_image, names", [
    (None, {"target", "source", "image", "augmentation"}),
    ([True, False, True], {"target", "source", "image", "has_image", "augmentation", "has_augmentation"}),
    ([False, False, False], {"target", "source"}),
])  # fmt: skip
def test_has_image_is_in_the_batch_if_some_lack_a_picture(has_image, names):
    pairs = translations(has_image, augmented=True)
    for i in range(3):
        seen = {"image", "augmentation"} if has_image is None or has_image[i] else set()
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
        assert batch["has_image"].dtype == torch.bool and batch["has_image"].tolist() == has_image
    moved = to_device(batch, CPU)
    assert moved.keys() == names - {"augmentation", "has_augmentation"}
    if "has_image" in names:
        seen = torch.tensor([0, 2])
        expected = augment(batch["image"][seen], batch["augmentation"][seen])
        assert torch.equal(moved["image"][seen], expected)


def test_numericalize_converts_modalities_with_a_vocabulary():
    picture = torch.zeros(3, 2, 2)
    vocabularies = {"target": TARGET, "source": SOURCE}
    example = numericalize({"source": ["two", "one"], "image": picture}, vocabularies)
    assert example.keys() == {"source", "image"} and example["image"] is picture
    assert example["source"].tolist() == [5, 4, EOS]
    assert numericalize({"image": picture}, vocabularies).keys() == {"image"}


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_keeps_sentence_and_picture_together(workers):
    words = []
    for i in range(23):
        words.append((" ".join(["one"] * (1 + i % 3)), " ".join(["eins"] * (1 + 5 * i % 7))))
    pairs = translations([i % 2 == 0 for i in range(23)], words)
    with_picture = []
    without_picture = []
    names = ("image", "source", "target", "has_image")
    for batch in prefetched(Prefetcher(loader_of(pairs, 5, seed=1, workers=workers), CPU), 0):
        columns = [batch[name] for name in names]
        for image, source, target, has_image in zip(*columns, strict=True):
            lengths = (source > EOS).sum().item(), (target > EOS).sum().item()
            if has_image:
                i = 255 - image[0, 0, -1].item()
                assert lengths == (1 + i % 3, 1 + 5 * i % 7)
                with_picture.append(i)
            else:
                assert not image.any()
                without_picture.append(lengths)
    assert sorted(with_picture) == list(range(0, 23, 2)) and with_picture != sorted(with_picture)
    assert Counter(without_picture) == Counter((1 + i % 3, 1 + 5 * i % 7) for i in range(1, 23, 2))


@pytest.mark.parametrize("source, target", [
    ("a cat on the left", "eine Katze links"), ("a cat", "eine Katze auf der rechten Seite"), ("a cat on the left", "un chat"),
])  # fmt: skip
def test_pictures_are_not_mirrored_if_a_sentence_mentions_a_side(source, target):
    pairs = translations(None, [(source, target), ("a cat", "eine Katze")], augmented=True)

    def count_mirrored(i):
        return sum(pairs[i, epoch]["augmentation"][-1] < 0.5 for epoch in range(29))

    assert count_mirrored(0) == 0 and 5 < count_mirrored(1) < 25
