"""Whether intervals of medians and percentiles hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from predictors.intervals import median_interval, quantile_interval


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 11, 20])
def test_the_median_interval_covers_the_true_median(size: int) -> None:
    rng = np.random.default_rng(size)
    covered = 0
    for _ in range(400):
        interval = median_interval(np.exp(0.02 * rng.standard_normal(size)))
        assert interval is not None
        covered += interval[0] <= 1.0 <= interval[1]
    assert covered >= 0.86 * 400


def test_order_statistics_of_known_ranks_enclose_the_median() -> None:
    # P(fewer than 2 of 9 below the median) = 10 / 512: the second of either end is outside 5 %.
    assert median_interval([5, 1, 2, 3, 4, 6, 7, 8, 9]) == (2.0, 8.0)
    assert median_interval([3, 1, 2, 5, 4]) == (1.0, 5.0)


def test_one_value_has_no_interval() -> None:
    assert median_interval([1.0]) is None
    assert quantile_interval([[1.0]], 0.95) is None


def test_the_p95_interval_encloses_the_p95_and_is_the_same_at_every_call() -> None:
    rng = np.random.default_rng(0)
    rounds = [list(1 + 0.1 * rng.random(10)) for _ in range(7)]
    found = quantile_interval(rounds, 0.95)
    assert found is not None
    assert found == quantile_interval(rounds, 0.95)
    assert found[0] <= np.quantile(np.concatenate(rounds), 0.95) <= found[1]


def test_rounds_that_differ_make_the_p95_less_certain() -> None:
    alike = [[1.0, 1.1, 1.2]] * 6
    apart = [[1.0 + i / 10, 1.1 + i / 10, 1.2 + i / 10] for i in range(6)]
    narrow, wide = (quantile_interval(rounds, 0.95) for rounds in (alike, apart))
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_rounds_of_unequal_length_are_accepted() -> None:
    found = quantile_interval([[1.0], [1.1, 1.2, 1.3], [1.2, 1.4]], 0.95)
    assert found is not None
    assert 1.0 <= found[0] <= found[1] <= 1.4
