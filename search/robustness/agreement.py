"""Whether a small network answers as the one it was made from, right or wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.model.transformer import Output
from search.shape import ModelShape
from search.training.confidence import Interval, interval
from search.training.evaluate import Network
from search.training.rows import Rows
from search.training.tasks import Task, answers, num_answers, task_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Label and probability loyalty (Xu et al., arXiv 2109.03228).

    Attributes:
        share: of answers that are the teacher's label (of vectors: mean cosine).
        interval: of 95 %.
        divergence: mean KL(teacher || network) in nats (of vectors: 1 minus the cosine). The paper
            reports 1 minus the root of the Jensen-Shannon divergence instead.
    """

    share: float
    interval: Interval
    divergence: float
    num_rows: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def measure_agreement(
    network: Network, teacher: Network, rows: Rows, shape: ModelShape
) -> Agreement:
    """Both are asked row by row: a vocabulary's logits of all rows would not fit in memory."""
    task = task_of(shape)
    same, divergence, counts = np.zeros((3, len(rows)))
    for place in range(len(rows)):
        batch, labels = rows.batch([place]), rows.labels_of([place])
        mine, theirs = network(batch).float(), teacher(batch).float()
        counts[place] = num_answers(labels)
        same[place] = counts[place] * _same(task, mine, theirs, labels)
        apart = task.divergence(Output(mine, ()), Output(theirs, ()), labels)
        divergence[place] = counts[place] * float(apart)
    return Agreement(
        share=float(same.sum() / counts.sum()),
        interval=interval(same, counts),
        divergence=float(divergence.sum() / counts.sum()),
        num_rows=len(rows),
    )


def _same(task: Task, mine: Tensor, theirs: Tensor, labels: Tensor) -> float:
    if not labels.is_floating_point():
        mine, theirs = answers(mine, labels)[0], answers(theirs, labels)[0]
    return task.agreement(mine, theirs)
