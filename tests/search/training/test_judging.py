from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from search.halving import Rivals
from search.objectives import Floats
from search.space import SubnetConfig
from search.training import judging
from search.training.batches import TokenRows
from search.training.evaluate import evaluate, predict
from search.training.judging import Judged, in_fair_order, judge, num_compared
from tests.search import small

LARGEST = SubnetConfig.full(small.SHAPE)
NETWORKS = [
    LARGEST,
    LARGEST.keeping((0, 1)),
    SubnetConfig(layers=(0,), num_heads=(1,), ffn_dim=(16,)),
]
SUPERNET = small.network()


def rows_that_the_largest_answers_rightly() -> TokenRows:
    rows = small.task(400)
    return replace(rows, labels=predict(SUPERNET, rows).argmax(1))


ROWS = in_fair_order(rows_that_the_largest_answers_rightly())


def rivals_of(judged: Sequence[Judged], costs: Floats) -> Rivals:
    return Rivals(
        costs=costs,
        scores=np.stack([one.scores for one in judged]),
        qualities=np.array([one.quality for one in judged]),
    )


def costs_of(networks: Sequence[SubnetConfig], cost: float = 1.0) -> Floats:
    return np.full((len(networks), 1), cost)


def test_without_rivals_every_network_is_judged_on_all_rows() -> None:
    for network, one in zip(
        NETWORKS, judge(SUPERNET, ROWS, NETWORKS, costs_of(NETWORKS), None), strict=True
    ):
        whole = evaluate(SUPERNET, ROWS, network)
        assert one.quality == pytest.approx(whole.value)
        assert one.loss == pytest.approx(whole.loss, abs=1e-6)
        assert one.num_rows == len(ROWS)


def test_the_scores_are_of_the_rows_before_the_last_rung() -> None:
    (one,) = judge(SUPERNET, ROWS, [LARGEST], costs_of([LARGEST]), None)
    assert num_compared(len(ROWS)) == len(one.scores) == 200
    assert one.scores.mean() == pytest.approx(
        evaluate(SUPERNET, ROWS.select(range(200)), LARGEST).value
    )


def test_a_network_that_something_as_cheap_beats_is_given_up_early() -> None:
    best = judge(SUPERNET, ROWS, [LARGEST], costs_of([LARGEST]), None)
    rivals = rivals_of(best, costs_of([LARGEST]))
    smallest = NETWORKS[-1]
    given_up, same = judge(
        SUPERNET, ROWS, [smallest, LARGEST], costs_of([smallest, LARGEST]), rivals
    )
    assert given_up.num_rows < len(ROWS)
    assert given_up.quality == pytest.approx(evaluate(SUPERNET, ROWS, smallest).value, abs=0.1)
    assert given_up.quality < same.quality
    assert same.num_rows == len(ROWS)
    (cheaper,) = judge(SUPERNET, ROWS, [smallest], costs_of([smallest], 0.5), rivals)
    assert cheaper.num_rows == len(ROWS), "nothing as cheap is known"


def test_what_becomes_of_a_network_does_not_depend_on_those_beside_it() -> None:
    rivals = rivals_of(
        judge(SUPERNET, ROWS, [LARGEST], costs_of([LARGEST]), None), costs_of([LARGEST])
    )
    together = judge(SUPERNET, ROWS, NETWORKS, costs_of(NETWORKS), rivals)
    for network, one in zip(NETWORKS, together, strict=True):
        (alone,) = judge(SUPERNET, ROWS, [network], costs_of([network]), rivals)
        assert (one.quality, one.loss, one.num_rows) == (alone.quality, alone.loss, alone.num_rows)


def test_few_rows_are_read_at_once_and_many_compared_on_some_only() -> None:
    assert judging._rungs(100) == (100,)
    assert num_compared(100) == 0
    assert judging._rungs(600) == (75, 150, 300, 600)
    assert judging._rungs(50_000)[-2:] == (1024, 50_000)


def test_the_fair_order_has_every_row_once() -> None:
    rows = small.task(50)
    ordered: TokenRows = in_fair_order(rows)
    assert sorted(ordered.lengths.tolist()) == sorted(rows.lengths.tolist())
    assert ordered.labels.tolist() != rows.labels.tolist()
