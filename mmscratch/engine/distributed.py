"""Several processes that train one model together. Nothing here is about a model.

    torchrun --nproc_per_node=2 -m mmscratch train --data my_photographs

Each process has its own copy of the model and its own shard of every batch; `all_reduce` sums their
results, and `gather` puts their rows together. Everything also works without torchrun: then there
is one process, of rank 0.
"""

import contextlib
import os
import sys
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

COLLECTIVE_TIMEOUT = timedelta(seconds=55)  # after this, a silent process counts as dead


def start() -> None:
    """Join the processes that torchrun started. From here on, only rank 0 prints."""
    if "RANK" not in os.environ or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    for harmless in (
        "find_unused_parameters=True was specified",  # in many models all of them are used
        "Grad strides do not match bucket view strides",  # only those of a class token: 64 numbers
    ):
        warnings.filterwarnings("ignore", harmless)
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")


def finish() -> None:
    """Leave the group: from here on, each process is on its own."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce(values: Tensor) -> Tensor:
    """Sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def all_gather(value) -> list:
    """The values of all processes, by rank."""
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, by rank, with gradient: (b, …) -> (B, …); b may differ.

    A row's gradient is the sum over the processes, each of which uses it. So all of them must call
    backward, even one that has no row.
    """
    if not dist.is_initialized():
        return x
    return _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        sizes = torch.zeros(world_size(), dtype=torch.long, device=x.device)
        sizes[rank()] = len(x)
        sizes = all_reduce(sizes).tolist()
        ctx.first = sum(sizes[: rank()])
        ctx.size = len(x)
        padded = x.new_zeros(max(sizes), *x.shape[1:])  # collectives need equal shapes
        padded[: len(x)] = x
        shards = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(shards, padded)
        return torch.cat([shard[:size] for shard, size in zip(shards, sizes)])  # (B, …)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = all_reduce(gradient.clone(memory_format=torch.contiguous_format))  # (B, …)
        return total[ctx.first : ctx.first + ctx.size]  # (b, …)


def broadcast(value):
    """The value of rank 0, in every process."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


@contextlib.contextmanager
def main_process_first():
    """A context that rank 0 runs first; the others then find the files that it has written."""
    if not dist.is_initialized():
        yield
        return
    group = dist.new_group(backend="gloo", timeout=timedelta(hours=12))  # it may take long
    if rank() > 0:
        dist.barrier(group)
    try:
        yield
    finally:
        if rank() == 0:
            dist.barrier(group)
