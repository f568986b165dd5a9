"""Connectionist temporal classification: train and read a model that labels every frame of a sound."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG_ZERO = -1e30  # the logarithm of 0, but finite: -inf - -inf would be NaN


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
) -> Tensor:
    """Compute the negative log-likelihood of each target, summed over all its alignments: (B,).

        loss = -log Σ over alignments a of Πₜ p(aₜ at frame t)

    An alignment has one label for each frame and reads as the target once repeats are merged and
    blanks dropped: "aa_b" and "_abb" both read as "ab". A word needs at least as many frames as it
    has letters, and one more (a blank) between two equal ones. A target without an alignment has
    loss inf and gradient 0. An empty target has one alignment, of blanks only.

    log_probs: (B, F, V), each frame's log-probabilities of the V labels.
    targets: (B, T) label numbers; what follows a target's length is ignored.
    input_lengths: (B,) number of frames of each example.
    target_lengths: (B,) number of labels of each target.
    blank: the number of the label that means "nothing".

    Raises ValueError if shapes, lengths or labels do not fit.
    Agrees with F.ctc_loss(reduction="none"), which takes (F, B, V) and whose gradient assumes that
    log_probs come from log_softmax; this one is the derivative of the formula.
    Source: Graves et al. 2006.
    """
    _check(log_probs, targets, input_lengths, target_lengths, blank)
    device = log_probs.device
    input_lengths = input_lengths.to(device).unsqueeze(1)  # (B, 1)
    target_lengths = target_lengths.to(device).unsqueeze(1)  # (B, 1)
    states = ctc_states(targets.to(device), target_lengths, blank)
    may_skip = skip_mask(states, blank)
    if log_probs.dtype != torch.float64:
        log_probs = log_probs.float()
    return _CTCLoss.apply(log_probs, states, may_skip, input_lengths, target_lengths)


def ctc_states(targets: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """Put a blank before, between and after the labels: (B, T) -> (B, S), S = 2T + 1.

    An alignment walks through these states from left to right. States after a target's end are
    blanks. target_lengths is (B, 1).
    """
    B, T = targets.shape
    positions = torch.arange(T, device=targets.device)  # (T,)
    states = targets.new_full((B, 2 * T + 1), blank)  # (B, S)
    states[:, 1::2] = targets.masked_fill(positions >= target_lengths, blank)
    return states


def skip_mask(states: Tensor, blank: int) -> Tensor:
    """Whether each state may follow the last but one: a label that differs from it. (B, S) bool.

    Between two equal labels the blank is needed: without it they would be merged.
    """
    may_skip = states != blank  # (B, S)
    may_skip[:, 2:] &= states[:, 2:] != states[:, :-2]
    return may_skip


def forward_variables(emissions: Tensor, may_skip: Tensor, input_lengths: Tensor) -> Tensor:
    """Compute αₜ(s), the log-probability of the first t frames ending in state s: (B, F + 1, S).

        α₀(s) = log [s = 0]
        αₜ(s) = emissionₜ(s) + log Σ exp(αₜ₋₁(s), αₜ₋₁(s - 1), and αₜ₋₁(s - 2) if s may skip)

    emissions: (B, F, S), each frame's log-probability of each state's label.
    may_skip: (B, S) bool.
    input_lengths: (B, 1); the padded frames that follow do not change α.
    """
    alpha = torch.full_like(emissions[:, 0], LOG_ZERO)  # (B, S)
    alpha[:, 0] = 0.0
    alphas = [alpha]
    for t in range(emissions.size(1)):
        before = F.pad(alpha, (2, 0), value=LOG_ZERO)  # (B, 2 + S)
        step = before[:, 1:-1]  # (B, S)
        skip = before[:, :-2].masked_fill(~may_skip, LOG_ZERO)  # (B, S)
        reached = torch.stack([alpha, step, skip]).logsumexp(0)  # (B, S)
        alpha = torch.where(t < input_lengths, reached + emissions[:, t], alpha)
        alphas.append(alpha)
    return torch.stack(alphas, dim=1)  # (B, F + 1, S)


def backward_variables(
    emissions: Tensor, may_skip: Tensor, input_lengths: Tensor, final: Tensor
) -> Tensor:
    """Compute βₜ(s), the log-probability of all frames after the first t from state s: (B, F + 1, S).

        βₜ(s) = log Σ exp(emissionₜ₊₁(s') + βₜ₊₁(s'))   over s' = s, s + 1, and s + 2 if it may skip

    final: (B, S), 0 for the states in which an alignment may end and `LOG_ZERO` for all others.

    The other arguments are those of `forward_variables`. For every t, log Σₛ exp(αₜ(s) + βₜ(s)) is
    the log-likelihood.
    """
    beta = final  # (B, S)
    betas = [beta]
    for t in reversed(range(emissions.size(1))):
        stay = beta + emissions[:, t]  # (B, S)
        step = F.pad(stay, (0, 1), value=LOG_ZERO)[:, 1:]  # (B, S)
        skip = stay.masked_fill(~may_skip, LOG_ZERO)
        skip = F.pad(skip, (0, 2), value=LOG_ZERO)[:, 2:]  # (B, S)
        completed = torch.stack([stay, step, skip]).logsumexp(0)  # (B, S)
        beta = torch.where(t < input_lengths, completed, beta)
        betas.append(beta)
    return torch.stack(betas[::-1], dim=1)  # (B, F + 1, S)


def state_emissions(log_probs: Tensor, states: Tensor) -> Tensor:
    """Look up each frame's log-probability of each state's label: (B, F, V) -> (B, F, S)."""
    index = states.unsqueeze(1).expand(-1, log_probs.size(1), -1)  # (B, F, S)
    return log_probs.gather(2, index).clamp(min=LOG_ZERO)  # (B, F, S)


def final_states(states: Tensor, target_lengths: Tensor) -> Tensor:
    """Mark the last label and the blank after it by 0, all others by `LOG_ZERO`: (B, S) float32."""
    positions = torch.arange(states.size(1), device=states.device)  # (S,)
    last = 2 * target_lengths  # (B, 1)
    is_final = (positions == last) | (positions == last - 1)  # (B, S)
    return torch.where(is_final, 0.0, LOG_ZERO)


class _CTCLoss(torch.autograd.Function):
    """The loss from the forward variables, and its gradient from both.

    ∂ loss / ∂ log_probsₜ(k) = -Σ over the states s of label k of exp(αₜ(s) + βₜ(s)) / likelihood

    That is minus the probability that frame t has label k, given the target.
    """

    @staticmethod
    def forward(ctx, log_probs, states, may_skip, input_lengths, target_lengths):
        emissions = state_emissions(log_probs, states)  # (B, F, S)
        final = final_states(states, target_lengths).to(emissions.dtype)
        alphas = forward_variables(emissions, may_skip, input_lengths)  # (B, F + 1, S)
        log_likelihood = (alphas[:, -1] + final).logsumexp(1)  # (B,)
        ctx.save_for_backward(
            alphas, log_likelihood, emissions, final, may_skip, input_lengths, states
        )
        ctx.vocab_size = log_probs.size(2)
        return (-log_likelihood).masked_fill(log_likelihood <= LOG_ZERO / 2, math.inf)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        alphas, log_likelihood, emissions, final, may_skip, input_lengths, states = (
            ctx.saved_tensors
        )
        B, frames, S = emissions.shape
        betas = backward_variables(emissions, may_skip, input_lengths, final)  # (B, F + 1, S)
        log_likelihood = log_likelihood.view(B, 1, 1)
        occupancy = (alphas + betas - log_likelihood)[:, 1:].exp()  # (B, F, S)
        is_padding = torch.arange(frames, device=states.device) >= input_lengths  # (B, F)
        impossible = log_likelihood <= LOG_ZERO / 2  # (B, 1, 1)
        occupancy = occupancy * upstream.view(B, 1, 1)
        occupancy = occupancy.masked_fill(is_padding.unsqueeze(2) | impossible, 0.0)
        gradient = emissions.new_zeros(B, frames, ctx.vocab_size)
        index = states.unsqueeze(1).expand(-1, frames, -1)  # (B, F, S)
        gradient.scatter_add_(2, index, -occupancy)  # (B, F, V)
        return gradient, None, None, None, None


def _check(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
) -> None:
    """Raise ValueError if shapes, lengths or labels do not fit."""
    if log_probs.dim() != 3 or targets.dim() != 2:
        shapes = f"{tuple(log_probs.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"log_probs and targets need shapes (B, F, V) and (B, T), not {shapes}")
    B, frames, V = log_probs.shape
    if not len(targets) == len(input_lengths) == len(target_lengths) == B:
        counts = f"{len(targets)} targets, {len(input_lengths)} and {len(target_lengths)} lengths"
        raise ValueError(f"{B} examples but {counts}")
    if not 0 <= blank < V:
        raise ValueError(f"blank must be one of the {V} labels, 0 to {V - 1}, not {blank}")
    for name, lengths, longest in (
        ("input_lengths", input_lengths, frames),
        ("target_lengths", target_lengths, targets.size(1)),
    ):
        if lengths.is_floating_point() or ((lengths < 0) | (lengths > longest)).any():
            raise ValueError(f"{name} must be integers from 0 to {longest}, not {lengths.tolist()}")
    positions = torch.arange(targets.size(1), device=targets.device)  # (T,)
    inside = positions < target_lengths.to(targets.device).unsqueeze(1)  # (B, T)
    labels = targets[inside]
    wrong = labels[(labels < 0) | (labels >= V) | (labels == blank)]
    if len(wrong):
        expected = f"0 to {V - 1} without the blank, {blank}"
        raise ValueError(f"a target has the label {wrong[0].item()}, but labels are {expected}")


def ctc_decode(log_probs: Tensor, lengths: Tensor, blank: int = 0) -> list[list[int]]:
    """Read the most probable label of each frame: merge repeats, then drop blanks.

    The most probable alignment, not the most probable target, which may have many alignments.

    log_probs: (B, F, V), or logits.
    lengths: (B,) number of frames of each example.
    """
    best = log_probs.argmax(2)  # (B, F)
    decoded = []
    for labels, length in zip(best.cpu(), lengths.tolist()):
        merged = labels[:length].unique_consecutive().tolist()
        decoded.append([label for label in merged if label != blank])
    return decoded
