"""The pieces together: fusion of memories, teacher forcing, the loss, and models that overfit a batch."""

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
    _drop_modality,
    build_model,
    fuse,
    token_embedding,
)
from mmscratch.recurrent import LSTMDecoder, LSTMEncoder
from mmscratch.text import BOS, PAD, Vocabulary, tokenize
from mmscratch.transformer import TransformerDecoder, TransformerEncoder
from mmscratch.vision import VGG, ResNet, VisionTransformer

V = 23  # words
S = 37  # pixels a side
D = 22  # embed_dim
SMALL_RESNET = {"name": "resnet", "depth": (1, 1), "width": 5, "image_size": S}
IMAGE_ENCODERS = [
    {"name": "resnet", "depth": 18, "image_size": S},
    {"name": "vgg", "depth": 11, "image_size": S},
    {"name": "vit", "depth": 2, "hidden_dim": 64, "image_size": 24},
]
SIZES = {"lstm": {"hidden_size": 13}, "transformer": {"num_heads": 2, "num_layers": 1}}
DECODER_CONFIGS = [
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


def captioner(decoder=DECODER_CONFIGS[1], image=SMALL_RESNET, **changes):
    """The config of a small captioner."""
    return ModelConfig(V, {"image": image}, SIZES[decoder["name"]] | decoder, D, **changes)


@pytest.fixture(params=DECODER_CONFIGS, ids=parts)
def model(request):
    return build_model(captioner(request.param))


@pytest.fixture
def batch():
    """Five pictures with sentences of 7, 5, 3, 2 and 1 words."""
    target = torch.randint(4, V, (5, 7)).masked_fill(
        torch.arange(7) >= torch.tensor([[7], [5], [3], [2], [1]]), PAD
    )
    return {"image": torch.randint(256, (5, 3, S, S), dtype=torch.uint8), "target": target}


def test_fuse_concatenates_memories():
    memories = []
    for positions in (3, 7, 1):
        memories.append(Memory(torch.randn(2, positions, 5), torch.rand(2, positions) < 0.5))
    fused = fuse(memories)
    assert fused.tokens.shape == (2, 11, 5) and fused.mask.shape == (2, 11)
    for part, memory in zip(zip(*(x.split([3, 7, 1], dim=1) for x in fused)), memories):
        assert_close(part, tuple(memory))
    assert_close(fuse(memories[:1]), memories[0])


class Words(nn.Embedding):
    """The simplest encoder of sentences."""

    def forward(self, tokens):
        return Memory(super().forward(tokens), tokens != PAD)


def normalised(memory):
    """A memory as it is fused with others: each vector of mean 0 and variance 1."""
    return Memory(F.layer_norm(memory.tokens, memory.tokens.shape[-1:]), memory.mask)


def test_a_missing_modality_is_not_fused(model, batch):
    model = EncoderDecoder({**model.encoders, "source": Words(V, D)}, model.decoder).eval()
    batch["source"] = torch.randint(4, V, (5, 3))
    image, source = (normalised(model.encoders[name](batch[name])) for name in ("image", "source"))
    assert_close(model.encode(batch), fuse([image, source]))
    assert_close(model.encode({"image": batch["image"]}), image)
    assert_close(model.encode({"source": batch["source"], "target": batch["target"]}), source)
    assert not torch.equal(model(batch), model({name: batch[name] for name in ("image", "target")}))


def test_a_batch_without_any_modality_is_refused(translator, batch):
    with pytest.raises(ValueError, match="none of: image, source; it has: target"):
        translator.encode({"target": batch["target"]})


def test_logits_depend_on_earlier_words_only(model, batch):
    model.eval()
    before = model(batch)
    assert before.shape == (5, 7, V)
    for t in range(7):
        target = batch["target"].clone()
        target[:, t] = target[:, t] % (V - 4) + 4  # another word
        after = model({**batch, "target": target})
        assert_close(after[:, : t + 1], before[:, : t + 1], rtol=0, atol=0)
        assert (after[:, t + 1 :] != before[:, t + 1 :]).any(-1).all()


def test_the_first_word_follows_bos(model, batch):
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
    assert_trainable_and_restorable(model, config, batch)


@pytest.mark.parametrize("settings", DECODER_CONFIGS, ids=parts)
def test_build_model_makes_the_decoder_of_the_config(settings, batch):
    more = {"num_layers": 3, "dropout": 0.1}
    if settings["name"] == "transformer":
        more["max_length"] = 7
    config = captioner(settings | more)
    model = build_model(config)
    decoder = model.decoder
    assert decoder.fusion == settings["fusion"]
    if settings["name"] == "lstm":
        assert type(decoder) is LSTMDecoder
        assert (decoder.lstm.num_layers, decoder.lstm.hidden_size) == (3, 13)
        assert decoder.dropout == 0.1
        assert (decoder.additive is not None) == (settings.get("score") == "additive")
    else:
        assert type(decoder) is TransformerDecoder and len(decoder.blocks) == 3
        for block in decoder.blocks:
            assert (block.self_attn.num_heads, block.dropout) == (2, 0.1)
        assert decoder.embedding.positions.weight.shape == (7, D)
    assert_trainable_and_restorable(model, config, batch)


def assert_trainable_and_restorable(model, config, batch):
    assert ModelConfig(**asdict(config)) == config
    model.loss(batch)[0].backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without, "weights without a gradient"
    build_model(ModelConfig(**asdict(config))).load_state_dict(model.state_dict(), strict=True)


def test_the_default_config_is_a_captioner_of_64_pixels():
    model = build_model(ModelConfig(V))
    assert list(model.encoders) == ["image"] and type(model.encoders["image"].backbone) is ResNet
    assert model.encoders["image"].image_size == 64
    assert model.decoder.embedding.weight.shape == (V, 256)
    assert model.modality_dropout == model.label_smoothing == 0.0
    assert model.teacher_forcing_ratio == 1.0


def test_settings_of_the_loss_reach_the_model():
    settings = {"modality_dropout": 0.3, "label_smoothing": 0.1, "teacher_forcing_ratio": 0.7}
    model = build_model(captioner(**settings))
    for name, value in settings.items():
        assert getattr(model, name) == value


WORDS_ENCODER = {"name": "lstm", "vocab_size": 29, "hidden_size": 13}
LSTM_DECODER = {"name": "lstm", "hidden_size": 13}


@pytest.mark.parametrize("encoders, decoder, joint, message", [
    ({"image": {"name": "alexnet"}}, LSTM_DECODER, False, "resnet, vgg, mobilenet, vit, lstm, transformer, audio, table, not 'alexnet'"),
    ({"image": {"depth": 18}}, LSTM_DECODER, False, "resnet, vgg, mobilenet, vit, lstm, transformer, audio, table, not None"),
    ({"image": SMALL_RESNET}, {"name": "gru"}, False, "lstm, transformer, not 'gru'"),
    ({"image": SMALL_RESNET}, {"hidden_size": 13}, False, "lstm, transformer, not None"),
    ({"image": SMALL_RESNET | {"heads": 3}}, LSTM_DECODER, False, "resnet: .*'heads'"),
    ({"image": SMALL_RESNET}, LSTM_DECODER | {"num_heads": 3}, False, "lstm: .*'num_heads'"),
    ({"image": SMALL_RESNET}, {"name": "lstm"}, False, "lstm: .*'hidden_size'"),
    ({}, LSTM_DECODER, False, "a model needs an encoder"),
    ({"source": WORDS_ENCODER}, LSTM_DECODER, True, "a joint vocabulary has one size, not 29 and 23"),
    ({"image": {"name": "vit", "image_size": 37}}, LSTM_DECODER, False, "image_size 37 is not a multiple of patch_size 8"),
], ids=["image", "no image name", "decoder", "no decoder name", "image setting", "decoder setting", "setting missing",
        "no encoder", "joint", "patches"])  # fmt: skip
def test_invalid_configs_are_refused_in_one_line(encoders, decoder, joint, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_model(ModelConfig(V, encoders, decoder, D, joint_vocabulary=joint))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("image, message", [
    ({"name": "vit", "depth": (1, 1)}, "vit: 'tuple' object"),
    ({"name": "vit", "hidden_dim": 200}, "3 heads cannot share 200 dimensions equally"),
    ({"name": "vgg", "depth": (1, 1)}, "no VGG of depth"),
    ({"name": "resnet", "depth": 7}, "no ResNet of depth 7"),
], ids=str)  # fmt: skip
def test_invalid_image_encoders_are_refused_in_one_line(image, message):
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
    for block in vit.blocks:
        assert (block.self_attn.num_heads, block.linear1.out_features) == (2, 512)


class Loudness(nn.Module):
    """A toy encoder of sounds (B, F): each sample is a position, up to the sound's length."""

    def __init__(self, embed_dim, scale=1.0):
        super().__init__()
        self.scale = scale
        self.projection = nn.Linear(1, embed_dim)
        self.inputs = []

    def forward(self, sounds, lengths=None):
        self.inputs.append((sounds, lengths))
        mask = torch.ones_like(sounds, dtype=torch.bool)
        if lengths is not None:
            mask = torch.arange(sounds.size(1)) < lengths[:, None]  # (B, F)
        return Memory(self.projection(self.scale * sounds.unsqueeze(-1)), mask)


@pytest.fixture
def loudness(monkeypatch):
    """Registers the toy encoder for one test."""
    monkeypatch.setitem(ENCODERS, "loudness", Loudness)


def test_a_new_encoder_takes_a_class_and_a_line(loudness):
    sounds = [torch.full((3,), 0.5), torch.full((3,), -1.0), torch.full((3,), 2.0)]
    examples = []
    for i, sound in enumerate(sounds):
        examples.append({"sound": sound, "target": torch.tensor([4 + i, 9 - i, 2])})
    batch = collate(examples)
    encoders = {"sound": {"name": "loudness", "scale": 3.0}}
    config = ModelConfig(V, encoders, {"name": "lstm", "hidden_size": 32}, 32)
    model = build_model(config)
    assert type(model.encoders["sound"]) is Loudness and model.encoders["sound"].scale == 3.0
    assert ModelConfig(**asdict(config)) == config
    assert learn(model, batch, 120) < 0.02
    assert torch.equal(model(batch).argmax(-1), batch["target"])


def test_a_new_decoder_takes_a_class_and_a_line(monkeypatch, batch):
    class NewDecoder(LSTMDecoder):
        pass

    monkeypatch.setitem(DECODERS, "new", NewDecoder)
    decoder = {"name": "new", "hidden_size": 13}
    model = build_model(ModelConfig(V, {"image": SMALL_RESNET}, decoder, D))
    assert type(model.decoder) is NewDecoder
    model.loss(batch)[0].backward()


def sound_translator(lengths, **model):
    """A model of sounds and sentences, and a batch of sounds of these lengths; None: no sound."""
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
    return build_model(ModelConfig(V, encoders, LSTM_DECODER, D, **model)), collate(examples)


def test_lengths_of_padded_inputs_reach_the_encoder(loudness):
    model, batch = sound_translator([7, 3, 5])
    memory = model.eval().encode(batch)
    [(sounds, lengths)] = model.encoders["sound"].inputs
    assert torch.equal(sounds, batch["sound"]) and lengths.tolist() == [7, 3, 5]
    assert memory.mask[:, :7].sum(1).tolist() == [7, 3, 5]
    logits = model(batch)
    for b, length in enumerate([7, 3, 5]):
        alone = {name: batch[name][b : b + 1] for name in ("source", "target")}
        alone["sound"] = batch["sound"][b : b + 1, :length]
        assert_close(model(alone), logits[b : b + 1], rtol=1e-5, atol=1e-5)


def test_only_rows_with_a_sound_reach_its_encoder(loudness):
    model, batch = sound_translator([None, 3, None, 6, 2])
    assert batch["has_sound"].tolist() == [False, True, False, True, True]
    memory = model.eval().encode(batch)
    [(sounds, lengths)] = model.encoders["sound"].inputs
    assert torch.equal(sounds, batch["sound"][[1, 3, 4]]) and lengths.tolist() == [3, 6, 2]
    assert memory.mask[:, :6].sum(1).tolist() == [0, 3, 0, 6, 2] and memory.mask[:, 6:].all()
    none = model(batch | {"has_sound": torch.zeros(5, dtype=torch.bool)})
    assert_close(none, model(only(batch, "source", "target")), **CLOSE)


def test_sounds_of_one_length_need_no_lengths(loudness):
    model, batch = sound_translator([4, 4, 4])
    assert "sound_lengths" not in batch
    model.encode(batch)
    assert model.encoders["sound"].inputs[0][1] is None


@pytest.mark.parametrize("decoder", DECODER_CONFIGS, ids=parts)
def test_captioner_overfits_a_small_batch(decoder):
    scenes = SceneCaptions("train", 11, size=32, one_caption_each=True)
    vocabulary = Vocabulary.build(caption for captions in scenes.references for caption in captions)
    examples = Examples(scenes, {"target": vocabulary})
    batch = collate([examples[i] for i in range(len(examples))])
    image = {"name": "resnet", "width": 8, "image_size": 32}
    sizes = {"lstm": {"hidden_size": 64}, "transformer": {"num_heads": 4, "num_layers": 1}}
    decoder = sizes[decoder["name"]] | decoder
    model = build_model(ModelConfig(len(vocabulary), {"image": image}, decoder, embed_dim=64))
    assert learn(model, batch, 100) < 0.02
    assert (model(batch).argmax(-1) == batch["target"])[batch["target"] != PAD].all()


# -------------------------------------------------------------------------------------------------
# The loss: the sum over the words, and their number.


def learn(model, batch, steps):
    """The mean loss per word after `steps` training steps on the same batch."""
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


def test_padding_does_not_change_the_loss(model, batch):
    model.eval()
    loss, count = model.loss(batch)
    assert count == 7 + 5 + 3 + 2 + 1
    longer = {**batch, "target": F.pad(batch["target"], (0, 4), value=PAD)}
    assert_close(model.loss(longer)[0], loss)
    assert model.loss(longer)[1] == count
    alone = []
    for image, words in zip(batch["image"], batch["target"]):
        alone.append(model.loss({"image": image[None], "target": words[words != PAD][None]}))
    assert_close(sum(one for one, _ in alone), loss)
    assert [words.item() for _, words in alone] == [7, 5, 3, 2, 1]


def test_references_at_once_are_like_separate_examples(model, batch):
    """Three references of each of two pictures; of the second, one is missing: all <pad>."""
    torch.manual_seed(3)
    image = batch["image"][:2]
    target = torch.randint(4, V, (2, 3, 5))
    target[0, 1, 3:] = PAD
    target[1, 2] = PAD
    separate = {"image": image.repeat_interleave(3, 0), "target": target.flatten(0, 1)}
    model.eval()
    results = []
    for given in ({"image": image, "target": target}, separate):
        model.zero_grad()
        loss, count = model.loss(given)
        loss.backward()
        results.append((loss, count, gradients_of(model), model(given)))
    assert results[0][1] == 23
    assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_a_picture_is_encoded_once_for_all_its_references(model, batch):
    seen = []
    model.encoders["image"].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    model.loss({"image": batch["image"][:2], "target": torch.full((2, 7, 3), 5)})
    assert seen == [2]


def test_loss_is_the_summed_negative_log_likelihood(model, batch):
    model.eval()
    loss, _ = model.loss(batch)
    probabilities = model(batch).softmax(-1)
    expected = 0
    for b, t in batch["target"].ne(PAD).nonzero().tolist():
        expected -= probabilities[b, t, batch["target"][b, t]].log()
    assert_close(loss, expected)


class FixedLogits(EncoderDecoder):
    """Returns given logits in half precision, and records the requested teacher forcing ratios."""

    def __init__(self, logits, **settings):
        super().__init__({}, nn.Identity(), **settings)
        self.logits = logits
        self.requested = []

    def forward(self, batch, need_weights=False, teacher_forcing_ratio=1.0):
        self.requested.append(teacher_forcing_ratio)
        return self.logits.bfloat16()


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_is_in_float32_and_smoothed_in_training_only(smoothing, training):
    logits = torch.randn(5, 7, 29, requires_grad=True)
    target = torch.randint(5, (5, 7))
    model = FixedLogits(logits, label_smoothing=smoothing, teacher_forcing_ratio=0.25).train(
        training
    )
    loss, count = model.loss({"target": target})
    flat = logits.bfloat16().float().flatten(0, 1)  # (35, 29)
    options = {"ignore_index": PAD, "label_smoothing": smoothing if training else 0.0}
    expected = F.cross_entropy(flat, target.flatten(), reduction="sum", **options)
    assert_close(loss, expected)
    assert loss.dtype == torch.float32 and count == (target != PAD).sum()
    assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))
    assert model.requested == [0.25 if training else 1.0]


