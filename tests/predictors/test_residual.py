"""What a linear model leaves over: Gaussian process and boosted trees."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from predictors.gp import GaussianProcess
from predictors.residual import GpResidual, residual_from_json
from predictors.trees import BoostedTrees

Floats = npt.NDArray[np.float64]


def waves(num_rows: int, seed: int = 0) -> tuple[Floats, Floats]:
    inputs = np.random.default_rng(seed).uniform(-2, 2, (num_rows, 2))
    return inputs, 0.1 * np.sin(2 * inputs[:, 0])


def test_a_process_follows_a_smooth_curve() -> None:
    inputs, values = waves(60)
    unseen, truth = waves(100, seed=1)

    predicted = GaussianProcess.fit(inputs, values).predict(unseen)

    assert np.abs(predicted - truth).mean() < 0.02


def test_a_process_fitted_to_noise_predicts_next_to_nothing() -> None:
    inputs, _ = waves(60)
    noise = np.random.default_rng(1).normal(0, 0.1, 60)

    predicted = GaussianProcess.fit(inputs, noise).predict(waves(100, seed=2)[0])

    assert np.abs(predicted).mean() < 0.03


def test_inputs_that_never_vary_are_ignored() -> None:
    inputs, values = waves(30)
    padded = np.column_stack([inputs, np.full(30, 7.0)])

    moved = padded.copy()
    moved[:, 2] = 8.0

    process = GaussianProcess.fit(padded, values)
    np.testing.assert_allclose(process.predict(moved), process.predict(padded))


def test_the_process_of_a_fold_has_not_seen_it() -> None:
    inputs, values = waves(30)
    kept = np.arange(30) != 4
    process = GaussianProcess.fit(inputs, values)
    moved = values.copy()
    moved[4] = 9.0

    before, after = (process.fold_alpha(v, kept, np.ones(30)) for v in (values, moved))

    np.testing.assert_array_equal(before, after)
    assert before[4] == 0


def test_a_correction_never_goes_far_beyond_those_seen() -> None:
    inputs, values = waves(40)
    by_fold = np.repeat(values[:, None], 40, axis=1)
    residual = GpResidual.fit(inputs, values, by_fold, np.ones(40), np.arange(40))

    far = residual.predict(np.full((1, 2), 1e4))

    assert np.abs(far).max() <= 1.5 * np.abs(values).max()


def test_trees_read_back_predict_as_scikit_learn_grew_them() -> None:
    inputs, values = waves(80)
    trees = BoostedTrees.fit(inputs, values, np.ones(80), seed=0)

    again = BoostedTrees.from_json(json.loads(json.dumps(trees.to_json())))

    np.testing.assert_allclose(again.predict(inputs), trees.predict(inputs), rtol=1e-12)
    assert np.abs(trees.predict(inputs) - values).mean() < 0.02


def test_a_residual_of_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="magic"):
        residual_from_json({"kind": "magic"})
