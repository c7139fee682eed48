"""The front keeps what nothing beats, and its area is exact."""

from __future__ import annotations

import itertools
import random
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto import Candidate, ParetoFront, best_first, front_ranks
from search.space import SubnetConfig


def candidate(
    latency_ms: float, quality: float, heads: int = 1, costs: tuple[float, ...] = ()
) -> Candidate:
    subnet = SubnetConfig(layers=(0,), num_heads=(heads,), ffn_dim=(8,))
    return Candidate(subnet=subnet, latency_ms=latency_ms, quality=quality, costs=costs)


def points(front: ParetoFront) -> list[tuple[float, float]]:
    return [(c.latency_ms, c.quality) for c in front]


candidates = st.lists(
    st.builds(candidate, st.integers(0, 6), st.integers(0, 6), st.integers(1, 4)), max_size=15
)


@given(candidates)
def test_the_front_is_exactly_what_no_candidate_dominates(found: list[Candidate]) -> None:
    front = ParetoFront.of(found)
    undominated = [c for c in found if not any(other.dominates(c) for other in found)]
    assert set(points(front)) == {(c.latency_ms, c.quality) for c in undominated}
    assert len(front) == len(set(points(front)))


@given(candidates, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(
    found: list[Candidate], rng: random.Random
) -> None:
    shuffled = found[:]
    rng.shuffle(shuffled)
    assert ParetoFront.of(found) == ParetoFront.of(shuffled)


@given(candidates)
def test_hypervolume_counts_the_dominated_cells(found: list[Candidate]) -> None:
    cells = sum(
        any(c.latency_ms <= x and c.quality >= y + 1 for c in found)
        for x in range(5)
        for y in range(1, 6)
    )
    front = ParetoFront.of(found)
    capped = [candidate(c.latency_ms, min(c.quality, 6)) for c in front]
    area = ParetoFront.of(capped).hypervolume(reference_latency_ms=5, reference_quality=1)
    assert area == cells


def test_hypervolume_of_two_steps_by_hand() -> None:
    front = ParetoFront.of([candidate(2, 0.5), candidate(4, 0.8), candidate(5, 0.7)])
    area = front.hypervolume(reference_latency_ms=10, reference_quality=0.2)
    assert area == pytest.approx(8 * 0.3 + 6 * 0.3)


def test_candidates_beyond_the_reference_count_nothing() -> None:
    front = ParetoFront.of([candidate(1, 0.1), candidate(20, 0.9)])
    assert front.hypervolume(reference_latency_ms=10, reference_quality=0.2) == 0


def test_best_within_a_budget_is_the_best_quality_that_keeps_it() -> None:
    front = ParetoFront.of([candidate(2, 0.5), candidate(4, 0.8), candidate(6, 0.9)])
    best = front.best_within(4.0)
    assert best is not None
    assert best.quality == 0.8
    assert front.best_within(1.9) is None


def test_merging_leaves_the_front_as_it_was() -> None:
    front = ParetoFront.of([candidate(2, 0.5)])
    assert points(front.merged([candidate(1, 0.6)])) == [(1, 0.6)]
    assert points(front) == [(2, 0.5)]
    with pytest.raises(FrozenInstanceError):
        front.candidates = ()  # type: ignore[misc]


def test_nan_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="latency_ms"):
        candidate(float("nan"), 0.5)
    with pytest.raises(ValueError, match="costs"):
        candidate(1.0, 0.5, costs=(float("nan"),))


# --- more than two objectives ------------------------------------------------------------------

small = st.integers(0, 4)
costly = st.lists(
    st.builds(
        lambda latency, quality, costs: candidate(latency, quality, costs=costs),
        small,
        small,
        st.tuples(small, small),
    ),
    max_size=10,
)


@given(costly)
def test_with_further_costs_the_front_is_still_what_nothing_dominates(
    found: list[Candidate],
) -> None:
    front = ParetoFront.of(found)
    undominated = {c.losses for c in found if not any(other.dominates(c) for other in found)}
    assert {c.losses for c in front} == undominated
    assert len(front) == len(undominated)


@given(costly)
def test_with_further_costs_the_hypervolume_counts_the_dominated_cells(
    found: list[Candidate],
) -> None:
    cells = sum(
        any(
            c.latency_ms <= x and c.quality >= y + 1 and c.costs[0] <= z and c.costs[1] <= w
            for c in found
        )
        for x, y, z, w in itertools.product(range(4), range(4), range(4), range(4))
    )
    volume = ParetoFront.of(found).hypervolume(
        reference_latency_ms=4, reference_quality=0, reference_costs=(4, 4)
    )
    assert volume == cells


def test_the_best_within_a_budget_need_not_be_the_slowest() -> None:
    front = ParetoFront.of([candidate(2, 0.9, costs=(5.0,)), candidate(3, 0.5, costs=(1.0,))])
    best = front.best_within(4.0)
    assert best is not None
    assert best.quality == 0.9


def test_ranks_peel_front_after_front() -> None:
    losses = np.array([[3.0, 3.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]])
    assert front_ranks(losses).tolist() == [2, 0, 0, 1, 0]


def test_within_a_front_whoever_has_room_comes_first() -> None:
    losses = np.array([[5.0, 5.0], [0.0, 4.0], [1.0, 2.9], [1.1, 2.8], [4.0, 0.0], [2.5, 1.0]])
    order = best_first(losses).tolist()
    assert set(order[:2]) == {1, 4}
    assert order[2] == 5
    assert order[-1] == 0
