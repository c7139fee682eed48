"""The predictor on latencies that follow a known law, with known noise."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from predictors.features import NetworkPoint, points_of
from predictors.onboarding import choose_networks
from predictors.predictor import LatencyPredictor
from predictors.rows import LatencyRow
from predictors.workload_predictor import WorkloadPredictor
from search.errors import InvalidInput
from search.space import SubnetConfig
from tests.predictors.shapes import KEYS, MACS_PER_BYTE, MINILM, MINILM_SPACE, WORKLOAD


def true_ms(subnet: SubnetConfig) -> float:
    """Costs of the kind that a runtime has: by width, with an overhead a layer and a matrix."""
    speed = 0.6 if subnet.precision == "int8" else 1.0
    layers = zip(subnet.num_heads, subnet.ffn_dim, strict=True)
    return 0.05 + sum(
        0.06 + speed * (0.085 * heads + 0.0012 * ffn + 0.004 * ffn**0.5) for heads, ffn in layers
    )


def row(subnet: SubnetConfig, noise: float = 0.0) -> LatencyRow:
    median_ms = true_ms(subnet) * np.exp(noise)
    return LatencyRow(
        subnet=subnet,
        batch_size=WORKLOAD.batch_size,
        seq_len=WORKLOAD.seq_len,
        median_ms=median_ms,
        p95_ms=1.1 * median_ms,
        anchors_ms=(15.0, 6.0, 1.5),
    )


def training_rows(noise: float = 0.01, num_networks: int = 32, seed: int = 0) -> list[LatencyRow]:
    plan = choose_networks(MINILM_SPACE, MINILM, WORKLOAD, num_networks=num_networks, seed=seed)
    rng = np.random.default_rng(seed)
    return [row(subnet, noise * rng.standard_normal()) for subnet in plan.training]


def sample(num: int, seed: int = 7) -> list[SubnetConfig]:
    rng = random.Random(seed)
    return [MINILM_SPACE.sample(rng) for _ in range(num)]


def fit(rows: list[LatencyRow]) -> WorkloadPredictor:
    precisions = {row.subnet.precision for row in rows}
    return WorkloadPredictor.fit(
        rows,
        keys={p: key for p, key in KEYS.items() if p in precisions},
        shape=MINILM,
        workload=WORKLOAD,
        macs_per_byte=MACS_PER_BYTE,
    )


def test_thirty_two_measurements_predict_the_whole_space() -> None:
    subnets = sample(200)
    estimate = fit(training_rows()).predict(subnets)
    errors = np.abs(estimate.mean_ms / [true_ms(s) for s in subnets] - 1)
    assert errors.mean() < 0.015


def test_ninety_percent_intervals_hold_nine_in_ten_noisy_measurements() -> None:
    noise, subnets = 0.02, sample(400)
    inside, widths = [], []
    for seed in range(5):
        estimate = fit(training_rows(noise, seed=seed)).predict(subnets)
        rng = np.random.default_rng(100 + seed)
        measured = [true_ms(s) * np.exp(noise * rng.standard_normal()) for s in subnets]
        inside += list((estimate.lower_ms <= measured) & (measured <= estimate.upper_ms))
        widths += list((estimate.upper_ms - estimate.lower_ms) / estimate.mean_ms)
    assert 0.85 <= np.mean(inside) <= 0.99
    assert np.median(widths) < 0.16  # not by being wide: +-1.64 deviations span 0.066


def test_bounds_enclose_the_mean() -> None:
    estimate = fit(training_rows(0.05)).predict(sample(100))
    assert len(estimate) == 100
    assert (estimate.lower_ms <= estimate.mean_ms).all()
    assert (estimate.mean_ms <= estimate.upper_ms).all()


def test_a_wider_network_is_never_predicted_faster() -> None:
    predictor = fit(training_rows(0.1))
    for subnet in sample(50):
        narrower = replace(
            subnet,
            num_heads=tuple(max(1, h - 3) for h in subnet.num_heads),
            ffn_dim=tuple(f - 96 for f in subnet.ffn_dim),
        )
        wide_ms, narrow_ms = predictor.predict([subnet, narrower]).mean_ms
        assert narrow_ms <= wide_ms


def test_predictions_survive_json_to_the_bit() -> None:
    predictor = fit(training_rows())
    again = WorkloadPredictor.from_json(json.loads(json.dumps(predictor.to_json())))
    subnets = sample(50)
    for name in ("mean_ms", "lower_ms", "upper_ms", "extrapolates"):
        first, second = (getattr(p.predict(subnets), name) for p in (predictor, again))
        assert (first == second).all()


def test_a_payload_of_another_version_is_refused() -> None:
    payload = fit(training_rows()).to_json() | {"version": 0}
    with pytest.raises(InvalidInput, match="0"):
        WorkloadPredictor.from_json(payload)
    part = fit(training_rows()).predictors["fp32"].to_json() | {"version": 1}
    with pytest.raises(InvalidInput, match="1"):
        LatencyPredictor.from_json(part)


def test_networks_beyond_what_was_measured_are_flagged() -> None:
    predictor = fit(training_rows())
    beyond = SubnetConfig(layers=(0,), num_heads=(3,), ffn_dim=(384,))
    assert list(predictor.predict([beyond]).extrapolates) == [True]
    assert predictor.predict(sample(300)).extrapolates.mean() < 0.02


def test_a_spoiled_measurement_is_left_out_and_counted() -> None:
    rows = training_rows(0.003)
    clean = fit(rows)
    spoiled = fit([replace(rows[0], median_ms=1.5 * rows[0].median_ms), *rows[1:]])
    subnets = sample(50)
    assert clean.num_outliers == 0
    assert spoiled.num_outliers == 1
    np.testing.assert_allclose(
        spoiled.predict(subnets).mean_ms, clean.predict(subnets).mean_ms, rtol=0.02
    )


def test_rows_of_a_slower_session_are_related_by_the_anchors() -> None:
    rows = training_rows(0.0)
    slower = [
        replace(
            r,
            median_ms=1.2 * r.median_ms,
            p95_ms=1.2 * r.p95_ms,
            anchors_ms=tuple(1.2 * ms for ms in r.anchors_ms),
        )
        for r in rows[1::2]
    ]
    predictor = fit([*rows[0::2], *slower])
    subnets = sample(50)
    np.testing.assert_allclose(
        predictor.predict(subnets).mean_ms, [true_ms(s) for s in subnets], rtol=0.02
    )


def test_a_measured_miss_pulls_the_prediction_there() -> None:
    predictor = fit(training_rows(0.01))
    missed = sample(1)[0]
    found = row(missed, noise=0.04)
    before, after = (
        p.predict([missed]).mean_ms[0] for p in (predictor, predictor.with_measurements([found]))
    )
    assert before < after <= found.median_ms * 1.01
    assert len(predictor.rows) == 32


def test_shares_of_the_parts_sum_to_one() -> None:
    shares = fit(training_rows()).explain(SubnetConfig.full(MINILM))
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["ffn"] > shares["embeddings_and_head"]


def test_p95_lies_above_p50_by_the_measured_ratio() -> None:
    predictor, subnets = fit(training_rows()), sample(5)
    ratio = predictor.predict(subnets, "p95").mean_ms / predictor.predict(subnets).mean_ms
    np.testing.assert_allclose(ratio, 1.1)


def test_a_precision_that_was_not_measured_is_an_error() -> None:
    predictor = fit([r for r in training_rows() if r.subnet.precision == "fp32"])
    assert predictor.precisions == ("fp32",)
    with pytest.raises(InvalidInput, match="int8"):
        predictor.predict([SubnetConfig.full(MINILM, "int8")])


def test_too_few_measurements_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="at least 4"):
        fit(training_rows()[:3])


def test_rows_of_another_precision_are_refused() -> None:
    with pytest.raises(InvalidInput, match="int8"):
        LatencyPredictor.fit(training_rows(), key=KEYS["fp32"], shape=MINILM, macs_per_byte=4.0)


@pytest.mark.parametrize("field", ["median_ms", "p95_ms", "weight"])
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_row_that_cannot_be_a_time_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        replace(training_rows()[0], **{field: value})


def test_a_row_without_anchors_is_refused() -> None:
    with pytest.raises(ValueError, match="anchors_ms"):
        replace(training_rows()[0], anchors_ms=())


def at_size(subnet: SubnetConfig, batch_size: int, seq_len: int) -> LatencyRow:
    """A law in which batch size and length work as in a real network."""
    tokens = batch_size * seq_len
    layers = zip(subnet.num_heads, subnet.ffn_dim, strict=True)
    median_ms = 0.05 + sum(
        0.02 + tokens * (7e-4 * heads + 1.2e-5 * ffn) + 2e-6 * tokens * seq_len * heads
        for heads, ffn in layers
    )
    return LatencyRow(
        subnet=subnet,
        batch_size=batch_size,
        seq_len=seq_len,
        median_ms=median_ms,
        p95_ms=1.1 * median_ms,
        anchors_ms=(tokens * 0.2, tokens * 0.1),
    )


SIZES = ((1, 32), (1, 128), (8, 32), (8, 128))


def fp32_rows(num_networks: int = 16) -> list[LatencyRow]:
    subnets = [s.with_precision("fp32") for s in sample(num_networks)]
    subnets += [MINILM_SPACE.smallest.with_precision("fp32"), SubnetConfig.full(MINILM)]
    return [at_size(s, *SIZES[i % len(SIZES)]) for i, s in enumerate([*subnets, *subnets[::-1]])]


def test_batch_size_and_length_are_features_of_one_predictor() -> None:
    predictor = LatencyPredictor.fit(
        fp32_rows(24), key=KEYS["fp32"], shape=MINILM, macs_per_byte=4.0
    )
    unseen = [at_size(s.with_precision("fp32"), 4, 64) for s in sample(40, seed=8)]
    estimate = predictor.predict([row.point for row in unseen])
    np.testing.assert_allclose(estimate.mean_ms, [row.median_ms for row in unseen], rtol=0.05)


def test_a_longer_input_than_any_measured_is_flagged() -> None:
    rows = [r for r in fp32_rows(24) if r.seq_len == 32]
    predictor = LatencyPredictor.fit(rows, key=KEYS["fp32"], shape=MINILM, macs_per_byte=4.0)
    full = [SubnetConfig.full(MINILM)]
    assert predictor.predict(points_of(full, batch_size=1, seq_len=512)).extrapolates.all()
    assert not predictor.predict(points_of(full, batch_size=1, seq_len=32)).extrapolates.any()


def test_a_device_that_became_slower_as_a_whole_is_rebased() -> None:
    predictor = fit(training_rows())
    subnets = sample(20)
    now = replace(row(subnets[0]), anchors_ms=(16.5, 6.6, 1.65))
    ratio = predictor.rebased(now).predict(subnets).mean_ms / predictor.predict(subnets).mean_ms
    np.testing.assert_allclose(ratio, 1.1, rtol=1e-6)
    assert predictor.rebased(now).reference_ms == pytest.approx(16.5)


def test_another_device_helps_only_where_it_does() -> None:
    """A source that follows the same odd law as the device is used, one of noise is not."""

    def odd(subnet: SubnetConfig, factor: float = 1.0) -> LatencyRow:
        spread = np.std(subnet.num_heads) + 0.004 * np.std(subnet.ffn_dim)
        known = row(subnet.with_precision("fp32"))
        return replace(known, median_ms=factor * known.median_ms * (1 + 0.2 * np.sin(3 * spread)))

    many, few = sample(150, seed=1), sample(14, seed=2)
    key = replace(KEYS["fp32"], device_fingerprint="cafe")
    source = LatencyPredictor.fit([odd(s) for s in many], key=key, shape=MINILM, macs_per_byte=4.0)
    helped = LatencyPredictor.fit(
        [odd(s, 3.0) for s in few],
        key=KEYS["fp32"],
        shape=MINILM,
        macs_per_byte=4.0,
        sources=[source],
    )
    unhelped = LatencyPredictor.fit(
        [row(s.with_precision("fp32")) for s in few],
        key=KEYS["fp32"],
        shape=MINILM,
        macs_per_byte=4.0,
        sources=[source],
    )
    assert helped.sources
    assert not unhelped.sources
    again = LatencyPredictor.from_json(json.loads(json.dumps(helped.to_json())))
    point = NetworkPoint(subnet=many[0].with_precision("fp32"), batch_size=1, seq_len=64)
    assert again.predict([point]).mean_ms == helped.predict([point]).mean_ms
