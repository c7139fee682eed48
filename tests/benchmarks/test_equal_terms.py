"""Comparison of fronts at equal quality, and of two networks on the same rows."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.equal_terms import (
    Point,
    front_of,
    geometric_mean,
    latency_for,
    paired_difference,
    paired_points,
    share_between,
    speedups,
)


def test_a_front_leaves_out_what_another_beats_in_both() -> None:
    points = [Point(2.0, 0.8), Point(1.0, 0.7), Point(3.0, 0.75), Point(2.0, 0.6)]
    assert front_of(points) == [Point(1.0, 0.7), Point(2.0, 0.8)]


def test_the_latency_for_a_quality_lies_on_the_line_between_two_networks() -> None:
    front = [Point(1.0, 0.7), Point(3.0, 0.9)]
    assert latency_for(front, 0.8) == pytest.approx(2.0)
    assert latency_for(front, 0.9) == pytest.approx(3.0)


def test_below_its_worst_a_front_is_not_credited_and_above_its_best_it_has_no_answer() -> None:
    front = [Point(1.0, 0.7), Point(3.0, 0.9)]
    assert latency_for(front, 0.2) == 1.0
    assert latency_for(front, 0.91) is None


def test_a_front_twice_as_fast_everywhere_is_twice_as_fast_at_equal_quality() -> None:
    theirs = [Point(2.0, 0.7), Point(4.0, 0.8), Point(8.0, 0.9)]
    ours = [Point(p.latency_ms / 2, p.quality) for p in theirs]
    assert speedups(ours, theirs) == pytest.approx([2.0, 2.0, 2.0])
    assert geometric_mean(speedups(ours, theirs)) == pytest.approx(2.0)


def test_qualities_that_are_not_reached_are_left_out() -> None:
    assert speedups([Point(1.0, 0.7)], [Point(2.0, 0.7), Point(4.0, 0.8)]) == [2.0]
    assert geometric_mean([]) is None


def test_rows_that_both_answer_alike_do_not_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.random(1000) < 0.8
    ours = theirs.copy()
    ours[np.flatnonzero(~theirs)[:20]] = True
    found = paired_points(ours, theirs)
    assert found["points"] == pytest.approx(2.0)
    assert 0.5 < found["lower"] < 2.0 < found["upper"] < 3.5


def test_a_difference_of_likelihoods_weighs_rows_by_their_answers() -> None:
    theirs = np.array([-10.0, -40.0])
    ours = np.array([-8.0, -40.0])
    found = paired_difference(ours, theirs, np.array([10.0, 40.0]))
    assert found["difference"] == pytest.approx(2 / 50)
    assert found["lower"] < 0 < found["upper"]
    alike = paired_difference(ours, ours, np.array([10.0, 40.0]))
    assert (alike["lower"], alike["upper"]) == (0.0, 0.0)


def test_the_share_of_a_gap_is_told_with_how_uncertain_it_is() -> None:
    rng = np.random.default_rng(0)
    high = (rng.random(800) < 0.9).astype(float)
    low = high * (rng.random(800) < 0.6)
    reached = np.where(rng.random(800) < 0.5, high, low)
    found = share_between(low, high, reached)
    assert found["lower"] < found["share"] < found["upper"]
    assert found["share"] == pytest.approx(0.5, abs=0.1)
    assert share_between(low, high, high)["share"] == 1.0
