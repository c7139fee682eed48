"""Derived figures of a measurement."""

from __future__ import annotations

import json

import pytest

from predictors.measurement import Measurement
from search.space import SubnetConfig

SUBNET = SubnetConfig(layers=(0, 2), num_heads=(3, 1), ffn_dim=(24, 40), precision="int8")


def measurement(
    *rounds_ms: tuple[float, ...], factors: tuple[float, ...] | None = None
) -> Measurement:
    return Measurement(
        key="n0",
        subnet=SUBNET,
        rounds_ms=rounds_ms,
        reference_ms=((10.0,),) * len(rounds_ms),
        factors=factors or (1.0,) * len(rounds_ms),
    )


def test_the_median_is_that_of_the_rounds_so_that_one_bad_round_does_not_count() -> None:
    assert measurement((1.0, 1.1, 9.0), (1.2, 1.2, 1.2), (8.0, 8.0, 8.0)).median_ms == 1.2


def test_factors_are_divided_out_of_derived_figures_only() -> None:
    found = measurement((2.0, 2.0), (3.0, 3.0), factors=(1.0, 1.5))
    assert found.median_ms == pytest.approx(2.0)
    assert found.p95_ms == pytest.approx(2.0)
    assert found.raw_median_ms == 2.5


def test_p95_is_of_single_runs() -> None:
    samples = tuple(float(i) for i in range(101))
    assert measurement(samples).p95_ms == pytest.approx(95.0)


def test_rounds_that_disagree_are_noisy() -> None:
    assert not measurement((1.0,), (1.01,), (1.02,)).is_noisy
    assert measurement((1.0,), (1.2,), (1.4,)).is_noisy


def test_it_survives_json() -> None:
    found = measurement((1.0, 1.5), (1.25,), factors=(1.0, 1.1))
    assert Measurement.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_measurement_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="without samples"):
        measurement((1.0,), ())
    with pytest.raises(ValueError, match="without samples"):
        measurement()
