"""CTC against F.ctc_loss, all alignments of tiny targets, and finite differences."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmscratch.ctc import (
    backward_variables,
    ctc_decode,
    ctc_loss,
    ctc_states,
    final_states,
    forward_variables,
    skip_mask,
    state_emissions,
)


def random_batch(seed, B=11, frames=17, V=5, T=7, blank=0):
    """Logits in float64, targets with repeats and garbage after their ends, and both lengths.

    Some targets are empty, some sounds are, and some are too short for their targets.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(high, *shape):
        return torch.randint(high, shape, generator=generator)

    logits = 2 * torch.randn(B, frames, V, generator=generator, dtype=torch.float64)
    labels = torch.tensor([label for label in range(V) if label != blank])
    targets = labels[draw(V - 1, B, T)]
    input_lengths = draw(frames + 1, B)
    target_lengths = draw(T + 1, B)
    input_lengths[0] = frames
    target_lengths[0] = T
    for i, length in enumerate(target_lengths.tolist()):
        targets[i, length:] = draw(99, T - length)  # never read
    return logits, targets, input_lengths, target_lengths


def torch_loss(log_probs, targets, input_lengths, target_lengths, blank=0, zero_infinity=False):
    positions = torch.arange(targets.size(1))
    other = 1 if blank == 0 else 0
    targets = targets.where(positions < target_lengths.unsqueeze(1), other)
    settings = {"blank": blank, "reduction": "none", "zero_infinity": zero_infinity}
    log_probs = log_probs.transpose(0, 1)
    return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, **settings)


def collapse(labels, blank=0):
    merged = [label for label, _ in itertools.groupby(labels)]
    return [label for label in merged if label != blank]


def brute_force(log_probs, target, blank=0):
    """The loss of one target, from all alignments one by one. log_probs (frames, V)."""
    frames, V = log_probs.shape
    log_probs = log_probs.tolist()
    likelihood = 0.0
    for labels in itertools.product(range(V), repeat=frames):
        if collapse(labels, blank) == target:
            log_prob = sum(log_probs[t][label] for t, label in enumerate(labels))
            likelihood += math.exp(log_prob)
    return -math.log(likelihood) if likelihood else math.inf


# -------------------------------------------------------------------------------------------------
# The loss.


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("target", [[], [1], [2, 1], [1, 1], [2, 2, 2], [1, 2, 1]])
def test_loss_sums_over_all_alignments(frames, target):
    logits = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(frames)).double()
    log_probs = logits.log_softmax(2)
    targets = torch.tensor([target + [1]])  # the last one is never read
    lengths = torch.tensor([frames]), torch.tensor([len(target)])
    expected = brute_force(log_probs[0, :frames], target)
    assert ctc_loss(log_probs, targets, *lengths).item() == pytest.approx(expected, abs=1e-12)


@given(
    st.integers(0, 4), st.lists(st.integers(0, 2), max_size=4), st.integers(0, 2), st.integers(0)
)
@settings(max_examples=60, deadline=None)
def test_loss_with_any_blank_sums_over_all_alignments(frames, labels, blank, seed):
    target = [label for label in labels if label != blank]
    generator = torch.Generator().manual_seed(seed % 2**32)
    log_probs = torch.randn(1, 5, 3, generator=generator).double().log_softmax(2)
    targets = torch.tensor([target], dtype=torch.long).reshape(1, -1)
    lengths = torch.tensor([frames]), torch.tensor([len(target)])
    expected = brute_force(log_probs[0, :frames], target, blank)
    loss = ctc_loss(log_probs, targets, *lengths, blank).item()
    assert loss == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("blank", [0, 3, 4])
def test_loss_and_gradient_agree_with_torch(dtype, tolerance, blank):
    impossible = 0
    for seed in range(20):
        logits, *rest = random_batch(seed, blank=blank)
        logits = logits.to(dtype).requires_grad_()
        ours = ctc_loss(logits.log_softmax(2), *rest, blank)
        theirs = torch_loss(logits.log_softmax(2), *rest, blank)
        assert ours.dtype == dtype and ours.shape == (11,)
        assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
        impossible += theirs.isinf().sum().item()
        finite = torch_loss(logits.log_softmax(2), *rest, blank, zero_infinity=True)
        upstream = torch.randn(11, dtype=dtype)
        [gradient] = torch.autograd.grad(ours, logits, upstream)
        [expected] = torch.autograd.grad(finite, logits, upstream)
        expected[theirs.isinf()] = 0.0
        assert_close(gradient, expected, rtol=10 * tolerance, atol=10 * tolerance)
    assert 20 < impossible < 150, "both kinds must occur"


