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
Floats = npt.NDArray[np.float64]
RESAMPLES = 2000


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
    found = paired_difference(ours.astype(np.float64), theirs.astype(np.float64))
    return {
        "points": 100 * found["difference"],
        "lower": 100 * found["lower"],
        "upper": 100 * found["upper"],
    }


def paired_difference(
    ours: Floats, theirs: Floats, counts: Floats | None = None
) -> dict[str, float]:
    """Difference of two qualities, each `sum(scores) / sum(counts)` of the same rows.

    With its 95 % interval: of a ratio estimate whose rows are drawn (Cochran, Sampling Techniques,
    section 2.11). Answers of one row may depend on each other.

    Args:
        ours, theirs: scores, (rows,), each the sum over a row's answers.
        counts: answers of each row, (rows,); one each unless given.
    """
    gaps = ours - theirs
    counts = np.ones_like(gaps) if counts is None else counts
    difference = float(gaps.sum() / counts.sum())
    spread = float(np.sqrt(np.square(gaps - difference * counts).sum()) / counts.sum())
    half = NormalDist().inv_cdf(0.975) * spread
    return {"difference": difference, "lower": difference - half, "upper": difference + half}


def share_between(low: Floats, high: Floats, reached: Floats) -> dict[str, float]:
    """How much of the way from one quality to a higher one a third has gone, on the same rows.

    With its 95 % interval, rows drawn anew (percentiles of a bootstrap; Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, section 13.3): the gap is as uncertain as what was won.
    """
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(low), len(low))
        shares.append(_share(low[rows], high[rows], reached[rows]))
    lower, upper = np.nanpercentile(shares, (2.5, 97.5))
    return {"share": _share(low, high, reached), "lower": float(lower), "upper": float(upper)}


def _share(low: Floats, high: Floats, reached: Floats) -> float:
    gap = float((high - low).sum())
    return float((reached - low).sum()) / gap if gap else math.nan
