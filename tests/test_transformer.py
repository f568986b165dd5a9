"""The Transformer against torch's, and its decoder's own properties (the contract: test_decoders.py)."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_gradients, random_double
from torch import nn
from torch.testing import assert_close

from mmscratch.attention import Memory, MultiHeadAttention
from mmscratch.text import PAD
from mmscratch.transformer import (
    Embedding,
    TransformerBlock,
    TransformerDecoder,
    TransformerEncoder,
)

B, T, N, V = 5, 7, 13, 19  # sentences, words, positions of the memory, vocabulary
H, D, HIDDEN, LAYERS = 2, 22, 17, 3
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=[True, False], ids=["pre-norm", "post-norm"])
def pre_norm(request):
    return request.param


@pytest.fixture(params=["prefix", "cross_attention"])
def fusion(request):
    return request.param


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def padding_mask(N):
    """(B, N): the first sentence has no padding, the last has most."""
    return torch.arange(N) < torch.tensor([[N], [N - 1], [4], [2], [1]])


def torch_layer(kind, pre_norm, mlp_dim, approximate="none", norm_eps=1e-5):
    activation = partial(F.gelu, approximate=approximate)
    options = {"norm_first": pre_norm, "batch_first": True, "layer_norm_eps": norm_eps}
    return random_double(kind(D, H, mlp_dim, 0.0, activation, **options))


def assert_block_agrees_with_torch(pre_norm, cross_attention, approximate, causal, padded):
    kind = nn.TransformerDecoderLayer if cross_attention else nn.TransformerEncoderLayer
    reference = torch_layer(kind, pre_norm, HIDDEN, approximate, norm_eps=1e-3)
    shape = {"pre_norm": pre_norm, "cross_attention": cross_attention, "mlp_dim": HIDDEN}
    ours = TransformerBlock(D, H, approximate=approximate, norm_eps=1e-3, **shape).double()
    assert ours.state_dict().keys() == reference.state_dict().keys()
    ours.load_state_dict(reference.state_dict(), strict=True)

    x, memory = random(B, T, D), random(B, N, D)
    # True in torch's masks means hidden
    triangle = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    mask, memory_mask = (padding_mask(T), padding_mask(N)) if padded else (None, None)
    cross = {}
    if cross_attention:
        hidden = {}
        cross["memory"] = ours.multihead_attn.keys_values(memory)
        if padded:
            hidden = {"tgt_key_padding_mask": ~mask, "memory_key_padding_mask": ~memory_mask}
            cross["memory_mask"] = memory_mask.unsqueeze(1)
        expected = reference(x, memory, tgt_mask=triangle, **hidden)
    else:
        expected = reference(x, src_mask=triangle, src_key_padding_mask=~mask if padded else None)
    output, _, weights = ours(x, mask.unsqueeze(1) if padded else None, causal, **cross)
    assert weights is None
    assert_close(output, expected, **CLOSE)
    inputs = [x, memory] if cross_attention else [x]
    assert_same_gradients(ours, reference, [output], [expected], inputs, 1e-8)


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_block_agrees_with_torch(pre_norm, approximate, causal, padded):
    assert_block_agrees_with_torch(pre_norm, False, approximate, causal, padded)


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_block_with_cross_attention_agrees_with_torch(pre_norm, approximate, causal, padded):
    assert_block_agrees_with_torch(pre_norm, True, approximate, causal, padded)


@pytest.mark.parametrize("cross_attention", [False, True], ids=["self", "cross"])
def test_attention_weights_of_a_block_agree_with_torch(pre_norm, cross_attention):
    kind = nn.TransformerDecoderLayer if cross_attention else nn.TransformerEncoderLayer
    reference = torch_layer(kind, pre_norm, 4 * D)
    seen = []
    attention = reference.multihead_attn if cross_attention else reference.self_attn
    attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    ours = TransformerBlock(D, H, pre_norm=pre_norm, cross_attention=cross_attention).double()
    ours.load_state_dict(reference.state_dict())
    x, memory = random(B, T, D), random(B, N, D)
    expected_output = reference(x, memory) if cross_attention else reference(x)
    _, expected = attention(*seen[0], average_attn_weights=False)
    keys_values = ours.multihead_attn.keys_values(memory) if cross_attention else None
    output, _, weights = ours(x, memory=keys_values, need_weights=True)
    assert_close((output, weights), (expected_output, expected), **CLOSE)


def test_block_continues_from_cached_keys_and_values(pre_norm):
    block = random_double(TransformerBlock(D, H, pre_norm=pre_norm))
    x = random(B, T, D)
    mask = padding_mask(T).unsqueeze(1)
    expected, keys_values, _ = block(x, mask, causal=True)
    assert [part.shape for part in keys_values] == [(B, H, T, D // H)] * 2
    for cut in range(1, T):
        first, past, _ = block(x[:, :cut], mask[..., :cut], causal=True)
        then, both, _ = block(x[:, cut:], mask, causal=True, past=past)
        assert_close(torch.cat([first, then], dim=1), expected, **CLOSE)
        assert_close(both, keys_values, **CLOSE)


def test_beams_of_a_block_share_one_memory(pre_norm):
    block = random_double(TransformerBlock(D, H, pre_norm=pre_norm, cross_attention=True))
    x = random(3 * B, T, D)  # three beams for each memory
    mask = padding_mask(N).unsqueeze(1)
    keys_values = block.multihead_attn.keys_values(random(B, N, D))
    copies = tuple(part.repeat_interleave(3, 0) for part in keys_values)
    expected, _, _ = block(x, causal=True, memory=copies, memory_mask=mask.repeat_interleave(3, 0))
    assert_close(block(x, causal=True, memory=keys_values, memory_mask=mask)[0], expected, **CLOSE)


def test_block_dropout_is_in_every_branch_and_only_in_training(pre_norm):
    """The output of each branch in turn, with all other weights at zero."""
    for branch in ("self_attn.out_proj.bias", "multihead_attn.out_proj.bias", "linear2.bias"):
        block = TransformerBlock(D, H, 0.3, pre_norm, cross_attention=True)
        x = torch.zeros(997, T, D)
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
        nn.init.ones_(block.get_parameter(branch))
        for norm in (block.norm1, block.norm2, block.norm3):
            norm.forward = lambda x: x
        memory = block.multihead_attn.keys_values(x)
        assert (block.eval()(x, memory=memory)[0] == 1).all()
        output = block.train()(x, memory=memory)[0]
        assert_close(output[output != 0], torch.full_like(output[output != 0], 1 / 0.7))
        kept_fraction = (output != 0).double().mean()
        assert abs(kept_fraction - 0.7) < 0.02  # 153,538 draws: the standard deviation is 0.0012


@pytest.mark.parametrize("offset", [0, 3, 4])
def test_embedding_is_the_sum_of_word_and_position(offset):
    embedding = random_double(Embedding(V, D, 11))
    tokens = torch.randint(V, (B, T))
    output = embedding(tokens, offset)
    assert output.shape == (B, T, D)
    for b in range(B):
        for t in range(T):
            expected = embedding.words.weight[tokens[b, t]] + embedding.positions.weight[offset + t]
            assert_close(output[b, t], expected, **CLOSE)


@pytest.mark.parametrize("offset", [5, 11])
def test_text_beyond_the_last_position_is_refused(offset):
    embedding = Embedding(V, D, 11)
    tokens = torch.ones(B, T, dtype=torch.long)
    with pytest.raises(ValueError):
        embedding(tokens, offset)


@pytest.fixture(params=[None, HIDDEN], ids=["default mlp_dim", "other mlp_dim"])
def mlp_dim(request):
    return request.param


@pytest.fixture
def encoder(pre_norm, mlp_dim):
    """An encoder, and torch's with the weights of its blocks."""
    shape = {"max_length": 11, "pre_norm": pre_norm, "norm_eps": 1e-3, "mlp_dim": mlp_dim}
    encoder = random_double(TransformerEncoder(V, D, H, LAYERS, **shape))
    layer = torch_layer(nn.TransformerEncoderLayer, pre_norm, mlp_dim or 4 * D, norm_eps=1e-3)
    reference = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    reference.layers.load_state_dict(encoder.blocks.state_dict(), strict=True)
    return encoder, reference


