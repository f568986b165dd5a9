"""The mixture: rates as in T5, dealing against the shares, losses against duplicated examples and
transformers' labels.
"""

import pytest
import torch
import torch.nn.functional as F
from helpers import IMAGE, tiny_config
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from mmscratch.mixture import MixtureLoss, answer_loss, deal_tasks, mixing_rates, mixture_loss
from mmscratch.model import build_model
from mmscratch.text import PAD

SIZES = st.lists(st.integers(1, 10**9), min_size=1, max_size=7)


@given(SIZES)
def test_at_temperature_1_every_example_is_equally_frequent(sizes):
    assert mixing_rates(sizes) == pytest.approx([size / sum(sizes) for size in sizes])


@given(SIZES, st.floats(0.2, 20), st.none() | st.integers(1, 10**6))
def test_rates_are_those_of_t5(sizes, temperature, limit):
    clipped = [min(size, limit or size) for size in sizes]
    logs = torch.tensor(clipped, dtype=torch.double).log() / temperature
    expected = logs.softmax(0).tolist()  # x^(1/T), normalized
    before = list(sizes)
    assert mixing_rates(sizes, temperature, limit) == pytest.approx(expected, rel=1e-6)
    assert list(sizes) == before  # not changed
    assert mixing_rates(tuple(sizes), temperature, limit) == pytest.approx(expected, rel=1e-6)


def test_a_high_temperature_makes_the_tasks_equal():
    assert mixing_rates([1, 10**9], 1e6) == pytest.approx([0.5, 0.5], abs=1e-4)


def test_a_low_temperature_does_not_overflow():
    assert mixing_rates([10**9, 10], 0.001) == [1.0, 0.0]


@pytest.mark.parametrize(
    "arguments", [([0, 3],), ([3], 0.0), ([3], -1.0), ([3, 5], 1.0, 0)], ids=str
)
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError) as error:
        mixing_rates(*arguments)
    assert "\n" not in str(error.value)


def test_a_mixture_of_no_tasks_is_refused():
    with pytest.raises(ValueError):
        mixing_rates([])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 400))
def test_every_beginning_has_the_shares(sizes, count):
    rates = mixing_rates(sizes)
    order = deal_tasks(rates, count)
    assert len(order) == count
    for length in range(0, count + 1, 7):
        for task, rate in enumerate(rates):
            assert abs(order[:length].count(task) - rate * length) < len(rates)


def test_tasks_are_dealt_by_what_they_lack():
    assert deal_tasks([0.5, 0.25, 0.25], 8) == [0, 1, 2, 0, 0, 1, 2, 0]
    assert deal_tasks([0.0, 1.0], 3) == [1, 1, 1]
    assert deal_tasks([0.6, 0.4], 7, block=3) == [0, 0, 0, 1, 1, 1, 0]


def random_losses():
    losses = torch.rand(7, 5, dtype=torch.double, requires_grad=True)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4, 2, 5, 1]).unsqueeze(1)
    return losses, mask, torch.tensor([0, 2, 1, 1, 0, 2, 2])


def test_a_task_with_weight_2_counts_as_if_its_examples_occurred_twice():
    losses, mask, tasks = random_losses()
    got, count = mixture_loss(losses, mask, tasks, torch.tensor([1.0, 2.0, 3.0]).double())
    (gradient,) = torch.autograd.grad(got / count, losses)
    repeats = torch.tensor([1, 2, 3])[tasks]
    rows = torch.arange(7).repeat_interleave(repeats)
    words = losses[rows][mask[rows]]
    assert_close(got, words.sum())
    assert count == len(words)
    (expected,) = torch.autograd.grad(words.mean(), losses)
    assert_close(gradient, expected)


def test_the_gradient_of_a_mixture_is_the_weighted_mean_of_its_tasks():
    losses, mask, tasks = random_losses()
    weights = torch.tensor([0.5, 4.0, 1.0]).double()
    total, count = mixture_loss(losses, mask, tasks, weights)
    (gradient,) = torch.autograd.grad(total / count, losses, retain_graph=True)
    expected = torch.zeros_like(losses)
    for task, weight in enumerate(weights):
        of_task = mask & (tasks == task).unsqueeze(1)
        (own,) = torch.autograd.grad(losses[of_task].mean(), losses, retain_graph=True)
        expected += weight * of_task.sum() / count * own
    assert_close(gradient, expected)


def test_padding_does_not_count_even_if_its_loss_is_not_finite():
    losses, mask, tasks = random_losses()
    with torch.no_grad():
        losses[~mask] = 1e6
    weights = torch.ones(3).double()
    got, count = mixture_loss(losses, mask, tasks, weights)
    assert_close(got, losses[mask].sum())
    assert count == mask.sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_weights_give_the_loss_of_the_model(smoothing):
    model = build_model(tiny_config(13, IMAGE, {"name": "lstm", "hidden_size": 11}, 8))
    model.label_smoothing = smoothing
    target = torch.tensor([[5, 7, 2], [9, 2, PAD]])
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    size = model.encoders["image"].image_size
    batch = {"image": images[..., :size, :size], "target": target, "part": torch.tensor([1, 0])}
    model.encoders.eval()
    expected = model.loss(batch)
    model.objective = MixtureLoss(torch.ones(2))
    got = model.loss(batch)
    assert_close(got[0], expected[0])
    assert got[1] == expected[1]
    model.objective = MixtureLoss(torch.tensor([0.0, 1.0]))
    assert model.loss(batch)[1] == 3


def test_only_the_answer_is_learned_as_with_transformers_labels():
    transformers = pytest.importorskip("transformers")
    sizes = {"n_embd": 12, "n_layer": 2, "n_head": 2, "vocab_size": 23, "n_positions": 11}
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **dropouts))
    tokens = torch.tensor([[4, 5, 6, 7, 8, 9, 2], [10, 11, 12, 2, PAD, PAD, PAD]])
    lengths = torch.tensor([3, 1])
    labels = tokens.clone()
    labels[0, :3] = labels[1, :1] = -100
    labels[tokens == PAD] = -100
    expected = model(tokens, labels=labels).loss
    logits = model(tokens).logits.detach().requires_grad_()
    got = answer_loss(logits, tokens, lengths)
    assert_close(got, expected)
    (gradient,) = torch.autograd.grad(got, logits)
    learns = gradient.abs().sum(-1) > 0
    assert learns.tolist() == [[False] * 2 + [True] * 4 + [False], [True] * 3 + [False] * 4]


def test_an_instruction_of_one_word_leaves_the_whole_rest_to_learn():
    logits = torch.randn(1, 4, 9)
    tokens = torch.tensor([[4, 5, 6, 2]])
    expected = F.cross_entropy(logits[0, :3], tokens[0, 1:])
    assert_close(answer_loss(logits, tokens, torch.tensor([1])), expected)
