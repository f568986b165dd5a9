"""The LSTM against torch's, and its decoder's own properties (the contract: test_decoders.py)."""

import pytest
import torch
from helpers import assert_same_gradients
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from mmscratch.attention import Memory, scaled_dot_product_attention
from mmscratch.recurrent import LSTM, LSTMCell, LSTMDecoder, LSTMEncoder, LSTMState
from mmscratch.text import PAD

B, T, INPUT, HIDDEN = 5, 7, 3, 11
N, D, V = 13, 17, 19  # positions of the memory, its width, vocabulary
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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
        packing = {"batch_first": True, "enforce_sorted": False}
        packed = pack_padded_sequence(x, torch.tensor(lengths), **packing)
        packed, expected_state = reference(packed, tuple(state) or None)
        expected, _ = pad_packed_sequence(packed, batch_first=True, total_length=T)
    else:
        expected, expected_state = reference(x, tuple(state) or None)
    output, last_state = ours(x, tuple(state) or None, torch.tensor(lengths) if lengths else None)

    results, expected_results = (output, *last_state), (expected, *expected_state)
    assert_close(results, expected_results, **CLOSE)
    assert_same_gradients(ours, reference, results, expected_results, [x, *state])


def test_lstm_repeats_the_cell():
    lstm = LSTM(INPUT, HIDDEN)
    cell = LSTMCell(INPUT, HIDDEN)
    state_dict = {name.removesuffix("_l0"): weight for name, weight in lstm.state_dict().items()}
    cell.load_state_dict(state_dict)
    x = torch.randn(B, T, INPUT)
    outputs, state = lstm(x)
    step = torch.zeros(B, HIDDEN), torch.zeros(B, HIDDEN)
    for t in range(T):
        step = cell(x[:, t], step)
        assert_close(outputs[:, t], step[0], **CLOSE)
    assert_close(state, tuple(part.unsqueeze(0) for part in step), **CLOSE)


