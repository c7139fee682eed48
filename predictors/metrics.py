"""How well predicted latencies agree with measured ones."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import scipy

Floats = npt.NDArray[np.float64]

STANDARD_ERRORS = 2.0
MIN_RANKED = 3  # ranks of two say nothing


def spearman(first: Floats, second: Floats) -> float | None:
    """Rank correlation; None for fewer than three values or when one side is constant."""
    if len(first) < MIN_RANKED or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(scipy.stats.rankdata(first), scipy.stats.rankdata(second))[0, 1])


def spearman_within(
    groups: Sequence[Hashable], predicted: Floats, measured: Floats
) -> float | None:
    """Mean rank correlation inside of groups, each counted by its size; None where no group has
    three members. Groups of equal depth: depth alone ranks nearly everything."""
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    total, count = 0.0, 0
    for places in members.values():
        rank = spearman(predicted[places], measured[places])
        if rank is not None:
            total += rank * len(places)
            count += len(places)
    return total / count if count else None


def clearly_less(errors: Floats, others: Floats, weights: Floats, min_gain: float) -> bool:
    """Whether errors of the same rows are less by a share, and by two standard errors of the
    difference: on noisy rows chance alone would often choose the more flexible of two models."""
    gains = others - errors
    gain = float(np.average(gains, weights=weights))
    variance = float(np.average((gains - gain) ** 2, weights=weights))
    standard_error = np.sqrt(variance / max(int((weights > 0).sum()), 1))
    least = min_gain * float(np.average(others, weights=weights))
    return gain > max(least, STANDARD_ERRORS * float(standard_error))
