"""A mixture of tasks: how often each is drawn, and how much each counts."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .text import PAD


def mixing_rates(
    sizes: Sequence[int], temperature: float = 1.0, limit: int | None = None
) -> list[float]:
    """The share of each task in a mixture, from the numbers of its examples; they sum to 1.

        rate_m = min(size_m, limit)^(1 / T) / Σₖ min(size_k, limit)^(1 / T)

    At temperature T = 1 all examples are equally frequent; the higher T, the more equal are the
    tasks, and the more often a small one is repeated. With a `limit`, larger tasks count as if they
    had that many examples.
    Raises ValueError for a size, a temperature or a limit that is not above 0.
    Source: Raffel et al. 2020 (T5), section 3.5.2.
    """
    if temperature <= 0 or (limit is not None and limit <= 0) or min(sizes, default=0) <= 0:
        raise ValueError("sizes, temperature and limit must be above 0")
    if limit is not None:
        sizes = [min(size, limit) for size in sizes]
    powers = [(size / max(sizes)) ** (1 / temperature) for size in sizes]  # no overflow
    return [power / sum(powers) for power in powers]


def deal_tasks(rates: Sequence[float], count: int, block: int = 1) -> list[int]:
    """The task of each of `count` examples in a row, so that every stretch has the shares `rates`.

    The next example belongs to the task that lacks most of its share so far; of several, to the
    first one. With a `block`, that many examples in a row have the same task: batches of one task
    each, if a batch is a block.
    """
    dealt = [0] * len(rates)
    order = []
    for number in itertools.count(1):
        if len(order) >= count:
            return order[:count]
        lacking = [rate * number - n for rate, n in zip(rates, dealt)]
        task = lacking.index(max(lacking))
        dealt[task] += 1
        order += [task] * block


def mixture_loss(
    losses: Tensor, mask: Tensor, tasks: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of a mixed batch in which each task has a weight: (sum, count).

        sum = Σᵢ w(taskᵢ) Σₜ lossᵢₜ        count = Σᵢ w(taskᵢ) · (words of example i)

    losses (B, T): of each word. mask (B, T): where there is a word, and no padding. tasks (B,): the
    number of each example's task. weights (M,): of each task. The gradient of sum / count is that of
    a batch in which an example of a task with weight 2 occurs twice.
    """
    weight = weights[tasks]  # (B,)
    loss = (losses * mask).sum(1)  # (B,)
    return (weight * loss).sum(), (weight * mask.sum(1)).sum()


def answer_loss(logits: Tensor, tokens: Tensor, instruction_lengths: Tensor) -> Tensor:
    """The mean cross-entropy of the answers, where instruction and answer are one text.

    That is how a model without an encoder, such as GPT, is told what to do: it reads the
    instruction as the beginning of the text that it goes on with. It should learn to write the
    answer, and not the instruction, so only the answer's words count.

    logits (B, T, V): those at t predict tokens[:, t + 1]. tokens (B, T): each row an instruction,
    its answer, and padding. instruction_lengths (B,): the number of tokens of each instruction, at
    least 1. -> a scalar. Source: Wei et al. 2022 (FLAN); Liu et al. 2023 (LLaVA), section 4.2.
    """
    targets = tokens[:, 1:]  # (B, T - 1)
    position = torch.arange(1, tokens.size(1), device=tokens.device)  # (T - 1,)
    is_answer = position >= instruction_lengths.unsqueeze(1)  # (B, T - 1)
    targets = targets.masked_fill(~is_answer, PAD)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=PAD)


class MixtureLoss:
    """An `EncoderDecoder.objective`: the cross-entropy of words, with a weight for each task.

    weights (M,); batch["part"] (B,) says which task each example belongs to.
    """

    def __init__(self, weights: Tensor):
        self.weights = weights

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        target = batch["target"]  # (B, T)
        smoothing = model.label_smoothing if model.training else 0.0
        logits = model(batch).float().transpose(1, 2)  # (B, V, T)
        options = {"ignore_index": PAD, "reduction": "none", "label_smoothing": smoothing}
        losses = F.cross_entropy(logits, target, **options)  # (B, T)
        return mixture_loss(losses, target != PAD, batch["part"], self.weights.to(losses.device))
