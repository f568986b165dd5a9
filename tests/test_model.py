"""The pieces together: fusion of memories, teacher forcing, and a model that can learn a batch by heart."""

from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.batches import CaptionPairs, collate
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.language import mask_colours, name_thing
from mmscratch.data.scenes import Scene
from mmscratch.data.translations import SceneTranslation
from mmscratch.model import EncoderDecoder, ModelConfig, build_model, fuse, table
from mmscratch.recurrent import LSTMDecoder, LSTMEncoder
from mmscratch.text import BOS, PAD, Vocabulary, tokenize
from mmscratch.training import word_loss
from mmscratch.transformer import TransformerDecoder, TransformerEncoder
from mmscratch.vision import VGG, ResNet, VisionTransformer

V, S = 23, 37  # words, and pixels a side
SMALL = {"depth": (1, 1), "width": 5, "image_size": S, "embed_dim": 22, "hidden_size": 13, "num_heads": 2}
BACKBONES = [
    {"backbone": "resnet", "depth": 18},
    {"backbone": "vgg", "depth": 11},
    {"backbone": "vit", "depth": 2, "width": 8, "image_size": 24},
]
DECODERS = [
    {"decoder": "lstm", "fusion": "prefix"},
    {"decoder": "lstm", "fusion": "cross_attention", "score": "dot"},
    {"decoder": "lstm", "fusion": "cross_attention", "score": "additive"},
    {"decoder": "transformer", "fusion": "prefix"},
    {"decoder": "transformer", "fusion": "cross_attention"},
]


def parts(config):
    return " ".join(value for value in config.values() if isinstance(value, str))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=DECODERS, ids=parts)
def model(request):
    return build_model(ModelConfig(V, **SMALL, **request.param))


@pytest.fixture
def batch():
    """Five pictures with sentences of 7, 5, 3, 2 and 1 words."""
    target = torch.randint(4, V, (5, 7)).masked_fill(torch.arange(7) >= torch.tensor([[7], [5], [3], [2], [1]]), PAD)
    return {"image": torch.randint(256, (5, 3, S, S), dtype=torch.uint8), "target": target}


def test_fuse_lays_memories_side_by_side():
    memories = [Memory(torch.randn(2, places, 5), torch.rand(2, places) < 0.5) for places in (3, 7, 1)]
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
    model = EncoderDecoder({**model.encoders, "source": Words(V, 22)}, model.decoder).eval()
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


def test_padding_does_not_matter_to_the_loss(model, batch):
    model.eval()
    loss = word_loss(model, batch)
    longer = {**batch, "target": nn.functional.pad(batch["target"], (0, 4), value=PAD)}
    assert_close(word_loss(model, longer), loss)
    alone = [word_loss(model, {"image": i[None], "target": t[t != PAD][None]}) for i, t in zip(*batch.values())]
    assert_close(sum(alone), loss)


def test_the_loss_is_the_sum_over_the_words_of_minus_log_probability(model, batch):
    model.eval()
    loss = word_loss(model, batch)
    probabilities, expected = model(batch).softmax(-1), 0
    for b, t in batch["target"].ne(PAD).nonzero().tolist():
        expected -= probabilities[b, t, batch["target"][b, t]].log()
    assert_close(loss, expected)


@pytest.mark.parametrize("part", BACKBONES + DECODERS, ids=parts)
def test_build_model_makes_what_the_config_says(part, batch):
    config = ModelConfig(V, **(SMALL | {"num_layers": 3, "max_length": 7, "dropout": 0.1} | part))
    assert ModelConfig(**asdict(config)) == config
    model = build_model(config)
    kinds = {"resnet": ResNet, "vgg": VGG, "vit": VisionTransformer}
    assert type(model.encoders["image"].backbone) is kinds[config.backbone]
    decoder = model.decoder
    assert decoder.fusion == config.fusion
    if config.decoder == "lstm":
        assert type(decoder) is LSTMDecoder and (decoder.lstm.num_layers, decoder.dropout) == (3, 0.1)
        assert (decoder.additive is not None) == (config.score == "additive") and decoder.lstm.hidden_size == 13
    else:
        assert type(decoder) is TransformerDecoder and len(decoder.blocks) == 3
        assert [(block.self_attn.num_heads, block.dropout) for block in decoder.blocks] == [(2, 0.1)] * 3
        assert decoder.embedding.positions.weight.shape == (7, 22)
    batch["image"] = batch["image"][:, :, : config.image_size, : config.image_size]
    word_loss(model, batch).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without, "weights that nothing is computed with"
    build_model(ModelConfig(**asdict(config))).load_state_dict(model.state_dict(), strict=True)


