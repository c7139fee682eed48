"""Which networks a new device is asked to run."""

from __future__ import annotations

import numpy as np
import pytest

from predictors.features import latency_terms, points_of
from predictors.onboarding import (
    choose_networks,
    k_center,
    most_uncertain,
    networks_to_check,
    uncertainty,
)
from search.space import SearchSpace, SubnetConfig
from tests.predictors.shapes import MINILM, MINILM_SPACE, TINY, TINY_SPACE, WORKLOAD
from tests.predictors.test_predictor import fit, training_rows


def test_extremes_and_the_unsearched_model_are_always_measured() -> None:
    training = choose_networks(MINILM_SPACE, MINILM, WORKLOAD).training
    for precision in ("fp32", "int8"):
        assert MINILM_SPACE.smallest.with_precision(precision) in training
        assert MINILM_SPACE.largest.with_precision(precision) in training
        assert SubnetConfig.full(MINILM, precision) in training


def test_counts_are_as_asked_with_both_precisions_alike_and_nothing_twice() -> None:
    plan = choose_networks(MINILM_SPACE, MINILM, WORKLOAD, num_networks=32, num_holdout=8)
    assert len(plan.training) == 32
    assert len(plan.holdout) == 8
    assert len({*plan.training, *plan.holdout}) == 40
    for subnets in (plan.training, plan.holdout):
        assert 2 * sum(s.precision == "int8" for s in subnets) == len(subnets)
    assert all(MINILM_SPACE.contains(s) for s in plan.holdout)


def test_the_choice_repeats_by_seed() -> None:
    plans = [choose_networks(MINILM_SPACE, MINILM, WORKLOAD, seed=seed) for seed in (3, 3, 4)]
    assert plans[0] == plans[1] != plans[2]


def test_no_network_of_the_space_lies_far_beyond_what_is_measured() -> None:
    training = choose_networks(MINILM_SPACE, MINILM, WORKLOAD).training
    chosen, everything = (
        latency_terms(MINILM, points_of(subnets, batch_size=1, seq_len=64))
        for subnets in (training, list(MINILM_SPACE.uniform()))
    )
    assert (everything >= chosen.min(axis=0)).all()
    assert (everything <= chosen.max(axis=0)).all()


@pytest.mark.parametrize("precision", [("fp32",), ("int8",)])
def test_a_space_of_one_precision_is_measured_in_that_alone(precision: tuple[str]) -> None:
    space = SearchSpace.from_dict(MINILM_SPACE.to_dict() | {"precision": precision})
    plan = choose_networks(space, MINILM, WORKLOAD, num_networks=16, num_holdout=4)
    assert len(plan.training) == 16
    assert {s.precision for s in (*plan.training, *plan.holdout)} == set(precision)


def test_a_small_space_yields_what_it_has() -> None:
    space = SearchSpace(
        num_layers=(1, 2),
        num_heads=(2, 4),
        ffn_dim=(64,),
        precision=("fp32", "int8"),
        layer_order=TINY_SPACE.layer_order,
    )
    plan = choose_networks(space, TINY, WORKLOAD, num_networks=32, num_holdout=8)
    assert 0 < len(plan.holdout) <= 8
    assert len(set(plan.training)) == len(plan.training)
    assert not set(plan.training) & set(plan.holdout)


def test_k_center_takes_the_corners_of_a_square_first() -> None:
    grid = np.array([[x, y] for x in range(5) for y in range(5)], dtype=np.float64)
    picked = grid[k_center(grid, 1, 4)]
    assert {tuple(point) for point in picked} == {(0, 0), (0, 4), (4, 0), (4, 4)}


def test_k_center_covers_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((300, 3))

    def radius(picked: list[int]) -> float:
        distances = np.linalg.norm(points[:, None] - points[picked][None], axis=2)
        return float(distances.min(axis=1).max())

    chance = [radius(list(rng.choice(300, 12, replace=False))) for _ in range(20)]
    assert radius(k_center(points, 1, 12)) < min(chance)


def test_more_measurements_make_the_device_better_known() -> None:
    noisy = fit(training_rows(0.03, num_networks=16))
    exact = fit(training_rows(0.005, num_networks=64))
    budgets = [3.0]
    assert uncertainty(exact, MINILM_SPACE, budgets) < uncertainty(noisy, MINILM_SPACE, budgets)


def test_what_is_measured_next_lies_near_the_budget_and_is_new() -> None:
    rows = training_rows(0.03, num_networks=16)
    predictor = fit(rows)
    measured = [row.subnet for row in rows]
    near = most_uncertain(predictor, MINILM_SPACE, [3.0], measured, num_networks=8)
    assert len(set(near)) == 8
    assert not set(near) & set(measured)
    assert all(MINILM_SPACE.contains(subnet) for subnet in near)
    predicted = predictor.predict(near).mean_ms
    assert 1.5 < np.median(predicted) < 6.0


def test_nothing_is_left_to_measure_in_a_space_that_is_known() -> None:
    space = SearchSpace(
        num_layers=(6,),
        num_heads=(12,),
        ffn_dim=(1536,),
        precision=("fp32",),
        layer_order=MINILM_SPACE.layer_order,
    )
    predictor = fit(training_rows())
    measured = list(space.uniform())
    assert most_uncertain(predictor, space, [3.0], measured, num_networks=4) == ()


def test_a_check_times_a_few_networks_of_different_size() -> None:
    networks = networks_to_check(MINILM_SPACE)
    assert len(networks) == 3
    assert len({subnet.num_layers for subnet in networks}) > 1
