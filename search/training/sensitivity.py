"""What int8 costs a network layer by layer, and which layers to leave in fp32.

Measured under the rounding of `search.model.fakequant`, on rows without labels: nothing is trained
or written (HAWQ, arXiv 1905.03696, ranks layers by curvature instead; a forward pass a layer
answers the question itself).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from search.model.transformer import ElasticTransformer, Output
from search.space import SubnetConfig
from search.training.evaluate import predict
from search.training.rows import Rows
from search.training.tasks import task_of


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatLayers:
    """Layers that stay in fp32, and the share of answers (of vectors, the mean cosine) that the
    network in int8 then has in common with itself in fp32."""

    layers: tuple[int, ...]
    agreement: float


def harms(model: ElasticTransformer, subnet: SubnetConfig, rows: Rows) -> Mapping[int, float]:
    """By layer, how far the answers move when it alone is rounded: the task's divergence.

    Args:
        subnet: its layers are numbered as the model has them. What precedes them (the tables) is
            rounded in every measurement, so that it ranks nothing.
    """
    exact = predict(model, rows, subnet.with_precision("fp32"))
    rounded = subnet.with_precision("int8")
    found = {}
    for layer in subnet.layers:
        others = tuple(other for other in subnet.layers if other != layer)
        answers = predict(model, rows, replace(rounded, float_layers=others))
        found[layer] = _divergence(model, answers, exact)
    return found


def by_harm(model: ElasticTransformer, subnet: SubnetConfig, rows: Rows) -> tuple[int, ...]:
    """Layers, those first that int8 harms most."""
    found = harms(model, subnet, rows)
    return tuple(sorted(found, key=lambda layer: -found[layer]))


def choose_float_layers(
    model: ElasticTransformer,
    subnet: SubnetConfig,
    rows: Rows,
    *,
    most: int,
    min_agreement: float,
) -> FloatLayers:
    """As few of the most sensitive layers as `min_agreement` asks for, and at most `most`.

    Where `most` do not reach it, that many: the nearest there is.
    """
    exact = predict(model, rows, subnet.with_precision("fp32"))
    rounded, task = subnet.with_precision("int8"), task_of(model.shape)
    order: Sequence[int] = ()
    most = min(most, subnet.num_layers - 1)
    for count in range(most + 1):
        layers = tuple(sorted(order[:count]))
        answers = predict(model, rows, replace(rounded, float_layers=layers))
        found = FloatLayers(layers=layers, agreement=task.agreement(answers, exact))
        if found.agreement >= min_agreement:
            break
        # Nothing to rank where all of it agrees at once, as most networks do.
        order = order or by_harm(model, subnet, rows)
    return found


def rungs(num_layers: int) -> tuple[int, ...]:
    """How many layers stay in fp32, try by try: fewer than all, which would be no int8."""
    return tuple(sorted({0, min(1, num_layers - 1), num_layers // 2}))


def _divergence(model: ElasticTransformer, answers: Tensor, exact: Tensor) -> float:
    every = torch.zeros(len(exact), dtype=torch.long)  # each of them is an answer that counts
    return float(task_of(model.shape).divergence(Output(answers, ()), Output(exact, ()), every))