def test_gradient_is_the_derivative_of_the_loss_without_log_softmax():
    logits, targets, *lengths = random_batch(3, B=3, frames=5, V=4, T=2)
    lengths[0] = torch.tensor([5, 4, 2])
    weights = logits.requires_grad_()  # no probabilities: any numbers have a sum over alignments
    assert ctc_loss(weights, targets, *lengths).isfinite().all()
    assert torch.autograd.gradcheck(lambda x: ctc_loss(x, targets, *lengths), weights)


def test_gradient_by_hand_is_that_of_autograd_through_the_forward_variables():
    logits, targets, input_lengths, target_lengths = random_batch(7)
    logits[:, 3:5, [0, 4]] = -math.inf  # labels of probability 0
    logits.requires_grad_()
    log_probs = logits.log_softmax(2)
    states = ctc_states(targets, target_lengths.unsqueeze(1), 0)
    emissions = state_emissions(log_probs, states)
    final = final_states(states, target_lengths.unsqueeze(1))
    alphas = forward_variables(emissions, skip_mask(states, 0), input_lengths.unsqueeze(1))
    losses = -(alphas[:, -1] + final).logsumexp(1)
    ours = ctc_loss(log_probs, targets, input_lengths, target_lengths)
    possible = ours.isfinite()
    assert 3 < possible.sum() < 11
    assert_close(losses[possible], ours[possible])
    [expected] = torch.autograd.grad(losses[possible].sum(), logits, retain_graph=True)
    [gradient] = torch.autograd.grad(ours[possible].sum(), logits)
    assert_close(gradient, expected)


def test_forward_and_backward_variables_give_the_likelihood_at_every_frame():
    logits, targets, input_lengths, target_lengths = random_batch(5)
    log_probs = logits.log_softmax(2)
    states = ctc_states(targets, target_lengths.unsqueeze(1), 0)
    emissions = state_emissions(log_probs, states)
    final = final_states(states, target_lengths.unsqueeze(1)).double()
    arguments = emissions, skip_mask(states, 0), input_lengths.unsqueeze(1)
    alphas = forward_variables(*arguments)
    betas = backward_variables(*arguments, final)
    totals = -(alphas + betas).logsumexp(2)  # (B, F + 1)
    loss = ctc_loss(log_probs, targets, input_lengths, target_lengths)
    possible = loss.isfinite()
    assert totals.shape == (11, 18)
    assert_close(totals[possible], loss[possible].unsqueeze(1).expand(-1, 18))
    assert (totals[~possible] > 1e29).all()


