"""Energies that follow a law, and what is predicted of others."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from predictors.energy_predictor import EnergyPredictor, energy_noise_floor, energy_rows_of
from predictors.measurement import Measurement
from predictors.onboarding import choose_networks
from predictors.spec import MeasuringResult, SessionSummary
from predictors.workload_predictor import WorkloadPredictor
from search.space import SubnetConfig
from tests.predictors.shapes import KEYS, MACS_PER_BYTE, MINILM, MINILM_SPACE, WORKLOAD
from tests.predictors.test_predictor import sample, true_ms

MJ_PER_MS = 8.0
SUMMARY = SessionSummary(
    noisy=False,
    noise_floor=0.01,
    drift=0.0,
    num_blocks=3,
    retried_blocks=0,
    disturbed_blocks=0,
    duration_s=1.0,
)


def measured(key: str, subnet: SubnetConfig) -> Measurement:
    """Slow in its second round, by something that spends nothing."""
    ms = true_ms(subnet)
    return Measurement(
        key=key,
        subnet=subnet,
        rounds_ms=((ms,), (3 * ms,), (ms,)),
        reference_ms=((1.0,),) * 3,
        factors=(1.0,) * 3,
        rounds_mj=(MJ_PER_MS * ms, None, MJ_PER_MS * ms),
    )


@pytest.fixture(scope="module")
def result() -> MeasuringResult:
    plan = choose_networks(MINILM_SPACE, MINILM, WORKLOAD, num_networks=24)
    return MeasuringResult(
        environment={},
        session=SUMMARY,
        anchors=(measured("reference", SubnetConfig.full(MINILM)),),
        measurements=tuple(measured(f"n{i}", s) for i, s in enumerate(plan.training)),
    )


@pytest.fixture(scope="module")
def predictor(result: MeasuringResult) -> EnergyPredictor:
    fitted = WorkloadPredictor.fit(
        energy_rows_of(result, WORKLOAD, "n"),
        keys={p: replace(key, quantity="energy") for p, key in KEYS.items()},
        shape=MINILM,
        workload=WORKLOAD,
        macs_per_byte=MACS_PER_BYTE,
    )
    return EnergyPredictor(fitted)


def test_a_few_measured_networks_tell_the_energy_of_all(predictor: EnergyPredictor) -> None:
    subnets = sample(100)
    expected_mj = [MJ_PER_MS * true_ms(subnet) for subnet in subnets]
    errors = np.abs(predictor.predict_mj(subnets) / expected_mj - 1)
    assert errors.mean() < 0.02
    full = SubnetConfig.full(MINILM)
    assert predictor.reference_mj == pytest.approx(MJ_PER_MS * true_ms(full))


def test_it_survives_json_and_keeps_the_key_of_its_own(predictor: EnergyPredictor) -> None:
    again = EnergyPredictor.from_json(json.loads(json.dumps(predictor.to_json())))
    subnets = sample(10)
    assert np.array_equal(again.predict_mj(subnets), predictor.predict_mj(subnets))
    for precision, part in again.fitted.predictors.items():
        assert part.key.quantity == "energy"
        assert part.key.text == f"{KEYS[precision].text}/energy"


def test_rows_are_of_networks_whose_energy_was_read(result: MeasuringResult) -> None:
    first, *others = result.measurements
    some = replace(result, measurements=(replace(first, rounds_mj=()), *others))
    assert len(energy_rows_of(some, WORKLOAD)) == len(others)
    assert energy_rows_of(some, WORKLOAD, "h") == []


def test_without_the_energy_of_the_anchors_there_are_no_rows(result: MeasuringResult) -> None:
    (anchor,) = result.anchors
    blind = replace(result, anchors=(replace(anchor, rounds_mj=()),))
    assert energy_rows_of(blind, WORKLOAD) == []


def test_rounds_that_agree_have_no_noise(result: MeasuringResult) -> None:
    assert energy_noise_floor([result]) == 0.0
    assert energy_noise_floor([]) == 0.0
