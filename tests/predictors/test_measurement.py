"""Derived figures of a measurement."""

from __future__ import annotations

import json
from typing import Any

import pytest

from predictors.measurement import Measurement
from search.errors import InvalidInput
from search.space import SubnetConfig

SUBNET = SubnetConfig(layers=(0, 2), num_heads=(3, 1), ffn_dim=(24, 40), precision="int8")


def measurement(
    *rounds_ms: tuple[float, ...],
    factors: tuple[float, ...] | None = None,
    discarded_ms: tuple[tuple[float, ...], ...] = (),
    rounds_mj: tuple[float | None, ...] = (),
) -> Measurement:
    return Measurement(
        key="n0",
        subnet=SUBNET,
        rounds_ms=rounds_ms,
        reference_ms=((10.0,),) * len(rounds_ms),
        factors=factors or (1.0,) * len(rounds_ms),
        discarded_ms=discarded_ms,
        rounds_mj=rounds_mj,
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


def test_discarded_samples_change_no_figure() -> None:
    plain = measurement((1.0, 1.1), (1.2, 1.3))
    with_discarded = measurement((1.0, 1.1), (1.2, 1.3), discarded_ms=((9.0,), (8.0, 7.0)))
    derived = ("median_ms", "p95_ms", "median_interval_ms", "p95_interval_ms", "spread")
    assert [getattr(plain, n) for n in derived] == [getattr(with_discarded, n) for n in derived]


def test_each_figure_has_an_interval_around_it() -> None:
    found = measurement(*((1.0 + i / 100, 1.01 + i / 100) for i in range(7)))
    for value, interval in (
        (found.median_ms, found.median_interval_ms),
        (found.p95_ms, found.p95_interval_ms),
    ):
        assert interval is not None
        assert interval[0] <= value <= interval[1]
    assert found.to_dict()["median_interval_ms"] == list(found.median_interval_ms or ())


def test_one_run_has_figures_but_no_intervals() -> None:
    found = measurement((1.5,))
    assert found.median_ms == found.p95_ms == 1.5
    assert found.median_interval_ms is None
    assert found.to_dict()["p95_interval_ms"] is None


def test_rounds_that_disagree_are_noisy() -> None:
    assert not measurement((1.0,), (1.01,), (1.02,)).is_noisy
    assert measurement((1.0,), (1.2,), (1.4,)).is_noisy


def test_it_survives_json() -> None:
    found = measurement((1.0, 1.5), (1.25,), factors=(1.0, 1.1), discarded_ms=((3.0, 4.0),))
    assert Measurement.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_its_energy_is_the_median_of_the_rounds_that_were_read() -> None:
    found = measurement((1.0,), (2.0,), (9.0,), (1.0,), rounds_mj=(8.0, None, 70.0, 9.0))
    assert found.energy_mj == 9.0
    assert Measurement.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    slow = measurement((2.0,), factors=(2.0,), rounds_mj=(8.0,))
    assert slow.energy_mj == 8.0, "how slow the device was does not change what was spent"


def test_what_an_agent_without_energy_sends_has_none() -> None:
    data = measurement((1.0, 1.5), (1.25,)).to_dict()
    assert data["rounds_mj"] is data["energy_mj"] is None
    older = {name: value for name, value in data.items() if not name.endswith("_mj")}
    for sent in (data, older):
        found = Measurement.from_dict(sent)
        assert found.energy_mj is None
        assert found.relative_energy_error is None


def test_a_measurement_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="without samples"):
        measurement((1.0,), ())
    with pytest.raises(ValueError, match="without samples"):
        measurement()
    with pytest.raises(ValueError, match="an energy each round"):
        measurement((1.0,), (1.0,), rounds_mj=(5.0,))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rounds_ms": [[1.0, float("nan")], [1.0]]}, "measurement.rounds_ms[0][1]"),
        ({"rounds_ms": [[float("inf")], [1.0]]}, "measurement.rounds_ms[0][0]"),
        ({"rounds_ms": [[1.0], [-0.5]]}, "measurement.rounds_ms[1][0]"),
        ({"rounds_ms": [[1.0], [0]]}, "measurement.rounds_ms[1][0]"),
        ({"rounds_ms": [[1.0], [3_600_001.0]]}, "measurement.rounds_ms[1][0]"),
        ({"rounds_ms": [[1.0], ["2"]]}, "measurement.rounds_ms[1][0]"),
        ({"rounds_ms": [[1.0], [True]]}, "measurement.rounds_ms[1][0]"),
        ({"rounds_ms": [[1.0], []]}, "measurement.rounds_ms[1]"),
        ({"rounds_ms": []}, "measurement.rounds_ms"),
        ({"rounds_ms": "1.0"}, "measurement.rounds_ms"),
        ({"rounds_ms": None}, "measurement.rounds_ms"),
        ({"reference_ms": [[1.0]]}, "measurement"),
        ({"factors": [1.0, 0.0]}, "measurement.factors[1]"),
        ({"factors": [1.0, float("nan")]}, "measurement.factors[1]"),
        ({"discarded_ms": [[float("nan")]]}, "measurement.discarded_ms[0][0]"),
        ({"rounds_mj": [5.0]}, "measurement.rounds_mj"),
        ({"rounds_mj": [5.0, 0.0]}, "measurement.rounds_mj[1]"),
        ({"rounds_mj": [-5.0, 5.0]}, "measurement.rounds_mj[0]"),
        ({"rounds_mj": [None, float("nan")]}, "measurement.rounds_mj[1]"),
        ({"rounds_mj": 5.0}, "measurement.rounds_mj"),
        ({"subnet": {"layers": [0]}}, "measurement.subnet.num_heads"),
        ({"subnet": [0]}, "measurement.subnet"),
        ({"key": 7}, "measurement.key"),
    ],
)
def test_samples_that_are_no_times_are_refused_by_name(change: dict[str, Any], field: str) -> None:
    data = measurement((1.0, 1.5), (1.25,)).to_dict() | change
    with pytest.raises(InvalidInput) as caught:
        Measurement.from_dict(data)
    assert caught.value.field == field
