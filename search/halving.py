"""Which candidates are worth more rows: those that nothing as cheap has clearly beaten so far.

Candidates are looked at on a few rows of the search split, then on twice as many, and so on
(successive halving: Jamieson and Talwalkar, arXiv 1502.07943). All see the same rows in the same
order, so that two of them are compared row by row: what makes a row hard is shared and cancels.
A candidate is held against those of earlier generations only, not against its own: what becomes
of it does not depend on who evaluates the others, or when.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Rivals:
    """Networks judged before, on the same rows in the same order.

    Attributes:
        costs: (rivals, costs), known beforehand, lower is better.
        scores: (rivals, rows), higher is better, say 1 where the answer was right.
        qualities: (rivals,), the means over all rows, also those that `scores` leaves out.
    """

    costs: Floats
    scores: Floats
    qualities: Floats

    def quality_of_beaten(
        self, scores: Floats, costs: Floats, *, confidence: float
    ) -> float | None:
        """What a candidate's quality is taken for that one of these has clearly beaten so far.

        None where none has: none that costs no more in anything is better by more than
        `confidence` standard errors of the paired difference. Of several the surest one counts:
        its quality on all rows, less what the candidate lacks of it on those that both saw.

        Args:
            scores: (rows,), of the first rows; the rivals must have seen these.
            costs: (costs,)
        """
        are_cheaper = (self.costs <= costs).all(axis=1)
        if not are_cheaper.any():
            return None
        lacks, errors = paired_differences(self.scores[are_cheaper, : len(scores)], scores)
        sureness = lacks / errors
        surest = int(sureness.argmax())
        if not sureness[surest] > confidence:
            return None
        return float(self.qualities[are_cheaper][surest] - lacks[surest])


def paired_differences(these: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Mean of each of `these`, (networks, rows), minus `other`, (rows,), and its standard error.

    Rows on which two agree tell nothing of who is better; with fewer than `MIN_DIFFERING_ROWS`
    others the error is infinite.
    """
    differences = these - other
    errors = differences.std(axis=1, ddof=1) / np.sqrt(len(other))
    is_known = np.count_nonzero(differences, axis=1) >= MIN_DIFFERING_ROWS
    # Scores that differ by the same everywhere have no spread: then it is sure.
    errors = np.maximum(errors, np.finfo(np.float64).tiny)
    return differences.mean(axis=1), np.where(is_known, errors, np.inf)
