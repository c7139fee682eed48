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
from search.training.tasks import answers, num_answers, task_of


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
    network: Network,
    teacher: Network,
    rows: Rows,
    shape: ModelShape,
    *,
    teacher_rows: Rows | None = None,
) -> Agreement:
    """Both are asked row by row: a vocabulary's logits of all rows would not fit in memory.

    Args:
        teacher_rows: the same inputs as the teacher reads them, if it has another vocabulary. Of a
            row's answers as many are compared as both have.
    """
    task = task_of(shape)
    same, divergence, counts = np.zeros((3, len(rows)))
    for place in range(len(rows)):
        mine, labels = _answers(network, rows, place)
        theirs, _ = _answers(teacher, teacher_rows or rows, place)
        count = min(len(mine), len(theirs))
        mine, theirs, labels = mine[:count], theirs[:count], labels[:count]
        counts[place] = num_answers(labels)
        same[place] = counts[place] * task.agreement(mine, theirs)
        apart = task.divergence(Output(mine, ()), Output(theirs, ()), labels)
        divergence[place] = counts[place] * float(apart)
    return Agreement(
        share=float(same.sum() / counts.sum()),
        interval=interval(same, counts),
        divergence=float(divergence.sum() / counts.sum()),
        num_rows=len(rows),
    )


def _answers(network: Network, rows: Rows, place: int) -> tuple[Tensor, Tensor]:
    """(answers, labels) of a row, and what each should be."""
    found, labels = network(rows.batch([place])).float(), rows.labels_of([place])
    return (found, labels) if labels.is_floating_point() else answers(found, labels)
