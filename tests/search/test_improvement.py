"""The expected gain is the mean gain: held against sampled outcomes and exact hypervolumes."""

from __future__ import annotations

import numpy as np
import pytest

from search.improvement import Guesses, expected_improvement
from search.objectives import Floats
from search.pareto import hypervolume

REFERENCE = np.array([10.0, 1.0])
FRONT = np.array([[2.0, 0.7], [4.0, 0.4], [7.0, 0.35], [8.0, 0.6], [12.0, 0.0]])


def gain(front: Floats, reference: Floats, point: Floats) -> float:
    before = hypervolume(front.tolist(), reference.tolist())
    return hypervolume([*front.tolist(), point.tolist()], reference.tolist()) - before


def known(points: Floats) -> Guesses:
    return Guesses(mean=points, deviation=np.zeros_like(points))


def test_of_known_points_it_is_the_hypervolume_that_they_add() -> None:
    points = np.array([[1.0, 0.9], [3.0, 0.3], [5.0, 0.5], [9.0, 0.1], [11.0, 0.0], [1.0, 1.2]])
    found = expected_improvement(FRONT, REFERENCE, known(points), pivot=1)
    assert found == pytest.approx([gain(FRONT, REFERENCE, point) for point in points])


def test_without_a_front_everything_up_to_the_reference_is_gained() -> None:
    nothing = np.empty((0, 2))
    found = expected_improvement(nothing, REFERENCE, known(np.array([[4.0, 0.5]])), pivot=1)
    assert found == pytest.approx([6.0 * 0.5])


def test_of_a_guess_it_is_the_mean_over_outcomes() -> None:
    rng = np.random.default_rng(0)
    guesses = Guesses(
        mean=np.array([[3.0, 0.5], [6.0, 0.2]]), deviation=np.array([[0.0, 0.1], [0.0, 0.3]])
    )
    found = expected_improvement(FRONT, REFERENCE, guesses, pivot=1)
    for place in range(2):
        outcomes = rng.normal(guesses.mean[place], guesses.deviation[place], size=(4000, 2))
        sampled = np.mean([gain(FRONT, REFERENCE, outcome) for outcome in outcomes])
        assert found[place] == pytest.approx(sampled, rel=0.05)


def test_with_three_objectives_points_that_fill_space_come_near_the_mean() -> None:
    rng = np.random.default_rng(1)
    reference = np.array([10.0, 5.0, 1.0])
    front = np.array([[2.0, 3.0, 0.7], [4.0, 1.0, 0.5], [7.0, 4.0, 0.2]])
    guesses = Guesses(
        mean=np.array([[3.0, 2.0, 0.5], [6.0, 0.5, 0.4]]),
        deviation=np.array([[0.0, 0.0, 0.2], [0.0, 0.0, 0.1]]),
    )
    found = expected_improvement(front, reference, guesses, pivot=2)
    for place in range(2):
        outcomes = rng.normal(guesses.mean[place], guesses.deviation[place], size=(2000, 3))
        sampled = np.mean([gain(front, reference, outcome) for outcome in outcomes])
        assert found[place] == pytest.approx(sampled, rel=0.1)


def test_two_guesses_of_one_network_both_count() -> None:
    rng = np.random.default_rng(2)
    guesses = Guesses(mean=np.array([[3.0, 0.5]]), deviation=np.array([[1.0, 0.2]]))
    found = expected_improvement(FRONT, REFERENCE, guesses, pivot=1)
    outcomes = rng.normal(guesses.mean[0], guesses.deviation[0], size=(4000, 2))
    sampled = np.mean([gain(FRONT, REFERENCE, outcome) for outcome in outcomes])
    assert found[0] == pytest.approx(sampled, rel=0.1)
