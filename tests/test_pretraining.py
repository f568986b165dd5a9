"""The CNN that learns what is in a picture: its labels, its training, and what is kept of it."""

import copy
import random

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mmscratch.images import normalize
from mmscratch.pretraining import LABELS, labelled_scenes, predict_labels, pretrained_cnn, train_labels
from mmscratch.scenes import SPLITS, Scene, render
from mmscratch.vision import ResNet


@pytest.fixture(autouse=True)
def seed(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("mmscratch.pretraining.pick_device", lambda: torch.device("cpu"))  # where runs repeat to the bit


def tiny():
    return ResNet((1,), num_classes=len(LABELS), width=8)


@pytest.mark.parametrize("split", SPLITS)
def test_the_labels_are_the_words_of_the_scene(split):
    images, labels = labelled_scenes(split, 53, size=37)
    assert (images.dtype, images.shape) == (torch.uint8, (53, 3, 37, 37))
    assert (labels.dtype, labels.shape) == (torch.bool, (53, len(LABELS)))
    for n in range(53):
        scene = Scene(SPLITS[split] + n)
        words = [word for thing in scene.things for word in (thing.noun, thing.colour, thing.size)]
        assert [word for word, there in zip(LABELS, labels[n]) if there] == [word for word in LABELS if word in words]
        assert set(words) <= set(LABELS)
        assert_close(images[n].permute(1, 2, 0).numpy(), np.array(render(scene, 37)))


def test_every_label_is_there_once_and_the_size_is_64_where_none_is_said():
    assert len(set(LABELS)) == len(LABELS) == 32 + 8 + 2
    assert labelled_scenes("test", 2)[0].shape == (2, 3, 64, 64)


def test_train_labels_overfits_a_small_batch():
    images, labels = labelled_scenes("train", 32, size=32)
    model = ResNet((1, 1, 1), num_classes=len(LABELS), width=16)
    losses = train_labels(model, images, labels, epochs=200, batch_size=16)
    assert len(losses) == 2 * 200 and losses[-1] < losses[0] / 20
    assert torch.equal(predict_labels(model, images) > 0, labels)


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_does_not():
    images, labels = labelled_scenes("train", 37, size=32)
    start, weights = tiny(), []
    for seed, noise in ((3, 0), (3, 1), (5, 0)):
        torch.manual_seed(noise)  # the global state has no say
        model = copy.deepcopy(start)
        train_labels(model, images, labels, epochs=3, batch_size=7, seed=seed)
        weights.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values()))
    assert not torch.equal(weights[0]["conv1.weight"], weights[2]["conv1.weight"])
    assert not torch.equal(weights[0]["conv1.weight"], start.conv1.weight)


def test_a_label_weighs_the_less_the_commoner_it_is():
    images, labels = labelled_scenes("train", 29, size=32)
    counts = [max(sum(row), 1) for row in labels.T.tolist()]  # a label that is never there counts as one that is once
    assert min(labels.sum(0)) == 0 and len(set(counts)) > 5
    weight = torch.tensor([min(counts) / count for count in counts])
    model = tiny()
    share = model.train()(normalize(images)).sigmoid()
    entropy = -torch.where(labels, share, 1 - share).log()  # (29, L)
    [loss] = train_labels(copy.deepcopy(model), images, labels, epochs=1, batch_size=29)
    assert loss == pytest.approx((weight * entropy).mean().item(), rel=1e-5)
    assert loss < 0.9 * entropy.mean().item()


def test_predictions_do_not_depend_on_their_neighbours():
    images = torch.randint(256, (263, 3, 32, 32), dtype=torch.uint8)  # more than are predicted at once
    model = tiny()
    for _ in range(3):
        model.train()(normalize(images[:50]))  # batch-norm statistics unlike those of a new model
    before = copy.deepcopy(model.state_dict())
    logits = predict_labels(model.train(), images)
    assert not model.training and not logits.requires_grad and logits.shape == (263, len(LABELS))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    assert_close(logits, torch.cat([predict_labels(model.train(), cut) for cut in images.split(7)]), rtol=1e-5, atol=1e-5)
    assert_close(logits, model.eval()(normalize(images)).detach(), rtol=1e-5, atol=1e-5)
    assert (logits - model.train()(normalize(images))).abs().max() > 0.01


def test_pretrained_cnn_is_trained_once(tmp_path, monkeypatch, capsys):
    path = tmp_path / "runs" / "cnn.pt"
    trained = pretrained_cnn(path, scenes=64)
    assert capsys.readouterr().out == f"{path} is not there: a CNN is trained on 64 scenes and kept there\n"
    assert [file.name for file in path.parent.iterdir()] == ["cnn.pt"] and not trained.training
    assert trained.bn1.num_batches_tracked == 2 * 64 // 32

    monkeypatch.setattr("mmscratch.pretraining.train_labels", lambda *_: pytest.fail("trained again"))
    read = pretrained_cnn(path, scenes=64)
    assert capsys.readouterr().out == f"the CNN of {path}, trained before, is used\n"
    assert not read.training
    for (name, a), (other, b) in zip(trained.state_dict().items(), read.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)


def test_pretrained_cnn_leaves_the_random_state_alone_and_does_not_hang_on_it(tmp_path):
    weights = []
    for noise in (3, 5):
        torch.manual_seed(noise)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        weights.append(pretrained_cnn(tmp_path / f"{noise}.pt", scenes=32).conv1.weight)
        pretrained_cnn(tmp_path / f"{noise}.pt", scenes=32)  # read
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert torch.equal(*weights)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "half"], ids=["empty", "text", "half"])
def test_pretrained_cnn_refuses_a_broken_file_and_keeps_it(tmp_path, content, monkeypatch):
    path = tmp_path / "cnn.pt"
    if content == "half":
        torch.save({"model": ResNet((1, 1, 1), num_classes=len(LABELS), width=32).state_dict()}, path)
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    monkeypatch.setattr("mmscratch.pretraining.train_labels", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match="cnn.pt: not a checkpoint that can be read"):
        pretrained_cnn(path, scenes=64)
    assert path.read_bytes() == content


@pytest.mark.parametrize("saved", [{"model": {}}, {"model": {}, "labels": ("cat",)}, [1, 2]], ids=["none", "others", "a list"])
def test_a_file_of_another_model_is_refused_by_name(saved, tmp_path):
    torch.save(saved, tmp_path / "cnn.pt")
    with pytest.raises(ValueError, match="cnn.pt: not a CNN that knows these labels"):
        pretrained_cnn(tmp_path / "cnn.pt", 64)


def test_fewer_pictures_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="7 pictures do not fill a batch of 32"):
        train_labels(ResNet((1,), num_classes=len(LABELS), width=5), *labelled_scenes("train", 7, 32))
