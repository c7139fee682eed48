"""Which candidates are worth having: none that another beats in both latency and quality."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from search.space import SubnetConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An evaluated subnet: latency is better low, quality (say, accuracy) better high.

    `source` says where it comes from ("search", "random", ...). NaN is refused.
    """

    subnet: SubnetConfig
    latency_ms: float
    quality: float
    source: str = "search"

    def __post_init__(self) -> None:
        for name in ("latency_ms", "quality"):
            if math.isnan(getattr(self, name)):
                raise ValueError(f"{name} of {self.subnet.fingerprint} is NaN")

    def dominates(self, other: Candidate) -> bool:
        """At least as good in both objectives and better in one."""
        no_worse = self.latency_ms <= other.latency_ms and self.quality >= other.quality
        better = self.latency_ms < other.latency_ms or self.quality > other.quality
        return no_worse and better


@dataclass(frozen=True, slots=True)
class ParetoFront:
    """Non-dominated candidates, fastest first, so that quality rises too. Immutable.

    Of candidates equal in both objectives the one with the lowest fingerprint stays: the front
    does not depend on the order of its candidates.
    """

    candidates: tuple[Candidate, ...]

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> ParetoFront:
        front: list[Candidate] = []
        for candidate in sorted(candidates, key=_fastest_best_first):
            if not front or candidate.quality > front[-1].quality:
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
        return within[-1] if within else None

    def hypervolume(self, *, reference_latency_ms: float, reference_quality: float) -> float:
        """Exact area, in ms times quality, that the front dominates up to the reference point.

        The reference is a point that is bad in both; what is worse than it counts nothing. Two
        fronts compare only under the same reference.
        """
        area = 0.0
        floor = reference_quality
        for candidate in self.candidates:
            if candidate.latency_ms >= reference_latency_ms or candidate.quality <= floor:
                continue
            area += (reference_latency_ms - candidate.latency_ms) * (candidate.quality - floor)
            floor = candidate.quality
        return area


def _fastest_best_first(candidate: Candidate) -> tuple[float, float, str]:
    return candidate.latency_ms, -candidate.quality, candidate.subnet.fingerprint
