"""Training on several GPUs: a process each, gradients averaged between the two halves of a step.

A step's forward and backward pass is one CUDA graph and its update another; between them the gradients, which lie in
one piece of memory, are averaged over the processes. That is all they say to each other, but for the clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as processes


class Gradients:
    """The gradients of parameters in one piece of memory, where backward passes add to them."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        device = parameters[0].device
        self.flat = torch.zeros(sum(p.numel() for p in parameters), device=device)
        places = self.flat.split([p.numel() for p in parameters])
        for parameter, place in zip(parameters, places, strict=True):
            parameter.grad = place.view_as(parameter)

    def clear(self) -> None:
        self.flat.zero_()

    def average(self) -> None:
        """Over all processes; nothing where there is one."""
        if (count := world()) > 1:
            processes.all_reduce(self.flat)
            self.flat.div_(count)


def world() -> int:
    return processes.get_world_size() if processes.is_initialized() else 1


def rank() -> int:
    return processes.get_rank() if processes.is_initialized() else 0


def same(tensors: Sequence[Tensor]) -> None:
    """Give every process the first one's values."""
    if world() > 1:
        for tensor in tensors:
            processes.broadcast(tensor, 0)


def agreed(value: float, device: str) -> float:
    """The first process's value, so that all follow one clock."""
    if world() == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64, device=device)
    processes.broadcast(told, 0)
    return float(told)


def _start(number: int, count: int, job: Callable[[], None]) -> None:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(number)
    processes.init_process_group("nccl" if cuda else "gloo", rank=number, world_size=count)
    job()
    processes.destroy_process_group()


def run(job: Callable[[], None], count: int) -> None:
    """`job`, which must be picklable, in `count` processes, on a GPU each; in this one where `count` is 1."""
    if count == 1:
        job()
    else:
        multiprocessing.spawn(_start, (count, job), nprocs=count)  # pyright: ignore[reportPrivateImportUsage]
