"""The CNN that labels pictures, its extracted features, and decoders trained on them."""

import copy
import math
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.data.language import caption
from mmscratch.data.scenes import SPLITS, Scene, render
from mmscratch.decoding import greedy_search
from mmscratch.images import normalize
from mmscratch.pretraining import (
    LABELS,
    extract_features,
    labelled_scenes,
    predict_logits,
    pretrained_cnn,
    train_captioner,
    train_classifier,
)
from mmscratch.recurrent import LSTMDecoder
from mmscratch.text import BOS, EOS, PAD, Vocabulary, tokenize
from mmscratch.transformer import TransformerDecoder
from mmscratch.vision import ImageEncoder, ResNet


@pytest.fixture(autouse=True)
def seed(monkeypatch):
    torch.manual_seed(0)
    # On the CPU runs are bit-identical.
    monkeypatch.setattr("mmscratch.pretraining.pick_device", lambda: torch.device("cpu"))


def tiny():
    return ResNet((1,), num_classes=len(LABELS), width=8)


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_the_attributes_of_the_objects(split):
    images, labels = labelled_scenes(split, 53, size=37)
    assert (images.dtype, images.shape) == (torch.uint8, (53, 3, 37, 37))
    assert (labels.dtype, labels.shape) == (torch.bool, (53, len(LABELS)))
    for n in range(53):
        scene = Scene(SPLITS[split] + n)
        words = [word for obj in scene.objects for word in (obj.noun, obj.colour, obj.size)]
        labelled = [word for word, has_label in zip(LABELS, labels[n]) if has_label]
        assert labelled == [word for word in LABELS if word in words]
        assert set(words) <= set(LABELS)
        assert_close(images[n].permute(1, 2, 0).numpy(), np.array(render(scene, 37)))


def test_labels_are_unique_and_the_default_size_is_64():
    assert len(set(LABELS)) == len(LABELS) == 32 + 8 + 2
    assert labelled_scenes("test", 2)[0].shape == (2, 3, 64, 64)


def test_train_classifier_overfits_a_small_batch():
    images, labels = labelled_scenes("train", 32, size=32)
    model = ResNet((1, 1, 1), num_classes=len(LABELS), width=16)
    losses = train_classifier(model, images, labels, epochs=200, batch_size=16)
    assert len(losses) == 2 * 200 and losses[-1] < losses[0] / 20
    assert torch.equal(predict_logits(model, images) > 0, labels)


def test_same_seed_gives_bit_identical_weights_and_another_seed_does_not():
    images, labels = labelled_scenes("train", 37, size=32)
    start = tiny()
    weights = []
    for seed, noise in ((3, 0), (3, 1), (5, 0)):
        torch.manual_seed(noise)  # the global random state does not matter
        model = copy.deepcopy(start)
        train_classifier(model, images, labels, epochs=3, batch_size=7, seed=seed)
        weights.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values()))
    assert not torch.equal(weights[0]["conv1.weight"], weights[2]["conv1.weight"])
    assert not torch.equal(weights[0]["conv1.weight"], start.conv1.weight)


def test_frequent_labels_weigh_less():
    images, labels = labelled_scenes("train", 29, size=32)
    # An unused label weighs as much as one that is used once.
    counts = [max(sum(row), 1) for row in labels.T.tolist()]
    assert min(labels.sum(0)) == 0 and len(set(counts)) > 5
    weight = torch.tensor([min(counts) / count for count in counts])
    model = tiny()
    probability = model.train()(normalize(images)).sigmoid()
    entropy = -torch.where(labels, probability, 1 - probability).log()  # (29, L)
    [loss] = train_classifier(copy.deepcopy(model), images, labels, epochs=1, batch_size=29)
    assert loss == pytest.approx((weight * entropy).mean().item(), rel=1e-5)
    assert loss < 0.9 * entropy.mean().item()


def used(images):
    """A CNN whose batch-norm statistics differ from a new one's."""
    model = tiny()
    for _ in range(3):
        model.train()(normalize(images))
    return model


def test_predictions_do_not_depend_on_their_neighbours():
    images = torch.randint(256, (263, 3, 32, 32), dtype=torch.uint8)  # more than 250 at once
    model = used(images[:50])
    before = copy.deepcopy(model.state_dict())
    logits = predict_logits(model.train(), images)
    assert not model.training and not logits.requires_grad and logits.shape == (263, len(LABELS))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    in_sevens = torch.cat([predict_logits(model.train(), seven) for seven in images.split(7)])
    assert_close(logits, in_sevens, rtol=1e-5, atol=1e-5)
    assert_close(logits, model.eval()(normalize(images)).detach(), rtol=1e-5, atol=1e-5)
    assert (logits - model.train()(normalize(images))).abs().max() > 0.01


