"""Intervals out of the votes of folds."""

from __future__ import annotations

import numpy as np

from predictors.conformal import interval


def test_bounds_are_ranks_of_the_votes() -> None:
    residuals = np.arange(1, 100) / 100  # 0.01 to 0.99

    lower, upper = interval(np.zeros((1, 99)), residuals, coverage=0.895)

    np.testing.assert_allclose(upper, 0.90, atol=0.006)
    np.testing.assert_allclose(lower, -upper)


def test_few_rows_give_their_extreme() -> None:
    lower, upper = interval(np.zeros((2, 3)), np.array([0.1, 0.3, 0.2]))

    np.testing.assert_allclose(upper, [0.3, 0.3])
    np.testing.assert_allclose(lower, [-0.3, -0.3])


def test_folds_that_disagree_widen_the_interval() -> None:
    agree, disagree = np.zeros((1, 20)), np.linspace(-1, 1, 20)[None, :]
    residuals = np.full(20, 0.1)

    narrow, wide = (np.subtract(*interval(f, residuals)[::-1]) for f in (agree, disagree))

    assert wide > narrow
