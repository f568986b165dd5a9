"""Features of a frozen backbone: what is kept, under which name, and that training reads it."""

import multiprocessing
import time

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mmscratch.batches import Examples, collate, to_device
from mmscratch.data.dataset import DataSet, LazyColumn
from mmscratch.engine.devices import Precision
from mmscratch.features import FeatureCache, feature_key
from mmscratch.images import normalize
from mmscratch.model import ModelConfig, build_model
from mmscratch.text import Vocabulary
from mmscratch.vision import ResNet

CPU = torch.device("cpu")
FLOAT32 = Precision(CPU, torch.float32, False)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("mmscratch.engine.cache.CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def frozen(width=5):
    backbone = ResNet([1, 1], num_classes=None, width=width).eval()
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    return backbone


def random_pictures(count=3):
    return list(torch.randint(256, (count, 3, 33, 33), dtype=torch.uint8))


@torch.no_grad()
def features_of(backbone, *pictures):
    return backbone.features(normalize(torch.stack(pictures))).half()


def test_features_are_those_of_the_backbone():
    backbone = frozen()
    pictures = random_pictures(53)  # more than are computed at a time
    cache = FeatureCache(backbone, pictures, 1, FLOAT32)
    expected = features_of(backbone, *pictures)
    for i in range(53):
        assert_close(cache.example(i)["image"], expected[i], rtol=1e-3, atol=1e-3)
    assert len(cache) == 53 and cache.example(0)["image"].dtype == torch.float16


def test_equal_pictures_share_a_row_and_an_example_may_have_none():
    a, b = random_pictures(2)
    cache = FeatureCache(frozen(), [None, a, b, a.clone(), None], 1, FLOAT32)
    assert len(cache) == 2 and cache.example(0) == cache.example(4) == {}
    assert torch.equal(cache.example(1)["image"], cache.example(3)["image"])
    assert not torch.equal(cache.example(1)["image"], cache.example(2)["image"])


def draws(crop, mirrored):
    values = torch.full((8,), 0.7)
    values[0] = 0.2 if crop else 0.7
    values[-1] = 0.2 if mirrored else 1.0
    return values


def test_the_draws_choose_among_four_views():
    backbone = frozen()
    (picture,) = random_pictures(1)
    cache = FeatureCache(backbone, [picture], 4, FLOAT32)
    views = {}
    for crop in (False, True):
        for mirrored in (False, True):
            views[crop, mirrored] = cache.example(0, draws(crop, mirrored))["image"]
    whole, flipped = features_of(backbone, picture, picture.flip(-1))
    assert_close(views[False, False], whole, rtol=1e-3, atol=1e-3)
    assert_close(views[False, True], flipped, rtol=1e-3, atol=1e-3)
    assert torch.equal(cache.example(0)["image"], views[False, False])
    for mirrored in (False, True):
        assert not torch.equal(views[True, mirrored], views[False, mirrored])
    assert not torch.equal(views[True, False], views[True, True])


def test_the_key_depends_on_weights_statistics_pictures_views_and_format():
    def key(change=None, digests=("a", "b"), views=1, dtype=torch.float32):
        torch.manual_seed(0)
        backbone = frozen()
        if change:
            change(backbone)
        return feature_key(backbone, digests, views, dtype)

    def nudge(backbone):
        backbone.layer2[0].conv2.weight.data[0, 0, 0, 0] += 1e-6

    def move_mean(backbone):
        backbone.bn1.running_mean[0] += 1e-6

    keys = [
        key(),
        key(nudge),
        key(move_mean),
        key(digests=("b", "a")),
        key(digests=("a",)),
        key(digests=("ab",)),  # not the same as "a", "b"
        key(views=4),
        key(dtype=torch.bfloat16),
    ]
    assert key() == keys[0] and len(set(keys)) == len(keys)
    assert len(key()) == 20 and set(key()) <= set("0123456789abcdef")


def test_a_backbone_that_can_learn_is_refused():
    backbone = frozen()
    backbone.conv1.weight.requires_grad_()
    with pytest.raises(ValueError, match="of a frozen backbone only"):
        FeatureCache(backbone, random_pictures(), 1, FLOAT32)


def test_features_are_computed_once(cache, monkeypatch):
    backbone = frozen()
    pictures = random_pictures()
    first = FeatureCache(backbone, pictures, 1, FLOAT32)
    monkeypatch.setattr(backbone, "features", lambda _: pytest.fail("computed again"))
    second = FeatureCache(backbone, pictures, 1, FLOAT32)
    assert torch.equal(first.example(2)["image"], second.example(2)["image"])
    with pytest.raises(pytest.fail.Exception):
        FeatureCache(backbone, random_pictures(), 1, FLOAT32)


def test_an_interruption_leaves_nothing(cache, monkeypatch):
    backbone = frozen()
    pictures = random_pictures(103)
    features = backbone.features
    calls = []

    def interrupted(images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return features(images)

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            FeatureCache(backbone, pictures, 1, FLOAT32)
    assert list(cache.iterdir()) == []
    again = FeatureCache(backbone, pictures, 1, FLOAT32)
    expected = features_of(backbone, pictures[102])[0]
    assert_close(again.example(102)["image"], expected, rtol=1e-3, atol=1e-3)


def _compute_slowly(folder, queue):
    """In another process: both compute, the one that is slower finds the other's."""
    import mmscratch.engine.cache

    mmscratch.engine.cache.CACHE = folder
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = frozen()
    pictures = random_pictures()
    features = backbone.features

    def slow(images):
        time.sleep(0.5)
        return features(images)

    backbone.features = slow
    queue.put(FeatureCache(backbone, pictures, 1, FLOAT32).example(1)["image"].tolist())


def test_two_processes_may_compute_the_same(cache):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_compute_slowly, args=(cache, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert results[0] == results[1] and len(list(cache.iterdir())) == 1


class Photos(DataSet):
    """Pictures with two captions each; the second one lacks a picture."""

    def __init__(self, pictures):
        super().__init__()
        keys = [0, None, *range(1, len(pictures))]
        self.columns["image"] = LazyColumn(pictures.__getitem__, keys)
        self.references = [[["a", "dog"], ["dog"]] for _ in keys]


def test_examples_have_features_in_place_of_pictures():
    backbone = frozen()
    data = Photos(random_pictures())
    examples = Examples(data, {"target": Vocabulary(["a", "dog"])}, augmented=True)
    examples.features = FeatureCache(backbone, data.columns["image"], 4, FLOAT32)
    assert examples[0].keys() == {"image", "target"} and examples[2].keys() == {"target"}
    assert examples[0]["image"].shape == backbone.features(torch.zeros(1, 3, 33, 33)).shape[1:]
    seen = {tuple(examples[0, epoch]["image"].flatten().tolist()) for epoch in range(40)}
    assert len(seen) == 4
    batch = to_device(collate([examples[i] for i in range(4)]), CPU)
    assert batch["has_image"].tolist() == [True, True, False, False]
    assert batch["image"].dtype == torch.float16
    examples.data.references[0][0] = ["left"]
    unmirrored = {tuple(examples[0, epoch]["image"].flatten().tolist()) for epoch in range(40)}
    assert len(unmirrored) == 2


@torch.no_grad()
def test_a_model_gives_the_same_for_pictures_and_their_features():
    image = {"name": "resnet", "image_size": 33, "depth": (1, 1), "width": 5, "num_layers": 1}
    config = ModelConfig(7, {"image": image}, {"name": "lstm", "hidden_size": 13}, embed_dim=12)
    model = build_model(config).eval()
    nn.init.normal_(model.encoders["image"].backbone.bn1.running_mean)
    pictures = torch.stack(random_pictures())
    backbone = model.encoders["image"].backbone.requires_grad_(False)
    cache = FeatureCache(backbone, pictures, 1, FLOAT32)
    features = torch.stack([cache.example(i)["image"] for i in range(3)])
    target = torch.tensor([[4, 5, 2]]).repeat(3, 1)
    expected = model({"image": pictures, "target": target})
    found = model({"image": features, "target": target})
    assert_close(found, expected, rtol=5e-3, atol=5e-3)