def test_pretrained_cnn_is_trained_once(tmp_path, monkeypatch, capsys):
    path = tmp_path / "runs" / "cnn.pt"
    trained = pretrained_cnn(path, scenes=64)
    assert capsys.readouterr().out == f"no CNN in {path} yet: training one on 64 scenes\n"
    assert [file.name for file in path.parent.iterdir()] == ["cnn.pt"] and not trained.training
    assert trained.bn1.num_batches_tracked == 2 * 64 // 32

    train = "mmscratch.pretraining.train_classifier"
    monkeypatch.setattr(train, lambda *_: pytest.fail("trained again"))
    read = pretrained_cnn(path, scenes=64)
    assert capsys.readouterr().out == f"using the pretrained CNN in {path}\n"
    assert not read.training
    assert_close(read.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_pretrained_cnn_neither_uses_nor_changes_the_random_state(tmp_path):
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
def test_pretrained_cnn_refuses_a_damaged_file_and_keeps_it(tmp_path, content, monkeypatch):
    path = tmp_path / "cnn.pt"
    if content == "half":
        model = ResNet((1, 1, 1), num_classes=len(LABELS), width=32)
        torch.save({"model": model.state_dict()}, path)
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    monkeypatch.setattr("mmscratch.pretraining.train_classifier", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match="cnn.pt: not a checkpoint that can be read"):
        pretrained_cnn(path, scenes=64)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "saved",
    [{"model": {}}, {"model": {}, "labels": ("cat",)}, [1, 2]],
    ids=["no labels", "other labels", "a list"],
)
def test_pretrained_cnn_refuses_the_file_of_another_model(saved, tmp_path):
    torch.save(saved, tmp_path / "cnn.pt")
    with pytest.raises(ValueError, match="cnn.pt: not a CNN for these labels"):
        pretrained_cnn(tmp_path / "cnn.pt", 64)


def test_fewer_pictures_than_a_batch_are_refused():
    images, labels = labelled_scenes("train", 7, 32)
    with pytest.raises(ValueError, match="7 pictures do not fill a batch of 32"):
        train_classifier(tiny(), images, labels)


# -------------------------------------------------------------------------------------------------
# A decoder is trained with a frozen CNN.


def test_extracted_features_are_those_of_the_cnn_in_eval_mode():
    images = torch.randint(256, (263, 3, 32, 32), dtype=torch.uint8)  # more than 250 at once
    model = used(images[:50])
    before = copy.deepcopy(model.state_dict())
    grids = extract_features(model.train(), images)
    assert not model.training and not grids.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    assert_close(grids, model.features(normalize(images)).detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(extract_features(model, images, torch.bfloat16), grids.bfloat16())


D = 13
PICTURES = 11


@pytest.fixture
def captioning():
    """A vocabulary, an encoder with one block, and grids and targets of 11 pictures.

    The pictures have one caption and two, alternately.
    """
    images, _ = labelled_scenes("train", PICTURES, 32)
    cnn = tiny()
    encoder = ImageEncoder(cnn, D, 32, num_layers=1)
    references = []  # of each picture
    for n in range(PICTURES):
        references.append([tokenize(caption(Scene(n), which)) for which in range(1 + n % 2)])
    vocabulary = Vocabulary.build(tokens for captions in references for tokens in captions)
    targets = []
    for captions in references:
        targets.append([torch.tensor([*vocabulary.encode(tokens), EOS]) for tokens in captions])
    return vocabulary, encoder, extract_features(cnn, images), targets


def new_decoder(kind, vocabulary):
    if kind == "lstm":
        return LSTMDecoder(len(vocabulary), D, 17)
    return TransformerDecoder(len(vocabulary), D, 1, 1)


class RecordingDecoder(nn.Module):
    """Returns the same logits for every word, and records its inputs."""

    def __init__(self, words):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(words))
        self.inputs = []
        self.memories = []

    def forward(self, tokens, memory):
        assert self.training
        self.inputs.append(tokens)
        self.memories.append(memory.tokens)
        return self.bias.expand(*tokens.shape, -1)


