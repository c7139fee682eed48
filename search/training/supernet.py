"""What each step of each kind of training learns from: fine-tuning, supernet, distillation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import torch.nn.functional as F
from torch import Tensor

from search.model.transformer import Batch, ElasticTransformer, Output
from search.space import SearchSpace, SubnetConfig
from search.training.batches import TokenRows, epoch_order
from search.training.losses import DistillationLoss

TargetOf = Callable[[list[int], Batch], Output]
"""The teacher's outputs for rows of the training split; see `TeacherOutputs`."""

LossesAt = Callable[[int], Iterable[Tensor]]


class BatchOrder:
    """Which rows make the batch of a step, over as many epochs as there are steps."""

    def __init__(self, rows: TokenRows, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.steps_per_epoch = math.ceil(len(rows) / batch_size)
        self._epoch = lru_cache(maxsize=1)(
            lambda epoch: epoch_order(rows.lengths, batch_size, seed, epoch)
        )

    def __getitem__(self, step: int) -> tuple[list[int], Batch, Tensor]:
        """Row numbers, batch and labels of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        places = self._epoch(epoch)[place]
        return places, self.rows.batch(places), self.rows.labels[places]


def finetuning_losses(model: ElasticTransformer, order: BatchOrder) -> LossesAt:
    def losses_at(step: int) -> Iterator[Tensor]:
        _, batch, labels = order[step]
        yield F.cross_entropy(model(batch).logits, labels)

    return losses_at


def supernet_losses(
    supernet: ElasticTransformer,
    target_of: TargetOf,
    order: BatchOrder,
    space: SearchSpace,
    *,
    seed: int,
    num_random: int = 1,
    largest_every: int = 4,
) -> LossesAt:
    """The sandwich rule (Yu and Huang, arXiv 1903.05134, section 3.2) with a fixed teacher.

    Every step trains the smallest subnet and `num_random` random ones, every `largest_every`-th
    also the largest: it starts as the teacher's copy and only has to stay one.
    """
    loss = DistillationLoss()

    def losses_at(step: int) -> Iterator[Tensor]:
        places, batch, labels = order[step]
        target = target_of(places, batch)
        for subnet in sandwich(space, step, seed, num_random, largest_every):
            yield loss(supernet(batch, subnet), subnet, target, batch, labels)

    return losses_at


def sandwich(
    space: SearchSpace, step: int, seed: int, num_random: int, largest_every: int
) -> list[SubnetConfig]:
    """The subnets that a step trains, in fp32: precision is chosen by search, not trained."""
    rng = random.Random(seed * 1_000_003 + step)
    subnets = [space.smallest, *(space.sample(rng) for _ in range(num_random))]
    if step % largest_every == 0:
        subnets.append(space.largest)
    return [subnet.with_precision("fp32") for subnet in subnets]


def distillation_losses(
    student: ElasticTransformer,
    subnet: SubnetConfig,
    order: BatchOrder,
    target_of: TargetOf,
    loss: DistillationLoss,
) -> LossesAt:
    """Losses of an extracted `student` against the outputs that `target_of` gives for its rows.

    Args:
        subnet: which layers of the teacher the student keeps, and the precision it trains under.
    """
    sizes = student.sizes.with_precision(subnet.precision)

    def losses_at(step: int) -> Iterator[Tensor]:
        places, batch, labels = order[step]
        yield loss(student(batch, sizes), subnet, target_of(places, batch), batch, labels)

    return losses_at
