"""The pieces together: fusion of memories, teacher forcing, and a model that can learn a batch by heart."""

from copy import deepcopy
from dataclasses import asdict, replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.batches import Examples, collate
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.language import mask_colours, name_object
from mmscratch.data.scenes import Scene
from mmscratch.data.translations import SceneTranslation
from mmscratch.model import (
    DECODERS,
    ENCODERS,
    EncoderDecoder,
    ModelConfig,
    build_model,
    fuse,
    table,
)
from mmscratch.recurrent import LSTMDecoder, LSTMEncoder
from mmscratch.text import BOS, PAD, Vocabulary, tokenize
from mmscratch.transformer import TransformerDecoder, TransformerEncoder
from mmscratch.vision import VGG, ResNet, VisionTransformer

V, S = 23, 37  # words, and pixels a side
D = 22  # embed_dim
SMALL_RESNET = {"name": "resnet", "depth": (1, 1), "width": 5, "image_size": S}
IMAGE_ENCODERS = [
    {"name": "resnet", "depth": 18, "image_size": S},
    {"name": "vgg", "depth": 11, "image_size": S},
    {"name": "vit", "depth": 2, "hidden_dim": 64, "image_size": 24},
]
SIZES = {"lstm": {"hidden_size": 13}, "transformer": {"num_heads": 2, "num_layers": 1}}
WRITERS = [
    {"name": "lstm", "fusion": "prefix"},
    {"name": "lstm", "fusion": "cross_attention", "score": "dot"},
    {"name": "lstm", "fusion": "cross_attention", "score": "additive"},
    {"name": "transformer", "fusion": "prefix"},
    {"name": "transformer", "fusion": "cross_attention"},
]


def parts(config):
    return " ".join(value for value in config.values() if isinstance(value, str))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def captioner(writer=WRITERS[1], image=SMALL_RESNET, **changes):
    """The config of a small model that writes about a picture."""
    return ModelConfig(V, {"image": image}, SIZES[writer["name"]] | writer, D, **changes)


@pytest.fixture(params=WRITERS, ids=parts)
def model(request):
    return build_model(captioner(request.param))


@pytest.fixture
def batch():
    """Five pictures with sentences of 7, 5, 3, 2 and 1 words."""
    target = torch.randint(4, V, (5, 7)).masked_fill(
        torch.arange(7) >= torch.tensor([[7], [5], [3], [2], [1]]), PAD
    )
    return {"image": torch.randint(256, (5, 3, S, S), dtype=torch.uint8), "target": target}


def test_fuse_lays_memories_side_by_side():
    memories = [
        Memory(torch.randn(2, places, 5), torch.rand(2, places) < 0.5) for places in (3, 7, 1)
    ]
    fused = fuse(memories)
    assert fused.tokens.shape == (2, 11, 5) and fused.mask.shape == (2, 11)
    for part, memory in zip(zip(*(x.split([3, 7, 1], dim=1) for x in fused)), memories):
        assert_close(part, tuple(memory))
    assert_close(fuse(memories[:1]), memories[0])


class Words(nn.Embedding):
    """An encoder of sentences, the simplest."""

    def forward(self, tokens):
        return Memory(super().forward(tokens), tokens != PAD)


def evened(memory):
    """As it is fused with others: each vector of mean 0 and variance 1."""
    return Memory(F.layer_norm(memory.tokens, memory.tokens.shape[-1:]), memory.mask)


def test_a_missing_modality_is_not_fused(model, batch):
    model = EncoderDecoder({**model.encoders, "source": Words(V, D)}, model.decoder).eval()
    batch["source"] = torch.randint(4, V, (5, 3))
    image, source = (evened(model.encoders[name](batch[name])) for name in ("image", "source"))
    assert_close(model.encode(batch), fuse([image, source]))
    assert_close(model.encode({"image": batch["image"]}), image)
    assert_close(model.encode({"source": batch["source"], "target": batch["target"]}), source)
    assert not torch.equal(model(batch), model({name: batch[name] for name in ("image", "target")}))


def test_a_batch_with_none_of_the_modalities_is_refused(translator, batch):
    with pytest.raises(ValueError, match="none of: image, source; it has: target"):
        translator.encode({"target": batch["target"]})


def test_the_logits_at_t_know_the_words_before_t_and_no_others(model, batch):
    model.eval()
    before = model(batch)
    assert before.shape == (5, 7, V)
    for t in range(7):
        target = batch["target"].clone()
        target[:, t] = target[:, t] % (V - 4) + 4  # another word
        after = model({**batch, "target": target})
        assert_close(after[:, : t + 1], before[:, : t + 1], rtol=0, atol=0)
        assert (after[:, t + 1 :] != before[:, t + 1 :]).any(-1).all()


