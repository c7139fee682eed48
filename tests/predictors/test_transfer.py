"""Help from other devices."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from predictors.costmodel import CostModel

Floats = npt.NDArray[np.float64]


def device(terms: Floats, prices: Floats, seed: int, noise: float) -> Floats:
    wobble = np.random.default_rng(seed).normal(0, noise, len(terms))
    return terms @ prices * np.exp(wobble)


def networks(num_rows: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return np.column_stack([np.ones(num_rows), rng.uniform(10, 100, (num_rows, 5))])


def hidden_factor(terms: Floats) -> Floats:
    """What no term tells, but a related device shows."""
    return 1 + 0.2 * np.sin(terms[:, 1])


def test_a_related_device_helps_a_few_measurements() -> None:
    prices = np.array([3.0, 1.0, 0.5, 2.0, 0.1, 0.7])
    terms, unseen = networks(12, 0), networks(100, 1)
    related, related_unseen = (
        (2 * device(t, prices, 2, 0.0) * hidden_factor(t))[:, None] for t in (terms, unseen)
    )
    measured = device(terms, prices, 3, 0.005) * hidden_factor(terms)
    truth = device(unseen, prices, 4, 0.0) * hidden_factor(unseen)

    helped = CostModel.fit(terms, measured, sources=related)
    alone = CostModel.fit(terms, measured)

    errors = [
        np.abs(helped.predict(unseen, sources=related_unseen).mean_ms / truth - 1).mean(),
        np.abs(alone.predict(unseen).mean_ms / truth - 1).mean(),
    ]
    assert helped.uses_sources
    assert errors[0] < 0.5 * errors[1]
    again = CostModel.from_json(json.loads(json.dumps(helped.to_json())))
    np.testing.assert_allclose(
        again.predict(unseen, sources=related_unseen).mean_ms,
        helped.predict(unseen, sources=related_unseen).mean_ms,
        rtol=1e-9,
    )


def test_a_device_that_tells_nothing_is_not_used() -> None:
    prices = np.array([3.0, 1.0, 0.5, 2.0, 0.1, 0.7])
    terms = networks(20, 0)
    strangers = np.random.default_rng(5).uniform(1, 100, (20, 6))

    model = CostModel.fit(terms, device(terms, prices, 3, 0.02), sources=strangers)

    assert not model.uses_sources


def test_fewer_than_ten_own_measurements_take_no_help() -> None:
    prices = np.array([3.0, 1.0, 0.5, 2.0, 0.1, 0.7])
    terms = networks(9, 0)
    measured = device(terms, prices, 3, 0.005) * hidden_factor(terms)

    assert not CostModel.fit(terms, measured, sources=measured[:, None]).uses_sources
