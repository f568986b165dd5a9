"""Attention: formula and fused kernel agree, and fully masked rows are zero."""

import random

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_gradients, random_double
from torch import nn
from torch.testing import assert_close

from mmscratch.attention import (
    AdditiveAttention,
    Memory,
    MultiHeadAttention,
    causal_mask,
    doubly_stochastic_penalty,
    masked_softmax,
    memory_index,
    scaled_dot_product_attention,
)

B, H, T, N, D, E = 2, 3, 5, 7, 11, 13
WIDTH = H * D  # of multi-head attention
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_inputs(*lead, queries=T):
    """Query, key and value in float64, requiring gradients."""
    sizes = (queries, D), (N, D), (N, E)
    return [torch.randn(*lead, *size, dtype=torch.float64, requires_grad=True) for size in sizes]


def triangle(T, N):
    """Query t is at position N - T + t of N, and sees no later one."""
    return torch.tensor([[n <= N - T + t for n in range(N)] for t in range(T)])


def random_mask(*shape):
    """Some positions are hidden, never the first."""
    mask = torch.rand(shape) < 0.5
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
@pytest.mark.parametrize(
    "lead, mask_shape",
    [((B,), None), ((B,), (N,)), ((B,), (T, N)), ((B,), (B, 1, N)), ((B,), (B, T, N))]
    + [((B, H), None), ((B, H), (B, 1, 1, N)), ((B, H), (1, H, T, N)), ((B, H), (B, H, T, N))],
)
def test_agrees_with_torch(lead, mask_shape, need_weights):
    inputs = random_inputs(*lead)
    mask = None if mask_shape is None else random_mask(*mask_shape)
    output = scaled_dot_product_attention(*inputs, mask, need_weights)
    output = output[0] if need_weights else output
    expanded = None if mask is None else mask.expand(*lead, T, N)
    expected = F.scaled_dot_product_attention(*inputs, expanded)
    assert output.shape == (*lead, T, E)
    assert_close(output, expected, **CLOSE)
    upstream = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs, upstream)
    assert_close(gradients, torch.autograd.grad(expected, inputs, upstream), **CLOSE)


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
def test_agrees_with_the_formula_query_by_query(need_weights):
    query, key, value = random_inputs(B)
    mask = torch.rand(B, T, N) < 0.3  # rows of all False among them
    output = scaled_dot_product_attention(query, key, value, mask, need_weights)
    output = output[0] if need_weights else output
    for b in range(B):
        for t in range(T):
            seen = [n for n in range(N) if mask[b, t, n]]
            scores = [(query[b, t] @ key[b, n] / D**0.5).exp() for n in seen]
            expected = torch.zeros(E).double()
            for score, n in zip(scores, seen):
                expected = expected + score / sum(scores) * value[b, n]
            assert_close(output[b, t], expected, **CLOSE)


def test_both_paths_agree_in_float32():
    inputs = [x.detach().float() for x in random_inputs(B, H)]
    mask = torch.rand(B, H, T, N) < 0.3
    formula, _ = scaled_dot_product_attention(*inputs, mask, need_weights=True)
    assert_close(scaled_dot_product_attention(*inputs, mask), formula, **CLOSE)


def test_large_scores_neither_overflow_nor_vanish():
    query = torch.tensor([[[1000.0]], [[-1000.0]]])  # scores up to 1,000, and down to -1,000
    key = torch.tensor([[0.999], [1.0], [0.5]]).expand(2, 3, 1)
    value = torch.eye(3).expand(2, 3, 3)
    mask = torch.tensor([True, True, False])
    expected = torch.tensor([[[-1.0, 0.0]], [[0.0, -1.0]]]).softmax(-1)
    _, weights = scaled_dot_product_attention(query, key, value, mask, need_weights=True)
    fused = scaled_dot_product_attention(query, key, value, mask)
    for found in (weights, fused):
        assert_close(found[..., :2], expected, rtol=1e-3, atol=1e-3)
        assert (found[..., 2] == 0).all()


