"""Other people's measurements, as what a cost model is fitted to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from predictors.costmodel import CostModel, Prediction, ResidualKind

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Terms of one family are in one unit: multiply-adds of a token, or about as much work.
CALL, LAYER, WORK = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One device's rows; latencies are the sums of their parts."""

    terms: Floats  # (n, t)
    families: Ints  # (t,)
    part_of_term: Ints  # (t,)
    parts_ms: Floats  # (n, p)
    details: Floats | None  # (n, f)
    depths: tuple[Hashable, ...]  # rows of equal depth compare equal
    depth_terms: Floats  # (n, d) for the baseline that knows only the depth
    macs: Floats  # (n,)

    def __len__(self) -> int:
        return len(self.parts_ms)

    @property
    def measured_ms(self) -> Floats:
        return np.asarray(self.parts_ms.sum(axis=1))

    def fit(
        self,
        rows: Ints,
        *,
        sources: Floats | None = None,
        parts_ms: Floats | None = None,
        residual: ResidualKind = "auto",
    ) -> CostModel:
        """Args:
        sources: (len(rows), s).
        parts_ms: (len(rows), p) in place of the measured ones.
        """
        parts_ms = self.parts_ms[rows] if parts_ms is None else parts_ms
        return CostModel.fit(
            self.terms[rows],
            parts_ms.sum(axis=1),
            details=None if self.details is None else self.details[rows],
            sources=sources,
            families=self.families,
            parts_ms=parts_ms,
            part_of_term=self.part_of_term,
            residual=residual,
        )

    def predict(self, model: CostModel, rows: Ints, sources: Floats | None = None) -> Prediction:
        details = None if self.details is None else self.details[rows]
        return model.predict(self.terms[rows], details, sources)


def split(num_rows: int, num_fitted: int, num_held_out: int, seed: int) -> tuple[Ints, Ints]:
    """Random rows to fit, and others to judge by."""
    order = np.random.default_rng(seed).permutation(num_rows)
    return order[num_held_out : num_held_out + num_fitted], order[:num_held_out]
