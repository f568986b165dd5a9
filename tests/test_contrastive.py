"""The contrastive losses, the dual encoder, and its batch over several processes."""

import math
import os
from dataclasses import replace
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from command_line import error_of
from helpers import DETERMINISTIC_IMAGE, IMAGE, LSTM, in_processes
from torch import nn
from torch.testing import assert_close

from mmscratch.__main__ import main
from mmscratch.attention import Memory
from mmscratch.batches import Examples
from mmscratch.contrastive import (
    AttentionPooling,
    DualEncoder,
    contrastive_loss,
    hardest_negative_loss,
    sentence_fingerprint,
)
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.dataset import LazyColumn
from mmscratch.engine import distributed
from mmscratch.finetuning import (
    layers,
    load_run,
    prepare_for_finetuning,
    save_run,
    trainable_parts,
)
from mmscratch.model import ModelConfig, build_model
from mmscratch.tasks import TASKS
from mmscratch.tasks.task import Task
from mmscratch.tasks.train import sized
from mmscratch.text import EOS, PAD, Vocabulary
from mmscratch.training import TrainConfig, Trainer

CONFIG = TrainConfig(epochs=2, batch_size=7, learning_rate=1e-2, precision="float32")
TRANSFORMER_TOWER = {"name": "transformer", "num_heads": 2, "num_layers": 1}
LSTM_TOWER = {"name": "lstm", "hidden_size": 7}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    for module in ("training", "finetuning"):
        monkeypatch.setattr(f"mmscratch.{module}.pick_device", lambda: torch.device("cpu"))


def unit_vectors(B, D, seed=0):
    """Two (B, D) of vectors of length 1, in float64, that want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, B, D, generator=generator, dtype=torch.double)
    a, b = F.normalize(pair, dim=-1)
    return a.requires_grad_(), b.requires_grad_()


def random_same(B, seed=1):
    """Not symmetric, and with both values on the diagonal."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(B, B, generator=generator) < 0.3
    assert (same != same.T).any() and same.diagonal().any() and not same.diagonal().all()
    return same


def assert_same_loss(ours, reference, tensors):
    assert_close(ours, reference)
    assert_close(torch.autograd.grad(ours, tensors), torch.autograd.grad(reference, tensors))


# -------------------------------------------------------------------------------------------------
# The losses.


def test_contrastive_loss_and_gradient_equal_clip_of_transformers():
    clip = pytest.importorskip("transformers.models.clip.modeling_clip")
    a, b = unit_vectors(13, 5)
    log_scale = torch.tensor(1.7, dtype=torch.double, requires_grad=True)
    reference = clip.image_text_contrastive_loss(b @ a.T * log_scale.exp())  # texts first
    assert_same_loss(contrastive_loss(a, b, log_scale), reference, [a, b, log_scale])


def test_contrastive_loss_and_gradient_equal_open_clip():
    open_clip = pytest.importorskip("open_clip")
    a, b = unit_vectors(13, 5)
    log_scale = torch.tensor(1.7, dtype=torch.double, requires_grad=True)
    reference = open_clip.ClipLoss()(a, b, log_scale.exp())
    assert_same_loss(contrastive_loss(a, b, log_scale), reference, [a, b, log_scale])


def info_nce_by_loops(a, b, log_scale, same):
    total = 0.0
    scale = log_scale.exp()
    for i in range(len(a)):
        others = [j for j in range(len(a)) if j == i or not same[i, j]]
        exponentials = sum((scale * a[i] @ b[j]).exp() for j in others)
        total = total - ((scale * a[i] @ b[i]).exp() / exponentials).log()
        others = [j for j in range(len(a)) if j == i or not same[j, i]]
        exponentials = sum((scale * a[j] @ b[i]).exp() for j in others)
        total = total - ((scale * a[i] @ b[i]).exp() / exponentials).log()
    return total / (2 * len(a))


def hinge_by_loops(a, b, same, margin):
    total = 0.0
    for i in range(len(a)):
        positive = a[i] @ b[i]
        losses = [0 * positive]
        for j in range(len(a)):
            if j != i and not same[i, j]:
                losses.append(margin + a[i] @ b[j] - positive)
        total = total + max(losses)
        losses = [0 * positive]
        for j in range(len(a)):
            if j != i and not same[j, i]:
                losses.append(margin + a[j] @ b[i] - positive)
        total = total + max(losses)
    return total / len(a)


@pytest.mark.parametrize("seed", range(3))
def test_contrastive_loss_with_same_equals_loops(seed):
    a, b = unit_vectors(11, 5, seed)
    same = random_same(11, seed)
    log_scale = torch.tensor(1.3, dtype=torch.double, requires_grad=True)
    reference = info_nce_by_loops(a, b, log_scale, same)
    before = same.clone()
    assert_same_loss(contrastive_loss(a, b, log_scale, same), reference, [a, b, log_scale])
    assert torch.equal(same, before)  # not changed


