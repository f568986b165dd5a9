"""The pieces together: fusion of memories, teacher forcing, and a model that can learn a batch by heart."""

from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.batches import CaptionPairs, collate
from mmscratch.datasets import SceneCaptions
from mmscratch.model import EncoderDecoder, ModelConfig, build_model, fuse
from mmscratch.recurrent import LSTMDecoder
from mmscratch.text import PAD, Vocabulary
from mmscratch.training import word_loss
from mmscratch.transformer import TransformerDecoder
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


def test_a_missing_modality_is_not_fused(model, batch):
    model = EncoderDecoder({**model.encoders, "source": Words(V, 22)}, model.decoder).eval()
    batch["source"] = torch.randint(4, V, (5, 3))
    image = model.encoders["image"](batch["image"])
    source = model.encoders["source"](batch["source"])
    assert_close(model.encode(batch), fuse([image, source]))
    assert_close(model.encode({"image": batch["image"]}), image)
    assert_close(model.encode({"source": batch["source"], "target": batch["target"]}), source)
    assert not torch.equal(model(batch), model({name: batch[name] for name in ("image", "target")}))
    with pytest.raises(ValueError, match="none of: image, source; it has: target"):
        model.encode({"target": batch["target"]})


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
    with pytest.raises(ValueError, match='"resnet", "vgg" or "vit", not \'alexnet\''):
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
