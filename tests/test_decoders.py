"""The contract of all decoders: forward, start, step and reorder agree, and padding has no effect."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.recurrent import LSTMDecoder
from mmscratch.transformer import TransformerDecoder

B, T, N, V = 5, 7, 13, 19  # sentences, words, positions of the memory, vocabulary
D, H, HIDDEN, LAYERS = 34, 2, 11, 3  # width of the memory, heads, width of the LSTM, layers
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LSTM = partial(LSTMDecoder, V, D, HIDDEN)
TRANSFORMER = partial(TransformerDecoder, V, D, H)
DECODERS = {
    "lstm prefix": partial(LSTM, fusion="prefix"),
    "lstm dot": partial(LSTM, fusion="cross_attention"),
    "lstm additive": partial(LSTM, fusion="cross_attention", score="additive"),
    "transformer prefix": partial(TRANSFORMER, fusion="prefix"),
    "transformer cross": partial(TRANSFORMER, fusion="cross_attention"),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=DECODERS)
def make(request):
    return DECODERS[request.param]


@pytest.fixture
def decoder(make):
    return make(num_layers=LAYERS)


@pytest.fixture
def memory():
    """Five memories; the first has no padding, the last has most."""
    mask = torch.arange(N) < torch.tensor([[13], [11], [7], [3], [1]])
    return Memory(torch.randn(B, N, D), mask)


@pytest.fixture
def tokens():
    return torch.randint(1, V, (B, T))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_stepping_equals_the_full_forward(make, memory, tokens, num_layers):
    decoder = make(num_layers=num_layers)
    expected = decoder(tokens, memory)
    state = decoder.start(memory)
    assert expected.shape == (B, T, V)
    for t in range(T):
        logits, state = decoder.step(tokens[:, t], state)
        assert_close(logits, expected[:, t], **CLOSE)


@pytest.mark.parametrize("index", [[3, 0, 3, 1, 4, 2, 0], [4, 2], [1, 1, 1, 1, 1]])
def test_reorder_moves_words_and_memory(decoder, memory, tokens, index):
    index = torch.tensor(index)
    expected = decoder(tokens[index], Memory(*(part[index] for part in memory)))
    for moved_at in range(T):
        state = decoder.start(memory)
        for t in range(moved_at):
            _, state = decoder.step(tokens[:, t], state)
        state = decoder.reorder(state, index)
        for t in range(moved_at, T):
            logits, state = decoder.step(tokens[index, t], state)
            assert_close(logits, expected[:, t], **CLOSE)


def memory_parts(state):
    """The tensors of the memory in a state, each with one row per memory."""
    if isinstance(state.memory, Memory):
        return list(state.memory)
    return [*(part for pair in state.memory for part in pair or ()), state.mask]


@pytest.mark.parametrize("num_layers", [1, 2])
def test_beams_of_a_memory_can_be_reordered_and_removed(make, memory, num_layers):
    decoder = make(num_layers=num_layers)
    state = None
    moves = [
        list(range(B)),
        [b for b in range(B) for _ in range(3)],  # three beams each
        [3 * b + beam for b in range(B) for beam in (2, 0, 0)],
        [3 * b + beam for b in (0, 2, 3) for beam in (1, 1, 2)],  # two memories are finished
        [3 * b + beam for b in range(3) for beam in (2, 0)],  # two beams each
        [2, 3, 4, 5],  # memories 2 and 3
        [3, 0, 3, 1, 1],  # no two stay together
        [4, 4, 0, 0, 2, 2],
        [0, 1, 4, 5],
    ]
    words = torch.ones(B, 0, dtype=torch.long)  # each sentence's words so far
    owner = torch.arange(B)  # its memory
    for index in map(torch.tensor, moves):
        state = decoder.start(memory) if state is None else decoder.reorder(state, index)
        words = words[index]
        owner = owner[index]
        for _ in range(2):
            words = torch.cat([words, torch.randint(1, V, (len(index), 1))], dim=1)
            logits, state = decoder.step(words[:, -1], state)
            expected = decoder(words, Memory(*(part[owner] for part in memory)))[:, -1]
            assert logits.shape == (len(index), V)
            assert_close(logits, expected, **CLOSE)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", [kind for kind in DECODERS if "prefix" not in kind])
def test_beams_share_the_memory_without_copies(kind, memory, num_layers):
    decoder = DECODERS[kind](num_layers=num_layers)
    state = decoder.start(memory)
    first = memory_parts(state)
    assert len(first) == (2 if kind.startswith("lstm") else 2 * num_layers + 1)
    if kind.startswith("lstm"):
        assert first[0] is memory.tokens and first[1] is memory.mask
    beams = torch.arange(B).repeat_interleave(3)
    moved = torch.arange(3 * B).unflatten(0, (B, 3)).flip(1).flatten()
    for index in (None, beams, moved, moved):
        state = state if index is None else decoder.reorder(state, index)
        _, state = decoder.step(torch.randint(1, V, (B if index is None else 3 * B,)), state)
        parts = memory_parts(state)
        assert all(part is same for part, same in zip(parts, first, strict=True))
    # the first memory is finished: the others are copied once
    state = decoder.reorder(state, torch.arange(3, 3 * B))
    for part, whole in zip(memory_parts(state), first, strict=True):
        assert_close(part, whole[1:], rtol=0, atol=0)
    state = decoder.reorder(state, torch.tensor([0, 4, 1]))
    for part, whole in zip(memory_parts(state), first, strict=True):
        assert_close(part, whole[[1, 2, 1]], rtol=0, atol=0)


def test_states_are_not_modified_by_later_steps(decoder, memory, tokens):
    states = [decoder.start(memory)]
    expected = []
    for t in range(T):
        logits, state = decoder.step(tokens[:, t], states[-1])
        states.append(state)
        expected.append(logits)
        decoder.step(tokens[:, t] % (V - 1) + 1, state)  # another continuation
        decoder.reorder(state, torch.arange(B).flip(0))
    for t in range(T):
        logits, _ = decoder.step(tokens[:, t], states[t])
        assert_close(logits, expected[t], rtol=0, atol=0)


def test_padded_positions_have_no_effect_anywhere(decoder, memory, tokens):
    expected = decoder(tokens, memory)
    noise = memory.tokens.masked_fill(~memory.mask.unsqueeze(-1), 1e3)
    shuffled = torch.rand(B, N).argsort(1)  # (B, N): positions of a memory have no order
    tokens_shuffled = noise.gather(1, shuffled.unsqueeze(-1).expand(B, N, D))
    longer = Memory(F.pad(noise, (0, 0, 0, 2)), F.pad(memory.mask, (0, 2)))
    for same in (
        Memory(noise, memory.mask),
        longer,
        Memory(longer.tokens.flip(1), longer.mask.flip(1)),  # padding in front
        Memory(tokens_shuffled, memory.mask.gather(1, shuffled)),
    ):
        assert_close(decoder(tokens, same), expected, **CLOSE)
        state = decoder.start(same)
        for t in range(T):
            logits, state = decoder.step(tokens[:, t], state)
            assert_close(logits, expected[:, t], **CLOSE)


def test_memory_of_padding_equals_an_empty_memory(decoder, memory, tokens):
    padding = Memory(memory.tokens, memory.mask & False)
    empty = Memory(memory.tokens[:, :0], memory.mask[:, :0])
    logits = decoder(tokens, padding)
    assert logits.isfinite().all()
    assert_close(decoder(tokens, empty), logits, **CLOSE)
    assert_close(decoder.step(tokens[:, 0], decoder.start(empty))[0], logits[:, 0], **CLOSE)


def test_logits_do_not_depend_on_the_rest_of_the_batch(decoder, memory, tokens):
    together = decoder(tokens, memory)
    for b in range(B):
        real = memory.mask[b].sum()
        alone = Memory(memory.tokens[b : b + 1, :real], memory.mask[b : b + 1, :real])
        assert_close(decoder(tokens[b : b + 1], alone), together[b : b + 1], **CLOSE)


def test_padding_after_the_words_has_no_effect(decoder, memory, tokens):
    assert_close(decoder(F.pad(tokens, (0, 4)), memory)[:, :T], decoder(tokens, memory), **CLOSE)


def test_later_words_do_not_influence_earlier_logits(decoder, memory, tokens):
    before = decoder(tokens, memory)
    for t in range(T):
        other = tokens.clone()
        other[:, t] = tokens[:, t] % (V - 1) + 1  # another word
        after = decoder(other, memory)
        assert_close(after[:, :t], before[:, :t], rtol=0, atol=0)
        assert (after[:, t:] != before[:, t:]).any(-1).all()


def test_every_word_depends_on_every_real_position(decoder, memory, tokens):
    memory.tokens.requires_grad_()
    logits = decoder(tokens, memory)
    for t in range(T):
        loss = logits[:, t].square().sum()
        (gradient,) = torch.autograd.grad(loss, memory.tokens, retain_graph=True)
        assert ((gradient != 0).any(-1) == memory.mask).all()


def test_attention_weights_cover_the_real_positions(make, memory, tokens):
    decoder = make(num_layers=LAYERS)
    expected = decoder(tokens, memory)
    if isinstance(decoder, LSTMDecoder) and decoder.fusion == "prefix":
        with pytest.raises(ValueError, match="looks once"):
            decoder(tokens, memory, need_weights=True)
        return
    logits, weights = decoder(tokens, memory, need_weights=True)
    assert_close(logits, expected, **CLOSE)
    layers, heads = (1, 1) if isinstance(decoder, LSTMDecoder) else (LAYERS, H)
    assert weights.shape == (B, layers, heads, T, N)
    assert ((weights != 0) == memory.mask[:, None, None, None]).all()
    total = weights.sum(-1)
    if decoder.fusion == "cross_attention":
        assert_close(total, torch.ones_like(total))
    else:  # the rest is the words' own
        assert ((0 < total) & (total < 1)).all()


def test_dropout_is_only_in_training(make, memory, tokens):
    decoder = make(num_layers=LAYERS, dropout=0.5)
    plain = make(num_layers=LAYERS)
    plain.load_state_dict(decoder.state_dict())
    assert (decoder(tokens, memory) != decoder(tokens, memory)).any()
    assert_close(decoder.eval()(tokens, memory), plain(tokens, memory), rtol=0, atol=0)


@pytest.mark.parametrize("make", [LSTM, TRANSFORMER])
def test_unknown_fusion_is_refused(make):
    with pytest.raises(ValueError, match='"prefix" or "cross_attention", not \'concat\''):
        make(num_layers=1, fusion="concat")


def test_decoder_memorizes_one_sentence_per_memory(make, memory, tokens):
    decoder = make(num_layers=1)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    bos = torch.ones(B, 1, dtype=torch.long)
    for _ in range(100):
        logits = decoder(torch.cat([bos, tokens[:, :-1]], dim=1), memory)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02
