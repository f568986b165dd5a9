"""Shards as a stream: which process reads what, in which order, and where it goes on."""

from collections import Counter

import pytest
import torch

from mmscratch import streaming
from mmscratch.streaming import ShardSampler, deal_shards


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_shards", [7, 8, 23])
def test_every_shard_goes_to_one_process(num_shards, world_size):
    for epoch in range(3):
        hands = [deal_shards(num_shards, epoch, 5, rank, world_size) for rank in range(world_size)]
        assert sorted(sum(hands, [])) == list(range(num_shards))
        assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_shards_are_shuffled_by_seed_and_epoch_only():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = deal_shards(23, 0)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    torch.manual_seed(2)
    assert deal_shards(23, 0) == first != list(range(23))
    assert deal_shards(23, 1) != first != deal_shards(23, 0, seed=1)
    # one process reads what two read, in the same order
    merged = [None] * 23
    merged[0::2] = deal_shards(23, 0, 0, 0, 2)
    merged[1::2] = deal_shards(23, 0, 0, 1, 2)
    assert merged == first


def test_fewer_shards_than_processes_are_refused():
    with pytest.raises(ValueError):
        deal_shards(2, 0, 0, 0, 3)
    with pytest.raises(ValueError):
        ShardSampler([5, 5], 3, shard=(0, 3))


SIZES = [13, 5, 1, 29, 7, 17, 11]  # 83 examples


def read(rank, world_size, epoch=0, skip=0, batch_size=6, sizes=SIZES):
    sampler = ShardSampler(sizes, batch_size, seed=3, shard=(rank, world_size))
    sampler.start(epoch, skip)
    return list(sampler)


@pytest.mark.parametrize("window", [4, 19, 1000])
def test_one_process_reads_nearly_everything_once(window, monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW", window)
    batches = read(0, 1)
    assert len(batches) == 83 // 6 and {len(batch) for batch in batches} == {6}
    counts = Counter(example for batch in batches for example, _ in batch)
    assert set(counts.values()) == {1} and set(counts) <= set(range(83))
    assert {epoch for batch in batches for _, epoch in batch} == {0}
    order = [example for batch in batches for example, _ in batch]
    assert order != sorted(order) and read(0, 1) == batches
    assert read(0, 1, epoch=1) != batches


def test_examples_of_a_window_are_near_one_another(monkeypatch):
    """A window of 10 examples never has more shards open than overlap with it."""
    monkeypatch.setattr(streaming, "WINDOW", 10)
    starts = [sum(SIZES[:i]) for i in range(len(SIZES))]

    def shard_of(example):
        return max(i for i, start in enumerate(starts) if start <= example)

    order = [example for batch in read(0, 1, batch_size=1) for example, _ in batch]
    hand = deal_shards(len(SIZES), 0, 3)
    stretched = [shard for shard in hand for _ in range(SIZES[shard])]
    for first in range(0, 80, 10):
        found = Counter(map(shard_of, order[first : first + 10]))
        assert found == Counter(stretched[first : first + 10])
    in_order = [starts[shard] + i for shard in hand for i in range(SIZES[shard])]
    assert order != in_order and sorted(order) == list(range(83))


@pytest.mark.parametrize("world_size", [2, 3, 4])  # 4 does not divide the batch size of 6
def test_processes_read_different_shards_and_equally_many_batches(world_size):
    parts = [read(rank, world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {13}
    seen = [{example for batch in part for example, _ in batch} for part in parts]
    for a in range(world_size):
        for b in range(a):
            assert not seen[a] & seen[b]
    sizes = [sum(len(part[i]) for part in parts) for i in range(13)]
    assert sizes == [6] * 13


def test_a_process_with_few_examples_begins_again():
    parts = [read(rank, 2, sizes=[3, 37], batch_size=4) for rank in range(2)]
    counts = [Counter(example for batch in part for example, _ in batch) for part in parts]
    assert sorted(map(len, counts)) == [3, 20]
    small = min(counts, key=len)
    assert max(small.values()) - min(small.values()) <= 1 and sum(small.values()) == 20


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("skip", [1, 5, 12, 13])
def test_skipping_batches_goes_on_where_it_was(rank, skip, monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW", 7)
    assert read(rank, 2, epoch=4, skip=skip) == read(rank, 2, epoch=4)[skip:]


def test_a_process_without_a_share_gets_an_example_that_does_not_count():
    (batch, *_) = read(2, 3, batch_size=2)
    assert len(batch) == 1 and batch[0][1] is None


def test_few_examples_make_one_batch():
    assert [len(batch) for batch in read(0, 1, sizes=[2, 1], batch_size=8)] == [8]


def test_ten_million_examples_need_no_list():
    """Where to go on is computed, and only a window is listed."""
    sampler = ShardSampler([10_000] * 1000, 64, shard=(3, 8))
    sampler.start(0, skip=100_000)
    batch = next(iter(sampler))
    assert len(batch) == 8 and len(sampler) == 156_250
