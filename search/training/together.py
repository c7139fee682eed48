"""Several subnets of one supernet judged on the same rows: what they share is computed once.

Subnets that begin with equal layers have equal hidden states after these. Each batch of rows is
run through all subnets in an order that puts those with a common beginning side by side; the
states of the beginning are kept until a subnet leaves it. Every answer is what `evaluate_rows`
gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from search.model.transformer import Batch, ElasticTransformer, Output
from search.space import SubnetConfig
from search.training.evaluate import batches_of
from search.training.rows import Rows
from search.training.tasks import Scores, num_answers, task_of

Part = tuple[object, ...]
CheckAbort = Callable[[], None]
T = TypeVar("T")


@torch.no_grad()
def evaluate_together(
    supernet: ElasticTransformer,
    rows: Rows,
    subnets: Sequence[SubnetConfig],
    *,
    check_abort: CheckAbort = lambda: None,
) -> list[Scores]:
    """Score, loss and number of answers of every row, for each subnet; no dropout.

    Args:
        check_abort: called before every batch; may raise.
    """
    task = task_of(supernet.shape)
    sums = torch.zeros(len(subnets), 3, len(rows), dtype=torch.float64)
    for rows_of_batch, batch in batches_of(supernet, rows):
        check_abort()
        labels = rows.labels_of(rows_of_batch).to(batch.inputs.device)
        for place, output in _outputs(supernet, batch, subnets):
            sums[place][:, rows_of_batch] = task.scores(output, labels).stacked()
    return [Scores(*part) for part in sums]


@torch.no_grad()
def divergences(
    model: ElasticTransformer,
    rows: Rows,
    subnets: Sequence[SubnetConfig],
    *,
    check_abort: CheckAbort = lambda: None,
) -> list[float]:
    """How far each subnet's answers are from the whole network's, 0 for equal ones."""
    task = task_of(model.shape)
    totals, count = [0.0] * len(subnets), 0
    for rows_of_batch, batch in batches_of(model, rows):
        check_abort()
        labels = rows.labels_of(rows_of_batch).to(batch.inputs.device)
        reference = model(batch)
        num_labels = num_answers(labels)
        for place, output in _outputs(model, batch, subnets):
            totals[place] += num_labels * float(task.divergence(output, reference, labels))
        count += num_labels
    return [total / max(1, count) for total in totals]


def _outputs(
    supernet: ElasticTransformer, batch: Batch, subnets: Sequence[SubnetConfig]
) -> Iterator[tuple[int, Output]]:
    """Place of each subnet, in some order, and what it answers; hidden states are left out."""
    states: list[tuple[Part, Tensor]] = []
    for place in by_beginning(range(len(subnets)), subnets.__getitem__):
        subnet = subnets[place]
        path = path_of(subnet)
        embedded, shared = supernet.begin(batch, subnet)
        del states[_num_shared([part for part, _ in states], path) :]
        if not states:
            states.append((path[0], embedded))
        for layer in range(len(states) - 1, subnet.num_layers):
            state, _ = supernet.run_layer(layer, states[-1][1], shared)
            states.append((path[layer + 1], state))
        yield place, Output(supernet.answer(states[-1][1], batch, shared), ())


def by_beginning(items: Iterable[T], subnet_of: Callable[[T], SubnetConfig]) -> list[T]:
    """Those whose subnets begin with equal layers side by side."""
    return sorted(items, key=lambda item: repr(path_of(subnet_of(item))))


def path_of(subnet: SubnetConfig) -> tuple[Part, ...]:
    """What fixes the states of a subnet one after the other: its embedding, then each layer."""
    return ((subnet.embed_dim, subnet.precision), *_layer_parts(subnet))


def num_layers_run(subnets: Sequence[SubnetConfig]) -> int:
    """Layers that are run for all of them where equal beginnings are run once."""
    paths = [path_of(subnet) for subnet in subnets]
    beginnings = {path[:end] for path in paths for end in range(2, len(path) + 1)}
    return len(beginnings)


def _layer_parts(subnet: SubnetConfig) -> Iterator[Part]:
    for layer, heads, ffn_dim in zip(subnet.layers, subnet.num_heads, subnet.ffn_dim, strict=True):
        yield layer, heads, ffn_dim, subnet.precision_of(layer)


def _num_shared(parts: Sequence[Part], path: Sequence[Part]) -> int:
    count = 0
    for part, wanted in zip(parts, path, strict=False):
        if part != wanted:
            break
        count += 1
    return count