def test_states_of_a_target_are_its_labels_between_blanks():
    targets = torch.tensor([[2, 2, 7], [5, 9, 9]])
    states = ctc_states(targets, torch.tensor([[3], [1]]), 4)
    assert targets.tolist() == [[2, 2, 7], [5, 9, 9]]  # not changed
    assert states.tolist() == [[4, 2, 4, 2, 4, 7, 4], [4, 5, 4, 4, 4, 4, 4]]
    may_skip = skip_mask(states, 4)[:, 2:]  # no state is the last but one of the first two
    assert may_skip.int().tolist() == [[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]


# -------------------------------------------------------------------------------------------------
# Corner cases.


@pytest.mark.parametrize(
    "frames, target, possible",
    [
        (2, [1, 2], True),
        (1, [1, 2], False),
        (2, [1, 1], False),
        (3, [1, 1], True),
        (4, [1, 1, 1], False),
        (5, [1, 1, 1], True),
        (0, [], True),
        (0, [1], False),
    ],
)
def test_a_target_needs_a_frame_per_label_and_one_between_equal_labels(frames, target, possible):
    log_probs = torch.zeros(1, 5, 3, requires_grad=True)
    targets = torch.tensor([target], dtype=torch.long)
    loss = ctc_loss(log_probs, targets, torch.tensor([frames]), torch.tensor([len(target)]))
    assert loss.isfinite().item() == possible and (possible or loss.item() == math.inf)
    loss.sum().backward()
    assert log_probs.grad.isfinite().all()
    assert (log_probs.grad != 0).any().item() == (possible and frames > 0)


def test_an_impossible_pair_does_not_change_the_gradient_of_the_others():
    logits, targets, *_ = random_batch(2, B=2, T=7)
    lengths = torch.tensor([17, 3]), torch.tensor([2, 7])
    targets[0, :2] = 1
    targets[1] = 2
    logits.requires_grad_()
    loss = ctc_loss(logits.log_softmax(2), targets, *lengths)
    assert loss.isfinite().tolist() == [True, False]
    [gradient] = torch.autograd.grad(loss.square().mean(), logits)  # inf comes from above
    alone = ctc_loss(logits[:1].log_softmax(2), targets[:1], *(each[:1] for each in lengths))
    [expected] = torch.autograd.grad(alone.square().sum() / 2, logits)
    assert_close(gradient, expected)
    assert not gradient[1].any()


def test_labels_of_probability_0_give_no_nan():
    logits = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1)).double()
    logits[..., 4] = -math.inf
    logits[1, 2:5, 0] = -math.inf
    logits[2, :, 1] = -math.inf
    logits.requires_grad_()
    targets = torch.tensor([[1, 3], [2, 2], [1, 2]])
    lengths = torch.full((3,), 7), torch.full((3,), 2)
    loss = ctc_loss(logits.log_softmax(2), targets, *lengths)
    assert_close(loss, torch_loss(logits.log_softmax(2), targets, *lengths))
    assert loss.isfinite().tolist() == [True, True, False]
    loss.sum().backward()
    assert logits.grad.isfinite().all()


def test_padded_frames_have_no_effect_and_no_gradient():
    logits, targets, *lengths = random_batch(4, B=5)
    targets = targets % 4 + 1
    lengths[0] = torch.tensor([13, 11, 13, 7, 5])
    lengths[1] = torch.tensor([3, 2, 0, 1, 2])
    logits.requires_grad_()
    loss = ctc_loss(logits, targets, *lengths)
    changed = logits.detach().clone()
    for row, length in zip(changed, lengths[0]):
        row[length:] = 31.0
    assert torch.equal(ctc_loss(changed, targets, *lengths), loss)
    assert torch.equal(ctc_loss(changed[:, :13], targets, *lengths), loss)
    loss.sum().backward()
    for gradient, length in zip(logits.grad, lengths[0]):
        assert not gradient[length:].any()
        # each frame has one label: the posterior probabilities sum to 1
        assert_close(gradient[:length].sum(1), -torch.ones(length, dtype=torch.float64))


def test_empty_targets_are_read_as_blanks():
    log_probs = torch.randn(2, 5, 3).log_softmax(2)
    lengths = torch.tensor([5, 2])
    targets = torch.empty(2, 0, dtype=torch.long)
    loss = ctc_loss(log_probs, targets, lengths, torch.tensor([0, 0]))
    assert_close(loss, -torch.stack([log_probs[0, :, 0].sum(), log_probs[1, :2, 0].sum()]))


def test_an_empty_batch_has_no_losses():
    nothing = torch.empty(0, dtype=torch.long)
    assert ctc_loss(torch.empty(0, 5, 3), nothing.view(0, 2), nothing, nothing).shape == (0,)


def test_long_sounds_do_not_underflow():
    """The probability is about e⁻¹⁴⁰⁰, which is 0 even in double precision."""
    logits, targets, *lengths = random_batch(1, B=2, frames=1009, T=17)
    lengths = torch.full((2,), 1009), torch.full((2,), 17)
    targets = targets % 4 + 1
    log_probs = logits.float().log_softmax(2)
    assert_close(ctc_loss(log_probs, targets, *lengths), torch_loss(log_probs, targets, *lengths))


def test_half_precision_is_computed_in_float32():
    logits, targets, *lengths = random_batch(1)
    log_probs = logits.log_softmax(2).bfloat16()
    loss = ctc_loss(log_probs, targets, *lengths)
    assert loss.dtype == torch.float32
    assert_close(loss, ctc_loss(log_probs.float(), targets, *lengths))