@pytest.fixture
def sentences():
    return torch.randint(1, V, (B, T)).masked_fill(~padding_mask(T), PAD)


def test_encoder_agrees_with_torch(encoder, sentences):
    encoder, reference = encoder
    words = encoder.embedding.words.weight
    positions = encoder.embedding.positions.weight
    norm = [encoder.norm.weight, encoder.norm.bias]
    expected = words[sentences] + positions[:T]
    if not encoder.pre_norm:
        expected = F.layer_norm(expected, (D,), *norm, eps=1e-3)
    expected = reference(expected, src_key_padding_mask=sentences == PAD)
    if encoder.pre_norm:
        expected = F.layer_norm(expected, (D,), *norm, eps=1e-3)
    memory = encoder(sentences)
    assert memory.mask.equal(sentences != PAD)
    assert_close(memory.tokens, expected, **CLOSE)
    inputs = [words, positions, *norm]
    assert_same_gradients(
        encoder.blocks, reference.layers, [memory.tokens], [expected], inputs, 1e-8
    )


def test_encoding_ignores_padding_and_other_sentences(encoder, sentences):
    encoder, _ = encoder
    together = encoder(sentences)
    longer = encoder(F.pad(sentences, (0, 4)))
    assert longer.mask.shape == (B, 11) and not longer.mask[:, T:].any()
    assert_close(longer.tokens[:, :T], together.tokens, **CLOSE)
    for b in range(B):
        alone = encoder(sentences[b : b + 1][sentences[b : b + 1] != PAD].unsqueeze(0))
        assert alone.mask.all()
        assert_close(alone.tokens[0], together.tokens[b][together.mask[b]], **CLOSE)


