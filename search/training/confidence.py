"""How far a quality may be from the truth, when several networks were looked at. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    lower: float
    upper: float

    def to_dict(self) -> dict[str, float]:
        return {"lower": self.lower, "upper": self.upper}


def interval(
    scores: Floats, counts: Floats, *, num_compared: int = 1, confidence: float = 0.95
) -> Interval:
    """Of the quality `sum(scores) / sum(counts)` of a split's rows.

    With `num_compared` networks the intervals of all of them hold at once with at least this
    confidence (Bonferroni), also that of the one that was chosen for being the best.

    Args:
        scores: (rows,), each the sum over its answers.
        counts: (rows,), answers of each row.
    """
    each = simultaneous(confidence, num_compared)
    is_share = bool(np.all(counts == 1) and np.all((scores == 0) | (scores == 1)))
    if is_share:
        return wilson(int(scores.sum()), len(scores), each)
    return bootstrap(scores, counts, each)


def simultaneous(confidence: float, num_compared: int) -> float:
    """The confidence that each of several intervals needs, for all of them to hold at once."""
    if num_compared < 1:
        raise ValueError(f"at least one network is compared, got {num_compared}")
    return 1 - (1 - confidence) / num_compared


def wilson(num_right: int, num_rows: int, confidence: float) -> Interval:
    """Of a share of right answers (Wilson, 1927; Brown, Cai and DasGupta, 2001, section 3.1.1)."""
    z = _deviations(confidence)
    share, spread = num_right / num_rows, z**2 / num_rows
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / num_rows + spread / (4 * num_rows))
    # At the ends the sum is 0 or 1 but for rounding, and the share itself must lie inside.
    lower = 0.0 if num_right == 0 else float(centre - half)
    upper = 1.0 if num_right == num_rows else float(centre + half)
    return Interval(max(0.0, lower), min(1.0, upper))


def bootstrap(scores: Floats, counts: Floats, confidence: float, *, seed: int = 0) -> Interval:
    """Of a mean over the answers of rows, whose answers depend on each other.

    Whole rows are drawn anew (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    section 8.3), and the interval is the normal one with the deviation found (section 12.2): the
    far percentiles that many comparisons ask for would need hundreds of thousands of draws.
    """
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for draw in range(RESAMPLES):
        rows = rng.integers(0, len(scores), len(scores))
        means[draw] = scores[rows].sum() / max(1.0, counts[rows].sum())
    value = float(scores.sum() / max(1.0, counts.sum()))
    half = _deviations(confidence) * float(means.std(ddof=1))
    return Interval(value - half, value + half)


def _deviations(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)