def test_attention_stays_on_the_device_of_its_input():
    inputs = [torch.zeros(B, size, D, device="meta") for size in (T, N, N)]
    mask = torch.ones(B, T, N, dtype=torch.bool, device="meta")
    output, weights = scaled_dot_product_attention(*inputs, mask, need_weights=True, causal=True)
    assert output.is_meta and weights.is_meta


def test_weights_sum_to_one_or_are_zero():
    query, key, value = random_inputs(B, H)
    mask = torch.rand(B, 1, T, N) < 0.2
    output, weights = scaled_dot_product_attention(query, key, value, mask, need_weights=True)
    assert set(mask.any(-1).flatten().tolist()) == {True, False}  # the mask has rows of both kinds
    assert weights.shape == (B, H, T, N)
    assert (weights[~mask.expand_as(weights)] == 0).all()
    assert_close(weights.sum(-1), mask.any(-1).double().expand(B, H, T), **CLOSE)
    assert_close(weights @ value, output, **CLOSE)


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
@pytest.mark.parametrize("mask_shape", [(N,), (B, 1, N), (B, T, N)])
def test_fully_masked_rows_are_zero_with_finite_gradients(mask_shape, need_weights):
    query, key, value = random_inputs(B)
    mask = random_mask(*mask_shape)
    mask.view(-1, N)[-1] = False
    # a NaN on the way is an error, even if it is erased later
    with torch.autograd.set_detect_anomaly(True):
        output = scaled_dot_product_attention(query, key, value, mask, need_weights)
        output = output[0] if need_weights else output
        gradients = torch.autograd.grad(output.sum(), (query, key, value))
    fully_masked = ~mask.any(-1, keepdim=True).expand(B, T, 1).squeeze(-1)  # (B, T)
    assert fully_masked.any()
    assert (output[fully_masked] == 0).all() and (output[~fully_masked] != 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][fully_masked] == 0).all()


@pytest.mark.parametrize("positions", range(1, 8))
def test_causal_mask_shows_each_query_itself_and_earlier_positions(positions):
    for queries in range(1, positions + 1):
        mask = causal_mask(queries, positions)
        assert mask.dtype == torch.bool and mask.tolist() == triangle(queries, positions).tolist()
        visible = range(positions - queries + 1, positions + 1)  # the last query sees all
        assert mask.sum(-1).tolist() == list(visible)
    assert causal_mask(1, positions, torch.device("meta")).is_meta


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
@pytest.mark.parametrize("mask_shape", [None, (N,), (B, 1, N), (B, 1, 1, N), (B, H, -1, N)])
@pytest.mark.parametrize("queries", [1, T, N])
def test_causal_attention_combines_triangle_and_mask(queries, mask_shape, need_weights):
    lead = (B, H) if mask_shape and len(mask_shape) == 4 else (B,)
    inputs = random_inputs(*lead, queries=queries)
    mask = mask_shape and random_mask(*(queries if size == -1 else size for size in mask_shape))
    output = scaled_dot_product_attention(*inputs, mask, need_weights, causal=True)
    output, weights = output if need_weights else (output, None)
    seen = triangle(queries, N) if mask is None else triangle(queries, N) & mask
    expected = F.scaled_dot_product_attention(*inputs, seen.expand(*lead, queries, N))
    assert_close(output, expected, **CLOSE)
    upstream = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs, upstream)
    assert_close(gradients, torch.autograd.grad(expected, inputs, upstream), **CLOSE)
    if need_weights:
        assert ((weights > 0) == seen).all()


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
def test_rows_masked_by_triangle_and_mask_together_are_zero(need_weights):
    inputs = random_inputs(B)
    # the triangle shows 3 and 4 positions to the first 2 of 5 queries: row 1 hides all of these
    mask = torch.arange(N) >= torch.tensor([[[0]], [[4]]])
    with torch.autograd.set_detect_anomaly(True):
        output = scaled_dot_product_attention(*inputs, mask, need_weights, causal=True)
        output = output[0] if need_weights else output
        gradients = torch.autograd.grad(output.sum(), inputs)
    assert (output == 0).all(-1).tolist() == [[False] * T, [True] * 2 + [False] * 3]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
