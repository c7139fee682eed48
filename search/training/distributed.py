"""Several processes that train one model together, each on its part of every batch.

Gradients are summed once a step, after all of its subnets. `DistributedDataParallel` would send
them with every subnet's backward pass, and would leave those of layers that the last subnet lacks
unsent. Every process samples the same subnets, so layers without a gradient are the same in all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_NUMBERS = 8 * 1024**2
"""Gradients are sent in runs of about as many numbers: their copy is all the memory it takes."""


@dataclass(frozen=True, slots=True)
class Group:
    """Processes of a training; one by itself has nobody to talk to."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def sum_gradients_(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replaces each gradient by its sum over the processes; None where none has one.

        A process whose part of a small batch was empty has no gradient: it counts as zero.
        """
        if self.size == 1:
            return
        has_any = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        has_any = has_any.to(parameters[0].device)
        dist.all_reduce(has_any, op=dist.ReduceOp.MAX)
        wanted = [p for p, has in zip(parameters, has_any.tolist(), strict=True) if has]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in wanted if p.grad is not None]):
            joined = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(joined)
            sizes = [gradient.numel() for gradient in bucket]
            for gradient, part in zip(bucket, torch.split(joined, sizes), strict=True):
                gradient.copy_(part.view_as(gradient))

    def sum(self, value: float, device: torch.device) -> float:
        """Of a number that each process has."""
        if self.size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return float(total)

    def is_agreed(self, wish: bool, device: torch.device) -> bool:
        """Whether any process wishes it: all of them stop at the same step."""
        return self.sum(float(wish), device) > 0


ALONE = Group()


@contextmanager
def joined_group(device: torch.device) -> Iterator[Group]:
    """The group that `torchrun` started this process in; `ALONE` without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
        # gloo's threads abort a process that leaves while another still talks to it.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def training_device() -> torch.device:
    """The GPU of this process where there is one; `torchrun` numbers them by LOCAL_RANK."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