@pytest.mark.gpu
def test_loss_and_gradient_are_the_same_on_a_gpu():
    results = []
    for device in ("cpu", "cuda"):
        logits, *rest = random_batch(6)
        logits = logits.to(device).requires_grad_()
        loss = ctc_loss(logits.log_softmax(2), *(each.to(device) for each in rest))
        [gradient] = torch.autograd.grad(loss.sum(), logits)
        results.append((loss.detach().cpu(), gradient.cpu()))
    assert_close(results[0], results[1])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"log_probs": torch.zeros(5, 4)}, r"need shapes \(B, F, V\) and \(B, T\), not \(5, 4\)"),
        ({"targets": torch.ones(2)}, r"need shapes .* and \(2,\)"),
        ({"targets": torch.ones(3, 2, dtype=torch.long)}, "2 examples but 3 targets, 2 and 2"),
        ({"input_lengths": torch.tensor([5])}, "2 examples but 2 targets, 1 and 2 lengths"),
        ({"target_lengths": torch.tensor([5])}, "2 examples but 2 targets, 2 and 1 lengths"),
        ({"input_lengths": torch.tensor([5, 6])}, r"input_lengths .* from 0 to 5, not \[5, 6\]"),
        ({"input_lengths": torch.tensor([5, -1])}, r"input_lengths .* from 0 to 5, not \[5, -1\]"),
        ({"input_lengths": torch.tensor([5.0, 1])}, r"integers from 0 to 5, not \[5.0, 1.0\]"),
        ({"target_lengths": torch.tensor([3, 0])}, r"target_lengths .* 0 to 2, not \[3, 0\]"),
        ({"targets": torch.tensor([[1, 0], [1, 1]])}, "a target has the label 0, but"),
        ({"targets": torch.tensor([[1, 2], [4, 1]])}, "a target has the label 4, but labels are 0"),
        ({"targets": torch.tensor([[1, 2], [-1, 1]])}, "a target has the label -1, but"),
        ({"blank": 4}, "blank must be one of the 4 labels, 0 to 3, not 4"),
        ({"blank": -1}, "blank must be one of the 4 labels, 0 to 3, not -1"),
    ],
)
def test_wrong_arguments_raise(changes, words):
    arguments = {
        "log_probs": torch.zeros(2, 5, 4),
        "targets": torch.ones(2, 2, dtype=torch.long),
        "input_lengths": torch.tensor([5, 3]),
        "target_lengths": torch.tensor([2, 1]),
    }
    assert ctc_loss(**arguments).isfinite().all()
    with pytest.raises(ValueError, match=words) as error:
        ctc_loss(**(arguments | changes))
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------------------------------------
# Decoding.


@given(st.lists(st.integers(0, 3), max_size=13), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_decoding_merges_repeats_and_then_drops_blanks(labels, extra, blank):
    log_probs = F.one_hot(torch.tensor(labels + [extra] * 2), 4).unsqueeze(0).float()
    decoded = ctc_decode(log_probs, torch.tensor([len(labels)]), blank)
    assert decoded == [collapse(labels, blank)]


def test_equal_labels_with_a_blank_between_them_stay_two():
    labels = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 3, 3, 3, 0, 0], [1, 2, 3, 1, 2, 3]])
    log_probs = F.one_hot(labels, 5).float()
    assert ctc_decode(log_probs, torch.tensor([6, 6, 0])) == [[1, 1, 2], [3], []]


def test_training_on_the_loss_makes_decoding_right():
    targets = torch.tensor([[1, 1, 2], [3, 2, 3], [2, 0, 0]])
    lengths = torch.tensor([11, 7, 5]), torch.tensor([3, 3, 1])
    logits = torch.zeros(3, 11, 4, requires_grad=True)
    for _ in range(60):
        loss = ctc_loss(logits.log_softmax(2), targets, *lengths).sum()
        [gradient] = torch.autograd.grad(loss, logits)
        logits = (logits - 3 * gradient).detach().requires_grad_()
    assert loss < 0.1
    assert ctc_decode(logits, lengths[0]) == [[1, 1, 2], [3, 2, 3], [2]]