def test_encoder_dropout_is_only_in_training(sentences):
    encoder = TransformerEncoder(V, D, H, LAYERS, dropout=0.5)
    assert not torch.equal(encoder(sentences).tokens, encoder(sentences).tokens)
    encoder.eval()
    assert_close(encoder(sentences), encoder(sentences), rtol=0, atol=0)


@pytest.fixture
def memory():
    return Memory(random(B, N, D), padding_mask(N))


@pytest.fixture
def tokens():
    return torch.randint(1, V, (B, T))


@pytest.fixture
def decoder(fusion):
    return random_double(TransformerDecoder(V, D, H, LAYERS, max_length=T, fusion=fusion))


def step_by_step(decoder, tokens, memory):
    """The logits of every word, (B, T, V), one step at a time."""
    steps = []
    state = decoder.start(memory)
    for t in range(T):
        logits, state = decoder.step(tokens[:, t], state)
        steps.append(logits)
    return torch.stack(steps, dim=1)


def test_a_step_leaves_the_state_before_it_as_it_was(decoder, memory, tokens):
    state = decoder.start(memory)
    for t in range(3):
        past = list(state.past)
        expected, later = decoder.step(tokens[:, t], state)
        assert state.length == t and all(x is y for x, y in zip(state.past, past, strict=True))
        assert_close(decoder.step(tokens[:, t], state)[0], expected, **CLOSE)
        state = later


def test_a_single_sentence_keeps_its_axis(decoder, memory, tokens):
    alone = Memory(memory.tokens[:1], memory.mask[:1])
    logits, _ = decoder.step(tokens[:1, 0], decoder.start(alone))
    assert logits.shape == (1, V)


def test_decoder_with_cross_attention_agrees_with_torch(memory, tokens, mlp_dim):
    shape = {"max_length": T, "mlp_dim": mlp_dim}
    decoder = random_double(TransformerDecoder(V, D, H, LAYERS, **shape))
    layer = torch_layer(nn.TransformerDecoderLayer, True, mlp_dim or 4 * D, "tanh")
    reference = nn.TransformerDecoder(layer, LAYERS)
    reference.layers.load_state_dict(decoder.blocks.state_dict(), strict=True)
    inputs = [*decoder.embedding.parameters(), *decoder.norm.parameters()]
    words, positions, scale, shift = inputs
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
    x = reference(
        words[tokens] + positions, memory.tokens, hidden, memory_key_padding_mask=~memory.mask
    )
    expected = F.layer_norm(x, (D,), scale, shift) @ words.T
    logits = decoder(tokens, memory)
    assert_close(logits, expected, **CLOSE)
    assert_close(step_by_step(decoder, tokens, memory), expected, **CLOSE)
    inputs = [*inputs, memory.tokens]
    assert_same_gradients(decoder.blocks, reference.layers, [logits], [expected], inputs, 1e-8)