def test_an_unknown_decoder_is_refused():
    with pytest.raises(ValueError, match='"lstm" or "transformer", not \'gru\''):
        build_model(ModelConfig(V, decoder="gru"))


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match='"resnet", "vgg" or "vit", or "" for none, not \'alexnet\''):
        build_model(ModelConfig(V, backbone="alexnet"))


def test_the_vit_of_a_config():
    vit = build_model(ModelConfig(V, backbone="vit", depth=3, image_size=40, width=16)).encoders["image"].backbone
    assert len(vit.blocks) == 3 and vit.conv_proj.kernel_size == (8, 8) and vit.out_channels == 128
    assert [(block.self_attn.num_heads, block.linear1.out_features) for block in vit.blocks] == [(2, 512)] * 3


@pytest.mark.parametrize("wrong", [{"depth": (1, 1)}, {"depth": 2, "width": 12}], ids=str)
def test_a_vit_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match='"vit" has a depth that is one number, and a width that is a multiple of 8'):
        build_model(ModelConfig(V, backbone="vit", **wrong))


@pytest.mark.parametrize("decoder", DECODERS, ids=parts)
def test_learns_a_small_batch_by_heart(decoder):
    scenes = SceneCaptions("train", 11, size=32, one_each=True)
    vocabulary = Vocabulary.build(caption for captions in scenes.references for caption in captions)
    pairs = CaptionPairs(scenes, vocabulary)
    batch = collate([pairs[i] for i in range(len(pairs))])
    model = build_model(ModelConfig(len(vocabulary), width=8, image_size=32, embed_dim=64, hidden_size=64, **decoder))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        loss = word_loss(model, batch) / (batch["target"] != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    assert (model(batch).argmax(-1) == batch["target"])[batch["target"] != PAD].all()


# ---------------------------------------------------------------------------------------------------------------------
# Sentences that are translated, with pictures beside them or without.


W = 29  # words of the source
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
TRANSLATORS = [{"decoder": name, "fusion": fusion} for name in ("lstm", "transformer") for fusion in ("prefix", "cross_attention")]


@pytest.fixture(params=TRANSLATORS, ids=parts)
def translator(request):
    return build_model(ModelConfig(V, source_vocab_size=W, **SMALL, **request.param)).eval()


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
@pytest.mark.parametrize("backbone", ["resnet", ""], ids=["beside a picture", "alone"])
def test_build_model_makes_a_translator(part, backbone, beside):
    config = ModelConfig(V, **SMALL | part, backbone=backbone, source_vocab_size=W, source_layers=3, num_layers=2, dropout=0.1,
                         feedforward_size=17, max_length=11, modality_dropout=0.3)  # fmt: skip
    model = build_model(config)
    assert list(model.encoders) == ["image", "source"][not backbone :] and model.modality_dropout == 0.3
    encoder, decoder = model.encoders["source"], model.decoder
    assert table(encoder).weight.shape == (W, 22) and table(decoder).weight.shape == (V, 22)
    if part["decoder"] == "lstm":
        assert type(encoder) is LSTMEncoder and (encoder.lstm.hidden_size, encoder.dropout) == (13, 0.1)
        assert (encoder.lstm.num_layers, decoder.lstm.num_layers) == (3, 2)
    else:
        assert type(encoder) is TransformerEncoder and len(encoder.blocks) == 3 and len(decoder.blocks) == 2
        assert (encoder.dropout, decoder.dropout) == (0.1, 0.1)
        for block in (*encoder.blocks, *decoder.blocks):
            assert (block.self_attn.num_heads, block.linear1.out_features, block.dropout) == (2, 17, 0.1)
        assert encoder.embedding.positions.weight.shape == decoder.embedding.positions.weight.shape == (11, 22)
    model.modality_dropout = 0.0
    word_loss(model, beside).backward()
    assert all(gradient is not None for gradient in gradients_of(model))
    again = build_model(ModelConfig(**asdict(config)))
    again.load_state_dict(model.state_dict(), strict=True)
    assert_close(again.eval()(beside), model.eval()(beside), rtol=0, atol=0)


@pytest.mark.parametrize("given", [("source",), ("image", "source")], ids=" and ".join)
def test_a_translator_writes_step_by_step_what_it_writes_at_once(translator, beside, given):
    expected = translator(only(beside, "target", *given))
    assert expected.shape == (5, 7, V)
    state, token = translator.decoder.start(translator.encode(only(beside, *given))), torch.full((5,), BOS)
    for t in range(7):
        logits, state = translator.decoder.step(token, state)
        assert_close(logits, expected[:, t], rtol=1e-5, atol=1e-5)
        token = beside["target"][:, t]


@pytest.mark.parametrize("part", TRANSLATORS, ids=parts)
def test_a_joint_vocabulary_is_one_table_and_stays_one(part, beside):
    config = ModelConfig(W, source_vocab_size=W, joint_vocabulary=True, **SMALL, **part)
    joint, apart = build_model(config), build_model(replace(config, joint_vocabulary=False))
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (apart, joint)]
    assert sizes[0] - sizes[1] == W * 22
    assert table(apart.encoders["source"]).weight is not table(apart.decoder).weight

    def assert_shared(model):
        assert table(model.encoders["source"]).weight is table(model.decoder).weight

    optimizer = torch.optim.AdamW(joint.parameters(), lr=0.01)
    before = table(joint.decoder).weight.detach().clone()
    word_loss(joint, beside).backward()
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
        word_loss(model.eval(), beside).backward()
    both = table(apart.encoders["source"]).weight.grad + table(apart.decoder).weight.grad
    assert_close(table(joint.decoder).weight.grad, both, rtol=1e-5, atol=1e-5)


