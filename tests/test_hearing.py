"""The audio encoder: parity with Whisper's, padding that changes nothing, and its errors."""

import pytest
import torch
import torch.nn.functional as F
from helpers import random_double
from torch.testing import assert_close

from mmscratch.batches import collate
from mmscratch.hearing import AudioEncoder, sinusoids
from mmscratch.model import ENCODERS, ModelConfig, build_model
from mmscratch.weights import from_whisper

M, D, H, L, P = 11, 14, 2, 3, 29  # mels, width, heads, layers, positions
FRAMES = [23, 8, 1, 46, 17, 2]  # odd, even and very short ones
CLOSE = {"rtol": 0, "atol": 1e-9}  # in float64


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def encoder():
    return random_double(AudioEncoder(D, M, H, L, max_length=P))


@pytest.fixture
def sounds():
    return [torch.randn(frames, M, dtype=torch.float64) for frames in FRAMES]


@pytest.fixture
def whisper():
    """transformers' model, tiny and random, and our encoder with its weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(
        vocab_size=53,
        d_model=D,
        num_mel_bins=M,
        encoder_attention_heads=H,
        decoder_attention_heads=H,
        encoder_layers=L,
        decoder_layers=1,
        encoder_ffn_dim=4 * D,
        max_source_positions=P,
        pad_token_id=0,
        attn_implementation="eager",
    )
    reference = transformers.WhisperModel(config)
    positions = reference.encoder.embed_positions.weight.detach().clone()
    random_double(reference).eval()
    reference.encoder.embed_positions.weight.data = positions.double()
    ours = AudioEncoder(D, M, H, L, max_length=P).double()
    ours.load_state_dict(from_whisper(reference.state_dict()), strict=True)
    return reference.encoder, ours


def test_outputs_are_those_of_whisper(whisper):
    reference, ours = whisper
    sound = torch.randn(5, 2 * P, M, dtype=torch.float64)
    memory = ours(sound)
    assert memory.mask.all() and memory.mask.shape == (5, P)
    assert_close(memory.tokens, reference(sound.transpose(1, 2)).last_hidden_state, **CLOSE)


def test_encoder_may_have_a_width_of_its_own(encoder, sounds):
    wide = random_double(AudioEncoder(D + 3, M, H, L, max_length=P, width=D))
    loaded = wide.load_state_dict(encoder.state_dict(), strict=False)
    assert loaded.missing_keys == ["projection.weight", "projection.bias"]
    ours = wide(sounds[0].unsqueeze(0))
    expected = encoder(sounds[0].unsqueeze(0))
    assert torch.equal(ours.mask, expected.mask)
    tokens = F.linear(expected.tokens, wide.projection.weight, wide.projection.bias)
    assert_close(ours.tokens, tokens, **CLOSE)


def test_outputs_are_those_of_torchs_layers(encoder):
    block = torch.nn.TransformerEncoderLayer(
        D, H, 4 * D, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    norm = torch.nn.LayerNorm(D)
    blocks = torch.nn.TransformerEncoder(block, L, norm, enable_nested_tensor=False).double()
    state = {}
    for name, value in encoder.state_dict().items():
        state[name.replace("blocks.", "layers.")] = value
    blocks.load_state_dict({name: state[name] for name in blocks.state_dict()})
    sound = torch.randn(5, 37, M, dtype=torch.float64)
    x = torch.nn.functional.gelu(encoder.conv1(sound.transpose(1, 2)))
    x = torch.nn.functional.gelu(encoder.conv2(x)).transpose(1, 2)  # (5, 19, D)
    expected = blocks(x + sinusoids(P, D)[:19])
    memory = encoder(sound)
    assert memory.mask.all() and memory.mask.shape == (5, 19)
    assert_close(memory.tokens, expected, rtol=0, atol=1e-6)


def test_gradients_are_those_of_whisper(whisper):
    reference, ours = whisper
    sound = torch.randn(3, 2 * P, M, dtype=torch.float64, requires_grad=True)
    output = ours(sound).tokens
    expected = reference(sound.transpose(1, 2)).last_hidden_state
    upstream = torch.randn_like(output)
    names = dict(ours.named_parameters())
    grads = torch.autograd.grad(output, [sound, *names.values()], upstream)
    parameters = {
        name: x for name, x in reference.named_parameters() if name != "embed_positions.weight"
    }
    expected_grads = torch.autograd.grad(expected, [sound, *parameters.values()], upstream)
    assert_close(grads[0], expected_grads[0], **CLOSE)
    renamed = from_whisper(dict(zip(parameters, expected_grads[1:])))
    for name, gradient in zip(names, grads[1:]):
        if name.endswith("in_proj_bias"):  # Whisper has no bias for keys, where ours gets zeros
            assert_close(gradient[D : 2 * D], torch.zeros(D).double(), **CLOSE)
        assert_close(gradient, renamed[name], rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("kind", ["WhisperModel", "WhisperForConditionalGeneration"])
def test_weights_of_all_whisper_models_fit(kind, whisper):
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, kind)(whisper[0].config)
    state = from_whisper(model.state_dict())
    assert state.keys() == whisper[1].state_dict().keys()
    with pytest.raises(ValueError, match=r"has no layers\.0\.adapter\.weight$"):
        from_whisper(model.state_dict() | {"encoder.layers.0.adapter.weight": torch.zeros(1)})


def test_published_sizes_fit():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        ours = AudioEncoder(384, 80, num_heads=6, num_layers=4)
        config = transformers.WhisperConfig(  # whisper-tiny
            d_model=384,
            encoder_layers=4,
            encoder_attention_heads=6,
            encoder_ffn_dim=1536,
            decoder_layers=1,
        )
        state = from_whisper(transformers.WhisperModel(config).state_dict())
    expected = {name: x.shape for name, x in ours.state_dict().items()}
    assert {name: x.shape for name, x in state.items()} == expected


def test_positions_are_whispers_sinusoids():
    modeling = pytest.importorskip("transformers.models.whisper.modeling_whisper")
    assert_close(sinusoids(1500, 384), modeling.sinusoids(1500, 384), rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 2, 5, 2 * P - 46])
def test_padding_changes_nothing(encoder, sounds, padding, training):
    encoder.train(training)
    lengths = torch.tensor(FRAMES)
    batch = torch.full((len(sounds), max(FRAMES) + padding, M), 1e3, dtype=torch.float64)
    for row, sound in zip(batch, sounds):
        row[: len(sound)] = sound
    batch[0, FRAMES[0] :] = torch.nan
    memory = encoder(batch, lengths)
    assert memory.tokens.isfinite().all()
    for i, sound in enumerate(sounds):
        alone = encoder(sound.unsqueeze(0))
        N = -(-len(sound) // 2)
        assert alone.tokens.shape == (1, N, D)
        assert alone.mask.all()
        assert memory.mask[i].tolist() == [True] * N + [False] * (memory.mask.size(1) - N)
        assert_close(memory.tokens[i, :N], alone.tokens[0], **CLOSE)
        twice = torch.full((1, 2 * len(sound), M), -1e3, dtype=torch.float64)
        twice[0, : len(sound)] = sound
        if len(sound) <= P:
            tokens = encoder(twice, torch.tensor([len(sound)])).tokens[0, :N]
            assert_close(tokens, alone.tokens[0], **CLOSE)


def test_padding_changes_no_gradient(encoder, sounds):
    def gradients(batch, lengths):
        batch.requires_grad_()
        memory = encoder(batch, lengths)
        loss = memory.tokens[memory.mask].square().sum()
        return torch.autograd.grad(loss, [batch, *encoder.parameters()])

    total = None
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True, padding_value=7.0)
    of_sounds, *of_parameters = gradients(padded, torch.tensor(FRAMES))
    for i, sound in enumerate(sounds):
        alone, *others = gradients(sound.clone().unsqueeze(0), None)
        assert_close(of_sounds[i, : len(sound)], alone[0], **CLOSE)
        assert (of_sounds[i, len(sound) :] == 0).all()
        total = others if total is None else [a + b for a, b in zip(total, others)]
    assert_close(of_parameters, total, rtol=1e-9, atol=1e-9)


def test_every_frame_and_the_order_matter(encoder, sounds):
    encoder.eval()
    sound = sounds[0].unsqueeze(0)
    before = encoder(sound).tokens
    for frame in range(FRAMES[0]):
        changed = sound.clone()
        changed[0, frame] += 1
        assert (encoder(changed).tokens - before).abs().amax(-1).min() > 1e-6
    assert not torch.allclose(encoder(sound.flip(1)).tokens, before.flip(1), atol=1e-3)


def test_memory_is_on_the_device_of_the_sound():
    encoder = AudioEncoder(D, M, H, L).to("meta")
    memory = encoder(torch.zeros(2, 8, M, device="meta"))  # whose lengths could not be read there
    assert memory.tokens.is_meta and memory.mask.is_meta


def test_dropout_is_applied_in_training_only(sounds):
    encoder = AudioEncoder(D, M, H, L, dropout=0.5).double()
    sound = sounds[0].unsqueeze(0)
    assert not torch.equal(encoder(sound).tokens, encoder(sound).tokens)
    encoder.eval()
    assert torch.equal(encoder(sound).tokens, encoder(sound).tokens)
    no_blocks = AudioEncoder(D, M, H, num_layers=0, dropout=0.5).double()
    assert not torch.equal(no_blocks(sound).tokens, no_blocks(sound).tokens)


def test_positions_are_not_saved(encoder):
    assert "positions" not in encoder.state_dict()
    other = AudioEncoder(D, M, H, L, max_length=P + 2).double()
    other.load_state_dict(encoder.state_dict())


def test_a_sound_of_another_size_is_refused(encoder):
    encoder(torch.zeros(2, 2 * P, M).double())
    with pytest.raises(ValueError, match=r"^a sound has 1 to 58 frames of 10 ms, not 59$"):
        encoder(torch.zeros(2, 2 * P + 1, M).double())
    with pytest.raises(ValueError, match=r"^a sound has 1 to 58 frames of 10 ms, not 0$"):
        encoder(torch.zeros(2, 0, M).double())
    with pytest.raises(ValueError, match="^spectrograms of 11 mels were expected, not 13$"):
        encoder(torch.zeros(2, 5, 13).double())
    with pytest.raises(ValueError, match="an even number of dimensions, not 13$"):
        AudioEncoder(13, M, 1)


def test_a_model_reads_sounds_of_different_lengths(sounds):
    assert ENCODERS["audio"] is AudioEncoder
    settings = {"name": "audio", "num_mels": M, "num_heads": H, "max_length": P}
    config = ModelConfig(17, {"sound": settings}, {"name": "lstm", "hidden_size": 13}, D)
    model = build_model(config).double()
    words = torch.tensor([5, 7, 2])
    examples = [{"sound": sound, "target": words} for sound in sounds]
    batch = collate(examples)
    assert batch["sound_lengths"].tolist() == FRAMES
    logits = model(batch)
    for i, example in enumerate(examples):
        assert_close(model(collate([example]))[0], logits[i], **CLOSE)


def test_two_towers_read_sounds_of_different_lengths(sounds):
    sound = {"name": "audio", "num_mels": M, "num_heads": H, "max_length": P}
    text = {"name": "lstm", "vocab_size": 17, "hidden_size": 13}
    model = build_model(ModelConfig(17, {"sound": sound, "target": text}, {}, D)).double()
    words = torch.tensor([5, 2])
    examples = [{"sound": sound, "target": words} for sound in sounds]
    vectors, _ = model(collate(examples))
    for i, example in enumerate(examples):
        alone, _ = model(collate([example]))
        assert_close(alone[0], vectors[i], **CLOSE)
