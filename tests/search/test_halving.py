from __future__ import annotations

import math

import numpy as np
import pytest

from search.halving import paired_difference, rungs, survivors


def right(probability: float, num_rows: int, seed: int = 0) -> np.ndarray:
    """Scores of a network on rows whose hardness all networks share."""
    hardness = np.random.default_rng(99).random(num_rows)
    whim = np.random.default_rng(seed).normal(0, 0.02, num_rows)
    return (hardness + whim < probability).astype(float)


def test_rungs_halve_down_to_the_first() -> None:
    assert rungs(600, first=150) == (150, 300, 600)
    assert rungs(100, first=30, factor=3) == (33, 100)
    assert rungs(10, first=50) == (10,)
    with pytest.raises(ValueError, match="factor"):
        rungs(100, first=10, factor=1)


def test_pairing_by_rows_finds_a_difference_that_the_means_alone_would_not_show() -> None:
    better, worse = right(0.83, 600, 1), right(0.80, 600, 2)
    mean, error = paired_difference(better, worse)
    unpaired = math.sqrt(better.var(ddof=1) / 600 + worse.var(ddof=1) / 600)
    assert mean == pytest.approx(better.mean() - worse.mean())
    assert error < unpaired / 2
    assert mean > 2 * error


def test_a_few_differing_rows_prove_nothing() -> None:
    one = np.ones(100)
    other = one.copy()
    other[:3] = 0
    assert paired_difference(one, other) == (pytest.approx(0.03), math.inf)


def test_a_candidate_that_something_cheaper_clearly_beats_is_dropped() -> None:
    scores = np.stack([right(0.85, 400, 1), right(0.7, 400, 2), right(0.6, 400, 3)])
    costs = np.array([[2.0], [3.0], [1.0]])
    assert survivors(scores, costs, confidence=2.0).tolist() == [0, 2]


def test_what_is_close_or_cheaper_in_something_survives() -> None:
    scores = np.stack([right(0.80, 400, 1), right(0.795, 400, 2), right(0.5, 400, 3)])
    costs = np.array([[2.0, 2.0], [2.0, 2.0], [3.0, 1.0]])
    assert survivors(scores, costs, confidence=2.0).tolist() == [0, 1, 2]


def test_only_rivals_drop_others() -> None:
    scores = np.stack([right(0.85, 400, 1), right(0.7, 400, 2)])
    costs = np.array([[1.0], [1.0]])
    assert survivors(scores, costs, confidence=2.0, rivals=[1]).tolist() == [0, 1]


def test_equal_candidates_all_survive() -> None:
    scores = np.tile(right(0.8, 100), (3, 1))
    assert survivors(scores, np.zeros((3, 1)), confidence=0.0).tolist() == [0, 1, 2]