def test_a_model_of_nothing_and_a_joint_vocabulary_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"a picture \(backbone\) or a sentence \(source_vocab_size\)"):
        build_model(ModelConfig(V, backbone=""))
    with pytest.raises(ValueError, match="a joint vocabulary has one size, not 29 and 23"):
        build_model(ModelConfig(V, source_vocab_size=W, joint_vocabulary=True))


def test_no_picture_is_as_good_as_none_that_is_there(translator, beside):
    expected = translator.decoder(
        torch.cat([torch.full((5, 1), BOS), beside["target"][:, :-1]], dim=1),
        evened(translator.encoders["source"](beside["source"])),
    )
    assert_close(translator(only(beside, "source", "target")), expected, rtol=0, atol=0)
    assert_close(translator(beside | {"has_image": has()}), expected, **CLOSE)
    assert not any(part.training for part in translator.modules()), "as it was"
    assert (translator(beside) != expected).any(-1).all()
    assert_close(translator(beside | {"has_image": has(0, 1, 2, 3, 4)}), translator(beside), rtol=0, atol=0)


def test_of_some_pictures_each_sentence_sees_its_own_or_none(translator, beside):
    together = translator(beside | {"has_image": has(0, 3)})
    for b in range(5):
        alone = {name: value[b : b + 1] for name, value in beside.items()}
        expected = translator(alone if b in (0, 3) else only(alone, "source", "target"))
        assert_close(together[b : b + 1], expected, rtol=1e-5, atol=1e-5)
    memory = translator.encode(beside | {"has_image": has(0, 3)})
    assert memory.tokens.shape[:2] == memory.mask.shape and torch.equal(memory.mask[:, 0], has(0, 3))


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
    model = build_model(ModelConfig(V, source_vocab_size=W, **SMALL)).train()
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
    decoder = LSTMDecoder(V, 22, 13)
    model = EncoderDecoder({"image": Words(V, 22), "source": Words(W, 22)}, decoder, modality_dropout=0.3)
    return model, {"image": torch.randint(4, V, (997, 3)), "source": torch.randint(4, W, (997, 5))}


def test_in_training_some_lack_the_picture_and_as_many_the_sentence_but_none_both(forgetful):
    model, batch = forgetful
    mask = model.encode(batch).mask
    image, source = mask[:, 0], mask[:, 3]
    assert torch.equal(mask[:, :3], image[:, None].expand(-1, 3)) and torch.equal(mask[:, 3:], source[:, None].expand(-1, 5))
    assert (image | source).all()
    kept = [image.float().mean().item(), source.float().mean().item()]
    assert kept == pytest.approx([0.85, 0.85], abs=0.05)  # 997 draws: the standard deviation is 0.011
    assert not torch.equal(model.encode(batch).mask, mask)  # others the next time
    there = torch.arange(997) % 2 == 0
    mask = model.encode(batch | {"has_image": there}).mask
    assert not mask[~there, 0].any() and mask[~there, 3].all()
    assert abs(mask[there, 0].float().mean() - 0.85) < 0.06 and abs(mask[there, 3].float().mean() - 0.85) < 0.06
    assert model.eval().encode(batch).mask.all()


def test_several_modalities_are_fused_with_vectors_of_one_length(forgetful):
    model, batch = forgetful
    model.eval().encoders["image"].weight.data.mul_(71.0)
    tokens = model.encode(batch).tokens
    assert_close(tokens.std(-1, unbiased=False), torch.ones(997, 8), rtol=1e-3, atol=1e-3)
    assert_close(tokens.mean(-1), torch.zeros(997, 8), rtol=0, atol=1e-4)
    assert_close(model.encode(only(batch, "source")).tokens, tokens[:, 3:], rtol=0, atol=0)
    words = model.encoders["source"]
    assert_close(EncoderDecoder({"source": words}, model.decoder).encode(batch), words(batch["source"]), rtol=0, atol=0)


