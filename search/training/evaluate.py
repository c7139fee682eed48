"""How good a subnet is on rows that have answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from search.model.transformer import Batch, ElasticTransformer, Output
from search.shape import ModelShape
from search.space import SubnetConfig
from search.training.batches import ordered_batches
from search.training.order import to_device
from search.training.rows import Rows
from search.training.tasks import IGNORED, Scores, task_of

R = TypeVar("R", bound=Rows)
Network = Callable[[Batch], Tensor]
"""Logits of a batch, or vectors, from wherever: a network in torch, an exported file."""

BATCH_ROWS = 64
# Of one batch, 64 MB in fp32: a vocabulary's for every token would soon fill the memory.
MAX_LOGITS = 2**24


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Of a network on a split.

    Attributes:
        value: what `metric` names, higher being better.
        loss: mean over the answers, in nats (of an embedding: 1 minus the cosine).
        num_rows: rows that were read.
    """

    value: float
    loss: float
    num_rows: int
    metric: str


def evaluate(model: ElasticTransformer, rows: Rows, subnet: SubnetConfig | None = None) -> Quality:
    return quality_of(evaluate_rows(model, rows, subnet), model.shape)


def quality_of(scores: Scores, shape: ModelShape) -> Quality:
    num_answers = max(1.0, float(scores.count.sum()))
    return Quality(
        value=float(scores.score.sum()) / num_answers,
        loss=float(scores.loss.sum()) / num_answers,
        num_rows=len(scores.count),
        metric=task_of(shape).metric,
    )


@torch.no_grad()
def evaluate_rows(
    model: ElasticTransformer, rows: Rows, subnet: SubnetConfig | None = None
) -> Scores:
    """Score, loss and number of answers of every row, in the rows' order; no dropout."""
    task = task_of(model.shape)
    sums = torch.zeros(3, len(rows), dtype=torch.float64)
    for places, batch in batches_of(model, rows):
        labels = rows.labels_of(places).to(batch.inputs.device)
        found = task.scores(model(batch, subnet), labels)
        sums[:, places] = found.stacked()
    return Scores(*sums)


@torch.no_grad()
def evaluate_one_by_one(network: Network, rows: Rows, shape: ModelShape) -> Scores:
    """What `evaluate_rows` gives, one row a call, as a deployed network is called.

    int8 scales its activations by what it is given: a batch's other rows would change a row's
    answer.
    """
    task = task_of(shape)
    sums = torch.zeros(3, len(rows), dtype=torch.float64)
    for place in range(len(rows)):
        output = Output(network(rows.batch([place])), ())
        found = task.scores(output, rows.labels_of([place]))
        sums[:, place] = torch.cat([found.score, found.loss, found.count])
    return Scores(*sums)


@torch.no_grad()
def predict(model: ElasticTransformer, rows: Rows, subnet: SubnetConfig | None = None) -> Tensor:
    """Logits of every answer, (answers, labels), in the rows' order; no dropout.

    All of them at once: see `few`.
    """
    logits: list[Tensor] = [torch.empty(0)] * len(rows)
    for places, batch in batches_of(model, rows):
        found = model(batch, subnet).logits.float().cpu()
        labels = rows.labels_of(places)
        for row, place in enumerate(places):
            has_answer = labels[row] != IGNORED
            logits[place] = found[row][has_answer] if model.shape.answers_per_token else found[row]
    return torch.cat(logits) if model.shape.answers_per_token else torch.stack(logits)


def few(rows: R, shape: ModelShape, count: int) -> R:
    """At most `count` rows, and so few that all of their logits may be kept."""
    return rows.spread(max(1, min(count, MAX_LOGITS // _logits_of_row(rows, shape))))


def batches_of(model: ElasticTransformer, rows: Rows) -> Iterator[tuple[list[int], Batch]]:
    """Every row once, rows of a length together, where the model is; it is put to evaluation."""
    model.eval()
    batch_size = max(1, min(BATCH_ROWS, MAX_LOGITS // _logits_of_row(rows, model.shape)))
    device = next(model.parameters()).device
    for places, batch in ordered_batches(rows, batch_size):
        yield places, to_device(batch, device)


def _logits_of_row(rows: Rows, shape: ModelShape) -> int:
    """At most."""
    num_outputs = shape.num_labels or shape.embed_dim
    return num_outputs * int(rows.lengths.max()) if shape.answers_per_token else num_outputs