@contextmanager
def watched_steps(note):
    """Call note(optimizer) before every step of any optimizer."""
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: note(optimizer))
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_train_captioner_overfits_a_few_captions(kind):
    images, _ = labelled_scenes("train", 7, 32)
    cnn = ResNet((1, 1), num_classes=None, width=16)
    encoder = ImageEncoder(cnn, 32, 32)
    grids = extract_features(cnn, images)
    sentences = [tokenize(caption(Scene(n), n % 5)) for n in range(7)]
    vocabulary = Vocabulary.build(sentences)
    decoder = (
        LSTMDecoder(len(vocabulary), 32, 64)
        if kind == "lstm"
        else TransformerDecoder(len(vocabulary), 32, 2, 2)
    )
    targets = [[torch.tensor([*vocabulary.encode(sentence), EOS])] for sentence in sentences]
    losses = train_captioner(
        decoder, encoder, grids, targets, epochs=200, batch_size=7, learning_rate=5e-3
    )
    assert len(losses) == 200 and losses[-1] < losses[0] / 20
    hypotheses = greedy_search(decoder.eval(), encoder.eval().encode_features(grids))
    assert [vocabulary.decode(hypothesis.tokens) for hypothesis in hypotheses] == sentences


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_decoder_without_pictures_learns_a_language_model(kind):
    sentences = [tokenize(caption(Scene(n), n % 5)) for n in range(60)]
    vocabulary = Vocabulary.build(sentences)
    decoder = (
        LSTMDecoder(len(vocabulary), 32, 64)
        if kind == "lstm"
        else TransformerDecoder(len(vocabulary), 32, 2, 2)
    )
    targets = [[torch.tensor([*vocabulary.encode(sentence), EOS])] for sentence in sentences]
    losses = train_captioner(
        decoder, None, None, targets, epochs=40, batch_size=12, learning_rate=5e-3
    )
    memory = Memory.empty(1, 32)
    words = torch.tensor([[BOS, *targets[0][0][:-1]]])
    log_probs = decoder.eval()(words, memory).log_softmax(-1)[0]
    assert log_probs.shape == (len(targets[0][0]), len(vocabulary)) and log_probs.isfinite().all()
    # Grammar can be learned without pictures, the objects in them cannot.
    assert len(losses) == 200 and losses[-1] < 1.5 < losses[0] / 2
    generated = vocabulary.decode(greedy_search(decoder, memory)[0].tokens)
    assert {tuple(sentence[:2]) for sentence in sentences} >= {tuple(generated[:2])}


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_loss_is_the_mean_cross_entropy_of_true_next_words(kind, captioning):
    vocabulary, encoder, grids, targets = captioning
    decoder = new_decoder(kind, vocabulary)
    costs = []
    with torch.no_grad():
        for n in range(PICTURES):
            state = decoder.start(encoder.encode_features(grids[n : n + 1]))
            words = [BOS, *targets[n][0].tolist()]
            for word, next_word in zip(words, words[1:]):
                logits, state = decoder.step(torch.tensor([word]), state)
                costs.append(-logits.log_softmax(-1)[0, next_word].item())
    assert len({len(captions[0]) for captions in targets}) > 3
    targets = [captions[:1] for captions in targets]
    [loss] = train_captioner(decoder, encoder, grids, targets, batch_size=PICTURES)
    assert loss == pytest.approx(sum(costs) / len(costs), rel=1e-5)


@pytest.mark.parametrize("batch_size, sizes", [(11, [11]), (4, [4, 4])])
def test_each_epoch_uses_full_batches_and_the_next_caption_of_each_picture(
    batch_size, sizes, captioning
):
    _, encoder, grids, _ = captioning
    targets = []
    for n in range(PICTURES):
        marks = [100 * (n + 1) + i for i in range(1 + n % 3)]  # each caption starts with its own
        targets.append([torch.tensor([mark] + [5] * (mark % 7) + [EOS]) for mark in marks])
    decoder = RecordingDecoder(1 + 100 * (PICTURES + 1)).eval()
    with torch.no_grad():
        memory = encoder.encode_features(grids).tokens
    losses = train_captioner(
        decoder, encoder, grids, targets, epochs=4, batch_size=batch_size, learning_rate=0.0
    )
    assert len(losses) == 4 * len(sizes)
    assert [len(tokens) for tokens in decoder.inputs] == 4 * sizes
    orders = []
    for epoch in range(4):
        steps = slice(epoch * len(sizes), (epoch + 1) * len(sizes))
        pictures = []
        for tokens, memories in zip(decoder.inputs[steps], decoder.memories[steps]):
            for row, positions in zip(tokens.tolist(), memories):
                n = row[1] // 100 - 1
                target = targets[n][(n + epoch) % len(targets[n])].tolist()
                assert row == ([BOS, *target] + [PAD] * len(row))[: len(row)]  # one word behind
                assert_close(positions, memory[n], rtol=1e-5, atol=1e-5)
                pictures.append(n)
        assert len(set(pictures)) == len(pictures) == sum(sizes)
        orders.append(pictures)
    assert len(set(map(tuple, orders))) == 4  # shuffled in every epoch


