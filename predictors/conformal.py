"""Intervals that hold: CV+ of Barber et al. 2021 (section 3), on log residuals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

COVERAGE = 0.9
# Outliers, prior and residual are chosen on the rows that judge them. On other people's devices
# that cost up to a point of coverage.
CHOICE_COST = 0.005


def interval(
    fold_logs: Floats, residuals: Floats, coverage: float = COVERAGE
) -> tuple[Floats, Floats]:
    """Lower and upper bound of each new row, as logarithms.

    Each fitted row votes with what the model fitted without it predicts, widened by how far off
    that model was for the row itself.

    Args:
        fold_logs: (m, n) log prediction for m new rows by the model without each fitted row.
        residuals: (n,) absolute log residual of each fitted row under the model without it.
    """
    num_rows = len(residuals)
    # With n rows the k-th smallest vote holds k / (n + 1); for few rows that is the extreme.
    rank = min((coverage + CHOICE_COST) * (num_rows + 1), float(num_rows))
    upper = np.sort(fold_logs + residuals, axis=1)
    lower = -np.sort(residuals - fold_logs, axis=1)
    return _between(lower, rank), _between(upper, rank)


def _between(votes: Floats, rank: float) -> Floats:
    """The vote of this rank, from 1; between two neighbours where it is not whole."""
    below = max(int(rank), 1)
    above = min(below + 1, votes.shape[1])
    share = rank - below
    return np.asarray((1 - share) * votes[:, below - 1] + share * votes[:, above - 1])
