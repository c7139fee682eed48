"""Agreement of predicted and measured latencies."""

from __future__ import annotations

import numpy as np
import pytest

from predictors.metrics import clearly_less, spearman, spearman_within


def test_ranks_agree_whatever_the_scale() -> None:
    values = np.array([1.0, 2.0, 5.0, 9.0])

    assert spearman(values, values**3) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)


def test_too_few_or_constant_values_have_no_rank() -> None:
    assert spearman(np.array([1.0, 2.0]), np.array([1.0, 2.0])) is None
    assert spearman(np.ones(5), np.arange(5.0)) is None


def test_ranks_within_groups_ignore_what_the_group_tells() -> None:
    depths = [1, 1, 1, 2, 2, 2]
    predicted = np.array([1.0, 2.0, 3.0, 11.0, 12.0, 13.0])
    measured = np.array([3.0, 2.0, 1.0, 13.0, 12.0, 11.0])

    assert spearman_within(depths, predicted, measured) == pytest.approx(-1.0)
    assert spearman(predicted, measured) > 0.5
    assert spearman_within([1, 2, 3, 4, 5, 6], predicted, measured) is None


def test_a_gain_that_chance_explains_is_not_clear() -> None:
    rng = np.random.default_rng(0)
    errors = np.abs(rng.normal(0, 1, 20))

    assert not clearly_less(np.abs(rng.normal(0, 0.95, 20)), errors, np.ones(20), 0.03)
    assert clearly_less(0.5 * errors, errors, np.ones(20), 0.03)
    assert not clearly_less(0.99 * errors, errors, np.ones(20), 0.03)
