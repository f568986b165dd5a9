"""Several processes that train one model together, started by torchrun; without it, one alone.

    torchrun --nproc_per_node=2 -m mmscratch train --data my_photographs

Each has its own copy of the model and its own share of every batch; `all_reduce` adds up what they found. All of it works
alone, too: then there is one process, of rank 0.
"""

import contextlib
import os
import sys
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

COLLECTIVE_TIMEOUT = timedelta(
    seconds=55
)  # how long a process waits for the others before it takes one of them for dead


def start() -> None:
    """Join the processes that torchrun started. Only rank 0 prints, from here on."""
    if "RANK" not in os.environ or dist.is_initialized():
        return
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=COLLECTIVE_TIMEOUT
    )
    warnings.filterwarnings(
        "ignore", "find_unused_parameters=True was specified"
    )  # often all are used, and that is fine
    warnings.filterwarnings(
        "ignore", "Grad strides do not match bucket view strides"
    )  # of a class token: 64 numbers
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")


def finish() -> None:
    """Leave the others. What follows is done by each for itself."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def all_gather(value) -> list:
    """What each process has, by rank."""
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def broadcast(value):
    """What rank 0 has, for all."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


@contextlib.contextmanager
def main_process_first():
    """Rank 0 does what is within, then the others: they find what it has left on the disk."""
    if not dist.is_initialized():
        yield
        return
    patient = dist.new_group(backend="gloo", timeout=timedelta(hours=12))  # it may take long
    if rank() > 0:
        dist.barrier(patient)
    try:
        yield
    finally:
        if rank() == 0:
            dist.barrier(patient)