@pytest.mark.parametrize("mask", [None, torch.arange(N) != 3], ids=["all", "masked"])
def test_dropout_drops_weights_with_the_given_probability(mask, need_weights):
    query = torch.randn(997, T, D)
    key = torch.randn(N, D).expand(997, N, D)
    value = torch.eye(N).expand(997, N, N)  # unit vectors: the output is the weights

    def attend(dropout):
        output = scaled_dot_product_attention(
            query, key, value, mask, need_weights, dropout=dropout
        )
        return output if need_weights else (output, output)

    weights, _ = attend(0.0)
    assert_close(attend(0.0)[0], weights, rtol=0, atol=0)
    dropped, returned = attend(0.3)
    kept = dropped != 0
    assert_close(dropped[kept], weights[kept] / 0.7)
    kept_fraction = kept[weights != 0].double().mean()
    assert abs(kept_fraction - 0.7) < 0.02  # 29,910 draws: the standard deviation is 0.0026
    if need_weights:
        assert_close(returned, weights)  # before dropout


def test_masked_softmax_is_the_softmax_over_unmasked_scores():
    scores = torch.randn(B, T, N, dtype=torch.float64) * 9
    mask = torch.rand(B, T, N) < 0.4
    mask[0, 0] = False
    mask[1, 1] = True
    scores[~mask] = 1e300  # a masked score has no effect
    weights = masked_softmax(scores, mask)
    for b in range(B):
        for t in range(T):
            assert_close(weights[b, t][mask[b, t]], scores[b, t][mask[b, t]].softmax(0))
    assert (weights[~mask] == 0).all()
    assert_close(masked_softmax(scores, None), scores.softmax(-1))
    expanded = mask[0].expand(B, T, N)
    same = masked_softmax(scores, mask[0]), masked_softmax(scores, expanded)
    assert_close(*same)
    far_apart = torch.tensor([[1000.0, 999.0], [-1000.0, -1001.0], [0.0, -1.0]])
    expected = far_apart[2].softmax(0).expand(3, 2)  # only differences within a row matter
    for every in (None, torch.ones(3, 2, dtype=torch.bool)):
        assert_close(masked_softmax(far_apart, every), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_masked_softmax_of_a_fully_masked_row_is_zero_with_finite_gradients(dtype):
    scores = (torch.randn(T, N) * 99).to(dtype).requires_grad_()
    mask = random_mask(T, N)
    mask[1] = False
    weights = masked_softmax(scores, mask)
    (gradient,) = torch.autograd.grad(weights, scores, torch.randn_like(weights))
    assert weights.dtype == dtype and (weights[1] == 0).all() and gradient.isfinite().all()
    assert (gradient[~mask] == 0).all()


def additive_attention_by_hand(attention, query, memory, mask):
    """The formula, position by position."""
    context = torch.zeros(B, T, E).double()
    weights = torch.zeros(B, T, N).double()
    for b in range(B):
        for t in range(T):
            projected = attention.query.weight @ query[b, t] + attention.query.bias
            scores = {}
            for n in range(N):
                if mask is None or mask[b, t, n]:
                    hidden = (projected + attention.key.weight @ memory[b, n]).tanh()
                    scores[n] = (attention.score.weight[0] @ hidden).exp()
            for n, score in scores.items():
                weights[b, t, n] = score / sum(scores.values())
                context[b, t] += weights[b, t, n].clone() * memory[b, n]
            if attention.gate is not None:
                gate = attention.gate.weight[0] @ query[b, t] + attention.gate.bias
                context[b, t] *= gate.sigmoid()
    return context, weights


@pytest.mark.parametrize("gate", [False, True], ids=["no gate", "gate"])
@pytest.mark.parametrize("mask_shape", [None, (B, 1, N), (T, N), (B, T, N)])
def test_additive_attention_matches_its_formula(mask_shape, gate):
    attention = random_double(AdditiveAttention(D, E, 17, gate))
    query = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(B, N, E, dtype=torch.float64, requires_grad=True)
    mask = mask_shape and torch.rand(mask_shape) < 0.6
    if mask_shape:
        mask.view(-1, N)[0] = False  # a fully masked row
    results = attention(query, memory, mask)
    expanded = None if mask is None else mask.expand(B, T, N)
    expected = additive_attention_by_hand(attention, query, memory, expanded)
    assert_close(results, expected, **CLOSE)
    assert_same_gradients(attention, attention, results, expected, [query, memory], 1e-6)


def test_additive_attention_to_a_fully_masked_memory_is_zero():
    attention = AdditiveAttention(D, E, 17, gate=True)
    query = torch.randn(B, T, D, requires_grad=True)
    memory = torch.randn(B, N, E, requires_grad=True)
    mask = torch.tensor([[[True] * N], [[False] * N]])
    with torch.autograd.set_detect_anomaly(True):
        context, weights = attention(query, memory, mask)
        gradients = torch.autograd.grad(context.sum(), [query, memory, *attention.parameters()])
    assert (context[0] != 0).all() and (context[1] == 0).all() and (weights[1] == 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.fixture
def penalised():
    """Weights, and the masks of words and of positions, both with padding in the second row."""
    weights = torch.rand(B, T, N, dtype=torch.float64, requires_grad=True)
    word_mask = torch.arange(T) < torch.tensor([[T], [2]])
    memory_mask = torch.arange(N) < torch.tensor([[N], [2]])
    return weights, word_mask, memory_mask


def test_penalty_matches_its_formula(penalised):
    weights, word_mask, memory_mask = penalised
    expected = 0
    for b in range(B):
        for n in range(N):
            if memory_mask[b, n]:
                total = sum(weights[b, t, n] for t in range(T) if word_mask[b, t])
                expected += (1 - total) ** 2 / B
    assert_close(doubly_stochastic_penalty(*penalised), expected, **CLOSE)
    assert torch.autograd.gradcheck(doubly_stochastic_penalty, penalised)


def test_padding_is_not_penalised(penalised):
    weights, word_mask, memory_mask = penalised
    real = word_mask.unsqueeze(2) & memory_mask.unsqueeze(1)  # (B, T, N)
    other = torch.where(real, weights, torch.randn_like(weights))
    penalty = doubly_stochastic_penalty(other, word_mask, memory_mask)
    assert_close(penalty, doubly_stochastic_penalty(*penalised), **CLOSE)


def test_penalty_is_zero_if_each_position_gets_a_total_weight_of_one():
    once = torch.stack([torch.eye(N)[torch.randperm(N)], torch.full((N, N), 1 / N)])
    every = torch.ones(B, N, dtype=torch.bool)
    assert doubly_stochastic_penalty(once, every, every) < 1e-12
    one_word_less = every & (torch.arange(N) > 0)
    assert doubly_stochastic_penalty(once, one_word_less, every) > 0.1


@pytest.fixture
def two_attentions():
    """Ours and torch's, with the same weights."""
    ours = MultiHeadAttention(WIDTH, H)
    reference = random_double(nn.MultiheadAttention(WIDTH, H, batch_first=True))
    ours.double().load_state_dict(reference.state_dict(), strict=True)
    return ours, reference


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("mask_shape", [None, (B, 1, -1), (T, -1), (B, T, -1), (B, H, T, -1)])
@pytest.mark.parametrize("positions", [None, N], ids=["self", "cross"])
def test_multi_head_attention_agrees_with_torch(
    two_attentions, positions, mask_shape, causal, need_weights
):
    ours, reference = two_attentions
    inputs = [torch.randn(B, T, WIDTH, dtype=torch.float64, requires_grad=True)]
    if positions:
        inputs.append(torch.randn(B, N, WIDTH, dtype=torch.float64, requires_grad=True))
    positions = positions or T
    mask = mask_shape and random_mask(*mask_shape[:-1], positions)
    results = ours(*inputs, mask=mask, causal=causal, need_weights=need_weights)

    hidden = torch.zeros(B, H, T, positions, dtype=torch.bool)  # True in torch's masks means hidden
    if mask_shape:
        hidden |= ~(mask if mask.dim() == 4 else mask.expand(B, T, positions).unsqueeze(1))
    if causal:
        hidden |= ~triangle(T, positions)
    options = {"attn_mask": hidden.flatten(0, 1), "average_attn_weights": False}
    expected = reference(inputs[0], inputs[-1], inputs[-1], **options)
    results, expected = (results, expected) if need_weights else ((results,), expected[:1])
    assert_close(results, expected, **CLOSE)
    assert_same_gradients(ours, reference, results, expected, inputs, 1e-6)


def test_mask_agrees_with_torchs_key_padding_mask(two_attentions):
    ours, reference = two_attentions
    x = torch.randn(B, T, WIDTH).double()
    memory = torch.randn(B, N, WIDTH).double()
    mask = random_mask(B, N)
    expected, _ = reference(x, memory, memory, key_padding_mask=~mask)
    assert_close(ours(x, memory, mask.unsqueeze(1)), expected, **CLOSE)


def test_keys_and_values_can_be_computed_in_advance(two_attentions):
    attention, _ = two_attentions
    x = torch.randn(B, T, WIDTH).double()
    memory = torch.randn(B, N, WIDTH).double()
    mask = random_mask(B, 1, N)
    keys, values = attention.keys_values(memory)
    assert keys.shape == values.shape == (B, H, N, D)
    expected = attention(x, memory, mask, need_weights=True)
    results = attention.attend(attention.queries(x), keys, values, mask, need_weights=True)
    assert_close(results, expected, **CLOSE)
    for parts in ((attention.queries(x), *attention.keys_values(x)), attention.project(x)):
        assert_close(attention.attend(*parts)[0], attention(x), **CLOSE)


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
def test_multi_head_attention_of_fully_masked_rows_is_zero(need_weights):
    attention = MultiHeadAttention(WIDTH, H)
    x = torch.randn(B, T, WIDTH, requires_grad=True)
    mask = random_mask(B, T, T)
    mask[1, 2] = False
    with torch.autograd.set_detect_anomaly(True):
        output = attention(x, mask=mask, need_weights=need_weights)
        output = output[0] if need_weights else output
        gradients = torch.autograd.grad(output.sum(), [x, *attention.parameters()])
    assert (output == 0).all(-1).nonzero().tolist() == [[1, 2]]  # out_proj.bias is zero at first
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "formula"])
def test_multi_head_attention_drops_weights_only_in_training(need_weights):
    attention = MultiHeadAttention(WIDTH, H, dropout=0.5)
    plain = MultiHeadAttention(WIDTH, H)
    plain.load_state_dict(attention.state_dict())
    x = torch.randn(B, T, WIDTH)

    def attend(module):
        output = module(x, need_weights=need_weights)
        return output[0] if need_weights else output

    assert not torch.equal(attend(attention), attend(attention))
    assert_close(attend(attention.eval()), attend(plain), rtol=0, atol=0)


