"""Networks of mixed precision, predicted from those of one."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from predictors.workload_predictor import WorkloadPredictor
from search.space import SubnetConfig
from tests.predictors.shapes import MINILM_SPACE
from tests.predictors.test_predictor import fit, row, training_rows, true_ms


@pytest.fixture(scope="module")
def predictor() -> WorkloadPredictor:
    return fit(training_rows())


def drawn(num: int) -> list[SubnetConfig]:
    rng = random.Random(3)
    return [MINILM_SPACE.sample(rng).with_precision("int8") for _ in range(num)]


def mixed(subnet: SubnetConfig, num_floats: int) -> SubnetConfig:
    return replace(subnet, float_layers=subnet.layers[:num_floats])


def test_layers_in_fp32_cost_what_they_cost_an_fp32_network(predictor: WorkloadPredictor) -> None:
    for subnet in drawn(20):
        kept = subnet.keeping(subnet.layers[1:])
        expected = (
            true_ms(kept)
            + true_ms(subnet.with_precision("fp32"))
            - true_ms(kept.with_precision("fp32"))
        )
        estimate = predictor.predict([mixed(subnet, 1)])
        assert estimate.mean_ms[0] == pytest.approx(expected, rel=0.05)
        assert estimate.lower_ms[0] < estimate.mean_ms[0] < estimate.upper_ms[0]


def test_more_layers_in_fp32_are_never_predicted_faster(predictor: WorkloadPredictor) -> None:
    for subnet in drawn(20):
        steps = [subnet, *(mixed(subnet, n + 1) for n in range(subnet.num_layers))]
        assert np.all(np.diff(predictor.predict(steps).mean_ms) > -0.02)


def test_a_network_of_fp32_layers_alone_is_as_slow_as_in_fp32(
    predictor: WorkloadPredictor,
) -> None:
    (subnet, *_) = drawn(1)
    pair = [mixed(subnet, subnet.num_layers), subnet.with_precision("fp32")]
    estimate = predictor.predict(pair)
    assert estimate.mean_ms[0] == estimate.mean_ms[1]


def test_a_measured_mixed_network_teaches_neither_predictor(predictor: WorkloadPredictor) -> None:
    (subnet, *_) = drawn(1)
    slow = replace(row(subnet), subnet=mixed(subnet, 1), median_ms=1e3, p95_ms=1e3)
    taught = predictor.with_measurements([slow])
    assert taught.to_json() == predictor.to_json()