def test_the_first_word_comes_after_bos(model, batch):
    model.eval()
    bos = torch.full((5,), 1)
    logits, _ = model.decoder.step(bos, model.decoder.start(model.encode(batch)))
    assert_close(model(batch)[:, 0], logits)


@pytest.mark.parametrize("image", IMAGE_ENCODERS, ids=parts)
def test_build_model_makes_the_image_encoder_of_the_config(image, batch):
    config = captioner(image=image | {"num_layers": 1})
    model = build_model(config)
    kinds = {"resnet": ResNet, "vgg": VGG, "vit": VisionTransformer}
    encoder = model.encoders["image"]
    assert type(encoder.backbone) is kinds[image["name"]] and len(encoder.blocks) == 1
    batch["image"] = batch["image"][:, :, : image["image_size"], : image["image_size"]]
    assert_all_of_it_is_trained_and_comes_back(model, config, batch)


@pytest.mark.parametrize("writer", WRITERS, ids=parts)
def test_build_model_makes_the_decoder_of_the_config(writer, batch):
    settings = {"num_layers": 3, "dropout": 0.1}
    if writer["name"] == "transformer":
        settings["max_length"] = 7
    config = captioner(writer | settings)
    model = build_model(config)
    decoder = model.decoder
    assert decoder.fusion == writer["fusion"]
    if writer["name"] == "lstm":
        assert type(decoder) is LSTMDecoder and (decoder.lstm.num_layers, decoder.dropout) == (
            3,
            0.1,
        )
        assert (decoder.additive is not None) == (
            writer.get("score") == "additive"
        ) and decoder.lstm.hidden_size == 13
    else:
        assert type(decoder) is TransformerDecoder and len(decoder.blocks) == 3
        assert [(block.self_attn.num_heads, block.dropout) for block in decoder.blocks] == [
            (2, 0.1)
        ] * 3
        assert decoder.embedding.positions.weight.shape == (7, D)
    assert_all_of_it_is_trained_and_comes_back(model, config, batch)


def assert_all_of_it_is_trained_and_comes_back(model, config, batch):
    assert ModelConfig(**asdict(config)) == config
    model.loss(batch)[0].backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without, "weights that nothing is computed with"
    build_model(ModelConfig(**asdict(config))).load_state_dict(model.state_dict(), strict=True)


def test_the_default_config_is_a_captioner_of_64_pixels():
    model = build_model(ModelConfig(V))
    assert list(model.encoders) == ["image"] and type(model.encoders["image"].backbone) is ResNet
    assert model.encoders["image"].image_size == 64 and model.decoder.embedding.weight.shape == (
        V,
        256,
    )
    assert (model.modality_dropout, model.label_smoothing, model.teacher_forcing_ratio) == (
        0.0,
        0.0,
        1.0,
    )


def test_settings_of_the_loss_reach_the_model():
    model = build_model(
        captioner(modality_dropout=0.3, label_smoothing=0.1, teacher_forcing_ratio=0.7)
    )
    assert (model.modality_dropout, model.label_smoothing, model.teacher_forcing_ratio) == (
        0.3,
        0.1,
        0.7,
    )


WORDS_ENCODER = {"name": "lstm", "vocab_size": 29, "hidden_size": 13}
LSTM_WRITER = {"name": "lstm", "hidden_size": 13}


@pytest.mark.parametrize("encoders, decoder, joint, message", [
    ({"image": {"name": "alexnet"}}, LSTM_WRITER, False, "resnet, vgg, vit, lstm, transformer, not 'alexnet'"),
    ({"image": {"depth": 18}}, LSTM_WRITER, False, "resnet, vgg, vit, lstm, transformer, not None"),
    ({"image": SMALL_RESNET}, {"name": "gru"}, False, "lstm, transformer, not 'gru'"),
    ({"image": SMALL_RESNET}, {"hidden_size": 13}, False, "lstm, transformer, not None"),
    ({"image": SMALL_RESNET | {"heads": 3}}, LSTM_WRITER, False, "resnet: .*'heads'"),
    ({"image": SMALL_RESNET}, LSTM_WRITER | {"num_heads": 3}, False, "lstm: .*'num_heads'"),
    ({"image": SMALL_RESNET}, {"name": "lstm"}, False, "lstm: .*'hidden_size'"),
    ({}, LSTM_WRITER, False, "a model needs an encoder"),
    ({"source": WORDS_ENCODER}, LSTM_WRITER, True, "a joint vocabulary has one size, not 29 and 23"),
    ({"image": {"name": "vit", "image_size": 37}}, LSTM_WRITER, False, "37 pixels a side cannot be cut into patches of 8"),
], ids=["image", "no image name", "decoder", "no decoder name", "image setting", "decoder setting", "setting missing",
        "no encoder", "joint", "patches"])  # fmt: skip
