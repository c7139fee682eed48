"""Which rows make the batch of a step, and how it is divided among processes and in time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from search.model.transformer import Batch
from search.training.batches import epoch_order
from search.training.distributed import ALONE, Group
from search.training.rows import Rows
from search.training.tasks import num_answers

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a batch that are computed at once.

    Attributes:
        places: their numbers in the split.
        share: of the batch's answers; a loss that is a mean over answers is weighted by it, so
            that the parts' losses add up to the batch's.
    """

    places: list[int]
    batch: Batch
    labels: Tensor
    share: float


class BatchOrder:
    """Which rows make the batch of a step, over as many epochs as there are steps.

    A batch is the same for every number of processes and of parts: these only say who computes
    which of its rows, and how many at once.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        seed: int,
        *,
        accumulation: int = 1,
        group: Group = ALONE,
        device: torch.device = CPU,
    ) -> None:
        """
        Args:
            batch_size: rows of a step, over all processes.
            accumulation: parts that a process computes one after the other, to save memory.
        """
        self.rows = rows
        self.steps_per_epoch = math.ceil(len(rows) / batch_size)
        self._num_parts = accumulation * group.size
        self._mine = range(group.rank, self._num_parts, group.size)
        self._device = device
        self._epoch = lru_cache(maxsize=1)(
            lambda epoch: epoch_order(rows.lengths, batch_size, seed, epoch)
        )

    def __getitem__(self, step: int) -> tuple[list[int], Batch, Tensor]:
        """Row numbers, batch and labels of a step."""
        places = self.places_at(step)
        return places, *self._read(places)

    def parts(self, step: int) -> Iterator[Part]:
        """Those of this process, read when asked for; none is empty."""
        places = self.places_at(step)
        answers = num_answers(self.rows.labels_of(places)) if self._num_parts > 1 else 0
        for part in self._mine:
            # Rows come sorted by length: every part gets short and long ones.
            mine = places[part :: self._num_parts]
            if mine:
                batch, labels = self._read(mine)
                share = num_answers(labels) / answers if answers else 1.0
                yield Part(mine, batch, labels, share)

    def places_at(self, step: int) -> list[int]:
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[place]

    def _read(self, places: list[int]) -> tuple[Batch, Tensor]:
        labels = self.rows.labels_of(places)
        return to_device(self.rows.batch(places), self._device), labels.to(self._device)


def to_device(batch: Batch, device: torch.device) -> Batch:
    types = batch.token_types
    return Batch(
        batch.inputs.to(device),
        batch.attention_mask.to(device),
        None if types is None else types.to(device),
    )
