"""Which candidates are worth more rows: those that nothing as cheap has clearly beaten so far.

Candidates are looked at on a few rows of the search split, then on twice as many, and so on
(successive halving: Jamieson and Talwalkar, arXiv 1502.07943). All see the same rows in the same
order, so that two of them are compared row by row: what makes a row hard is shared and cancels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from search.objectives import Floats

MIN_DIFFERING_ROWS = 4


def rungs(num_rows: int, *, first: int, factor: int = 2) -> tuple[int, ...]:
    """Rows seen after each round, the last being all `num_rows`: rungs(600, first=150) is
    (150, 300, 600)."""
    if first < 1 or factor < 2:
        raise ValueError(f"first must be at least 1 and factor at least 2: {first=}, {factor=}")
    counts = []
    count = num_rows
    while count >= first:
        counts.append(count)
        count //= factor
    return tuple(counts[::-1]) or (num_rows,)


def paired_difference(one: Floats, other: Floats) -> tuple[float, float]:
    """Mean of `one` minus `other` over the rows that both saw, and its standard error.

    The scores are (rows,), say 1 where the answer was right. Rows on which they agree tell
    nothing of who is better; with fewer than `MIN_DIFFERING_ROWS` others the error is infinite.
    """
    differences = one - other
    if np.count_nonzero(differences) < MIN_DIFFERING_ROWS:
        return float(differences.mean()), float("inf")
    error = float(differences.std(ddof=1)) / np.sqrt(len(differences))
    return float(differences.mean()), error


def survivors(
    scores: Floats, costs: Floats, *, confidence: float, rivals: Sequence[int] | None = None
) -> npt.NDArray[np.int64]:
    """Places of the candidates that may still belong on the front, ascending.

    One is dropped where another that costs no more in anything is better by `confidence` standard
    errors of their paired difference. The best of all is never dropped.

    Args:
        scores: (candidates, rows), higher is better; every candidate on the same rows.
        costs: (candidates, costs), known beforehand, lower is better.
        rivals: places of those that may drop others; None means all.
    """
    judges = range(len(scores)) if rivals is None else rivals
    kept = [
        place
        for place in range(len(scores))
        if not any(
            _is_beaten(scores[place], scores[judge], confidence)
            for judge in judges
            if judge != place and (costs[judge] <= costs[place]).all()
        )
    ]
    return np.array(kept, dtype=np.int64)


def _is_beaten(scores: Floats, by: Floats, confidence: float) -> bool:
    mean, error = paired_difference(by, scores)
    return mean > 0 and mean > confidence * error