def test_learning_rate_warms_up_and_decays_and_gradients_are_clipped(captioning):
    vocabulary, encoder, grids, targets = captioning
    decoder = new_decoder("lstm", vocabulary)
    rates = []
    norms = []
    with torch.no_grad():
        decoder.bias.normal_(std=20)  # confident and wrong: large gradients

    def note(optimizer):
        [group] = optimizer.param_groups
        rates.append(group["lr"])
        gradients = [p.grad for p in group["params"] if p.grad is not None]
        norms.append(math.hypot(*(gradient.norm().item() for gradient in gradients)))

    with watched_steps(note):  # 20 steps
        train_captioner(
            decoder, encoder, grids, targets, epochs=10, batch_size=5, learning_rate=7e-3
        )
    assert rates[:2] == pytest.approx([7e-3 * 0.5, 7e-3 * (0.5 + 0.5 * math.cos(math.pi / 20))])
    assert rates[2:] == pytest.approx(
        [7e-3 * (0.5 + 0.5 * math.cos(math.pi * step / 20)) for step in range(2, 20)]
    )
    assert norms[0] == pytest.approx(1, rel=1e-4) and max(norms) < 1.0001


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_all_parameters_change_except_the_cnns(kind, captioning):
    vocabulary, encoder, grids, targets = captioning
    decoder = new_decoder(kind, vocabulary)
    before = copy.deepcopy({"encoder": encoder, "decoder": decoder})
    train_captioner(decoder, encoder, grids, targets, epochs=2, batch_size=4)

    def unchanged(module, old):
        pairs = zip(module.state_dict().items(), old.state_dict().values())
        return {name for (name, value), old_value in pairs if torch.equal(value, old_value)}

    cnn = {name for name in encoder.state_dict() if name.startswith("backbone.")}
    assert unchanged(encoder, before["encoder"]) == cnn
    assert unchanged(decoder, before["decoder"]) == set()
    assert not encoder.backbone.training


def test_generator_shuffles_and_defaults_to_torchs_own(captioning):
    vocabulary, encoder, grids, targets = captioning
    decoder = new_decoder("lstm", vocabulary)

    def losses(noise, seed=None):
        torch.manual_seed(noise)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        before = torch.get_rng_state()
        models = copy.deepcopy(decoder), copy.deepcopy(encoder)
        found = train_captioner(*models, grids, targets, 2, 3, generator=generator)
        assert torch.equal(torch.get_rng_state(), before) == (seed is not None)
        return found

    assert losses(0, seed=3) == losses(1, seed=3) != losses(0, seed=5)
    assert losses(3) == losses(3) == losses(0, seed=3) != losses(5)


def test_features_may_be_in_half_precision(captioning):
    vocabulary, encoder, grids, targets = captioning
    losses = []
    for features in (grids.bfloat16(), grids.bfloat16().float(), grids):
        torch.manual_seed(3)
        decoder = new_decoder("lstm", vocabulary)
        other = copy.deepcopy(encoder)
        losses.append(train_captioner(decoder, other, features, targets, epochs=2, batch_size=4))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    "pictures, captions, words",
    [
        (5, 7, "5 pictures, but captions of 7"),
        (7, 5, "7 pictures, but captions of 5"),
        (7, 7, "7 pictures do not fill a batch of 8"),
        (0, 0, "0 pictures do not fill a batch of 8"),
    ],
)
def test_wrong_numbers_of_pictures_or_captions_are_refused(pictures, captions, words, captioning):
    vocabulary, encoder, grids, targets = captioning
    with pytest.raises(ValueError, match=words):
        decoder = new_decoder("lstm", vocabulary)
        train_captioner(decoder, encoder, grids[:pictures], targets[:captions], batch_size=8)
