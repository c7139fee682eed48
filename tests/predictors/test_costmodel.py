"""The cost model: fitted, judged, stored and read back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from predictors.costmodel import CostModel, ResidualKind

Floats = npt.NDArray[np.float64]
PRICES = np.array([5.0, 0.02, 0.03, 0.001])


def network_terms(num_rows: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    varied = rng.uniform(20, 200, (num_rows, 2))
    return np.column_stack([np.ones(num_rows), varied, varied[:, 0] * 3 + 40])


def latencies(terms: Floats, seed: int = 1, noise: float = 0.0) -> Floats:
    wobble = np.random.default_rng(seed).normal(0, noise, len(terms)) if noise else 0.0
    return terms @ PRICES * np.exp(wobble)


def test_exact_latencies_are_predicted_from_a_dozen_rows() -> None:
    terms, unseen = network_terms(12), network_terms(50, seed=9)

    predicted = CostModel.fit(terms, latencies(terms)).predict(unseen).mean_ms

    np.testing.assert_allclose(predicted, latencies(unseen), rtol=0.01)


def test_nine_in_ten_latencies_lie_within_the_interval() -> None:
    inside = []
    for seed in range(20):
        terms, unseen = network_terms(30, seed), network_terms(100, seed + 100)
        measured = latencies(unseen, seed + 200, noise=0.05)
        model = CostModel.fit(terms, latencies(terms, seed + 300, noise=0.05))
        prediction = model.predict(unseen)
        inside.append((prediction.lower_ms <= measured) & (measured <= prediction.upper_ms))

    assert 0.86 < np.mean(inside) < 0.96


def test_a_slow_spell_is_counted_as_outliers_and_not_fitted() -> None:
    terms = network_terms(40)
    measured = latencies(terms, noise=0.01)
    measured[5:9] *= 1.4

    model = CostModel.fit(terms, measured)

    assert set(np.flatnonzero(model.outliers)) == {5, 6, 7, 8}
    unseen = network_terms(50, seed=9)
    np.testing.assert_allclose(model.predict(unseen).mean_ms, latencies(unseen), rtol=0.02)


def test_trusted_rows_are_never_outliers() -> None:
    terms = network_terms(40)
    measured = latencies(terms, noise=0.01)
    measured[5:9] *= 1.4
    trusted = np.zeros(40, dtype=bool)
    trusted[5:9] = True

    assert not CostModel.fit(terms, measured, trusted=trusted).outliers[5:9].any()


def preferring(details: Floats) -> Floats:
    """A kernel that likes one choice of a layer better than the other."""
    return np.exp(0.15 * (details[:, 0] - 0.5))


def test_a_residual_is_learned_where_it_helps() -> None:
    rng = np.random.default_rng(3)
    terms, unseen = network_terms(60), network_terms(60, seed=9)
    details, unseen_details = rng.uniform(0, 1, (60, 2)), rng.uniform(0, 1, (60, 2))
    measured = latencies(terms, noise=0.005) * preferring(details)

    model = CostModel.fit(terms, measured, details=details)
    plain = CostModel.fit(terms, measured, details=details, residual="none")

    truth = latencies(unseen) * preferring(unseen_details)
    errors = [
        np.abs(m.predict(unseen, unseen_details).mean_ms / truth - 1).mean()
        for m in (model, plain)
    ]
    assert model.kind == "nnls+gp"
    assert errors[0] < 0.3 * errors[1]


def test_noise_alone_buys_no_residual() -> None:
    terms = network_terms(60)
    details = np.random.default_rng(3).uniform(0, 1, (60, 2))

    assert CostModel.fit(terms, latencies(terms, noise=0.05), details=details).kind == "nnls"


@pytest.mark.parametrize("residual", ["none", "gp", "trees"])
def test_json_predicts_the_same(residual: ResidualKind) -> None:
    terms, unseen = network_terms(40), network_terms(20, seed=9)
    details = np.random.default_rng(3).uniform(0, 1, (40, 2))
    measured = latencies(terms, noise=0.01) * preferring(details)
    model = CostModel.fit(terms, measured, details=details, residual=residual)

    again = CostModel.from_json(json.loads(json.dumps(model.to_json())))

    for name in ("mean_ms", "lower_ms", "upper_ms"):
        one, other = (getattr(m.predict(unseen, details[:20]), name) for m in (model, again))
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert again.kind == model.kind
    np.testing.assert_array_equal(again.outliers, model.outliers)


def test_a_model_with_trees_is_read_without_scikit_learn(tmp_path: Path) -> None:
    terms = network_terms(40)
    model = CostModel.fit(terms, latencies(terms, noise=0.02), residual="trees")
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"model": model.to_json(), "terms": terms.tolist()}))
    script = (
        "import json, sys; sys.modules['sklearn'] = None\n"
        "import numpy as np\n"
        "from predictors.costmodel import CostModel\n"
        f"data = json.load(open({str(path)!r}))\n"
        "model = CostModel.from_json(data['model'])\n"
        "print(json.dumps(model.predict(np.array(data['terms'])).mean_ms.tolist()))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    np.testing.assert_allclose(json.loads(done.stdout), model.predict(terms).mean_ms, rtol=1e-9)


def test_a_payload_of_another_version_is_refused() -> None:
    terms = network_terms(12)
    payload = CostModel.fit(terms, latencies(terms)).to_json() | {"version": 99}

    with pytest.raises(ValueError, match="version 99"):
        CostModel.from_json(payload)


def test_a_term_beyond_all_that_was_measured_extrapolates() -> None:
    terms = network_terms(30)
    beyond = terms[:2].copy()
    beyond[1, 1] = 3 * terms[:, 1].max()

    model = CostModel.fit(terms, latencies(terms))

    assert model.predict(beyond).extrapolates.tolist() == [False, True]


def test_more_work_never_costs_less() -> None:
    terms = network_terms(25)
    model = CostModel.fit(terms, latencies(terms, noise=0.1), residual="none")

    larger = terms * np.array([1.0, 1.3, 1.0, 1.0])

    assert (model.predict(larger).mean_ms >= model.predict(terms).mean_ms).all()


def test_each_row_has_a_prediction_by_a_model_that_did_not_see_it() -> None:
    terms = network_terms(20)
    measured = latencies(terms, noise=0.01)
    moved = measured.copy()
    moved[7] *= 1.02

    before, after = (CostModel.fit(terms, m, residual="none") for m in (measured, moved))

    assert after.cross_validated_ms[7] == pytest.approx(before.cross_validated_ms[7])


def test_costs_by_term_add_up_to_the_linear_prediction() -> None:
    terms = network_terms(20)
    model = CostModel.fit(terms, latencies(terms, noise=0.01), residual="none")

    np.testing.assert_allclose(
        model.cost_by_term_ms(terms).sum(axis=1), model.predict(terms).mean_ms
    )


def test_parts_that_were_timed_by_themselves_are_fitted_by_themselves() -> None:
    rng = np.random.default_rng(0)
    fast, slow = rng.uniform(10, 100, 25), rng.uniform(10, 100, 25)
    terms = np.column_stack([np.ones(25), fast, np.ones(25), slow])
    parts_ms = np.stack([1 + 0.01 * fast, (20 + slow) * np.exp(rng.normal(0, 0.1, 25))], axis=1)

    model = CostModel.fit(
        terms,
        parts_ms.sum(axis=1),
        parts_ms=parts_ms,
        part_of_term=np.array([0, 0, 1, 1]),
        residual="none",
    )

    # The noisy part blurs nothing in the exact one, but for the common scale.
    assert model.cost_ms[1] / model.cost_ms[0] == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_latencies_that_cannot_be_are_refused(value: float) -> None:
    terms = network_terms(5)
    measured = latencies(terms)
    measured[2] = value

    with pytest.raises(ValueError, match="latency"):
        CostModel.fit(terms, measured)
