"""How far networks part from each other between two sessions, after the anchors related them.

An interval from the rows of one session knows how wrong the model is within it. Asked on another
day the device is slower or faster, by what the anchors say, but not by the same factor for every
network: memory is shared otherwise, turbo holds for small networks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from predictors.conformal import Floats
from predictors.rows import LatencyRow

# Without it, intervals hold .80 of the networks of a later session, with it .90 (mean over 32
# pairs of sessions; python -m benchmarks.latency_sessions).
PRIOR_SPREAD = 0.01
PRIOR_WEIGHT = 4.0  # degrees of freedom: about two sessions outvote it
Z = 1.645  # of a normal distribution's central 90 %


def session_spread(rows: Sequence[LatencyRow]) -> float:
    """Standard deviation, in logs, of one network's drift about the drift of all.

    From how the anchors of each session disagree about it, relative to the first session at their
    size of input; shrunk towards `PRIOR_SPREAD`, which is all there is for a single session.
    """
    squares, freedom = PRIOR_WEIGHT * PRIOR_SPREAD**2, PRIOR_WEIGHT
    for first, later in _pairs(rows):
        shared = min(len(first), len(later))
        drifts = np.log(np.array(later[:shared]) / np.array(first[:shared]))
        squares += float(((drifts - drifts.mean()) ** 2).sum())
        freedom += shared - 1
    return float(np.sqrt(squares / freedom))


def log_half_width(mean_ms: Floats, bound_ms: Floats, spread: float, num_anchors: int) -> Floats:
    """How far a bound is from the mean, in logs, once the sessions' error is added to its own.

    The drift of a network deviates by `spread`, the mean of the anchors that it is related by, by
    that over the root of their number.
    """
    own = np.log(bound_ms / mean_ms)
    between = Z * spread * np.sqrt(1 + 1 / num_anchors)
    return np.asarray(np.hypot(own, between))


def _pairs(rows: Iterable[LatencyRow]) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Anchors of the first session at each size of input, with those of each later one."""
    by_size: dict[tuple[int, int], dict[tuple[float, ...], None]] = {}
    for row in rows:
        by_size.setdefault((row.batch_size, row.seq_len), {})[row.anchors_ms] = None
    sessions = [list(found) for found in by_size.values()]
    return [(first, later) for first, *others in sessions for later in others]
