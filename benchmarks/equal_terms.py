"""Two sets of networks compared at equal quality, and two qualities on the same rows. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


class Point(NamedTuple):
    latency_ms: float
    quality: float


def front_of(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both, fastest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, -p.quality)):
        if not front or point.quality > front[-1].quality:
            front.append(point)
    return front


def latency_for(front: Sequence[Point], quality: float) -> float | None:
    """ms that a front needs for a quality, on straight lines between its networks.

    None above its best; below its worst, what the fastest takes: that it is better is not counted.
    """
    if quality <= front[0].quality:
        return front[0].latency_ms
    for fast, slow in pairwise(front):
        if quality <= slow.quality:
            share = (quality - fast.quality) / (slow.quality - fast.quality)
            return fast.latency_ms + share * (slow.latency_ms - fast.latency_ms)
    return None


def speedups(ours: Sequence[Point], theirs: Sequence[Point]) -> list[float]:
    """How many times faster ours is, at each quality of their front that it reaches."""
    front = front_of(ours)
    found = [(p.latency_ms, latency_for(front, p.quality)) for p in front_of(theirs)]
    return [their_ms / our_ms for their_ms, our_ms in found if our_ms is not None]


def geometric_mean(values: Sequence[float]) -> float | None:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def paired_points(ours: Bools, theirs: Bools) -> dict[str, float]:
    """Difference of two shares of right answers on the same rows, in percentage points.

    With the 95 % interval of paired proportions (normal approximation; Agresti, Categorical Data
    Analysis, section 10.1): rows that both answer alike say nothing.
    """
    difference = ours.astype(np.float64) - theirs.astype(np.float64)
    spread = float(difference.std() / math.sqrt(len(difference)))
    half = NormalDist().inv_cdf(0.975) * spread
    mean = float(difference.mean())
    return {"points": 100 * mean, "lower": 100 * (mean - half), "upper": 100 * (mean + half)}
