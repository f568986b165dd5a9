"""Attention: the textbook's formula and the fused kernel agree, and who may see nothing gets nothing."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mmscratch.attention import Memory, scaled_dot_product_attention

B, H, T, N, D, E = 2, 3, 5, 7, 11, 13
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_inputs(*lead):
    """Query, key and value that want gradients, in float64."""
    return [torch.randn(*lead, *size, dtype=torch.float64, requires_grad=True) for size in ((T, D), (N, D), (N, E))]


def random_mask(*shape):
    """Some places are hidden, none of them the first."""
    mask = torch.rand(shape) < 0.5
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "textbook"])
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
    expected = F.scaled_dot_product_attention(*inputs, None if mask is None else mask.expand(*lead, T, N))
    assert output.shape == (*lead, T, E)
    assert_close(output, expected, **CLOSE)
    upstream = torch.randn_like(output)
    assert_close(
        torch.autograd.grad(output, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), **CLOSE
    )


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "textbook"])
def test_agrees_with_the_formula_word_for_word(need_weights):
    query, key, value = random_inputs(B)
    mask = torch.rand(B, T, N) < 0.3  # rows of all False among them
    output = scaled_dot_product_attention(query, key, value, mask, need_weights)
    output = output[0] if need_weights else output
    for b in range(B):
        for t in range(T):
            seen = [n for n in range(N) if mask[b, t, n]]
            scores = [(query[b, t] @ key[b, n] / D**0.5).exp() for n in seen]
            expected = sum((s / sum(scores) * value[b, n] for s, n in zip(scores, seen)), torch.zeros(E).double())
            assert_close(output[b, t], expected, **CLOSE)


def test_both_paths_agree_in_float32():
    inputs = [x.detach().float() for x in random_inputs(B, H)]
    mask = torch.rand(B, H, T, N) < 0.3
    textbook, _ = scaled_dot_product_attention(*inputs, mask, need_weights=True)
    assert_close(scaled_dot_product_attention(*inputs, mask), textbook, **CLOSE)


def test_the_weights_sum_to_one_or_to_nothing():
    query, key, value = random_inputs(B, H)
    mask = torch.rand(B, 1, T, N) < 0.2
    output, weights = scaled_dot_product_attention(query, key, value, mask, need_weights=True)
    assert set(mask.any(-1).flatten().tolist()) == {True, False}  # the mask has rows of both kinds
    assert weights.shape == (B, H, T, N)
    assert (weights[~mask.expand_as(weights)] == 0).all()
    assert_close(weights.sum(-1), mask.any(-1).double().expand(B, H, T), **CLOSE)
    assert_close(weights @ value, output, **CLOSE)


@pytest.mark.parametrize("need_weights", [False, True], ids=["fused", "textbook"])
@pytest.mark.parametrize("mask_shape", [(N,), (B, 1, N), (B, T, N)])
def test_who_may_see_nothing_gets_zeros_and_finite_gradients(mask_shape, need_weights):
    query, key, value = random_inputs(B)
    mask = random_mask(*mask_shape)
    mask.view(-1, N)[-1] = False
    with torch.autograd.set_detect_anomaly(True):  # a NaN on the way is an error, even if it is erased later
        output = scaled_dot_product_attention(query, key, value, mask, need_weights)
        output = output[0] if need_weights else output
        gradients = torch.autograd.grad(output.sum(), (query, key, value))
    blind = ~mask.any(-1, keepdim=True).expand(B, T, 1).squeeze(-1)  # (B, T)
    assert blind.any()
    assert (output[blind] == 0).all() and (output[~blind] != 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][blind] == 0).all()


def test_the_mean_of_a_memory_leaves_padding_out():
    tokens, mask = torch.randn(3, N, D), torch.arange(N) < torch.tensor([[4], [7], [0]])
    mean = Memory(tokens, mask).mean()
    assert_close(mean, torch.stack([tokens[0, :4].mean(0), tokens[1].mean(0), torch.zeros(D)]))