@pytest.mark.parametrize("margin", [0.2, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_hardest_negative_loss_equals_loops(seed, margin):
    a, b = unit_vectors(11, 5, seed)
    same = random_same(11, seed)
    reference = hinge_by_loops(a, b, same, margin)
    before = same.clone()
    assert_same_loss(hardest_negative_loss(a, b, same, margin), reference, [a, b])
    assert torch.equal(same, before)  # not changed
    none = torch.zeros_like(same)
    reference = hinge_by_loops(a, b, none, margin)
    assert_same_loss(hardest_negative_loss(a, b, margin=margin), reference, [a, b])


def test_default_margin_is_that_of_the_paper():
    a, b = unit_vectors(11, 5)
    assert_close(hardest_negative_loss(a, b), hardest_negative_loss(a, b, margin=0.2))


def test_same_is_left_out_of_both_directions():
    """One True removes one negative of a₀ in the rows, and one of b₁ in the columns: no other."""
    a, b = unit_vectors(3, 5)
    same = torch.zeros(3, 3, dtype=torch.bool)
    same[0, 1] = True
    one = torch.tensor(0.0, dtype=torch.double)
    scores = (a @ b.T).detach()
    exponentials = scores.exp()
    rows = exponentials.sum(1)
    columns = exponentials.sum(0)
    rows[0] -= exponentials[0, 1]
    columns[1] -= exponentials[0, 1]
    expected = (rows.log() + columns.log()).mean() / 2 - scores.diagonal().mean()
    assert_close(contrastive_loss(a, b, one, same), expected)
    assert contrastive_loss(a, b, one, same.T) != contrastive_loss(a, b, one, same)
    assert_close(contrastive_loss(a, b, one, torch.eye(3) > 0), contrastive_loss(a, b, one))


@pytest.mark.parametrize(
    "value, scale", [(math.log(99), 99), (math.log(101), 100), (40.0, 100), (4e3, 100)]
)
def test_temperature_is_clamped(value, scale):
    a, b = unit_vectors(7, 5)
    log_scale = torch.tensor(value, dtype=torch.double, requires_grad=True)
    loss = contrastive_loss(a, b, log_scale)
    pairs = torch.arange(7)
    by_row = F.cross_entropy(scale * a @ b.T, pairs)
    by_column = F.cross_entropy(scale * b @ a.T, pairs)
    assert_close(loss, (by_row + by_column) / 2)
    (gradient,) = torch.autograd.grad(loss, log_scale)
    assert gradient.isfinite()
    assert (gradient != 0) == (scale < 100)


def test_the_largest_scale_does_not_overflow_in_float32():
    a = torch.eye(3)
    loss = contrastive_loss(a, a.roll(1, 0), torch.tensor(math.log(100)))
    assert_close(loss, torch.tensor(100.0))  # each finds another with certainty
    assert contrastive_loss(a, a, torch.tensor(math.log(100))) < 1e-6


def test_autocast_does_not_round_the_logits():
    a, b = unit_vectors(7, 5)
    log_scale = torch.tensor(math.log(100))
    expected = contrastive_loss(a, b, log_scale), hardest_negative_loss(a, b)
    a = a.float()
    b = b.float()
    with torch.autocast("cpu", torch.bfloat16):
        got = contrastive_loss(a, b, log_scale), hardest_negative_loss(a, b)
    assert_close(got, tuple(loss.float() for loss in expected))


@pytest.mark.parametrize("excluded", [False, True])
def test_loss_without_negatives_is_zero(excluded):
    """A batch of one pair, and a batch whose pairs all fit each other."""
    B = 5 if excluded else 1
    same = torch.ones(B, B, dtype=torch.bool) if excluded else None
    a, b = unit_vectors(B, 7)
    for loss in (
        contrastive_loss(a, b, torch.tensor(2.0), same),
        hardest_negative_loss(a, b, same),
    ):
        assert loss.item() == pytest.approx(0, abs=1e-12)
        for gradient in torch.autograd.grad(loss, [a, b]):
            assert_close(gradient, torch.zeros_like(gradient))


# -------------------------------------------------------------------------------------------------
# The pooling and the fingerprint.


def random_memory(B=3, N=7, D=5):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(B, N, D, generator=generator)
    mask = torch.rand(B, N, generator=generator) < 0.6
    return Memory(tokens, mask)


def random_pooling(D=5):
    pooling = AttentionPooling(D)
    nn.init.normal_(pooling.query)
    return pooling


def test_pooling_equals_its_formula_over_the_unmasked_positions():
    tokens, mask = random_memory()
    pooling = random_pooling()
    for i, pooled in enumerate(pooling(Memory(tokens, mask))):
        real = tokens[i][mask[i]]  # (n, D)
        weights = (real @ pooling.query / math.sqrt(5)).softmax(0)  # (n,)
        assert_close(pooled, weights @ real)


def test_pooling_ignores_masked_positions_and_order():
    tokens, mask = random_memory()
    pooling = random_pooling()
    expected = pooling(Memory(tokens, mask))
    noise = tokens.masked_fill(~mask.unsqueeze(-1), 1e4)
    assert_close(pooling(Memory(noise, mask)), expected)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    assert_close(pooling(Memory(tokens[:, order], mask[:, order])), expected)


def test_fully_masked_memory_is_pooled_to_zeros():
    tokens, mask = random_memory()
    mask[1] = False
    pooled = random_pooling()(Memory(tokens, mask))
    assert (pooled[1] == 0).all() and (pooled[0] != 0).all()
    assert random_pooling()(Memory(tokens[:1], mask[:1])).shape == (1, tokens.size(2))


def test_new_pooling_is_nearly_the_mean():
    memory = random_memory(D=5)
    torch.manual_seed(0)
    pooled = AttentionPooling(5)(memory)
    assert_close(pooled, memory.mean(), rtol=0, atol=0.1)
    assert not torch.equal(pooled, memory.mean())


def test_fingerprint_depends_on_words_and_order_but_not_on_padding():
    sentence = torch.tensor([[7, 5, 5, 11, EOS]])
    padded = F.pad(sentence, (0, 6), value=PAD)
    assert sentence_fingerprint(sentence) == sentence_fingerprint(padded)
    others = [[5, 7, 5, 11, EOS], [7, 5, 11, EOS, PAD], [7, 5, 5, 5, EOS], [7, 5, 5, 12, EOS]]
    others += [[7, 5, 5, 11, PAD], [2, 11, 5, 5, 7]]
    assert not (sentence_fingerprint(torch.tensor(others)) == sentence_fingerprint(sentence)).any()
    assert sentence_fingerprint(sentence).dtype == torch.int64
    assert sentence_fingerprint(sentence.to("meta")).is_meta


def test_fingerprints_of_many_sentences_are_unique():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 8, (20_000, 23), generator=generator)
    lengths = torch.randint(3, 24, (20_000, 1), generator=generator)
    tokens = tokens.masked_fill(torch.arange(23) >= lengths, PAD)
    sentences = {tuple(row) for row in tokens.tolist()}
    assert len(sentence_fingerprint(tokens).unique()) == len(sentences)


# -------------------------------------------------------------------------------------------------
# The model.


def dual_config(image=DETERMINISTIC_IMAGE, text=TRANSFORMER_TOWER, vocab_size=11, **settings):
    encoders = {"image": image, "target": text | {"vocab_size": vocab_size}}
    return ModelConfig(vocab_size, encoders, {}, 14, **settings)


class NumberedCaptions(SceneCaptions):
    """Each picture has two captions, and its number."""

    def __init__(self, split, count):
        super().__init__(split, count, size=32)
        self.texts = [texts[:2] for texts in self.texts]
        self.references = [references[:2] for references in self.references]
        self.columns["number"] = LazyColumn(torch.tensor, range(count))


def dual_trainer(
    folder, config=CONFIG, count=11, image=DETERMINISTIC_IMAGE, text=TRANSFORMER_TOWER
):
    """A trainer of a tiny dual encoder on 2 · count captions; validated on 14."""
    training = NumberedCaptions("train", count)
    validation = NumberedCaptions("validation", 7)
    vocabulary = Vocabulary.build(chain.from_iterable(training.references + validation.references))
    vocabularies = {"target": vocabulary}
    examples = Examples(training, vocabularies), Examples(validation, vocabularies)
    settings = {"encoders": {"image": image, "target": text}, "decoder": {}, "embed_dim": 14}
    model_config = sized(settings, vocabularies, examples)
    return Trainer(model_config, config, examples, folder, metadata={"data": "scenes"})


def toy_batch():
    """Six pairs; 0 and 3 are captions of one picture, 1 and 4 the same sentence."""
    generator = torch.Generator().manual_seed(0)
    target = torch.tensor(
        [[4, 5, 2, 0], [6, 7, 8, 2], [5, 4, 2, 0], [9, 2, 0, 0], [6, 7, 8, 2], [4, 6, 2, 0]]
    )
    image = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return {"image": image, "target": target, "number": torch.tensor([31, 7, 5, 31, 2, 3])}


SAME_PICTURE = [(0, 3), (3, 0)]
SAME_WORDS = [(1, 4), (4, 1)]


def new_model(**settings):
    torch.manual_seed(0)
    model = build_model(dual_config(**settings))
    nn.init.normal_(model.pooling["image"].query)
    nn.init.normal_(model.pooling["target"].query)
    return model


def test_embeddings_have_length_one_and_do_not_depend_on_the_rest_of_the_batch():
    model = new_model().eval()
    batch = toy_batch()
    a, b = model(batch)
    assert a.shape == b.shape == (6, 14)
    assert_close(a.norm(dim=1), torch.ones(6))
    assert_close(b.norm(dim=1), torch.ones(6))
    assert_close(model.embed("image", batch["image"][2:4]), a[2:4])
    assert_close(model.embed("target", batch["target"][2:4, :3]), b[2:4])


def test_embedding_is_the_scaled_projection_of_the_pooled_memory():
    model = new_model(image=DETERMINISTIC_IMAGE)
    batch = toy_batch()
    for modality in ("image", "target"):
        pooled = model.pooling[modality](model.encoders[modality](batch[modality]))
        vectors = pooled @ model.projection[modality].weight.T
        expected = vectors / vectors.norm(dim=1, keepdim=True)
        assert_close(model.embed(modality, batch[modality]), expected)
    assert model.log_scale.item() == pytest.approx(math.log(1 / 0.07))


@pytest.mark.parametrize("negatives", ["all", "hardest"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "has_number, judged, pairs",
    [
        (True, False, SAME_PICTURE + SAME_WORDS),
        (False, False, SAME_WORDS),
        (True, True, SAME_PICTURE + SAME_WORDS + [(2, 0), (2, 5)]),
    ],
    ids=["pictures and sentences", "sentences", "judged"],
)
def test_pairs_that_are_not_negatives(has_number, judged, pairs, training, negatives):
    model = new_model().train(training)
    model.negatives = negatives
    batch = toy_batch()
    if judged:  # picture 5 fits the captions of pictures 31 (both, one is a pair already) and 3

        def fits(numbers):
            return (numbers.unsqueeze(1) == 5) & ((numbers == 31) | (numbers == 3))

        model.same = fits
        pairs = pairs + [(2, 3)]
    if not has_number:
        del batch["number"]
    same = torch.zeros(6, 6, dtype=torch.bool)
    for i, j in pairs:
        same[i, j] = True
    a, b = model(batch)
    if negatives == "all":
        expected = 6 * contrastive_loss(a, b, model.log_scale, same)
    else:
        expected = 6 * hardest_negative_loss(a, b, same)
    loss, count = model.loss(batch)
    assert count == 6
    assert_close(loss, expected)


def test_judged_pairs_need_the_pictures_numbers():
    model = new_model()
    model.same = lambda numbers: numbers.unsqueeze(1) == numbers
    batch = toy_batch()
    del batch["number"]
    with pytest.raises(KeyError, match="number"):
        model.loss(batch)


def test_examples_without_words_or_picture_are_no_pairs_and_no_negatives():
    model = new_model()
    batch = toy_batch()
    kept = [0, 1, 3, 5]
    expected = model.loss({name: value[kept] for name, value in batch.items()})
    batch["target"][2] = PAD
    batch["has_image"] = torch.tensor([True, True, True, True, False, True])
    assert_close(model.loss(batch), expected)
    assert expected[1] == 4


def test_batch_of_one_has_no_loss():
    model = new_model()
    batch = {name: value[:1] for name, value in toy_batch().items()}
    loss, count = model.loss(batch)
    loss.backward()
    assert count == 1 and loss.item() == pytest.approx(0, abs=1e-6)
    for parameter in model.parameters():
        assert parameter.grad.abs().max() < 1e-6


@pytest.mark.parametrize("negatives", ["all", "hardest"])
@pytest.mark.parametrize("text", [TRANSFORMER_TOWER, LSTM_TOWER], ids=["transformer", "lstm"])
def test_one_batch_can_be_learned_by_heart(text, negatives):
    model = new_model(text=text)
    model.negatives = negatives
    batch = {name: value[[0, 1, 2, 5]] for name, value in toy_batch().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss, count = model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    a, b = model.eval()(batch)
    assert loss / count < 0.05
    assert (a @ b.T).argmax(1).tolist() == (b @ a.T).argmax(1).tolist() == [0, 1, 2, 3]


class Sound(nn.Module):
    """An encoder that needs the lengths of its inputs, as collate hands them over."""

    def forward(self, sound, lengths):
        mask = torch.arange(sound.size(1)) < lengths.unsqueeze(1)  # (B, F)
        return Memory(sound, mask)


def test_lengths_of_sequences_go_to_the_encoder():
    towers = {"target": build_model(dual_config()).encoders["target"], "sound": Sound()}
    model = DualEncoder(towers, dim=5, embed_dim=14)
    sound = torch.randn(3, 13, 14)
    lengths = torch.tensor([13, 7, 2])
    batch = {"target": toy_batch()["target"][:3], "sound": sound, "sound_lengths": lengths}
    a, b = model(batch)  # in the order of the towers
    assert_close(a, model.embed("target", batch["target"]))
    assert_close(b, model.embed("sound", sound, lengths))
    assert a.shape == b.shape == (3, 5)
    assert not torch.allclose(b, model.embed("sound", sound, torch.tensor([13, 13, 13])))


# -------------------------------------------------------------------------------------------------
# Pictures and spoken sentences.

LENGTHS = [23, 11, 17, 23, 13, 19]  # frames
AUDIO = {"name": "audio", "num_heads": 2, "num_layers": 1}


def spoken_model():
    torch.manual_seed(0)
    encoders = {"image": DETERMINISTIC_IMAGE, "sound": AUDIO}
    model = build_model(ModelConfig(11, encoders, {}, 14))
    nn.init.normal_(model.pooling["sound"].query)
    return model


def spoken_batch():
    """`toy_batch` with a sound for each sentence; its words are spoken, not read."""
    generator = torch.Generator().manual_seed(1)
    sounds = [torch.randn(length, 80, generator=generator) for length in LENGTHS]
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    return toy_batch() | {"sound": padded, "sound_lengths": torch.tensor(LENGTHS)}


def test_padding_of_sounds_changes_neither_loss_nor_gradient():
    model = spoken_model()
    batch = spoken_batch()
    noise = torch.randn(6, 46, 80, generator=torch.Generator().manual_seed(2))
    for i, length in enumerate(LENGTHS):
        noise[i, :length] = batch["sound"][i, :length]
    parameters = list(model.parameters())
    loss, _ = model.loss(batch)
    noisy_loss, _ = model.loss(batch | {"sound": noise})
    assert_close(noisy_loss, loss)
    gradients = torch.autograd.grad(loss, parameters)
    noisy_gradients = torch.autograd.grad(noisy_loss, parameters)
    assert_close(noisy_gradients, gradients, rtol=1e-4, atol=1e-5)
    _, vectors = model(batch)
    for i, length in enumerate(LENGTHS):
        alone = model.embed("sound", batch["sound"][i : i + 1, :length])
        assert_close(alone[0], vectors[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_number", [True, False])
def test_same_words_spoken_twice_are_not_negatives(has_number):
    model = spoken_model()
    batch = spoken_batch()
    assert not torch.equal(batch["sound"][1], batch["sound"][4])  # by different voices, say
    pairs = SAME_WORDS + (SAME_PICTURE if has_number else [])
    if not has_number:
        del batch["number"]
    same = torch.zeros(6, 6, dtype=torch.bool)
    for i, j in pairs:
        same[i, j] = True
    a, b = model(batch)
    loss, count = model.loss(batch)
    assert count == 6
    assert_close(loss, 6 * contrastive_loss(a, b, model.log_scale, same))


@pytest.mark.parametrize("modality", ["image", "sound"])
def test_examples_without_picture_or_sound_are_no_pairs(modality):
    model = spoken_model()
    batch = spoken_batch()
    kept = [0, 1, 3, 5]
    expected = model.loss({name: value[kept] for name, value in batch.items()})
    batch["target"][2] = PAD
    batch[f"has_{modality}"] = torch.tensor([True, True, True, True, False, True])
    assert_close(model.loss(batch), expected)
    assert expected[1] == 4


def test_pictures_and_sounds_can_be_learned_by_heart():
    model = spoken_model()
    batch = {name: value[[0, 1, 2, 5]] for name, value in spoken_batch().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss, count = model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    a, b = model.eval()(batch)
    assert loss / count < 0.05
    assert (a @ b.T).argmax(1).tolist() == (b @ a.T).argmax(1).tolist() == [0, 1, 2, 3]


# -------------------------------------------------------------------------------------------------
# Refusals.


TEXT = {"name": "lstm", "hidden_size": 7, "vocab_size": 11}


@pytest.mark.parametrize(
    "encoders, message",
    [
        ({"image": IMAGE}, "has two towers.*not: image"),
        ({"sound": AUDIO}, "has two towers, not: sound$"),
        ({"image": IMAGE, "sound": AUDIO, "target": TEXT}, "two towers.*image, sound, target"),
        ({"target": TEXT}, "has two towers.*not: target"),
        ({"image": IMAGE, "source": TEXT, "target": TEXT}, "two towers.*image, source, target"),
        ({"image": IMAGE, "target": IMAGE}, "text encoder, and needs a vocab_size"),
        ({"image": IMAGE | {"film": "target"}, "target": TEXT}, "image is steered by 'target'"),
        ({}, "a model needs an encoder"),
    ],
)
def test_other_encoders_than_two_towers_are_refused(encoders, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_model(ModelConfig(11, encoders, {}, 14))
    assert len(str(caught.value).splitlines()) == 1


def test_encoder_of_the_target_with_a_decoder_is_refused():
    with pytest.raises(ValueError, match="a decoder must not see its target"):
        build_model(replace(dual_config(), decoder=LSTM))


@pytest.mark.parametrize(
    "setting",
    [
        {"joint_vocabulary": True},
        {"modality_dropout": 0.3},
        {"label_smoothing": 0.1},
        {"teacher_forcing_ratio": 0.5},
    ],
)
def test_settings_of_a_decoder_are_refused(setting):
    with pytest.raises(ValueError, match="without a decoder"):
        build_model(replace(dual_config(), **setting))


def test_unknown_kind_of_negatives_is_refused():
    towers = dict(build_model(dual_config()).encoders)
    with pytest.raises(ValueError, match='"all" or "hardest", not \'half\''):
        DualEncoder(towers, 5, 14, negatives="half")


# -------------------------------------------------------------------------------------------------
# Training, and runs.


@pytest.mark.parametrize("text", [TRANSFORMER_TOWER, LSTM_TOWER], ids=["transformer", "lstm"])
def test_training_resumes_exactly_and_the_run_can_be_loaded(text, tmp_path):
    options = {"image": IMAGE, "text": text}  # with batch norm
    whole = dual_trainer(tmp_path / "whole", **options)
    whole.fit()
    broken = dual_trainer(tmp_path / "broken", **options)
    train_step = broken._train_step

    def stop_at_three(batch):
        broken.signals.requested = broken.step == 2
        return train_step(batch)

    broken._train_step = stop_at_three
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    resumed = dual_trainer(tmp_path / "broken", **options)
    assert resumed.step == 3
    resumed.fit()
    assert resumed.history == whole.history
    assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    model, vocabularies, checkpoint = load_run(tmp_path / "whole")
    assert isinstance(model, DualEncoder) and checkpoint["model_config"]["decoder"] == {}
    assert vocabularies["target"].words == whole.train.vocabularies["target"].words
    if whole.history[-1][1] == whole.best_loss:
        assert_close(model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_accumulation_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match="accumulation_steps must be 1.*negatives") as caught:
        dual_trainer(tmp_path, replace(CONFIG, accumulation_steps=2))
    assert len(str(caught.value).splitlines()) == 1


def test_lora_is_refused_in_one_line(tmp_path):
    dual_trainer(tmp_path / "base").fit()
    for start_from in ("", str(tmp_path / "base")):
        config = replace(CONFIG, lora=2, start_from=start_from)
        with pytest.raises(ValueError, match="a DualEncoder has none") as caught:
            dual_trainer(tmp_path / "run", config)
        assert len(str(caught.value).splitlines()) == 1


def test_frozen_tower_does_not_change(tmp_path):
    trainer = dual_trainer(tmp_path, replace(CONFIG, freeze=("encoders.image",)), image=IMAGE)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("encoders.image."), name


def test_parts_and_layers_of_a_dual_encoder():
    model = new_model(image=IMAGE)
    parts = [part for part, _, _ in trainable_parts(model)]
    assert parts[0].startswith("log_scale") and {"pooling.image", "projection.target"} < set(parts)
    found = layers(model)
    assert sorted(chain.from_iterable(found)) == sorted(dict(model.named_parameters()))
    last = {name for name in dict(model.named_parameters()) if not name.startswith("encoders.")}
    assert set(found[-1]) == last
    assert "encoders.image.backbone.conv1.weight" in found[0]


def test_layer_decay_lowers_the_rates_of_the_towers(tmp_path):
    trainer = dual_trainer(tmp_path, replace(CONFIG, layer_decay=0.5))
    factors = {}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            factors[id(parameter)] = group["factor"]
    model = trainer.model
    assert factors[id(model.log_scale)] == factors[id(model.projection["image"].weight)] == 1
    assert factors[id(model.encoders["target"].blocks[0].norm1.weight)] == 0.5


OLD = Vocabulary(["a", "red", "circle", "blue"])
NEW = Vocabulary(["blue", "a", "square"])


def save(folder, config, vocabulary):
    torch.manual_seed(1)
    model = build_model(config)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    save_run(folder, model, config, {"target": vocabulary}, {"task": "any"})
    return model


def started(folder, config, vocabulary):
    torch.manual_seed(2)
    model = build_model(config)
    new = {name: value.clone() for name, value in model.state_dict().items()}
    prepare_for_finetuning(model, {"target": vocabulary}, str(folder))
    return model, new


def captioner_config(vocabulary):
    return ModelConfig(len(vocabulary), {"image": IMAGE}, LSTM, 14)


@pytest.mark.parametrize("first", ["dual encoder", "captioner"])
def test_captioner_and_dual_encoder_lend_each_other_the_image_encoder(first, tmp_path, capsys):
    configs = [dual_config(IMAGE, vocab_size=len(OLD)), captioner_config(NEW)]
    if first == "captioner":
        configs = [captioner_config(OLD), dual_config(IMAGE, vocab_size=len(NEW))]
    base = save(tmp_path, configs[0], OLD)
    model, new = started(tmp_path, configs[1], NEW)
    assert_close(
        model.encoders["image"].state_dict(), base.encoders["image"].state_dict(), rtol=0, atol=0
    )
    for name, value in model.state_dict().items():
        if not name.startswith("encoders.image."):
            assert torch.equal(value, new[name]), name
    printed = capsys.readouterr().out
    assert "encoders.image\nall else is new" in printed


@pytest.mark.parametrize("text", [TRANSFORMER_TOWER, LSTM_TOWER], ids=["transformer", "lstm"])
def test_dual_encoder_from_another_keeps_the_rows_of_common_words(text, tmp_path):
    base = save(tmp_path, dual_config(IMAGE, text, len(OLD)), OLD)
    model, new = started(tmp_path, dual_config(IMAGE, text, len(NEW)), NEW)
    (name,) = [name for name in new if "embedding" in name and len(new[name]) == len(NEW)]
    ours = model.state_dict()
    theirs = base.state_dict()
    for i, word in enumerate(NEW.words):
        expected = theirs[name][OLD.words.index(word)] if word in OLD.words else new[name][i]
        assert torch.equal(ours[name][i], expected), word
    for other in ours.keys() - {name}:
        assert torch.equal(ours[other], theirs[other]), other


def test_dual_encoder_from_one_with_another_text_tower_takes_no_decoder(tmp_path, capsys):
    base = save(tmp_path, dual_config(IMAGE, TRANSFORMER_TOWER, len(OLD)), OLD)
    model, _ = started(tmp_path, dual_config(IMAGE, LSTM_TOWER, len(OLD)), OLD)
    theirs = base.encoders["image"].state_dict()
    assert_close(model.encoders["image"].state_dict(), theirs, rtol=0, atol=0)
    assert "decoder" not in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------
# Several processes: their batch is one batch.

# 41 captions in batches of 32 and 9; 17 in batches of 8, 8 and 1: some processes then have none
RUNS = [(32, 41, "all"), (8, 17, "all"), (32, 41, "hardest")]


def fits(numbers):
    """Not symmetric."""
    return (numbers.unsqueeze(1) + 2 * numbers) % 5 == 1


def train_all(folder):
    """Each run with and without `same` -> the stats of its steps, the weights after each, …"""
    torch.set_default_dtype(torch.double)  # Adam would blow up rounding errors of tiny gradients
    try:
        results = []
        for batch_size, count, negatives in RUNS:
            for same in (None, fits):
                name = f"{batch_size}-{negatives}-{same is None}"
                results.append(train_one(folder / name, batch_size, count, negatives, same))
        return results
    finally:
        torch.set_default_dtype(torch.float)


def train_one(folder, batch_size, count, negatives, same):
    settings = {"batch_size": batch_size, "warmup_fraction": 0.01, "bucket_batches": None}
    trainer = dual_trainer(folder, replace(CONFIG, **settings), count=(count + 1) // 2)
    trainer.train.items = trainer.train.items[:count]
    trainer.prefetcher.loader.batch_sampler.lengths = trainer.train.lengths[:count]
    trainer.model.negatives = negatives
    trainer.model.same = same
    trainer.model.train()
    stats = []
    weights = []
    for batch in trainer.prefetcher.batches(epoch=0):
        step = trainer._train_step(batch)
        trainer.step += 1
        stats.append((step.loss, step.count, step.norm))
        weights.append({name: x.clone() for name, x in trainer.model.state_dict().items()})
    trainer.config = replace(trainer.config, batch_size=5)  # 14 captions: 5, 5 and 4
    return {"stats": stats, "weights": weights, "validation": trainer._validate()}


def keep_all(folder):
    distributed.start()
    results = train_all(folder)
    results.append(gathered())
    torch.save(results, folder / f"results{distributed.rank()}.pt")
    distributed.finish()


def gathered():
    """Shards of 1, 3 and 0 rows: the rows of all, and the gradient of a sum that each weights."""
    rank = distributed.rank()
    x = torch.arange(6.0).view(3, 2)[: (1, 3, 0)[rank]] + 10 * rank
    x.requires_grad_()
    rows = distributed.gather(x)
    weights = (rank + 1) * torch.arange(1.0, 1.0 + rows.numel()).view_as(rows)
    (rows * weights).sum().backward()
    labels = distributed.gather(torch.full((2 + rank % 2,), rank))
    return {"rows": rows.detach(), "gradient": x.grad, "labels": labels}


@pytest.fixture(scope="module", params=[2, 3])
def processes(request, tmp_path_factory):
    """(number of processes, the results of each)"""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    folder = tmp_path_factory.mktemp("processes")
    assert in_processes(request.param, keep_all, folder) == [0] * request.param
    files = [folder / f"results{rank}.pt" for rank in range(request.param)]
    return request.param, [torch.load(file, weights_only=True) for file in files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train_all(tmp_path_factory.mktemp("alone"))


def test_batch_of_several_processes_is_one_batch(processes, alone):
    """2 × 16 pairs equal 1 × 32, and so do uneven shards, in loss, gradient norm and weights."""
    size, ranks = processes
    for results in ranks:
        for got, expected in zip(results, alone):
            assert [step[1] for step in got["stats"]] == [step[1] for step in expected["stats"]]
            assert_close(got["stats"], expected["stats"], rtol=1e-9, atol=1e-9)
            assert_close(got["weights"], expected["weights"], rtol=1e-6, atol=1e-6)
            assert got["validation"] == pytest.approx(expected["validation"], rel=1e-9)


def test_same_changes_the_loss_and_the_weights_move(alone):
    """Or the comparison above would show nothing."""
    name = "projection.image.weight"
    for plain, with_same in zip(alone[::2], alone[1::2]):
        assert with_same["stats"][0][0] < plain["stats"][0][0] - 0.01
        moved = plain["weights"][1][name] - plain["weights"][0][name]
        assert moved.abs().max() > 1e-3
    assert [step[1] for step in alone[2]["stats"]].count(1) == 1  # a batch of one pair


def test_gather_keeps_the_order_and_sums_the_gradients(processes):
    size, ranks = processes
    sizes = [1, 3, 0][:size]
    shards = [torch.arange(6.0).view(3, 2)[:n] + 10 * rank for rank, n in enumerate(sizes)]
    weights = sum(range(1, size + 1)) * torch.arange(1.0, 9.0).view(4, 2)
    for rank, results in enumerate(ranks):
        assert_close(results[-1]["rows"], torch.cat(shards))
        assert_close(results[-1]["gradient"], weights.split(sizes)[rank])
        labels = chain.from_iterable([r] * (2 + r % 2) for r in range(size))
        assert results[-1]["labels"].tolist() == list(labels)


def test_gather_of_one_process_changes_nothing():
    x = torch.randn(3, 5, requires_grad=True)
    assert distributed.gather(x) is x


def test_bfloat16_gives_vectors_in_float32_and_a_gradient():
    model = new_model(image=IMAGE)
    batch = toy_batch()
    with torch.autocast("cpu", torch.bfloat16):
        a, b = model(batch)
        loss, _ = model.loss(batch)
    loss.backward()
    assert a.dtype == b.dtype == loss.dtype == torch.float32
    assert_close(a.norm(dim=1), torch.ones(6))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# -------------------------------------------------------------------------------------------------
# The command line.


class Retrieval(Task):
    """A task whose model has two towers and no decoder."""

    name = "towers"
    layouts = ("scenes",)

    def read(self, metadata, split, image_size):
        return SceneCaptions(split, 13, size=image_size, one_caption_each=True)

    def model(self, metadata, chosen, base):
        encoders = {"image": chosen.get("image", IMAGE), "target": TRANSFORMER_TOWER}
        return base or {"encoders": encoders, "decoder": {}, "embed_dim": 14}

    def measure(self, run, data, split, num_beams=1):
        model, _, _ = self.load(run)
        assert isinstance(model, DualEncoder)

    def advice(self, run, data, split):
        return ""


@pytest.fixture
def towers(tmp_path, monkeypatch):
    """The working directory is empty, and there is a task "towers"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, "towers", Retrieval())
    for name in ("VALIDATION_SCENES", "TEST_SCENES"):
        monkeypatch.setattr(f"mmscratch.tasks.captioning.{name}", 3)


TRAIN = "train --layout scenes --epochs 1 --precision float32 --task"


def test_runs_of_towers_and_captioners_start_from_each_other(towers, capsys):
    assert main(f"{TRAIN} towers --to first".split()) == 0
    assert main(f"{TRAIN} towers --to second --from first".split()) == 0
    assert main(f"{TRAIN} captioning --scenes 13 --to third --from second".split()) == 0
    assert main(f"{TRAIN} towers --to fourth --from third".split()) == 0
    printed = capsys.readouterr().out
    assert printed.count("encoders.image\nall else is new") == 2
    assert [type(load_run(run)[0]).__name__ for run in ("third", "fourth")] == [
        "EncoderDecoder",
        "DualEncoder",
    ]


@pytest.mark.parametrize(
    "option, message",
    [("--accumulate 2", "accumulation_steps must be 1"), ("--lora 2", "a DualEncoder has none")],
)
def test_options_that_do_not_fit_two_towers_are_refused(towers, option, message, capsys):
    assert main(f"{TRAIN} towers --to run {option}".split()) == 2
    assert message in error_of(capsys)