def test_indivisible_number_of_heads_is_refused():
    with pytest.raises(ValueError, match="7 heads cannot share 33 dimensions"):
        MultiHeadAttention(WIDTH, 7)


def test_mean_of_a_memory_ignores_padding():
    tokens = torch.randn(3, N, D)
    mask = torch.arange(N) < torch.tensor([[4], [7], [0]])
    before = tokens.clone()
    mean = Memory(tokens, mask).mean()
    assert torch.equal(tokens, before)  # not changed
    assert_close(mean, torch.stack([tokens[0, :4].mean(0), tokens[1].mean(0), torch.zeros(D)]))


def memory_index_by_hand(index, rows, memories):
    """Walk through the sentences; note each memory at the start of its group, and the group's size."""
    memory_of = [i for i in range(memories) for _ in range(rows // memories)]
    needed = [memory_of[i] for i in index]
    groups = []
    for i, memory in enumerate(needed):
        if i == 0 or memory != needed[i - 1]:
            groups.append([memory, 0])
        groups[-1][1] += 1
    if len({size for _, size in groups}) > 1:
        return needed
    shared = [memory for memory, _ in groups]
    return None if shared == list(range(memories)) else shared


@pytest.mark.parametrize("index, rows, memories, expected", [
    ([0, 1, 2], 3, 3, None),  # all stay
    ([0, 0, 1, 1, 2, 2], 3, 3, None),  # each becomes two beams
    ([1, 1, 0, 3, 3, 2, 5, 4, 4], 6, 3, None),  # two beams of each become three, each with its memory
    ([2, 3, 4, 5], 6, 3, [1, 2]),  # the first is finished
    ([0, 2, 4], 6, 3, None),  # one of each is left
    ([3, 5], 6, 3, [1, 2]),
    ([4, 4, 0, 1], 6, 3, [2, 0]),
    ([0, 1, 2, 2, 2, 5], 6, 3, [0, 0, 1, 1, 1, 2]),  # groups of 2, 3 and 1
    ([0, 1, 2, 0], 3, 3, [0, 1, 2, 0]),
    ([0, 2, 1, 3], 4, 2, [0, 1, 0, 1]),  # alternating: groups of 1
    ([0, 0, 0], 1, 1, None),
])  # fmt: skip
def test_memory_index_names_each_memory_once_if_beams_stay_together(
    index, rows, memories, expected
):
    answer = memory_index(torch.tensor(index), rows, memories)
    answer = answer if answer is None else answer.tolist()
    assert answer == expected == memory_index_by_hand(index, rows, memories)


def test_memory_index_gives_each_sentence_its_memory():
    generator = random.Random(0)
    kinds = set()
    for _ in range(997):
        memories = generator.randint(1, 5)
        beams = generator.randint(1, 3)
        next_beams = generator.randint(1, 3)
        rows = memories * beams
        if generator.random() < 0.5:  # as in a beam search
            kept = [i for i in range(memories) if generator.random() < 0.7] or [0]
            first_rows = [i * beams for i in kept for _ in range(next_beams)]
            index = [row + generator.randrange(beams) for row in first_rows]
        else:
            index = [generator.randrange(rows) for _ in range(generator.randint(1, 7))]
        answer = memory_index(torch.tensor(index), rows, memories)
        answer = answer if answer is None else answer.tolist()
        assert answer == memory_index_by_hand(index, rows, memories)
        left = list(range(memories)) if answer is None else answer  # the memories after reordering
        group = len(index) // len(left)
        assert [memory for memory in left for _ in range(group)] == [i // beams for i in index]
        kinds.add("stay" if answer is None else "all" if len(answer) == len(index) else "shared")
    assert kinds == {"stay", "all", "shared"}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_bfloat16_gives_the_same_within_its_rounding(causal, masked):
    """On a CPU it takes another way, since the kernel is slow there."""
    query, key, value = (torch.randn(2, 3, T, 7) for T in (5, 5, 5))
    mask = torch.rand(2, 1, 5, 5) < 0.6 if masked else None
    rounded = [x.bfloat16() for x in (query, key, value)]
    output = scaled_dot_product_attention(*rounded, mask, causal=causal)
    exact = [x.float() for x in rounded]
    expected = scaled_dot_product_attention(*exact, mask, causal=causal)
    assert output.dtype == torch.bfloat16
    assert_close(output.float(), expected, rtol=0.02, atol=0.02)