def test_a_picture_that_stands_alone_is_never_dropped(forgetful):
    model, batch = forgetful
    assert model.encode(only(batch, "image")).mask.all() and model.encode(only(batch, "source")).mask.all()


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
    assert_close(translator(beside, teacher_forcing=1.0), expected, rtol=0, atol=0)
    assert_close(translator(beside, teacher_forcing=1 - 1e-9), expected, rtol=1e-5, atol=1e-5)


def test_told_no_word_it_goes_on_from_what_it_finds_most_probable(translator, beside):
    logits = translator(beside, teacher_forcing=0.0)
    assert logits.shape == (5, 7, V) and (logits.argmax(-1) != beside["target"]).any()
    state, token = translator.decoder.start(translator.encode(beside)), torch.full((5,), BOS)
    for t in range(7):
        expected, state = translator.decoder.step(token, state)
        assert_close(logits[:, t], expected, rtol=0, atol=0)
        token = expected.argmax(-1)


def test_told_some_words_the_others_are_its_own(translator, beside, monkeypatch):
    told, step = [], translator.decoder.step

    def listening(token, state):
        told.append(token)
        return step(token, state)

    monkeypatch.setattr(translator.decoder, "step", listening)
    batch = {name: value.repeat(11, *[1] * (value.dim() - 1)) for name, value in only(beside, "source", "target").items()}
    batch["target"][batch["target"] == PAD] = 5
    own = translator(batch, teacher_forcing=0.7).argmax(-1)[:, :-1]  # (55, 6)
    told, true = torch.stack(told, dim=1), batch["target"][:, :-1]
    assert told.shape == (55, 7) and (told[:, 0] == BOS).all()
    assert ((told[:, 1:] == own) | (told[:, 1:] == true)).all()
    differ = own != true
    for t in range(6):
        assert set((told[:, t + 1] == true[:, t])[differ[:, t]].tolist()) == {True, False}  # the sentences are not told alike
    assert abs((told[:, 1:] == true)[differ].float().mean() - 0.7) < 0.12  # 300 draws: the standard deviation is 0.026
    rows = (told[:, 1:] == true).float().mean(1)
    assert 0 < rows.min() < rows.max()  # each word of each sentence is drawn by itself


def test_gradients_flow_when_it_goes_on_from_its_own_words(translator, beside):
    word_loss(translator, beside, teacher_forcing=0.0).backward()
    for gradient in gradients_of(translator):
        assert gradient.isfinite().all() and (gradient != 0).any()


def learn(model, batch, steps):
    """The loss of a word, after so many steps on the same batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = word_loss(model, batch) / (batch["target"] != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss


def whole_batch(data):
    source, target = (Vocabulary.build(sentences) for sentences in (data.sources, [refs[0] for refs in data.references]))
    pairs = CaptionPairs(data, target, source_vocabulary=source)
    sizes = {"vocab_size": len(target), "source_vocab_size": len(source), "embed_dim": 64, "hidden_size": 64}
    return collate([pairs[i] for i in range(len(pairs))]), sizes


@pytest.mark.parametrize("part", TRANSLATORS, ids=parts)
def test_learns_a_few_translations_by_heart(part):
    batch, sizes = whole_batch(SceneTranslation("train", 11, size=0))
    assert list(batch) == ["target", "source"]
    model = build_model(ModelConfig(**sizes, backbone="", **part))
    assert learn(model, batch, 70) < 0.02
    shifted = batch | {"source": batch["source"].roll(1, 0)}
    assert word_loss(model, shifted) / (batch["target"] != PAD).sum() > 1  # the sentence matters
    assert (model(batch).argmax(-1) == batch["target"])[batch["target"] != PAD].all()


@pytest.mark.parametrize("part", [TRANSLATORS[0], TRANSLATORS[3]], ids=parts)
def test_learns_by_heart_what_only_the_pictures_tell(part):
    data = SceneTranslation("train", 0, size=32)
    alone = [scene for scene in map(Scene, range(400)) if len(scene.things) == 1]
    data.scenes = [scene for scene in alone if scene.things[0].noun in ("star", "cat", "sun")]
    data.sources = [tokenize(mask_colours(name_thing(scene))) for scene in data.scenes]
    data.references = [[tokenize(name_thing(scene, 2, "de"))] for scene in data.scenes]
    assert len(data) > 8 and len({*map(str, data.sources)}) < len({*map(str, data.references)}) - 2
    batch, sizes = whole_batch(data)
    model = build_model(ModelConfig(**sizes, width=8, image_size=32, **part))
    words = (batch["target"] != PAD).sum()
    assert learn(model, batch, 100) < 0.05
    colours = [scene.things[0].colour for scene in data.scenes]
    others = [next(j for j, other in enumerate(colours) if other != colour) for colour in colours]
    for wrong in (batch | {"image": batch["image"][others]}, only(batch, "source", "target")):
        assert word_loss(model, wrong) / words > 0.3