def test_a_model_that_cannot_be_is_refused_in_one_line(encoders, decoder, joint, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_model(ModelConfig(V, encoders, decoder, D, joint_vocabulary=joint))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("image, message", [
    ({"name": "vit", "depth": (1, 1)}, "vit: 'tuple' object"),
    ({"name": "vit", "hidden_dim": 200}, "3 heads cannot share 200 dimensions equally"),
    ({"name": "vgg", "depth": (1, 1)}, "no VGG of depth"),
    ({"name": "resnet", "depth": 7}, "no ResNet of depth 7"),
], ids=str)  # fmt: skip
def test_an_image_encoder_that_cannot_be_is_refused_in_one_line(image, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_model(captioner(image=image))
    assert len(str(caught.value).splitlines()) == 1


def test_a_joint_vocabulary_without_a_source_is_refused():
    with pytest.raises(ValueError, match="a joint vocabulary has one size, not 0 and 23"):
        build_model(captioner(joint_vocabulary=True))


def test_the_vit_of_a_config():
    image = {"name": "vit", "depth": 3, "image_size": 40, "hidden_dim": 128}
    vit = build_model(captioner(image=image)).encoders["image"].backbone
    assert len(vit.blocks) == 3 and vit.conv_proj.kernel_size == (8, 8) and vit.out_channels == 128
    assert [(block.self_attn.num_heads, block.linear1.out_features) for block in vit.blocks] == [
        (2, 512)
    ] * 3


class Loudness(nn.Module):
    """A toy encoder of a sound (B, F): each sample is a place, up to the sound's length."""

    def __init__(self, embed_dim, scale=1.0):
        super().__init__()
        self.scale = scale
        self.projection = nn.Linear(1, embed_dim)
        self.heard = []

    def forward(self, sounds, lengths=None):
        self.heard.append((sounds, lengths))
        mask = torch.ones_like(sounds, dtype=torch.bool)
        if lengths is not None:
            mask = torch.arange(sounds.size(1)) < lengths[:, None]  # (B, F)
        return Memory(self.projection(self.scale * sounds.unsqueeze(-1)), mask)


@pytest.fixture
def loudness(monkeypatch):
    """The toy is an encoder like any other, for one test."""
    monkeypatch.setitem(ENCODERS, "loudness", Loudness)


def test_a_new_encoder_is_a_class_and_a_line_and_is_trained(loudness):
    sounds = [torch.full((3,), 0.5), torch.full((3,), -1.0), torch.full((3,), 2.0)]
    batch = collate(
        [
            {"sound": sound, "target": torch.tensor([4 + i, 9 - i, 2])}
            for i, sound in enumerate(sounds)
        ]
    )
    config = ModelConfig(
        V, {"sound": {"name": "loudness", "scale": 3.0}}, {"name": "lstm", "hidden_size": 32}, 32
    )
    model = build_model(config)
    assert type(model.encoders["sound"]) is Loudness and model.encoders["sound"].scale == 3.0
    assert ModelConfig(**asdict(config)) == config
    assert learn(model, batch, 120) < 0.02
    assert torch.equal(model(batch).argmax(-1), batch["target"])


def test_a_new_decoder_is_a_class_and_a_line(monkeypatch, batch):
    class Deaf(LSTMDecoder):
        pass

    monkeypatch.setitem(DECODERS, "deaf", Deaf)
    model = build_model(
        ModelConfig(V, {"image": SMALL_RESNET}, {"name": "deaf", "hidden_size": 13}, D)
    )
    assert type(model.decoder) is Deaf
    model.loss(batch)[0].backward()


def sounding(lengths, **model):
    """A model that hears, and a batch of sounds of these lengths; None: there is no sound."""
    torch.manual_seed(0)
    examples = [
        {"source": torch.randint(4, V, (4,)), "target": torch.randint(4, V, (5,))} for _ in lengths
    ]
    for example, length in zip(examples, lengths):
        if length is not None:
            example["sound"] = torch.randn(length)
    encoders = {
        "sound": {"name": "loudness"},
        "source": {"name": "lstm", "vocab_size": V, "hidden_size": 13},
    }
    return build_model(ModelConfig(V, encoders, LSTM_WRITER, D, **model)), collate(examples)


def test_lengths_reach_the_encoder_of_what_is_padded(loudness):
    model, batch = sounding([7, 3, 5])
    memory = model.eval().encode(batch)
    [(sounds, lengths)] = model.encoders["sound"].heard
    assert torch.equal(sounds, batch["sound"]) and lengths.tolist() == [7, 3, 5]
    assert memory.mask[:, :7].sum(1).tolist() == [7, 3, 5]
    logits = model(batch)
    for b, length in enumerate([7, 3, 5]):
        alone = {name: batch[name][b : b + 1] for name in ("source", "target")} | {
            "sound": batch["sound"][b : b + 1, :length]
        }
        assert_close(model(alone), logits[b : b + 1], rtol=1e-5, atol=1e-5)


def test_only_the_rows_that_have_a_sound_reach_its_encoder_and_so_do_their_lengths(loudness):
    model, batch = sounding([None, 3, None, 6, 2])
    assert batch["has_sound"].tolist() == [False, True, False, True, True]
    memory = model.eval().encode(batch)
    [(sounds, lengths)] = model.encoders["sound"].heard
    assert torch.equal(sounds, batch["sound"][[1, 3, 4]]) and lengths.tolist() == [3, 6, 2]
    assert memory.mask[:, :6].sum(1).tolist() == [0, 3, 0, 6, 2] and memory.mask[:, 6:].all()
    none = model(batch | {"has_sound": torch.zeros(5, dtype=torch.bool)})
    assert_close(
        none, model({name: batch[name] for name in ("source", "target")}), rtol=1e-6, atol=1e-6
    )


def test_sounds_of_one_length_need_no_lengths(loudness):
    model, batch = sounding([4, 4, 4])
    assert "sound_lengths" not in batch
    model.encode(batch)
    assert model.encoders["sound"].heard[0][1] is None


@pytest.mark.parametrize("writer", WRITERS, ids=parts)
def test_learns_a_small_batch_by_heart(writer):
    scenes = SceneCaptions("train", 11, size=32, one_caption_each=True)
    vocabulary = Vocabulary.build(caption for captions in scenes.references for caption in captions)
    examples = Examples(scenes, {"target": vocabulary})
    batch = collate([examples[i] for i in range(len(examples))])
    image = {"name": "resnet", "width": 8, "image_size": 32}
    decoder = {"lstm": {"hidden_size": 64}, "transformer": {"num_heads": 4, "num_layers": 1}}[
        writer["name"]
    ] | writer
    model = build_model(ModelConfig(len(vocabulary), {"image": image}, decoder, embed_dim=64))
    assert learn(model, batch, 100) < 0.02
    assert (model(batch).argmax(-1) == batch["target"])[batch["target"] != PAD].all()


# ---------------------------------------------------------------------------------------------------------------------
# The loss: the sum over the words, and how many words that are.


def learn(model, batch, steps):
    """The mean loss of a word, after `steps` steps on the same batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        total, count = model.loss(batch)
        loss = total / count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss


def mean_loss(model, batch):
    total, count = model.loss(batch)
    return total / count


def test_padding_does_not_matter_to_the_loss(model, batch):
    model.eval()
    loss, count = model.loss(batch)
    assert count == 7 + 5 + 3 + 2 + 1
    longer = {**batch, "target": F.pad(batch["target"], (0, 4), value=PAD)}
    assert_close(model.loss(longer)[0], loss)
    assert model.loss(longer)[1] == count
    alone = [
        model.loss({"image": i[None], "target": t[t != PAD][None]}) for i, t in zip(*batch.values())
    ]
    assert_close(sum(one for one, _ in alone), loss)
    assert [words.item() for _, words in alone] == [7, 5, 3, 2, 1]


def test_the_loss_is_the_sum_over_the_words_of_minus_log_probability(model, batch):
    model.eval()
    loss, _ = model.loss(batch)
    probabilities, expected = model(batch).softmax(-1), 0
    for b, t in batch["target"].ne(PAD).nonzero().tolist():
        expected -= probabilities[b, t, batch["target"][b, t]].log()
    assert_close(loss, expected)


class Answering(EncoderDecoder):
    """It answers with given logits in half precision, and keeps what it was asked for."""

    def __init__(self, logits, **settings):
        super().__init__({}, nn.Identity(), **settings)
        self.logits = logits
        self.requested = []

    def forward(self, batch, need_weights=False, teacher_forcing_ratio=1.0):
        self.requested.append(teacher_forcing_ratio)
        return self.logits.bfloat16()


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_cross_entropy_in_float32_and_smoothed_in_training_only(
    smoothing, training
):
    logits, target = torch.randn(5, 7, 29, requires_grad=True), torch.randint(5, (5, 7))
    model = Answering(logits, label_smoothing=smoothing, teacher_forcing_ratio=0.25).train(training)
    loss, count = model.loss({"target": target})
    flat = logits.bfloat16().float().flatten(0, 1)  # (35, 29)
    options = {
        "ignore_index": PAD,
        "reduction": "sum",
        "label_smoothing": smoothing if training else 0.0,
    }
    expected = F.cross_entropy(flat, target.flatten(), **options)
    assert_close(loss, expected)
    assert loss.dtype == torch.float32 and count == (target != PAD).sum()
    assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))
    assert model.asked == [0.25 if training else 1.0]


@pytest.mark.parametrize("scale", [1, 1e4], ids=["logits of 1", "logits of 10,000"])
@pytest.mark.parametrize("real", [13, 9, 0], ids=["all words", "some padding", "all padding"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_the_loss_is_that_of_the_formula_and_pads_count_in_neither_term(smoothing, real, scale):
    logits = (scale * torch.randn(1, 13, 29)).bfloat16().float().requires_grad_()
    target = torch.randint(1, 29, (13,)).masked_fill(torch.randperm(13) >= real, PAD)
    model = Answering(logits, label_smoothing=smoothing)
    loss, count = model.loss({"target": target[None]})
    log_p, expected = logits[0].log_softmax(-1), 0.0 * logits.sum()
    for t in target.ne(PAD).nonzero().flatten().tolist():
        expected = expected - (1 - smoothing) * log_p[t, target[t]] - smoothing * log_p[t].mean()
    assert_close(loss, expected)
    assert count == real
    gradient, wanted = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    assert_close(
        gradient, wanted, rtol=1e-2, atol=1e-3
    )  # it goes back through logits in half precision
    assert not gradient[0, target == PAD].any() and gradient.isfinite().all()


def test_teacher_forcing_and_smoothing_are_those_of_training_and_validation_has_neither(batch):
    model = build_model(
        captioner(
            label_smoothing=0.2,
            teacher_forcing_ratio=0.0,
            image={"name": "vit", "image_size": 32, "depth": 1},
        )
    )
    plain = deepcopy(model)
    plain.label_smoothing, plain.teacher_forcing_ratio = 0.0, 1.0
    batch["image"] = batch["image"][:, :, :32, :32]
    log_p = model(batch, teacher_forcing_ratio=0.0).log_softmax(-1)  # (B, T, V)
    true = log_p.gather(-1, batch["target"].unsqueeze(-1)).squeeze(-1)  # (B, T)
    expected = -(0.8 * true + 0.2 * log_p.mean(-1))[batch["target"] != PAD].sum()
    assert_close(model.loss(batch)[0], expected)
    assert abs(model.loss(batch)[0] - plain.loss(batch)[0]) > 1e-3
    assert_close(model.eval().loss(batch), plain.eval().loss(batch), rtol=0, atol=0)
    state = torch.get_rng_state()
    model.loss(batch)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn in eval mode"


# ---------------------------------------------------------------------------------------------------------------------
# Sentences that are translated, with pictures beside them or without.


W = 29  # words of the source
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
TRANSLATORS = [
    {"name": name, "fusion": fusion}
    for name, fusion in product(("lstm", "transformer"), ("prefix", "cross_attention"))
]


def translator_config(writer, sizes=(V, W), image=SMALL_RESNET, **changes):
    """The config of a small translator: its encoder of sentences is of the decoder's kind. Without pictures: image=None."""
    name = writer["name"]
    encoders = {"image": image} if image else {}
    encoders["source"] = {"name": name, "vocab_size": sizes[1], "num_layers": 1} | SIZES[name]
    return ModelConfig(sizes[0], encoders, SIZES[name] | writer, D, **changes)


@pytest.fixture(params=TRANSLATORS, ids=parts)
def translator(request):
    return build_model(translator_config(request.param)).eval()


@pytest.fixture
def beside(batch):
    """The same pictures and sentences, and what is to be translated, of 3, 1, 11, 2 and 5 words."""
    padding = torch.arange(11) >= torch.tensor([[3], [1], [11], [2], [5]])
    return batch | {"source": torch.randint(4, W, (5, 11)).masked_fill(padding, PAD)}


def only(batch, *names):
    return {name: batch[name] for name in names}


def has(*numbers):
    return torch.isin(torch.arange(5), torch.tensor(numbers))


def gradients_of(module):
    return [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("part", TRANSLATORS, ids=parts)
@pytest.mark.parametrize("image", [SMALL_RESNET, None], ids=["beside a picture", "alone"])
def test_build_model_makes_a_translator(part, image, beside):
    config = translator_config(
        part | {"num_layers": 2, "dropout": 0.1}, image=image, modality_dropout=0.3
    )
    config.encoders["source"] |= {"num_layers": 3, "dropout": 0.1}
    if part["name"] == "transformer":
        for settings in (config.encoders["source"], config.decoder):
            settings |= {"mlp_dim": 17, "max_length": 11}
    model = build_model(config)
    assert (
        set(model.encoders) == ({"image", "source"} if image else {"source"})
        and model.modality_dropout == 0.3
    )
    encoder, decoder = model.encoders["source"], model.decoder
    assert table(encoder).weight.shape == (W, D) and table(decoder).weight.shape == (V, D)
    if part["name"] == "lstm":
        assert type(encoder) is LSTMEncoder and (encoder.lstm.hidden_size, encoder.dropout) == (
            13,
            0.1,
        )
        assert (encoder.lstm.num_layers, decoder.lstm.num_layers) == (3, 2)
    else:
        assert (
            type(encoder) is TransformerEncoder
            and len(encoder.blocks) == 3
            and len(decoder.blocks) == 2
        )
        assert (encoder.dropout, decoder.dropout) == (0.1, 0.1)
        for block in (*encoder.blocks, *decoder.blocks):
            assert (block.self_attn.num_heads, block.linear1.out_features, block.dropout) == (
                2,
                17,
                0.1,
            )
        assert (
            encoder.embedding.positions.weight.shape
            == decoder.embedding.positions.weight.shape
            == (11, D)
        )
    model.modality_dropout = 0.0
    model.loss(beside)[0].backward()
    assert all(gradient is not None for gradient in gradients_of(model))
    again = build_model(ModelConfig(**asdict(config)))
    again.load_state_dict(model.state_dict(), strict=True)
    assert_close(again.eval()(beside), model.eval()(beside), rtol=0, atol=0)


def test_the_order_of_the_encoders_is_that_of_the_config_wherever_its_weights_are_drawn(beside):
    config = translator_config(TRANSLATORS[1])
    turned = replace(config, encoders=dict(reversed(config.encoders.items())))
    assert list(build_model(config).encoders) == ["image", "source"]
    assert build_model(turned).state_dict().keys() == build_model(config).state_dict().keys()


@pytest.mark.parametrize("given", [("source",), ("image", "source")], ids=" and ".join)
def test_a_translator_writes_step_by_step_what_it_writes_at_once(translator, beside, given):
    expected = translator(only(beside, "target", *given))
    assert expected.shape == (5, 7, V)
    state, token = (
        translator.decoder.start(translator.encode(only(beside, *given))),
        torch.full((5,), BOS),
    )
    for t in range(7):
        logits, state = translator.decoder.step(token, state)
        assert_close(logits, expected[:, t], rtol=1e-5, atol=1e-5)
        token = beside["target"][:, t]


@pytest.mark.parametrize("part", TRANSLATORS, ids=parts)
def test_a_joint_vocabulary_is_one_table_and_stays_one(part, beside):
    config = translator_config(part, (W, W), joint_vocabulary=True)
    joint, apart = build_model(config), build_model(replace(config, joint_vocabulary=False))
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (apart, joint)]
    assert sizes[0] - sizes[1] == W * D
    assert table(apart.encoders["source"]).weight is not table(apart.decoder).weight

    def assert_shared(model):
        assert table(model.encoders["source"]).weight is table(model.decoder).weight

    optimizer = torch.optim.AdamW(joint.parameters(), lr=0.01)
    before = table(joint.decoder).weight.detach().clone()
    joint.loss(beside)[0].backward()
    optimizer.step()
    assert_shared(joint)
    assert (table(joint.decoder).weight != before).any()
    assert joint.state_dict().keys() == apart.state_dict().keys()
    again = build_model(config)
    again.load_state_dict(joint.state_dict(), strict=True)
    assert_shared(again)
    assert_close(again.eval()(beside), joint.eval()(beside), rtol=0, atol=0)
    apart.load_state_dict(joint.state_dict(), strict=True)
    joint.zero_grad()
    for model in (joint, apart):
        model.eval().loss(beside)[0].backward()
    both = table(apart.encoders["source"]).weight.grad + table(apart.decoder).weight.grad
    assert_close(table(joint.decoder).weight.grad, both, rtol=1e-5, atol=1e-5)


def test_no_picture_is_as_good_as_none_that_is_there(translator, beside):
    expected = translator.decoder(
        torch.cat([torch.full((5, 1), BOS), beside["target"][:, :-1]], dim=1),
        evened(translator.encoders["source"](beside["source"])),
    )
    assert_close(translator(only(beside, "source", "target")), expected, rtol=0, atol=0)
    assert_close(translator(beside | {"has_image": has()}), expected, **CLOSE)
    assert not any(part.training for part in translator.modules()), "as it was"
    assert (translator(beside) != expected).any(-1).all()
    assert_close(
        translator(beside | {"has_image": has(0, 1, 2, 3, 4)}), translator(beside), rtol=0, atol=0
    )


def test_of_some_pictures_each_sentence_sees_its_own_or_none(translator, beside):
    together = translator(beside | {"has_image": has(0, 3)})
    for b in range(5):
        alone = {name: value[b : b + 1] for name, value in beside.items()}
        expected = translator(alone if b in (0, 3) else only(alone, "source", "target"))
        assert_close(together[b : b + 1], expected, rtol=1e-5, atol=1e-5)
    memory = translator.encode(beside | {"has_image": has(0, 3)})
    assert memory.tokens.shape[:2] == memory.mask.shape and torch.equal(
        memory.mask[:, 0], has(0, 3)
    )


def test_those_without_a_picture_see_nothing_of_what_stands_in_its_place(translator, beside):
    translator.train()
    pixels, batch = beside["image"].float().requires_grad_(), beside | {"has_image": has(1, 2, 4)}
    before, other = translator(batch | {"image": pixels}), pixels.detach().clone()
    before.square().sum().backward()
    assert ((pixels.grad != 0).flatten(1).any(1) == has(1, 2, 4)).all()
    other[[0, 3]] = 255 - other[[0, 3]]
    assert_close(translator(batch | {"image": other}), before, rtol=0, atol=0)
    other[1] = 255 - other[1]
    assert (translator(batch | {"image": other})[1] != before[1]).any()


@pytest.mark.parametrize("there", [(0, 3), ()], ids=["of two", "of none"])
def test_batch_norm_learns_of_the_pictures_that_are_there(beside, there):
    model = build_model(translator_config(TRANSLATORS[1])).train()
    other = deepcopy(model)
    model(beside | {"has_image": has(*there)})
    if there:
        other.encode({"image": beside["image"][list(there)]})
    assert_close(dict(model.named_buffers()), dict(other.named_buffers()), rtol=0, atol=0)
    assert all(part.training for part in model.modules()), "as it was"


def test_without_any_picture_the_gradient_of_what_sees_is_0_and_not_none(translator, beside):
    logits = translator.train()(beside | {"has_image": has()})
    logits.logsumexp(-1).sum().backward()
    assert logits.isfinite().all()
    for gradient in gradients_of(translator.encoders["image"]):
        assert gradient is not None and (gradient == 0).all()
    assert all((gradient != 0).any() for gradient in gradients_of(translator.encoders["source"]))


@pytest.fixture
def forgetful(beside):
    """A model of two encoders of words that drops 0.3 of its pictures, and 997 examples."""
    decoder = LSTMDecoder(V, D, 13)
    model = EncoderDecoder(
        {"image": Words(V, D), "source": Words(W, D)}, decoder, modality_dropout=0.3
    )
    return model, {"image": torch.randint(4, V, (997, 3)), "source": torch.randint(4, W, (997, 5))}


def test_in_training_some_lack_the_picture_and_as_many_the_sentence_but_none_both(forgetful):
    model, batch = forgetful
    mask = model.encode(batch).mask
    image, source = mask[:, 0], mask[:, 3]
    assert torch.equal(mask[:, :3], image[:, None].expand(-1, 3)) and torch.equal(
        mask[:, 3:], source[:, None].expand(-1, 5)
    )
    assert (image | source).all()
    kept = [image.float().mean().item(), source.float().mean().item()]
    assert kept == pytest.approx(
        [0.85, 0.85], abs=0.05
    )  # 997 draws: the standard deviation is 0.011
    assert not torch.equal(model.encode(batch).mask, mask)  # others the next time
    there = torch.arange(997) % 2 == 0
    mask = model.encode(batch | {"has_image": there}).mask
    assert not mask[~there, 0].any() and mask[~there, 3].all()
    assert (
        abs(mask[there, 0].float().mean() - 0.85) < 0.06
        and abs(mask[there, 3].float().mean() - 0.85) < 0.06
    )
    assert model.eval().encode(batch).mask.all()


def test_several_modalities_are_fused_with_vectors_of_one_length(forgetful):
    model, batch = forgetful
    model.eval().encoders["image"].weight.data.mul_(71.0)
    tokens = model.encode(batch).tokens
    assert_close(tokens.std(-1, unbiased=False), torch.ones(997, 8), rtol=1e-3, atol=1e-3)
    assert_close(tokens.mean(-1), torch.zeros(997, 8), rtol=0, atol=1e-4)
    assert_close(model.encode(only(batch, "source")).tokens, tokens[:, 3:], rtol=0, atol=0)
    words = model.encoders["source"]
    assert_close(
        EncoderDecoder({"source": words}, model.decoder).encode(batch),
        words(batch["source"]),
        rtol=0,
        atol=0,
    )


def test_a_picture_that_stands_alone_is_never_dropped(forgetful):
    model, batch = forgetful
    assert (
        model.encode(only(batch, "image")).mask.all()
        and model.encode(only(batch, "source")).mask.all()
    )


def test_without_modality_dropout_nothing_is_drawn(forgetful):
    model, batch = forgetful
    state = torch.get_rng_state()
    model.eval().encode(batch)
    model.train().encode(only(batch, "image"))
    model.modality_dropout = 0.0
    model.encode(batch | {"has_image": torch.arange(997) % 2 == 0})
    assert torch.equal(torch.get_rng_state(), state)


def test_told_every_word_it_writes_word_by_word_what_it_writes_at_once(translator, beside):
    expected = translator(beside)
    assert_close(translator(beside, teacher_forcing_ratio=1.0), expected, rtol=0, atol=0)
    assert_close(translator(beside, teacher_forcing_ratio=1 - 1e-9), expected, rtol=1e-5, atol=1e-5)


def test_told_no_word_it_goes_on_from_what_it_finds_most_probable(translator, beside):
    logits = translator(beside, teacher_forcing_ratio=0.0)
    assert logits.shape == (5, 7, V) and (logits.argmax(-1) != beside["target"]).any()
    state, token = translator.decoder.start(translator.encode(beside)), torch.full((5,), BOS)
    for t in range(7):
        expected, state = translator.decoder.step(token, state)
        assert_close(logits[:, t], expected, rtol=0, atol=0)
        token = expected.argmax(-1)


def test_told_some_words_the_others_are_its_own(translator, beside, monkeypatch):
    stats, step = [], translator.decoder.step

    def listening(token, state):
        stats.append(token)
        return step(token, state)

    monkeypatch.setattr(translator.decoder, "step", listening)
    batch = {
        name: value.repeat(11, *[1] * (value.dim() - 1))
        for name, value in only(beside, "source", "target").items()
    }
    batch["target"][batch["target"] == PAD] = 5
    own = translator(batch, teacher_forcing_ratio=0.7).argmax(-1)[:, :-1]  # (55, 6)
    stats, true = torch.stack(stats, dim=1), batch["target"][:, :-1]
    assert stats.shape == (55, 7) and (stats[:, 0] == BOS).all()
    assert ((stats[:, 1:] == own) | (stats[:, 1:] == true)).all()
    differ = own != true
    for t in range(6):
        assert set((stats[:, t + 1] == true[:, t])[differ[:, t]].tolist()) == {
            True,
            False,
        }  # the sentences are not told alike
    assert (
        abs((stats[:, 1:] == true)[differ].float().mean() - 0.7) < 0.12
    )  # 300 draws: the standard deviation is 0.026
    rows = (stats[:, 1:] == true).float().mean(1)
    assert 0 < rows.min() < rows.max()  # each word of each sentence is drawn by itself


def test_gradients_flow_when_it_goes_on_from_its_own_words(translator, beside):
    translator(beside, teacher_forcing_ratio=0.0).logsumexp(-1).sum().backward()
    for gradient in gradients_of(translator):
        assert gradient.isfinite().all() and (gradient != 0).any()


def whole_batch(data):
    """All examples of a data set, and a config by its writer."""
    sources, translations = (
        data.columns["source"],
        [references[0] for references in data.references],
    )
    vocabularies = {"target": Vocabulary.build(translations), "source": Vocabulary.build(sources)}
    examples = Examples(data, vocabularies)
    sizes = {"lstm": {"hidden_size": 64}, "transformer": {"num_heads": 4, "num_layers": 1}}

    def config(writer, image=None):
        encoders = {"image": image} if image else {}
        source_size = len(vocabularies["source"])
        encoders["source"] = {
            "name": writer["name"],
            "vocab_size": source_size,
            "num_layers": 1,
        } | sizes[writer["name"]]
        return ModelConfig(
            len(vocabularies["target"]), encoders, sizes[writer["name"]] | writer, embed_dim=64
        )

    return collate([examples[i] for i in range(len(examples))]), config


@pytest.mark.parametrize("part", TRANSLATORS, ids=parts)
def test_learns_a_few_translations_by_heart(part):
    batch, config = whole_batch(SceneTranslation("train", 11, size=0))
    assert set(batch) == {"target", "source"}
    model = build_model(config(part))
    assert learn(model, batch, 70) < 0.02
    shifted = batch | {"source": batch["source"].roll(1, 0)}
    assert mean_loss(model, shifted) > 1  # the sentence matters
    assert (model(batch).argmax(-1) == batch["target"])[batch["target"] != PAD].all()


@pytest.mark.parametrize("part", [TRANSLATORS[0], TRANSLATORS[3]], ids=parts)
def test_learns_by_heart_what_only_the_pictures_tell(part):
    data = SceneTranslation("train", 0, size=32)
    alone = [scene for scene in map(Scene, range(400)) if len(scene.objects) == 1]
    data.set_scenes(
        [scene for scene in alone if scene.objects[0].noun in ("star", "cat", "sun")], size=32
    )
    data.columns["source"] = [tokenize(mask_colours(name_object(scene))) for scene in data.scenes]
    data.references = [[tokenize(name_object(scene, 2, "de"))] for scene in data.scenes]
    sources = data.columns["source"]
    assert len(data) > 8 and len({*map(str, sources)}) < len({*map(str, data.references)}) - 2
    batch, config = whole_batch(data)
    model = build_model(config(part, {"name": "resnet", "width": 8, "image_size": 32}))
    assert learn(model, batch, 100) < 0.05
    colours = [scene.objects[0].colour for scene in data.scenes]
    others = [next(j for j, other in enumerate(colours) if other != colour) for colour in colours]
    for wrong in (batch | {"image": batch["image"][others]}, only(batch, "source", "target")):
        assert mean_loss(model, wrong) > 0.3
