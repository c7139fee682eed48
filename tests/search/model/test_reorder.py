from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from search.model.reorder import Importance, measure_importance, rank_layers, reorder_
from search.space import SubnetConfig
from search.training.batches import ordered_batches
from search.training.evaluate import predict
from search.training.tasks import task_of
from tests.search import families
from tests.search.small import SHAPE, batch, network, task

EMBEDDER = replace(SHAPE, task="sentence-embedding", num_labels=0)


def importance_of(seed: int = 0) -> Importance:
    rows = task()
    batches = ((given, rows.labels[places]) for places, given in ordered_batches(rows, 16))
    return measure_importance(network(seed), batches, task_of(SHAPE).loss)


def test_outputs_are_equal_before_and_after() -> None:
    model, given = network(), batch()
    importance = importance_of()
    with torch.no_grad():
        before = model(given).logits
        reorder_(model, importance)
        torch.testing.assert_close(model(given).logits, before, atol=1e-5, rtol=1e-5)
    again = measure_importance(
        model, [(given, torch.zeros(5, dtype=torch.long))], task_of(SHAPE).loss
    )
    assert len(again.heads) == SHAPE.num_layers


def test_the_features_of_an_embedding_keep_their_places() -> None:
    model, rows = families.network_of(EMBEDDER), task(30)
    vectors = predict(model, rows)
    batches = [(rows.batch(range(30)), vectors)]
    turned = measure_importance(model, batches, task_of(EMBEDDER).loss)
    reorder_(model, replace(turned, features=-turned.features))
    torch.testing.assert_close(predict(model, rows), vectors, atol=1e-4, rtol=1e-4)


def test_units_come_to_stand_by_falling_importance() -> None:
    model, rows = network(), task()
    batches = [(given, rows.labels[places]) for places, given in ordered_batches(rows, 16)]
    reorder_(model, measure_importance(model, batches, task_of(SHAPE).loss))
    after = measure_importance(model, batches, task_of(SHAPE).loss)
    for units in (*after.heads, *after.neurons):
        assert torch.all(units.diff() <= 1e-6)


def test_keeping_what_is_important_does_less_damage_than_keeping_the_rest() -> None:
    rows, half = task(), SubnetConfig(layers=(0, 1, 2), num_heads=(4,) * 3, ffn_dim=(16,) * 3)
    importance = importance_of()
    turned = replace(importance, neurons=tuple(-neurons for neurons in importance.neurons))
    damage = []
    for order in (importance, turned):
        model = network()
        whole = predict(model, rows)
        reorder_(model, order)
        damage.append(float((predict(model, rows, half) - whole).square().mean()))
    assert damage[0] < damage[1]


def test_layers_go_in_the_order_of_least_damage() -> None:
    worth = {0: 5.0, 1: 1.0, 2: 3.0}
    asked: list[tuple[int, ...]] = []

    def damages(subnets: Sequence[SubnetConfig]) -> list[float]:
        asked.extend(subnet.layers for subnet in subnets)
        return [9.0 - sum(worth[layer] for layer in subnet.layers) for subnet in subnets]

    assert rank_layers(damages, SubnetConfig.full(SHAPE)) == (0, 2, 1)
    assert len(asked) == 3 + 2


def test_importance_of_no_batches_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        measure_importance(network(), [], task_of(SHAPE).loss)
