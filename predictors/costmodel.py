"""The model of latency: physical terms with non-negative prices, and what they leave over.

    log(latency) = log(sum of price * term) + residual(details)

The first part is monotone in every width, explains itself, and needs twenty measurements; on nine
public device sets it was as exact as or better than trees, networks and Gaussian processes fitted
to the latency itself. The residual is a Gaussian process or boosted trees, and only there where
leaving rows out shows that it helps: it holds what kernels like and dislike about widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from predictors.conformal import interval
from predictors.linear import Layout, find_outliers, fit_prices
from predictors.residual import Residual, choose_residual, residual_from_json
from predictors.transfer import Sources, choose_sources

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
ResidualKind = Literal["auto", "none", "gp", "trees"]

VERSION = 1
MAX_FOLDS = 60  # up to this many rows each is left out by itself
FOLDS = 20
TINY = 1e-12
RANGE_TOLERANCE = 0.02  # a term this little beyond all that was measured is still within


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Arrays parallel to the predicted rows; nine in ten latencies lie within the bounds."""

    mean_ms: Floats
    lower_ms: Floats
    upper_ms: Floats
    extrapolates: Bools


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Fitted and immutable; see `fit`. Rows of folds share the model fitted without them."""

    cost_ms: Floats  # (t,) price of each term
    fold_cost_ms: Floats  # (k, t), one for each fold
    fold_of_row: npt.NDArray[np.int64]  # (n,)
    residual: Residual
    sources: Sources | None
    cross_validated_ms: Floats  # (n,)
    fold_residuals: Floats  # (n,) |log error| of each row under the model without it
    outliers: Bools  # (n,)
    lowest: Floats  # (t,) range of the terms that were seen
    highest: Floats

    @classmethod
    def fit(
        cls,
        terms: Floats,
        measured_ms: Floats,
        *,
        details: Floats | None = None,
        weights: Floats | None = None,
        trusted: Bools | None = None,
        sources: Floats | None = None,
        families: Ints | None = None,
        parts_ms: Floats | None = None,
        part_of_term: Ints | None = None,
        residual: ResidualKind = "auto",
        seed: int = 0,
    ) -> Self:
        """Args:
            terms: (n, t) physical terms, none negative, in multiply-adds or their equivalent.
            measured_ms: (n,).
            details: (n, f) what the residual may depend on beside the terms.
            weights: (n,) how much each row counts; 1 where not given.
            trusted: (n,) rows that are never dropped as outliers.
            sources: (n, s) ms of the same networks by predictors of other devices.
            families: (t,) terms of equal number have one price per unit a priori; by default
                the constant terms are one family and all others another.
            parts_ms: (n, p) the measured latency in parts, which sum to `measured_ms`; then
                `part_of_term` (t,) says which part each term is of.
            residual: "auto" chooses by leaving rows out.

        Raises:
            ValueError: fewer than two rows, a latency that is not above 0, a negative term, or an
                array of another length.
        """
        _check(terms, measured_ms)
        num_rows = len(measured_ms)
        weights = np.ones(num_rows) if weights is None else weights
        trusted = np.zeros(num_rows, dtype=np.bool_) if trusted is None else trusted
        parts_ms = measured_ms[:, None] if parts_ms is None else parts_ms
        layout = Layout.of(terms, families, part_of_term)
        outliers = find_outliers(terms, parts_ms, weights, trusted, layout)
        kept = np.where(outliers, 0.0, weights)
        fold_of_row = _folds(num_rows, seed)
        cost_ms = fit_prices(terms, parts_ms, kept, layout)
        by_fold = [np.where(fold_of_row == f, 0.0, kept) for f in range(fold_of_row.max() + 1)]
        fold_cost_ms = np.array([fit_prices(terms, parts_ms, w, layout) for w in by_fold])
        base, fold_base = _log(terms @ cost_ms), _log(terms @ fold_cost_ms.T)
        own_fold = np.arange(num_rows), fold_of_row
        chosen_sources = choose_sources(
            sources, measured_ms, base, fold_base[own_fold], kept, fold_of_row
        )
        if chosen_sources is not None and sources is not None:
            base, fold_base = chosen_sources.predicted_logs(sources, base, fold_base)
        logs = np.log(measured_ms)
        chosen = choose_residual(
            residual,
            _inputs(terms, details),
            logs - base,
            logs[:, None] - fold_base,
            kept,
            fold_of_row,
            seed=seed,
        )
        fold_logs = fold_base[own_fold] + chosen.fitted_folds()
        return cls(
            cost_ms=cost_ms,
            fold_cost_ms=fold_cost_ms,
            fold_of_row=fold_of_row,
            residual=chosen,
            sources=chosen_sources,
            cross_validated_ms=np.exp(fold_logs),
            fold_residuals=np.abs(logs - fold_logs),
            outliers=outliers,
            lowest=terms.min(axis=0),
            highest=terms.max(axis=0),
        )

    @property
    def kind(self) -> str:
        """ "nnls", with "+gp" or "+trees" where a residual helps, and the help of sources."""
        parts = ["nnls", self.residual.kind, self.sources.kind if self.sources else "none"]
        return "+".join(part for part in parts if part != "none")

    @property
    def uses_sources(self) -> bool:
        return self.sources is not None

    def predict(
        self, terms: Floats, details: Floats | None = None, sources: Floats | None = None
    ) -> Prediction:
        """Args: as those of `fit`, for m rows."""
        base = _log(terms @ self.cost_ms)
        fold_base = _log(terms @ self.fold_cost_ms.T)  # (m, folds)
        if self.sources is not None:
            if sources is None:
                raise ValueError("this model needs the predictions of its sources")
            base, fold_base = self.sources.predicted_logs(sources, base, fold_base)
        inputs = _inputs(terms, details)
        mean = base + self.residual.predict(inputs)
        by_row = (fold_base + self.residual.predict_folds(inputs))[:, self.fold_of_row]
        lower, upper = interval(by_row, self.fold_residuals)
        outside = (terms < self.lowest * (1 - RANGE_TOLERANCE)) | (
            terms > self.highest * (1 + RANGE_TOLERANCE)
        )
        return Prediction(
            mean_ms=np.exp(mean),
            lower_ms=np.exp(np.minimum(lower, mean)),
            upper_ms=np.exp(np.maximum(upper, mean)),
            extrapolates=np.asarray(outside.any(axis=1)),
        )

    def cost_by_term_ms(self, terms: Floats) -> Floats:
        """(m, t) of the linear part: what each term adds."""
        return np.asarray(terms * self.cost_ms)

    def to_json(self) -> dict[str, Any]:
        arrays = (
            *("cost_ms", "fold_cost_ms", "fold_of_row", "cross_validated_ms"),
            *("fold_residuals", "outliers", "lowest", "highest"),
        )
        return {
            "version": VERSION,
            **{name: getattr(self, name).tolist() for name in arrays},
            "residual": self.residual.to_json(),
            "sources": self.sources.to_json() if self.sources else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises: ValueError when the payload is of another version."""
        if data.get("version") != VERSION:
            raise ValueError(f"cost model has version {data.get('version')}")
        floats = ("cost_ms", "fold_cost_ms", "cross_validated_ms", "fold_residuals")
        return cls(
            **{
                name: np.array(data[name], dtype=np.float64)
                for name in (*floats, "lowest", "highest")
            },
            fold_of_row=np.array(data["fold_of_row"], dtype=np.int64),
            outliers=np.array(data["outliers"], dtype=np.bool_),
            residual=residual_from_json(data["residual"]),
            sources=Sources.from_json(data["sources"]) if data["sources"] else None,
        )


def _check(terms: Floats, measured_ms: Floats) -> None:
    if terms.ndim != 2 or len(terms) != len(measured_ms) or len(measured_ms) < 2:
        raise ValueError(f"terms {terms.shape} do not fit latencies {measured_ms.shape}")
    if not (np.isfinite(measured_ms).all() and (measured_ms > 0).all()):
        raise ValueError("every latency must be finite and above 0")
    if not (np.isfinite(terms).all() and (terms >= 0).all()):
        raise ValueError("every term must be finite and not negative")


def _folds(num_rows: int, seed: int) -> npt.NDArray[np.int64]:
    """Each row by itself, or random parts of equal size where there are many."""
    if num_rows <= MAX_FOLDS:
        return np.arange(num_rows, dtype=np.int64)
    parts = np.arange(num_rows, dtype=np.int64) % FOLDS
    return np.random.default_rng(seed).permutation(parts)


def _inputs(terms: Floats, details: Floats | None) -> Floats:
    logs = np.log1p(terms)
    return logs if details is None else np.hstack([logs, details])


def _log(values: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(values, TINY)))
