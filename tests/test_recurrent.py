"""The LSTM against torch's own, and the decoder made of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.recurrent import LSTM, LSTMCell, LSTMDecoder

B, T, INPUT, HIDDEN = 5, 7, 3, 11
N, D, V = 13, 17, 19  # places in the memory, its width, words
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def assert_same_gradients(ours, reference, our_results, reference_results, inputs):
    """Of all results together, with respect to the inputs and every parameter."""
    upstream = [torch.randn_like(result) for result in reference_results]
    wanted = {f"inputs[{i}]": x for i, x in enumerate(inputs)}
    ours, reference = wanted | dict(ours.named_parameters()), wanted | dict(reference.named_parameters())
    got = torch.autograd.grad(our_results, list(ours.values()), upstream)
    expected = torch.autograd.grad(reference_results, list(reference.values()), upstream)
    assert_close(dict(zip(ours, got)), dict(zip(reference, expected)), **CLOSE)


def test_lstm_cell_agrees_with_torch():
    ours, reference = LSTMCell(INPUT, HIDDEN), nn.LSTMCell(INPUT, HIDDEN)
    ours.load_state_dict(reference.state_dict(), strict=True)
    inputs = [torch.randn(B, size, requires_grad=True) for size in (INPUT, HIDDEN, HIDDEN)]
    state, expected = (cell(inputs[0], (inputs[1], inputs[2])) for cell in (ours, reference))
    assert_close(state, expected, **CLOSE)
    assert_same_gradients(ours, reference, state, expected, inputs)


@pytest.mark.parametrize("lengths", [None, [5, 7, 1, 3, 2]], ids=["full", "lengths"])
@pytest.mark.parametrize("given_state", [False, True], ids=["from zeros", "given state"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both ways"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_lstm_agrees_with_torch(num_layers, bidirectional, given_state, lengths):
    ours = LSTM(INPUT, HIDDEN, num_layers, bidirectional)
    reference = nn.LSTM(INPUT, HIDDEN, num_layers, bidirectional=bidirectional, batch_first=True)
    assert list(ours.state_dict()) == list(reference.state_dict())
    ours.load_state_dict(reference.state_dict(), strict=True)

    x = torch.randn(B, T, INPUT, requires_grad=True)
    rows = num_layers * (1 + bidirectional)
    state = [torch.randn(rows, B, HIDDEN, requires_grad=True) for _ in range(2 * given_state)]
    if lengths:
        packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        packed, expected_state = reference(packed, tuple(state) or None)
        expected, _ = pad_packed_sequence(packed, batch_first=True, total_length=T)
    else:
        expected, expected_state = reference(x, tuple(state) or None)
    output, last_state = ours(x, tuple(state) or None, torch.tensor(lengths) if lengths else None)

    results, expected_results = (output, *last_state), (expected, *expected_state)
    assert_close(results, expected_results, **CLOSE)
    assert_same_gradients(ours, reference, results, expected_results, [x, *state])


def test_lstm_takes_many_steps_of_the_cell():
    lstm, cell = LSTM(INPUT, HIDDEN), LSTMCell(INPUT, HIDDEN)
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in lstm.state_dict().items()})
    x = torch.randn(B, T, INPUT)
    outputs, state = lstm(x)
    step = torch.zeros(B, HIDDEN), torch.zeros(B, HIDDEN)
    for t in range(T):
        step = cell(x[:, t], step)
        assert_close(outputs[:, t], step[0], **CLOSE)
    assert_close(state, tuple(part.unsqueeze(0) for part in step), **CLOSE)


def test_lstm_refuses_inputs_of_another_width():
    with pytest.raises(ValueError, match="width 3 were expected, not 11"):
        LSTM(INPUT, HIDDEN)(torch.zeros(B, T, HIDDEN))


def test_dropout_is_between_layers_and_only_in_training():
    lstm = LSTM(HIDDEN, HIDDEN, num_layers=2, dropout=0.3).double()
    with torch.no_grad():  # make the second layer a tiny linear map: c = i·g and h = o·c with i = o = 1/2, f = 0
        for name in ("weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"):
            lstm.get_parameter(name).zero_()
        lstm.bias_ih_l1[HIDDEN : 2 * HIDDEN] = -1e9
        lstm.weight_ih_l1[2 * HIDDEN : 3 * HIDDEN] = 4e-5 * torch.eye(HIDDEN)
    x = torch.randn(199, T, HIDDEN, dtype=torch.float64)
    plain = lstm.eval()(x)[0] * 1e5  # what the first layer gives
    assert_close(lstm(x)[0] * 1e5, plain)
    dropped = lstm.train()(x)[0] * 1e5
    kept = dropped != 0
    assert_close(dropped[kept], plain[kept] / 0.7)
    assert abs(kept.double().mean() - 0.7) < 0.02  # 15,323 draws: the standard deviation is 0.004
    assert abs((kept[:, 1:] & kept[:, :-1]).double().mean() - 0.49) < 0.02  # each word draws its own


def test_one_layer_has_no_dropout():
    lstm, x = LSTM(INPUT, HIDDEN, dropout=0.5).train(), torch.randn(B, T, INPUT)
    assert_close(lstm(x)[0], lstm(x)[0], rtol=0, atol=0)


@pytest.fixture(params=["prefix", "cross_attention"])
def fusion(request):
    return request.param


@pytest.fixture
def memory():
    """The first has no padding, the others ever more."""
    return Memory(torch.randn(B, N, D), torch.arange(N) < torch.tensor([[13], [11], [7], [3], [1]]))


@pytest.fixture
def tokens():
    return torch.randint(1, V, (B, T))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_stepping_gives_what_the_full_forward_gives(fusion, memory, tokens, num_layers):
    decoder = LSTMDecoder(V, D, HIDDEN, num_layers, fusion)
    expected, state = decoder(tokens, memory), decoder.start(memory)
    assert expected.shape == (B, T, V)
    for t in range(T):
        logits, state = decoder.step(tokens[:, t], state)
        assert_close(logits, expected[:, t], **CLOSE)


def test_beams_change_places(fusion, memory, tokens):
    decoder, index = LSTMDecoder(V, D, HIDDEN, 2, fusion), torch.tensor([3, 0, 3, 1, 4, 2, 0])
    _, state = decoder.step(tokens[:, 0], decoder.start(memory))
    expected, _ = decoder.step(tokens[:, 1], state)
    logits, _ = decoder.step(tokens[index, 1], decoder.reorder(state, index))
    assert_close(logits, expected[index], **CLOSE)


def test_padded_places_change_nothing(fusion, memory, tokens):
    decoder = LSTMDecoder(V, D, HIDDEN, 2, fusion)
    noise = memory.tokens.masked_fill(~memory.mask.unsqueeze(-1), 1e3)
    assert_close(decoder(tokens, Memory(noise, memory.mask)), decoder(tokens, memory), **CLOSE)
    longer = Memory(F.pad(memory.tokens, (0, 0, 0, 2)), F.pad(memory.mask, (0, 2)))
    assert_close(decoder(tokens, longer), decoder(tokens, memory), **CLOSE)


def test_neighbours_in_the_batch_change_nothing(fusion, memory, tokens):
    decoder = LSTMDecoder(V, D, HIDDEN, 2, fusion)
    together = decoder(tokens, memory)
    for b in range(B):
        real = memory.mask[b].sum()
        alone = Memory(memory.tokens[b : b + 1, :real], memory.mask[b : b + 1, :real])
        assert_close(decoder(tokens[b : b + 1], alone), together[b : b + 1], **CLOSE)


def test_later_words_do_not_influence_earlier_logits(fusion, memory, tokens):
    decoder = LSTMDecoder(V, D, HIDDEN, 2, fusion)
    before = decoder(tokens, memory)
    for t in range(T):
        other = tokens.clone()
        other[:, t] = tokens[:, t] % (V - 1) + 1  # another word
        after = decoder(other, memory)
        assert_close(after[:, :t], before[:, :t], rtol=0, atol=0)
        assert (after[:, t:] != before[:, t:]).any(-1).all()


def test_a_prefix_is_read_once_and_cross_attention_looks_again(memory, tokens):
    other = Memory(torch.randn_like(memory.tokens), memory.mask)
    for fusion in ("prefix", "cross_attention"):
        decoder = LSTMDecoder(V, D, HIDDEN, 2, fusion)
        state = decoder.start(memory)
        logits, _ = decoder.step(tokens[:, 0], state)
        elsewhere, _ = decoder.step(tokens[:, 0], state._replace(memory=other))
        assert (elsewhere != logits).any(-1).tolist() == [fusion == "cross_attention"] * B
        assert (decoder(tokens, other) != decoder(tokens, memory)).any(-1).all()  # both read it at the start


def test_the_first_state_knows_more_than_the_mean_of_the_memory(fusion):
    decoder, tokens, mask = LSTMDecoder(V, D, HIDDEN, 2, fusion), torch.randn(B, 1, D), torch.ones(B, 2).bool()
    opposites, nothing = torch.cat([tokens, -tokens], dim=1), torch.zeros(B, 2, D)
    states = [decoder.start(Memory(tokens, mask)) for tokens in (opposites, nothing)]
    for ours, other in ((states[0].hidden, states[1].hidden), (states[0].cell, states[1].cell)):
        assert (ours - other).abs().amax(-1).min() > 1e-3


def test_forget_gates_begin_open_and_no_other(fusion):
    lstm = LSTMDecoder(V, D, HIDDEN, 2, fusion).lstm
    for layer in range(2):
        i, f, g, o = lstm.get_parameter(f"bias_ih_l{layer}").chunk(4)
        assert (f == 3).all() and torch.cat([i, g, o, lstm.get_parameter(f"bias_hh_l{layer}")]).abs().max() < 1


def test_decoder_dropout_is_only_in_training(fusion, memory, tokens):
    decoder = LSTMDecoder(V, D, HIDDEN, 2, fusion, dropout=0.5)
    assert (decoder(tokens, memory) != decoder(tokens, memory)).any()
    decoder.eval()
    assert_close(decoder(tokens, memory), decoder(tokens, memory), rtol=0, atol=0)


def test_an_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match='"prefix" or "cross_attention", not \'concat\''):
        LSTMDecoder(V, D, HIDDEN, fusion="concat")
