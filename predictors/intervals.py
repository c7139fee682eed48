"""How sure a median or a percentile of few times is: 90 % intervals, the same at every call."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

COVERAGE = 0.90
NUM_RESAMPLES = 400

# Student's t at 95 %, for 1 to 3 degrees of freedom: of so few values no order statistics reach
# the coverage.
T_95 = (6.314, 2.920, 2.353)

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


def median_interval(values: npt.ArrayLike) -> Interval | None:
    """Of the median of independent `values` (n,); None where n < 2.

    From 5 values on: the order statistics that enclose the median with the coverage whatever the
    distribution (David and Nagaraja, Order Statistics, 3rd ed., section 7.1). Below: Student's t
    on the logarithms.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n < 2:
        return None
    if n < 5:
        logs = np.log(ordered)
        half = T_95[n - 2] * float(logs.std(ddof=1)) / math.sqrt(n)
        centre = float(np.median(logs))
        return math.exp(centre - half), math.exp(centre + half)
    outside = (1 - COVERAGE) / 2
    rank, below = 0, 2.0**-n  # P(fewer than rank + 1 values lie below the median)
    while below <= outside:
        rank += 1
        below += math.comb(n, rank) * 2.0**-n
    return float(ordered[rank - 1]), float(ordered[n - rank])


def quantile_interval(rounds: Sequence[npt.ArrayLike], share: float) -> Interval | None:
    """Of the `share` quantile of all values in `rounds`; None of a single value.

    Bootstrap in two stages, rounds and then runs within them (Davison and Hinkley, Bootstrap
    Methods, section 3.8): runs of one round saw the same state of the machine, so that they are
    worth less than independent ones.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in rounds]
    if sum(len(values) for values in arrays) < 2:
        return None
    rng = np.random.default_rng(0)
    counts = np.array([len(values) for values in arrays])
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    pool = np.concatenate(arrays)
    picked = rng.integers(0, len(arrays), (NUM_RESAMPLES, len(arrays)))
    runs = rng.random((NUM_RESAMPLES, len(arrays), int(counts.max())))
    places = starts[picked, None] + np.floor(runs * counts[picked, None]).astype(np.int64)
    found = np.quantile(pool[places].reshape(NUM_RESAMPLES, -1), share, axis=1)
    low, high = np.quantile(found, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