@pytest.mark.parametrize("lengths", [None, [4, 1, 0]], ids=["full", "lengths"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both ways"])
def test_lstm_gradients_agree_with_finite_differences(bidirectional, lengths):
    lstm = LSTM(5, 2, 1, bidirectional).double()
    lengths = torch.tensor(lengths) if lengths else None
    shapes = (3, 4, 5), (1 + bidirectional, 3, 2), (1 + bidirectional, 3, 2)
    x, *state = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    names, weights = zip(*lstm.named_parameters())

    def results(x, hidden, cell, *weights):
        named = dict(zip(names, weights))
        inputs = (x, (hidden, cell), lengths)
        output, state = torch.func.functional_call(lstm, named, inputs)
        return output, *state

    inputs = [part.detach().requires_grad_() for part in (x, *state, *weights)]
    assert torch.autograd.gradcheck(results, inputs)


def test_lstm_step_by_step_equals_the_whole_sequence():
    lstm = LSTM(INPUT, HIDDEN, 2)
    x = torch.randn(B, T, INPUT)
    expected, expected_state = lstm(x)
    outputs = []
    state = None
    for t in range(T):
        output, state = lstm(x[:, t : t + 1], state)
        outputs.append(output)
    assert_close((torch.cat(outputs, dim=1), state), (expected, expected_state), **CLOSE)


@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
def test_lstm_under_autocast_is_close_to_float32(inside):
    lstm = LSTM(INPUT, HIDDEN, 2, bidirectional=True)
    x = torch.randn(B, T, INPUT)
    state = tuple(torch.randn(2, 4, B, HIDDEN))
    lengths = torch.tensor([5, 7, 1, 3, 2])
    parameters = list(lstm.parameters())

    def gradients(dtype):
        low = dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            output, (hidden, cell) = lstm(x, state, lengths)
        assert (output.dtype, cell.dtype) == (dtype, torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=low and inside):
            loss = sum(part.float().square().sum() for part in (output, hidden, cell))
            return torch.autograd.grad(loss, parameters)

    for gradient, expected in zip(gradients(torch.bfloat16), gradients(torch.float32)):
        assert gradient.dtype == torch.float32
        # bfloat16 keeps 8 bits: each rounding changes a number by up to 0.004 of it
        assert (gradient - expected).norm() < 0.02 * expected.norm()


def test_lstm_without_gradients_saves_no_graph():
    lstm, x = LSTM(INPUT, HIDDEN), torch.randn(B, T, INPUT)
    expected = lstm(x)
    with torch.no_grad():
        output, state = lstm(x)
    assert_close((output, state), expected, rtol=0, atol=0)
    assert not output.requires_grad and output.grad_fn is None


def test_steps_after_the_end_have_no_effect():
    lstm = LSTM(INPUT, HIDDEN, 2, bidirectional=True)
    x = torch.randn(B, T, INPUT)
    lengths = torch.tensor([5, 7, 1, 3, 2])
    ended = torch.arange(T) >= lengths.unsqueeze(1)
    noise = x.masked_fill(ended.unsqueeze(-1), torch.nan)
    assert_close(lstm(noise, None, lengths), lstm(x, None, lengths), rtol=0, atol=0)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both ways"])
def test_lstm_stays_on_the_device_of_its_input(bidirectional):
    lstm = LSTM(INPUT, HIDDEN, 2, bidirectional).to("meta")
    output, state = lstm(torch.zeros(B, T, INPUT, device="meta"), None, torch.ones(B).long())
    assert output.is_meta and all(part.is_meta for part in state)


def test_lstm_refuses_inputs_of_another_width():
    with pytest.raises(ValueError, match="width 3 were expected, not 11"):
        LSTM(INPUT, HIDDEN)(torch.zeros(B, T, HIDDEN))


def test_dropout_is_between_layers_and_only_in_training():
    lstm = LSTM(HIDDEN, HIDDEN, num_layers=2, dropout=0.3).double()
    # make the second layer a tiny linear map: c = i·g and h = o·c with i = o = 1/2, f = 0
    with torch.no_grad():
        for name in ("weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"):
            lstm.get_parameter(name).zero_()
        lstm.bias_ih_l1[HIDDEN : 2 * HIDDEN] = -1e9
        lstm.weight_ih_l1[2 * HIDDEN : 3 * HIDDEN] = 4e-5 * torch.eye(HIDDEN)
    x = torch.randn(199, T, HIDDEN, dtype=torch.float64)
    plain = lstm.eval()(x)[0] * 1e5  # the first layer's output
    assert_close(lstm(x)[0] * 1e5, plain)
    dropped = lstm.train()(x)[0] * 1e5
    kept = dropped != 0
    assert_close(dropped[kept], plain[kept] / 0.7)
    assert abs(kept.double().mean() - 0.7) < 0.02  # 15,323 draws: the standard deviation is 0.004
    kept_twice = kept[:, 1:] & kept[:, :-1]
    assert abs(kept_twice.double().mean() - 0.49) < 0.02  # each word has its own draw


def test_one_layer_has_no_dropout():
    lstm, x = LSTM(INPUT, HIDDEN, dropout=0.5).train(), torch.randn(B, T, INPUT)
    assert_close(lstm(x)[0], lstm(x)[0], rtol=0, atol=0)


@pytest.fixture(
    params=[("prefix", "dot"), ("cross_attention", "dot"), ("cross_attention", "additive")]
)
def decoder(request):
    fusion, score = request.param
    return LSTMDecoder(V, D, HIDDEN, 2, fusion, score=score)


@pytest.fixture
def memory():
    """Five memories; the first has no padding, the last has most."""
    mask = torch.arange(N) < torch.tensor([[13], [11], [7], [3], [1]])
    return Memory(torch.randn(B, N, D), mask)


@pytest.fixture
def tokens():
    return torch.randint(1, V, (B, T))


def test_only_cross_attention_reads_the_memory_at_each_step(decoder, memory, tokens):
    other = Memory(torch.randn_like(memory.tokens), memory.mask)
    state = decoder.start(memory)
    logits, _ = decoder.step(tokens[:, 0], state)
    other_logits, _ = decoder.step(tokens[:, 0], state._replace(memory=other))
    changed = (other_logits != logits).any(-1)
    assert changed.tolist() == [decoder.fusion == "cross_attention"] * B
    changed = decoder(tokens, other) != decoder(tokens, memory)
    assert changed.any(-1).all()  # all read it at the start


@pytest.mark.parametrize("score", ["dot", "additive"])
def test_logits_are_computed_from_state_and_context(score, memory, tokens):
    decoder = LSTMDecoder(V, D, HIDDEN, 2, score=score)
    nn.init.normal_(decoder.bias)
    logits, state = decoder.step(tokens[:, 0], decoder.start(memory))
    hidden = state.hidden[-1].unsqueeze(1)  # (B, 1, H)
    mask = memory.mask.unsqueeze(1)  # (B, 1, N)
    if score == "dot":
        query = decoder.query(hidden)
        context = scaled_dot_product_attention(query, memory.tokens, memory.tokens, mask)
    else:
        context, _ = decoder.additive(hidden, memory.tokens, mask)
    combined = decoder.combine(torch.cat([hidden, context], dim=-1)).tanh().squeeze(1)  # (B, D)
    assert_close(logits, combined @ decoder.embedding.weight.T + decoder.bias, **CLOSE)


def test_initial_state_matches_its_formula(decoder, memory):
    state = decoder.start(memory)
    assert state.hidden.shape == state.cell.shape == (2, B, HIDDEN) and state.memory is memory
    for b in range(B):
        mean = decoder.init_proj(memory.tokens[b][memory.mask[b]]).relu().mean(0)  # (H,)
        expected = decoder.init_state(mean).tanh()
        ours = torch.cat([state.hidden[:, b], state.cell[:, b]]).flatten()
        assert_close(ours.sort().values, expected.sort().values, **CLOSE)  # in any order


def test_step_continues_from_the_previous_state(decoder, memory, tokens):
    expected = decoder(tokens, memory)
    start = decoder.start(memory)
    state = start
    for t in range(T):
        logits, state = decoder.step(tokens[:, t], state)
        assert_close(logits, expected[:, t], **CLOSE)
        words = decoder.embedding(tokens[:, : t + 1]) * D**0.5
        _, so_far = decoder.lstm(words, (start.hidden, start.cell))
        assert_close((state.hidden, state.cell), so_far, **CLOSE)


def test_beams_of_a_memory_step_together(decoder, memory, tokens):
    start = decoder.start(memory)
    hidden, cell = (part.repeat_interleave(3, 1) for part in (start.hidden, start.cell))
    words = torch.randint(1, V, (3 * B,))
    logits, shared = decoder.step(words, LSTMState(hidden, cell, memory))
    copies = Memory(*(part.repeat_interleave(3, 0) for part in memory))
    expected, state = decoder.step(words, LSTMState(hidden, cell, copies))
    assert logits.shape == (3 * B, V)
    assert_close((logits, shared.hidden, shared.cell), (expected, state.hidden, state.cell), **CLOSE)
    assert shared.memory is memory


@pytest.mark.parametrize("score", ["dot", "additive"])
def test_logits_and_attention_weights_of_a_whole_sentence(score, memory, tokens):
    decoder = LSTMDecoder(V, D, HIDDEN, 2, score=score)
    logits, weights = decoder(tokens, memory, need_weights=True)
    assert weights.shape == (B, 1, 1, T, N)  # of one layer and one head
    weights = weights[:, 0, 0]  # (B, T, N)
    state = decoder.start(memory)
    outputs, _ = decoder.lstm(decoder.embedding(tokens) * D**0.5, (state.hidden, state.cell))
    if score == "dot":
        scores = decoder.query(outputs) @ memory.tokens.transpose(1, 2) / D**0.5
    else:
        keys = decoder.additive.key(memory.tokens)
        hidden = decoder.additive.query(outputs).unsqueeze(2) + keys.unsqueeze(1)
        scores = decoder.additive.score(hidden.tanh()).squeeze(-1)
    scores = scores.masked_fill(~memory.mask.unsqueeze(1), -torch.inf)
    assert_close(weights, scores.softmax(-1), **CLOSE)
    combined = decoder.combine(torch.cat([outputs, weights @ memory.tokens], dim=-1)).tanh()
    assert_close(logits, combined @ decoder.embedding.weight.T + decoder.bias, **CLOSE)
    assert_close(decoder(tokens, memory), logits, **CLOSE)


def test_dropout_before_the_output_layer_is_only_in_training(decoder, memory, tokens):
    decoder.dropout = decoder.lstm.dropout = 0.3
    with torch.no_grad():
        decoder.combine.weight.zero_()
        decoder.combine.bias.fill_(1.0)
        decoder.embedding.weight.copy_(torch.eye(V, D))  # the logits are the output layer's input
    plain = decoder.eval()(tokens, memory)[..., :D]
    assert_close(plain, torch.ones(B, T, D).tanh())
    dropped = torch.stack([decoder.train()(tokens, memory)[..., :D] for _ in range(11)])
    kept = dropped[dropped != 0]
    assert_close(kept, torch.full_like(kept, plain[0, 0, 0].item() / 0.7))
    dropped_fraction = (dropped == 0).double().mean()
    assert abs(dropped_fraction - 0.3) < 0.03  # 6,545 draws: the standard deviation is 0.006


def test_initial_state_depends_on_more_than_the_mean_of_the_memory(decoder):
    tokens = torch.randn(B, 1, D)
    mask = torch.ones(B, 2, dtype=torch.bool)
    opposites = decoder.start(Memory(torch.cat([tokens, -tokens], dim=1), mask))
    zeros = decoder.start(Memory(torch.zeros(B, 2, D), mask))
    for ours, other in ((opposites.hidden, zeros.hidden), (opposites.cell, zeros.cell)):
        assert (ours - other).abs().amax(-1).min() > 1e-3


def test_only_forget_gates_start_open(decoder):
    for layer in range(2):
        i, f, g, o = decoder.lstm.get_parameter(f"bias_ih_l{layer}").chunk(4)
        others = torch.cat([i, g, o, decoder.lstm.get_parameter(f"bias_hh_l{layer}")])
        assert (f == 3).all() and others.abs().max() < 1


def test_unknown_score_is_refused():
    with pytest.raises(ValueError, match='"dot" or "additive", not \'cosine\''):
        LSTMDecoder(V, D, HIDDEN, score="cosine")


class TorchEncoder(nn.Module):
    """An LSTMEncoder made of torch's pieces."""

    def __init__(self, num_layers):
        super().__init__()
        self.embedding = nn.Embedding(V, D, padding_idx=PAD)
        self.lstm = nn.LSTM(D, HIDDEN, num_layers, bidirectional=True, batch_first=True)
        self.projection = nn.Linear(2 * HIDDEN, D)

    def forward(self, tokens):
        words = self.embedding(tokens) * D**0.5
        lengths = (tokens != PAD).sum(1)
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        packed, _ = self.lstm(packed)
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=tokens.size(1))
        return self.projection(states)


@pytest.fixture
def sentences():
    """Sentences of 5, 7, 1, 3 and 2 words."""
    padding = torch.arange(T) >= torch.tensor([[5], [7], [1], [3], [2]])
    return torch.randint(1, V, (B, T)).masked_fill(padding, PAD)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_encoder_agrees_with_torch_on_packed_sequences(num_layers, sentences):
    ours, reference = LSTMEncoder(V, D, HIDDEN, num_layers), TorchEncoder(num_layers)
    assert list(ours.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(ours.state_dict(), strict=True)
    memory, expected = ours(sentences), reference(sentences)
    assert memory.mask.equal(sentences != PAD)
    assert_close(memory.tokens, expected, **CLOSE)
    assert_same_gradients(ours, reference, [memory.tokens], [expected], [])


def test_encoding_ignores_padding_and_other_sentences(sentences):
    encoder = LSTMEncoder(V, D, HIDDEN, 2)
    together = encoder(sentences)
    longer = encoder(F.pad(sentences, (0, 4)))
    assert longer.mask.shape == (B, T + 4) and not longer.mask[:, T:].any()
    assert_close(longer.tokens[:, :T], together.tokens, **CLOSE)
    for b in range(B):
        alone = encoder(sentences[b : b + 1, : together.mask[b].sum()])
        assert alone.mask.all()
        assert_close(alone.tokens[0], together.tokens[b][together.mask[b]], **CLOSE)


def test_each_word_depends_on_both_sides(sentences):
    encoder, sentences = LSTMEncoder(V, D, HIDDEN), sentences[1:2]
    for t in range(T):
        other = sentences.clone()
        other[:, t] = sentences[:, t] % (V - 1) + 1  # another word
        assert (encoder(other).tokens != encoder(sentences).tokens).any(-1).all()


def test_encoder_dropout_on_words_and_states_is_only_in_training():
    encoder = LSTMEncoder(997, 97, 89, dropout=0.3)
    seen = []
    encoder.lstm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    nn.init.eye_(encoder.projection.weight)  # the output is the first 97 numbers of the states
    nn.init.zeros_(encoder.projection.bias)
    sentences = torch.randint(1, 997, (11, 7))
    seen.append(encoder.eval()(sentences).tokens)
    assert all((x != 0).all() for x in seen)
    # words of variance 1: of 7,469 numbers, the standard deviation of their spread is 0.008
    assert abs(seen[0].std() - 1) < 0.02
    plain = seen[0]
    seen.append(encoder.train()(sentences).tokens)
    for x in seen[2:]:
        dropped_fraction = (x == 0).double().mean()
        assert abs(dropped_fraction - 0.3) < 0.03  # 7,469 draws: the standard deviation is 0.005
    assert_close(seen[2][seen[2] != 0], plain[seen[2] != 0] / 0.7)
