"""Chapter 17 written by others: see tests/test_proofs.py."""

# %% 17 mixing_rates
import math


def mixing_rates(sizes, temperature=1.0, limit=None):
    for number in [*sizes, temperature, 1 if limit is None else limit]:
        if not number > 0:
            raise ValueError(f"{number} is not above 0")
    limited = [size if limit is None else min(size, limit) for size in sizes]
    logs = [math.log(size) / temperature for size in limited]
    largest = max(logs)
    exponentials = [math.exp(log - largest) for log in logs]
    total = math.fsum(exponentials)
    return [each / total for each in exponentials]


# %% 17 deal_tasks
def deal_tasks(rates, count, block=1):
    order = []
    while len(order) < count:
        best, most = 0, -float("inf")
        for task, rate in enumerate(rates):
            lacking = rate * (len(order) + block) - order.count(task)
            if lacking > most:
                best, most = task, lacking
        order.extend([best] * block)
    del order[count:]
    return order


# %% 17 mixture_loss
import torch


def mixture_loss(losses, mask, tasks, weights):
    total = losses.new_zeros(())
    words = losses.new_zeros(())
    for i, task in enumerate(tasks.tolist()):
        total = total + weights[task] * losses[i][mask[i].bool()].sum()
        words = words + weights[task] * mask[i].sum()
    return total, words


# %% 17 answer_loss
import torch


def answer_loss(logits, tokens, instruction_lengths):
    losses = []
    for i, length in enumerate(instruction_lengths.tolist()):
        for t in range(length, tokens.size(1)):
            word = tokens[i, t]
            if word == PAD:
                continue
            scores = logits[i, t - 1]
            losses.append(scores.logsumexp(0) - scores[word])
    return torch.stack(losses).mean()


# %% 17 Adapter.__init__
import torch
import torch.nn.functional as F
from torch import nn


class Adapter(nn.Module):
    def __init__(self, dim, size):
        super().__init__()
        self.down = nn.Linear(in_features=dim, out_features=size)
        self.up = nn.Linear(in_features=size, out_features=dim)
        with torch.no_grad():
            for parameter in self.up.parameters():
                parameter.zero_()

    def forward(self, x):
        narrow = nn.GELU()(self.down(x))
        change = self.up(narrow)
        return change + x


class AdapterLinear(nn.Linear):
    def forward(self, x):
        output = F.linear(x, self.weight, self.bias)
        return self.adapter(output)


# %% 17 train_biases
def is_bias(name):
    own = name.split(".")[-1]
    return own[:4] == "bias" or own[-4:] == "bias"


def train_biases(model):
    names = [name for name, _ in model.named_parameters()]
    chosen = list(filter(is_bias, names))
    if not chosen:
        raise ValueError("there is no bias in this model")
    freeze(model, "*")
    unfreeze(model, *chosen)


# %% 17 swap_change
from pathlib import Path

import torch


def take_out(model):
    remove_lora(model)
    remove_adapters(model)
    model.prompt = None
    if hasattr(model, "replaced"):
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, original in model.replaced.items():
                parameters[name].copy_(original)
        del model.replaced


def check_shapes(path, model, state):
    for name, parameter in model.named_parameters():
        if name in state and state[name].shape != parameter.shape:
            raise ValueError(f"{path}: {name} has another shape than in the base")


def put_in(model, path, saved, change):
    state = saved["model"]
    check_shapes(path, model, state)
    where = [parameter.device for parameter in model.parameters()][0]
    kept = {}
    for name, parameter in model.named_parameters():
        if name in state:
            kept[name] = parameter.detach().clone()
    model.replaced = kept
    freeze(model, "*")
    _add_change(model, **change)
    model.to(where)
    if kept:
        unfreeze(model, *kept)
    try:
        load_change(path, model, saved)
    except ValueError:
        take_out(model)
        raise


def swap_change(model, folder):
    take_out(model)
    if folder is None:
        return {}
    path = Path(folder) / "best.pt"
    saved = read_checkpoint(path)
    check_version(path, saved)
    change = change_of(saved["train_config"])
    if not change:
        raise ValueError(f"{path} is a model of its own")
    put_in(model, path, saved, change)
    return saved
