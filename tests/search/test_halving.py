from __future__ import annotations

import math

import numpy as np
import pytest

from search.halving import Rivals, paired_differences, rungs


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
    (mean,), (error,) = paired_differences(better[None], worse)
    unpaired = math.sqrt(better.var(ddof=1) / 600 + worse.var(ddof=1) / 600)
    assert mean == pytest.approx(better.mean() - worse.mean())
    assert error < unpaired / 2
    assert mean > 2 * error


def test_a_few_differing_rows_prove_nothing() -> None:
    one = np.ones(100)
    other = one.copy()
    other[:3] = 0
    (mean,), (error,) = paired_differences(one[None], other)
    assert (mean, error) == (pytest.approx(0.03), math.inf)


def rivals(*known: tuple[float, float]) -> Rivals:
    """Of 800 rows with a cost and a quality each; compared on the first 400."""
    scores = np.stack([right(quality, 800, seed) for seed, (_, quality) in enumerate(known)])
    costs = np.array([[cost, 2.0] for cost, _ in known])
    return Rivals(costs=costs, scores=scores[:, :400], qualities=scores.mean(axis=1))


def beaten(rivals: Rivals, cost: float, quality: float, *, num_rows: int = 400) -> float | None:
    costs = np.array([cost, 2.0])
    scores = right(quality, 800, 99)[:num_rows]
    return rivals.quality_of_beaten(scores, costs, confidence=3.0)


def test_what_a_network_as_cheap_clearly_beats_is_not_worth_more_rows() -> None:
    assert beaten(rivals((2.0, 0.85)), 2.0, 0.6) is not None
    assert beaten(rivals((2.0, 0.85)), 3.0, 0.6, num_rows=100) is not None


def test_what_is_close_or_cheaper_in_something_is() -> None:
    assert beaten(rivals((2.0, 0.81)), 2.0, 0.80) is None
    assert beaten(rivals((2.0, 0.85)), 1.9, 0.6) is None
    assert beaten(rivals((2.0, 0.6)), 2.0, 0.85) is None


def test_a_beaten_network_is_taken_for_what_its_rows_say_beside_the_one_that_beat_it() -> None:
    """Its own mean over few rows is further off: they were easier or harder than all are."""
    known, truth = rivals((1.0, 0.85), (5.0, 0.9)), right(0.6, 800, 99)
    for num_rows in (50, 100, 400):
        quality = beaten(known, 2.0, 0.6, num_rows=num_rows)
        assert quality is not None
        assert abs(quality - truth.mean()) < 0.06
    lacks = known.scores[0, :100].mean() - truth[:100].mean()
    assert beaten(known, 2.0, 0.6, num_rows=100) == known.qualities[0] - lacks


def test_scores_that_lack_the_same_on_every_row_are_surely_worse() -> None:
    known = Rivals(
        costs=np.zeros((1, 1)), scores=np.full((1, 20), 0.75), qualities=np.array([0.5])
    )
    lower = np.full(20, 0.5)
    assert known.quality_of_beaten(lower, np.zeros(1), confidence=3.0) == 0.25