@pytest.mark.parametrize("prefix_length", [N, 0], ids=["prefix", "language model"])
def test_decoder_with_a_prefix_agrees_with_torchs_masked_encoder(
    memory, tokens, prefix_length, mlp_dim
):
    N = prefix_length
    shape = {"max_length": T, "fusion": "prefix", "mlp_dim": mlp_dim}
    decoder = random_double(TransformerDecoder(V, D, H, LAYERS, **shape))
    layer = torch_layer(nn.TransformerEncoderLayer, True, mlp_dim or 4 * D, "tanh")
    reference = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    reference.layers.load_state_dict(decoder.blocks.state_dict(), strict=True)
    inputs = [*decoder.embedding.parameters(), *decoder.norm.parameters()]
    words, positions, scale, shift = inputs
    prefix = memory.tokens[:, :N].detach().requires_grad_()
    hidden = torch.ones(N + T, N + T, dtype=torch.bool).triu(1)
    hidden[:N, :N] = False  # the prefix sees all of itself
    padding = torch.cat([~memory.mask[:, :N], torch.zeros(B, T, dtype=torch.bool)], dim=1)
    x = torch.cat([prefix, words[tokens] + positions], dim=1)  # (B, N + T, D)
    x = reference(x, hidden, padding)[:, N:]  # (B, T, D)
    memory = Memory(prefix, ~padding[:, :-T])
    expected = F.layer_norm(x, (D,), scale, shift) @ words.T
    logits = decoder(tokens, memory)
    assert_close(logits, expected, **CLOSE)
    assert_close(step_by_step(decoder, tokens, memory), expected, **CLOSE)
    inputs += [prefix] if N else []
    assert_same_gradients(decoder.blocks, reference.layers, [logits], [expected], inputs, 1e-8)


def test_memory_is_projected_once(decoder, fusion, memory, tokens, monkeypatch):
    projected = {"project": [], "keys_values": []}
    for name, widths in projected.items():

        def counting(self, x, method=getattr(MultiHeadAttention, name), widths=widths):
            widths.append(x.size(1))
            return method(self, x)

        monkeypatch.setattr(MultiHeadAttention, name, counting)
    state = decoder.start(memory)
    for t in range(T):
        _, state = decoder.step(tokens[:, t], state)
    before = [N] * LAYERS
    words = [1] * LAYERS * T
    if fusion == "prefix":  # of the last block, only keys and values are needed
        assert projected == {"project": before[1:] + words, "keys_values": before[:1]}
    else:
        assert projected == {"project": words, "keys_values": before}


def test_attention_weights_are_those_of_the_layers_in_order(decoder, memory, tokens):
    seen = []
    for block in decoder.blocks:
        block.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[2]))
    _, weights = decoder(tokens, memory, need_weights=True)
    for layer, expected in enumerate(seen[-LAYERS:]):
        assert_close(weights[:, layer], expected[..., :N], rtol=0, atol=0)
        assert_close(expected.sum(-1), torch.ones(B, H, T).double())


def test_embedding_is_tied_to_the_output(decoder, memory):
    vocabularies = [name for name, parameter in decoder.named_parameters() if V in parameter.shape]
    assert vocabularies == ["embedding.words.weight"]
    word = V - 1
    tokens = torch.randint(1, word, (B, T))  # sentences without that word
    with_word = tokens.clone()
    with_word[:, 3] = word
    before = decoder(tokens, memory)
    before_with_word = decoder(with_word, memory)
    with torch.no_grad():
        decoder.embedding.words.weight[word] += torch.randn(D)
    changed = decoder(tokens, memory) != before
    assert changed[..., word].all() and not changed[..., :word].any()
    changed = (decoder(with_word, memory) != before_with_word)[..., :word]
    assert changed[:, 3:].any(-1).all() and not changed[:, :3].any()


def test_decoder_refuses_text_beyond_the_last_position(decoder, memory, tokens):
    with pytest.raises(ValueError):
        decoder(F.pad(tokens, (1, 0), value=1), memory)
    state = decoder.start(memory)
    for t in range(T):
        _, state = decoder.step(tokens[:, t], state)
    with pytest.raises(ValueError):
        decoder.step(tokens[:, 0], state)
