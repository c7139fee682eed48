"""Which candidates are worth having: none that another beats in everything that counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.space import SubnetConfig

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An evaluated subnet: latency is better low, quality (say, accuracy) better high.

    `source` says where it comes from ("search", "random", ...). NaN is refused.

    Attributes:
        costs: what else is better low, say latencies on other devices or bytes; in the same order
            for all candidates of a front.
    """

    subnet: SubnetConfig
    latency_ms: float
    quality: float
    source: str = "search"
    costs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("latency_ms", "quality"):
            if math.isnan(getattr(self, name)):
                raise ValueError(f"{name} of {self.subnet.fingerprint} is NaN")
        if any(math.isnan(cost) for cost in self.costs):
            raise ValueError(f"costs of {self.subnet.fingerprint} hold a NaN")

    @property
    def losses(self) -> tuple[float, ...]:
        """All objectives, turned so that each is better low."""
        return (self.latency_ms, *self.costs, -self.quality)

    def dominates(self, other: Candidate) -> bool:
        """At least as good in every objective and better in one."""
        pairs = list(zip(self.losses, other.losses, strict=True))
        return all(mine <= theirs for mine, theirs in pairs) and any(
            mine < theirs for mine, theirs in pairs
        )


@dataclass(frozen=True, slots=True)
class ParetoFront:
    """Non-dominated candidates, fastest first; with two objectives quality rises too. Immutable.

    Of candidates equal in every objective the one with the lowest fingerprint stays: the front
    does not depend on the order of its candidates.
    """

    candidates: tuple[Candidate, ...]

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> ParetoFront:
        front: list[Candidate] = []
        # Whoever dominates a candidate, or equals it, comes before it.
        for candidate in sorted(candidates, key=_fastest_best_first):
            if not any(_is_covered(candidate, by=better) for better in front):
                front.append(candidate)
        return cls(tuple(front))

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def merged(self, candidates: Iterable[Candidate]) -> ParetoFront:
        """The front of this one's candidates and more."""
        return ParetoFront.of((*self.candidates, *candidates))

    def best_within(self, budget_ms: float) -> Candidate | None:
        """The best quality within `budget_ms`; None when nothing is fast enough."""
        within = [c for c in self.candidates if c.latency_ms <= budget_ms]
        return max(within, key=lambda candidate: candidate.quality, default=None)

    def hypervolume(
        self,
        *,
        reference_latency_ms: float,
        reference_quality: float,
        reference_costs: Sequence[float] = (),
    ) -> float:
        """Exact area, in ms times quality, that the front dominates up to the reference point.

        The reference is a point that is bad in everything; what is worse than it counts nothing.
        Two fronts compare only under the same reference.
        """
        reference = (reference_latency_ms, *reference_costs, -reference_quality)
        return hypervolume([candidate.losses for candidate in self.candidates], reference)


def _fastest_best_first(candidate: Candidate) -> tuple[float, float, tuple[float, ...], str]:
    return (
        candidate.latency_ms,
        -candidate.quality,
        candidate.costs,
        candidate.subnet.fingerprint,
    )


def _is_covered(candidate: Candidate, *, by: Candidate) -> bool:
    pairs = zip(by.losses, candidate.losses, strict=True)
    return all(theirs <= mine for theirs, mine in pairs)


# --- losses as arrays, low is better ---------------------------------------------------------


def hypervolume(losses: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Exact volume between the points and `reference`, in any number of objectives.

    With two a sum over steps; with more, each point adds what the points after it do not cover
    (WFG: While et al., IEEE TEC 16(1), 2012): seconds for 100 points in 5 objectives.
    """
    inside = sorted(
        {tuple(p) for p in losses if all(x < r for x, r in zip(p, reference, strict=True))}
    )
    return _volume(inside, tuple(reference))


def _volume(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    """Of points in ascending order, all better than the reference in everything."""
    if len(reference) == 2:
        return _area(points, reference)
    total = 0.0
    for place, point in enumerate(points):
        box = math.prod(r - x for x, r in zip(point, reference, strict=True))
        limited = {tuple(map(max, point, other)) for other in points[place + 1 :]}
        total += box - _volume(_undominated(sorted(limited)), reference)
    return total


def _area(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    area, floor = 0.0, reference[1]
    for first, second in points:
        if second < floor:
            area += (reference[0] - first) * (floor - second)
            floor = second
    return area


def _undominated(points: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Of distinct points in ascending order."""
    front: list[tuple[float, ...]] = []
    for point in points:
        if not any(all(b <= x for b, x in zip(better, point, strict=True)) for better in front):
            front.append(point)
    return front


def best_first(losses: Floats) -> npt.NDArray[np.int64]:
    """Places of (networks, objectives) as NSGA-II prefers them: by front, then by crowding.

    Within a front whoever has more room around it comes first (Deb et al., IEEE TEC 6(2), 2002,
    section III); ties keep their order.
    """
    ranks = front_ranks(losses)
    room = np.empty(len(losses))
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        room[members] = _room(losses[members])
    return np.lexsort((-room, ranks))


def front_ranks(losses: Floats) -> npt.NDArray[np.int64]:
    """0 for what nothing dominates, 1 for what only those dominate, and so on."""
    no_worse = np.asarray((losses[:, None] <= losses[None]).all(axis=2))
    dominates = no_worse & ~no_worse.T
    ranks = np.full(len(losses), -1)
    rank = 0
    while (ranks < 0).any():
        open_ = ranks < 0
        ranks[open_ & ~dominates[open_].any(axis=0)] = rank
        rank += 1
    return ranks


def _room(losses: Floats) -> Floats:
    """Crowding distance; infinite at the ends of an objective."""
    room = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        room[order[[0, -1]]] = np.inf
        if span > 0:
            room[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return room