def test_an_objective_takes_the_place_of_the_loss():
    model = FixedLogits(torch.randn(5, 7, 29))
    model.objective = lambda model, batch: (model, batch)
    batch = {"target": torch.ones(5, 7, dtype=torch.long)}
    given_model, given_batch = model.loss(batch)
    assert given_model is model and given_batch is batch


@pytest.mark.parametrize("scale", [1, 1e4], ids=["logits of 1", "logits of 10,000"])
@pytest.mark.parametrize("real", [13, 9, 0], ids=["all words", "some padding", "all padding"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothed_loss_follows_the_formula_and_ignores_padding(smoothing, real, scale):
    logits = (scale * torch.randn(1, 13, 29)).bfloat16().float().requires_grad_()
    target = torch.randint(1, 29, (13,)).masked_fill(torch.randperm(13) >= real, PAD)
    model = FixedLogits(logits, label_smoothing=smoothing)
    loss, count = model.loss({"target": target[None]})
    log_p = logits[0].log_softmax(-1)
    expected = 0.0 * logits.sum()
    for t in target.ne(PAD).nonzero().flatten().tolist():
        expected = expected - (1 - smoothing) * log_p[t, target[t]] - smoothing * log_p[t].mean()
    assert_close(loss, expected)
    assert count == real
    gradient, wanted = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    # The gradient passes through logits in half precision.
    assert_close(gradient, wanted, rtol=1e-2, atol=1e-3)
    assert not gradient[0, target == PAD].any() and gradient.isfinite().all()


def test_smoothing_and_scheduled_sampling_are_for_training_only(batch):
    image = {"name": "vit", "image_size": 32, "depth": 1}
    config = captioner(image=image, label_smoothing=0.2, teacher_forcing_ratio=0.0)
    model = build_model(config)
    plain = deepcopy(model)
    plain.label_smoothing = 0.0
    plain.teacher_forcing_ratio = 1.0
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


# -------------------------------------------------------------------------------------------------
# Translation, with pictures or without.


W = 29  # words of the source
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
TRANSLATORS = [
    {"name": name, "fusion": fusion}
    for name, fusion in product(("lstm", "transformer"), ("prefix", "cross_attention"))
]


def translator_config(decoder, sizes=(V, W), image=SMALL_RESNET, **changes):
    """The config of a small translator, its text encoder of the decoder's kind; image=None: text only."""
    name = decoder["name"]
    encoders = {"image": image} if image else {}
    encoders["source"] = {"name": name, "vocab_size": sizes[1], "num_layers": 1} | SIZES[name]
    return ModelConfig(sizes[0], encoders, SIZES[name] | decoder, D, **changes)


@pytest.fixture(params=TRANSLATORS, ids=parts)
def translator(request):
    return build_model(translator_config(request.param)).eval()


@pytest.fixture
def multimodal(batch):
    """The same pictures and sentences, with source sentences of 3, 1, 11, 2 and 5 words."""
    padding = torch.arange(11) >= torch.tensor([[3], [1], [11], [2], [5]])
    return batch | {"source": torch.randint(4, W, (5, 11)).masked_fill(padding, PAD)}


def only(batch, *names):
    return {name: batch[name] for name in names}


def has(*numbers):
    return torch.isin(torch.arange(5), torch.tensor(numbers))


def gradients_of(module):
    return [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("part", TRANSLATORS, ids=parts)
@pytest.mark.parametrize("image", [SMALL_RESNET, None], ids=["with a picture", "text only"])
def test_build_model_makes_a_translator(part, image, multimodal):
    settings = part | {"num_layers": 2, "dropout": 0.1}
    config = translator_config(settings, image=image, modality_dropout=0.3)
    config.encoders["source"] |= {"num_layers": 3, "dropout": 0.1}
    if part["name"] == "transformer":
        for settings in (config.encoders["source"], config.decoder):
            settings |= {"mlp_dim": 17, "max_length": 11}
    model = build_model(config)
    assert set(model.encoders) == ({"image", "source"} if image else {"source"})
    assert model.modality_dropout == 0.3
    encoder = model.encoders["source"]
    decoder = model.decoder
    assert token_embedding(encoder).weight.shape == (W, D)
    assert token_embedding(decoder).weight.shape == (V, D)
    assert encoder.dropout == decoder.dropout == 0.1
    if part["name"] == "lstm":
        assert type(encoder) is LSTMEncoder and encoder.lstm.hidden_size == 13
        assert (encoder.lstm.num_layers, decoder.lstm.num_layers) == (3, 2)
    else:
        assert type(encoder) is TransformerEncoder
        assert (len(encoder.blocks), len(decoder.blocks)) == (3, 2)
        for block in (*encoder.blocks, *decoder.blocks):
            assert (block.self_attn.num_heads, block.linear1.out_features) == (2, 17)
            assert block.dropout == 0.1
        for module in (encoder, decoder):
            assert module.embedding.positions.weight.shape == (11, D)
    model.modality_dropout = 0.0
    model.loss(multimodal)[0].backward()
    assert all(gradient is not None for gradient in gradients_of(model))
    again = build_model(ModelConfig(**asdict(config)))
    again.load_state_dict(model.state_dict(), strict=True)
    assert_close(again.eval()(multimodal), model.eval()(multimodal), rtol=0, atol=0)


def test_text_encoders_come_last_in_any_config(multimodal):
    config = translator_config(TRANSLATORS[1])
    reversed_config = replace(config, encoders=dict(reversed(config.encoders.items())))
    assert list(build_model(config).encoders) == ["image", "source"]
    assert (
        build_model(reversed_config).state_dict().keys() == build_model(config).state_dict().keys()
    )


@pytest.mark.parametrize("given", [("source",), ("image", "source")], ids=" and ".join)
def test_decoding_step_by_step_equals_forward(translator, multimodal, given):
    expected = translator(only(multimodal, "target", *given))
    assert expected.shape == (5, 7, V)
    state = translator.decoder.start(translator.encode(only(multimodal, *given)))
    token = torch.full((5,), BOS)
    for t in range(7):
        logits, state = translator.decoder.step(token, state)
        assert_close(logits, expected[:, t], rtol=1e-5, atol=1e-5)
        token = multimodal["target"][:, t]


@pytest.mark.parametrize("part", TRANSLATORS, ids=parts)
def test_a_joint_vocabulary_shares_one_embedding(part, multimodal):
    config = translator_config(part, (W, W), joint_vocabulary=True)
    joint = build_model(config)
    apart = build_model(replace(config, joint_vocabulary=False))
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (apart, joint)]
    assert sizes[0] - sizes[1] == W * D

    def embeddings(model):
        source = token_embedding(model.encoders["source"]).weight
        return source, token_embedding(model.decoder).weight

    def assert_shared(model):
        source, target = embeddings(model)
        assert source is target

    assert embeddings(apart)[0] is not embeddings(apart)[1]
    optimizer = torch.optim.AdamW(joint.parameters(), lr=0.01)
    before = token_embedding(joint.decoder).weight.detach().clone()
    joint.loss(multimodal)[0].backward()
    optimizer.step()
    assert_shared(joint)
    assert (token_embedding(joint.decoder).weight != before).any()
    assert joint.state_dict().keys() == apart.state_dict().keys()
    again = build_model(config)
    again.load_state_dict(joint.state_dict(), strict=True)
    assert_shared(again)
    assert_close(again.eval()(multimodal), joint.eval()(multimodal), rtol=0, atol=0)
    apart.load_state_dict(joint.state_dict(), strict=True)
    joint.zero_grad()
    for model in (joint, apart):
        model.eval().loss(multimodal)[0].backward()
    both = sum(embedding.grad for embedding in embeddings(apart))
    assert_close(token_embedding(joint.decoder).weight.grad, both, rtol=1e-5, atol=1e-5)


def test_absent_pictures_equal_no_picture_modality(translator, multimodal):
    expected = translator.decoder(
        torch.cat([torch.full((5, 1), BOS), multimodal["target"][:, :-1]], dim=1),
        normalised(translator.encoders["source"](multimodal["source"])),
    )
    assert_close(translator(only(multimodal, "source", "target")), expected, rtol=0, atol=0)
    assert_close(translator(multimodal | {"has_image": has()}), expected, **CLOSE)
    assert not any(part.training for part in translator.modules()), "the mode has changed"
    assert (translator(multimodal) != expected).any(-1).all()
    everyone = translator(multimodal | {"has_image": has(0, 1, 2, 3, 4)})
    assert_close(everyone, translator(multimodal), rtol=0, atol=0)


def test_each_sentence_sees_its_own_picture_or_none(translator, multimodal):
    together = translator(multimodal | {"has_image": has(0, 3)})
    for b in range(5):
        alone = {name: value[b : b + 1] for name, value in multimodal.items()}
        expected = translator(alone if b in (0, 3) else only(alone, "source", "target"))
        assert_close(together[b : b + 1], expected, rtol=1e-5, atol=1e-5)
    memory = translator.encode(multimodal | {"has_image": has(0, 3)})
    assert memory.tokens.shape[:2] == memory.mask.shape
    assert torch.equal(memory.mask[:, 0], has(0, 3))


def test_pixels_of_absent_pictures_have_no_effect(translator, multimodal):
    translator.train()
    batch = multimodal | {"has_image": has(1, 2, 4)}
    pixels = multimodal["image"].float().requires_grad_()
    before = translator(batch | {"image": pixels})
    other = pixels.detach().clone()
    before.square().sum().backward()
    assert ((pixels.grad != 0).flatten(1).any(1) == has(1, 2, 4)).all()
    other[[0, 3]] = 255 - other[[0, 3]]
    assert_close(translator(batch | {"image": other}), before, rtol=0, atol=0)
    other[1] = 255 - other[1]
    assert (translator(batch | {"image": other})[1] != before[1]).any()


@pytest.mark.parametrize("present", [(0, 3), ()], ids=["two", "none"])
def test_batch_norm_counts_present_pictures_only(multimodal, present):
    model = build_model(translator_config(TRANSLATORS[1])).train()
    other = deepcopy(model)
    model(multimodal | {"has_image": has(*present)})
    if present:
        other.encode({"image": multimodal["image"][list(present)]})
    assert_close(dict(model.named_buffers()), dict(other.named_buffers()), rtol=0, atol=0)
    assert all(part.training for part in model.modules()), "the mode has changed"


def test_without_any_picture_the_image_gradient_is_zero_not_none(translator, multimodal):
    logits = translator.train()(multimodal | {"has_image": has()})
    logits.logsumexp(-1).sum().backward()
    assert logits.isfinite().all()
    for gradient in gradients_of(translator.encoders["image"]):
        assert gradient is not None and (gradient == 0).all()
    assert all((gradient != 0).any() for gradient in gradients_of(translator.encoders["source"]))


@pytest.fixture
def dropping(multimodal):
    """A model of two encoders of words with a modality dropout of 0.3, and 997 examples."""
    encoders = {"image": Words(V, D), "source": Words(W, D)}
    model = EncoderDecoder(encoders, LSTMDecoder(V, D, 13), modality_dropout=0.3)
    return model, {"image": torch.randint(4, V, (997, 3)), "source": torch.randint(4, W, (997, 5))}


def test_modality_dropout_drops_each_equally_often_and_never_both(dropping):
    model, batch = dropping
    mask = model.encode(batch).mask
    image = mask[:, 0]
    source = mask[:, 3]
    assert torch.equal(mask[:, :3], image[:, None].expand(-1, 3))
    assert torch.equal(mask[:, 3:], source[:, None].expand(-1, 5))
    assert (image | source).all()
    kept = [image.float().mean().item(), source.float().mean().item()]
    assert kept == pytest.approx([0.85, 0.85], abs=0.05)  # 997 draws: a standard deviation of 0.011
    assert not torch.equal(model.encode(batch).mask, mask)  # new draws
    present = torch.arange(997) % 2 == 0
    given = batch | {"has_image": present}
    names = list(given)
    mask = model.encode(given).mask
    assert list(given) == names  # the batch does not change
    assert not mask[~present, 0].any() and mask[~present, 3].all()
    assert abs(mask[present, 0].float().mean() - 0.85) < 0.06
    assert abs(mask[present, 3].float().mean() - 0.85) < 0.06
    assert model.eval().encode(batch).mask.all()


def test_dropping_a_modality_does_not_change_what_was_present():
    has_image = torch.tensor([True, True, False, True])
    present = {"image": has_image, "source": None}
    kept = _drop_modality(present, 4, 1.0, torch.device("cpu"))
    assert present["image"] is has_image and present["source"] is None
    assert has_image.tolist() == [True, True, False, True]
    assert (kept["image"] != kept["source"]).all()  # one is dropped from each that had both


def test_fused_modalities_have_vectors_of_one_length(dropping):
    model, batch = dropping
    model.eval().encoders["image"].weight.data.mul_(71.0)
    tokens = model.encode(batch).tokens
    assert_close(tokens.std(-1, unbiased=False), torch.ones(997, 8), rtol=1e-3, atol=1e-3)
    assert_close(tokens.mean(-1), torch.zeros(997, 8), rtol=0, atol=1e-4)
    assert_close(model.encode(only(batch, "source")).tokens, tokens[:, 3:])
    words = model.encoders["source"]
    alone = EncoderDecoder({"source": words}, model.decoder).encode(batch)
    assert_close(alone, words(batch["source"]), rtol=0, atol=0)


def test_the_only_modality_is_never_dropped(dropping):
    model, batch = dropping
    assert model.encode(only(batch, "image")).mask.all()
    assert model.encode(only(batch, "source")).mask.all()


def test_without_modality_dropout_no_random_numbers_are_drawn(dropping):
    model, batch = dropping
    state = torch.get_rng_state()
    model.eval().encode(batch)
    model.train().encode(only(batch, "image"))
    model.modality_dropout = 0.0
    model.encode(batch | {"has_image": torch.arange(997) % 2 == 0})
    assert torch.equal(torch.get_rng_state(), state)


def test_full_teacher_forcing_word_by_word_equals_forward(translator, multimodal):
    expected = translator(multimodal)
    assert_close(translator(multimodal, teacher_forcing_ratio=1.0), expected, rtol=0, atol=0)
    assert_close(
        translator(multimodal, teacher_forcing_ratio=1 - 1e-9), expected, rtol=1e-5, atol=1e-5
    )


def test_without_teacher_forcing_it_reads_its_own_predictions(translator, multimodal):
    logits = translator(multimodal, teacher_forcing_ratio=0.0)
    assert logits.shape == (5, 7, V) and (logits.argmax(-1) != multimodal["target"]).any()
    state = translator.decoder.start(translator.encode(multimodal))
    token = torch.full((5,), BOS)
    for t in range(7):
        expected, state = translator.decoder.step(token, state)
        assert_close(logits[:, t], expected, rtol=1e-5, atol=1e-5)
        token = expected.argmax(-1)


def test_scheduled_sampling_mixes_true_words_and_predictions(translator, multimodal):
    """What was read shows in the next logits."""
    batch = {}
    for name, value in only(multimodal, "source", "target").items():
        batch[name] = value.repeat(11, *[1] * (value.dim() - 1))
    batch["target"][batch["target"] == PAD] = 5
    logits = translator(batch, teacher_forcing_ratio=0.7)  # (55, 7, V)
    own = logits.argmax(-1)[:, :-1]  # (55, 6)
    true = batch["target"][:, :-1]
    differ = own != true
    is_true = torch.zeros_like(differ)
    token = torch.full((55,), BOS)
    state = translator.decoder.start(translator.encode(batch))
    for t in range(7):
        expected, state = translator.decoder.step(token, state)
        assert_close(logits[:, t], expected, rtol=1e-5, atol=1e-5)
        if t < 6:
            if_true, _ = translator.decoder.step(true[:, t], state)
            is_true[:, t] = torch.isclose(if_true, logits[:, t + 1], rtol=1e-5, atol=1e-5).all(1)
            token = torch.where(is_true[:, t], true[:, t], own[:, t])
    for t in range(6):  # at each position, some sentences read the true word and some do not
        assert set(is_true[:, t][differ[:, t]].tolist()) == {True, False}
    # 300 draws: a standard deviation of 0.026
    assert abs(is_true[differ].float().mean() - 0.7) < 0.12
    fractions = is_true.float().mean(1)
    assert 0 < fractions.min() < fractions.max()  # each word of each sentence is drawn by itself


def test_gradients_flow_without_teacher_forcing(translator, multimodal):
    translator(multimodal, teacher_forcing_ratio=0.0).logsumexp(-1).sum().backward()
    for gradient in gradients_of(translator):
        assert gradient.isfinite().all() and (gradient != 0).any()


def whole_batch(data):
    """All examples of a data set, and a function decoder -> config."""
    sources = data.columns["source"]
    translations = [references[0] for references in data.references]
    vocabularies = {"target": Vocabulary.build(translations), "source": Vocabulary.build(sources)}
    examples = Examples(data, vocabularies)
    sizes = {"lstm": {"hidden_size": 64}, "transformer": {"num_heads": 4, "num_layers": 1}}

    def config(decoder, image=None):
        name = decoder["name"]
        source = {"name": name, "vocab_size": len(vocabularies["source"]), "num_layers": 1}
        encoders = {"image": image} if image else {}
        encoders["source"] = source | sizes[name]
        return ModelConfig(
            len(vocabularies["target"]), encoders, sizes[name] | decoder, embed_dim=64
        )

    return collate([examples[i] for i in range(len(examples))]), config


@pytest.mark.parametrize("part", TRANSLATORS, ids=parts)
def test_translator_overfits_a_few_sentences(part):
    batch, config = whole_batch(SceneTranslation("train", 11, size=0))
    assert set(batch) == {"target", "source"}
    model = build_model(config(part))
    assert learn(model, batch, 70) < 0.02
    shifted = batch | {"source": batch["source"].roll(1, 0)}
    assert mean_loss(model, shifted) > 1  # the sentence matters
    assert (model(batch).argmax(-1) == batch["target"])[batch["target"] != PAD].all()


@pytest.mark.parametrize("part", [TRANSLATORS[0], TRANSLATORS[3]], ids=parts)
def test_translator_learns_colours_that_only_pictures_show(part):
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
