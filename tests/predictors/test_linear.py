"""Non-negative prices of physical terms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from predictors.linear import Layout, find_outliers, fit_costs, fit_prices

Floats = npt.NDArray[np.float64]


def rows(num_rows: int, noise: float, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    terms = np.column_stack([np.ones(num_rows), rng.uniform(10, 100, (num_rows, 4))])
    measured = terms @ np.array([5.0, 1.0, 1.1, 0.9, 1.0]) * np.exp(rng.normal(0, noise, num_rows))
    return terms, measured


def prices(terms: Floats, measured: Floats) -> Floats:
    layout = Layout.of(terms, None, None)
    return fit_prices(terms, measured[:, None], np.ones(len(measured)), layout)


def test_costs_are_never_negative() -> None:
    terms, measured = rows(20, noise=0.3)

    assert (fit_costs(terms, measured, np.ones(20)) >= 0).all()
    assert (prices(terms, measured) >= 0).all()


def test_a_row_of_no_weight_does_not_count() -> None:
    terms, measured = rows(20, noise=0.0)
    weights = np.ones(20)
    weights[3], measured[3] = 0.0, 1e6

    costs = fit_costs(terms, measured, weights)

    np.testing.assert_allclose(terms[:3] @ costs, measured[:3], rtol=1e-3)


def test_on_a_noisy_device_few_rows_are_drawn_to_one_price() -> None:
    spreads = []
    for seed in range(10):
        terms, measured = rows(12, noise=0.15, seed=seed)
        free = fit_costs(terms, measured, np.ones(12))
        spreads.append([np.ptp(prices(terms, measured)[1:]), np.ptp(free[1:])])
    shrunk, unshrunk = np.mean(spreads, axis=0)

    assert shrunk < 0.5 * unshrunk


def test_on_a_quiet_device_the_measurements_outvote_the_common_price() -> None:
    quiet = prices(*rows(12, noise=1e-4))

    np.testing.assert_allclose(quiet[1:], [1.0, 1.1, 0.9, 1.0], rtol=0.02)


def test_the_common_price_beats_free_prices_where_noise_hides_the_difference() -> None:
    wins = 0
    for seed in range(20):
        terms, measured = rows(12, noise=0.15, seed=seed)
        unseen, truth = rows(100, noise=0.0, seed=seed + 100)
        shrunk = np.abs(unseen @ prices(terms, measured) / truth - 1).mean()
        free = np.abs(unseen @ fit_costs(terms, measured, np.ones(12)) / truth - 1).mean()
        wins += shrunk < free

    assert wins >= 15


def test_at_most_a_fifth_of_the_rows_are_outliers() -> None:
    terms, measured = rows(20, noise=0.01)
    measured[:9] *= np.linspace(1.5, 2.5, 9)
    layout = Layout.of(terms, None, None)

    outliers = find_outliers(
        terms, measured[:, None], np.ones(20), np.zeros(20, dtype=bool), layout
    )

    assert outliers.sum() <= 4


def test_constant_terms_are_a_family_by_themselves() -> None:
    terms = np.array([[1.0, 2.0, 3.0], [1.0, 5.0, 4.0]])

    layout = Layout.of(terms, None, None)

    assert layout.families.tolist() == [0, 1, 1]
    assert layout.num_parts == 1


@pytest.mark.parametrize("num_rows", [1, 2, 3])
def test_even_a_few_rows_give_finite_prices(num_rows: int) -> None:
    terms, measured = rows(num_rows, noise=0.01)

    assert np.isfinite(prices(terms, measured)).all()
