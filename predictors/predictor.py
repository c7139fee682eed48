"""Latency of any subnet from a few measured ones, with an interval that holds.

Per precision, a non-negative linear model of physical terms, fitted to relative errors: it is
monotone in every width, says what a latency consists of, and with twenty measurements was as exact
as or better than trees, networks and Gaussian processes on nine public device sets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from predictors.features import TERM_NAMES, TERM_PARTS, Terms, latency_terms
from predictors.measurement import Measurement, robust_deviation
from predictors.spec import MeasuringResult
from predictors.workload import Workload
from search.space import ModelShape, SubnetConfig

Floats = npt.NDArray[np.float64]
Statistic = Literal["p50", "p95"]

PAYLOAD_VERSION = 1  # raise it when terms change: an older payload is refused, not misread
COVERAGE = 0.9
RIDGE = 1e-4
OUTLIER_DEVIATIONS = 3.0
MIN_OUTLIER = 0.03  # residuals below this are never outliers, however exact the others are
MAX_OUTLIER_SHARE = 0.2
RANGE_TOLERANCE = 0.02
MIN_ROWS = 4  # of one precision


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyRow:
    """One measured network. `reference_ms` is its session's reference, which relates sessions."""

    subnet: SubnetConfig
    median_ms: float
    p95_ms: float
    reference_ms: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("median_ms", "p95_ms", "reference_ms", "weight"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be finite and above 0, got {value}")

    @classmethod
    def of(cls, measurement: Measurement, reference: Measurement) -> Self:
        """Raises: ValueError when the measured network is not known as a subnet."""
        if measurement.subnet is None:
            raise ValueError(f"{measurement.key!r} was measured without its subnet")
        return cls(
            subnet=measurement.subnet,
            median_ms=measurement.median_ms,
            p95_ms=measurement.p95_ms,
            reference_ms=reference.median_ms,
        )

    def to_dict(self) -> dict[str, Any]:
        numbers = {k: getattr(self, k) for k in self.__slots__ if k != "subnet"}
        return {"subnet": self.subnet.to_dict(), **numbers}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "subnet": SubnetConfig.from_dict(data["subnet"])})


def rows_of(result: MeasuringResult, prefix: str = "") -> list[LatencyRow]:
    """Rows of the networks whose key starts with `prefix` ("n" to fit on, "h" held out)."""
    return [
        LatencyRow.of(m, result.reference)
        for m in result.measurements
        if m.key.startswith(prefix) and m.subnet is not None
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyEstimate:
    """Arrays parallel to the predicted subnets.

    A new network's latency lies within [lower_ms, upper_ms] nine times in ten. Where
    `extrapolates` is true a term lies beyond all that was measured: then measure, do not trust.
    """

    mean_ms: Floats
    lower_ms: Floats
    upper_ms: Floats
    extrapolates: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.mean_ms)


@dataclass(frozen=True, slots=True)
class _Model:
    """Cost of each term, fitted on the rows of one precision; without a row's own, for folds."""

    cost_ms: Floats
    fold_cost_ms: Floats  # (rows, terms)
    fold_residuals: Floats  # |log residual| of each row under the fold that left it out
    outliers: npt.NDArray[np.bool_]
    lowest: Floats
    highest: Floats
    tail_ratios: Floats


class LatencyPredictor:
    """Immutable; see `fit`. The latencies are those of the first row's session."""

    def __init__(self, shape: ModelShape, workload: Workload, rows: Sequence[LatencyRow]) -> None:
        self.shape = shape
        self.workload = workload
        self.rows = tuple(rows)
        self._models = {
            precision: self._fit([row for row in rows if row.subnet.precision == precision])
            for precision in sorted({row.subnet.precision for row in rows})
        }

    @classmethod
    def fit(cls, rows: Sequence[LatencyRow], *, shape: ModelShape, workload: Workload) -> Self:
        """Raises: ValueError when a precision has fewer than MIN_ROWS rows."""
        if not rows:
            raise ValueError("nothing was measured")
        return cls(shape, workload, rows)

    def with_measurements(self, rows: Sequence[LatencyRow], *, weight: float = 4.0) -> Self:
        """Refitted with more rows, which count `weight` times: they lie where it matters."""
        more = [replace(row, weight=row.weight * weight) for row in rows]
        return type(self)(self.shape, self.workload, [*self.rows, *more])

    @property
    def reference_ms(self) -> float:
        """Latency of the unsearched model, in the session that predictions refer to."""
        return self.rows[0].reference_ms

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self._models)

    @property
    def num_outliers(self) -> int:
        """Rows that were too far off to be fitted; the intervals still count them."""
        return int(sum(model.outliers.sum() for model in self._models.values()))

    def predict(
        self, subnets: Sequence[SubnetConfig], statistic: Statistic = "p50"
    ) -> LatencyEstimate:
        """Raises: ValueError when a precision was never measured."""
        size = len(subnets)
        estimate = LatencyEstimate(
            mean_ms=np.empty(size),
            lower_ms=np.empty(size),
            upper_ms=np.empty(size),
            extrapolates=np.empty(size, dtype=np.bool_),
        )
        for precision in {subnet.precision for subnet in subnets}:
            where = np.array([s.precision == precision for s in subnets])
            terms = self._terms([s for s in subnets if s.precision == precision])
            part = self._predict(precision, terms, statistic)
            for name in ("mean_ms", "lower_ms", "upper_ms", "extrapolates"):
                getattr(estimate, name)[where] = getattr(part, name)
        return estimate

    def cross_validated_ms(self) -> Floats:
        """Prediction of each row by the model that was fitted without it."""
        predictions = np.empty(len(self.rows))
        for precision, model in self._models.items():
            where = np.array([row.subnet.precision == precision for row in self.rows])
            terms = self._terms([r.subnet for r in self.rows if r.subnet.precision == precision])
            predictions[where] = np.einsum("rt,rt->r", terms, model.fold_cost_ms)
        return predictions

    def measured_ms(self, rows: Sequence[LatencyRow]) -> Floats:
        """Medians as they would be in the session that predictions refer to."""
        return np.array([row.median_ms * self.reference_ms / row.reference_ms for row in rows])

    def explain(self, subnet: SubnetConfig) -> dict[str, float]:
        """Share of the predicted latency by part; the shares sum to 1."""
        costs = self._terms([subnet])[0] * self._model(subnet.precision).cost_ms
        shares = dict.fromkeys(TERM_PARTS.values(), 0.0)
        for name, cost in zip(TERM_NAMES, costs, strict=True):
            shares[TERM_PARTS[name]] += float(cost / costs.sum())
        return shares

    def to_json(self) -> dict[str, Any]:
        """The measured rows: the fit is deterministic, so that there is only one truth."""
        return {
            "version": PAYLOAD_VERSION,
            "shape": self.shape.to_dict(),
            "workload": self.workload.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises: ValueError when the payload is of another version."""
        if data["version"] != PAYLOAD_VERSION:
            raise ValueError(f"predictor payload has version {data['version']}")
        return cls(
            ModelShape.from_dict(data["shape"]),
            Workload.from_dict(data["workload"]),
            [LatencyRow.from_dict(row) for row in data["rows"]],
        )

    def _terms(self, subnets: Sequence[SubnetConfig]) -> Terms:
        return latency_terms(self.shape, self.workload, subnets)

    def _model(self, precision: str) -> _Model:
        if precision not in self._models:
            raise ValueError(f"no network was measured in {precision}")
        return self._models[precision]

    def _fit(self, rows: Sequence[LatencyRow]) -> _Model:
        if len(rows) < MIN_ROWS:
            precision = rows[0].subnet.precision
            raise ValueError(f"{precision}: {len(rows)} measurements, at least {MIN_ROWS} needed")
        terms = self._terms([row.subnet for row in rows])
        measured_ms = self.measured_ms(rows)
        weights = np.array([row.weight for row in rows])
        # A row that was measured on purpose, where the fit was wrong, is evidence, not an outlier.
        trusted = weights > 1
        outliers = find_outliers(terms, measured_ms, weights, trusted)
        kept = np.where(outliers, 0.0, weights)
        folds = np.array(
            [
                fit_costs(terms, measured_ms, np.where(np.arange(len(rows)) == i, 0.0, kept))
                for i in range(len(rows))
            ]
        )
        fold_ms = np.einsum("rt,rt->r", terms, folds)
        return _Model(
            cost_ms=fit_costs(terms, measured_ms, kept),
            fold_cost_ms=folds,
            fold_residuals=np.abs(np.log(measured_ms / fold_ms)),
            outliers=outliers,
            lowest=terms.min(axis=0),
            highest=terms.max(axis=0),
            tail_ratios=np.array([row.p95_ms / row.median_ms for row in rows]),
        )

    def _predict(self, precision: str, terms: Terms, statistic: Statistic) -> LatencyEstimate:
        model = self._model(precision)
        mean = terms @ model.cost_ms
        lower, upper = conformal_interval(terms, model.fold_cost_ms, model.fold_residuals)
        below = terms < model.lowest * (1 - RANGE_TOLERANCE)
        above = terms > model.highest * (1 + RANGE_TOLERANCE)
        low, middle, high = 1.0, 1.0, 1.0
        if statistic == "p95":
            low, middle, high = np.quantile(model.tail_ratios, [1 - COVERAGE, 0.5, COVERAGE])
        return LatencyEstimate(
            mean_ms=mean * middle,
            lower_ms=np.minimum(lower, mean) * low,
            upper_ms=np.maximum(upper, mean) * high,
            extrapolates=np.asarray((below | above).any(axis=1)),
        )


def predictor_key(shape: ModelShape, workload: Workload) -> str:
    """Under which a predictor may be found again: it holds for one shape and one workload."""
    text = json.dumps(shape.to_dict(), sort_keys=True)
    return f"{workload.key}/{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def fit_costs(terms: Terms, measured_ms: Floats, weights: Floats) -> Floats:
    """Non-negative cost of each term, least squares of relative errors, with a small ridge.

    Columns are scaled after weighting: otherwise the ridge would swamp the small latencies.
    """
    root = np.sqrt(weights) / measured_ms
    design = terms * root[:, None]
    scale = np.linalg.norm(design, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    num_terms = terms.shape[1]
    stacked = np.vstack([design / scale, np.sqrt(RIDGE) * np.eye(num_terms)])
    target = np.concatenate([measured_ms * root, np.zeros(num_terms)])
    costs, _ = nnls(stacked, target)
    return np.asarray(costs / scale, dtype=np.float64)


def find_outliers(
    terms: Terms, measured_ms: Floats, weights: Floats, trusted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Rows far off the others' fit, found again after each refit; at most a fifth of the rows."""
    outliers = np.zeros(len(measured_ms), dtype=np.bool_)
    for _ in range(3):
        costs = fit_costs(terms, measured_ms, np.where(outliers, 0.0, weights))
        residuals = np.log(measured_ms / (terms @ costs))
        limit = max(MIN_OUTLIER, OUTLIER_DEVIATIONS * robust_deviation(residuals[~outliers]))
        distance = np.abs(residuals - np.median(residuals[~outliers]))
        distance[trusted] = 0.0
        found = distance > limit
        allowed = int(MAX_OUTLIER_SHARE * len(measured_ms))
        if found.sum() > allowed:
            found = distance > np.sort(distance)[len(distance) - allowed - 1]
        if (found == outliers).all():
            break
        outliers = found
    return outliers


def conformal_interval(
    terms: Terms, fold_costs: Floats, fold_residuals: Floats, coverage: float = COVERAGE
) -> tuple[Floats, Floats]:
    """CV+ (Barber et al. 2021) on log residuals: bounds of each row of `terms`.

    Each fold votes with its own prediction, widened by the residual of the row it left out.
    """
    logs = np.log(terms @ fold_costs.T)  # (networks, folds)
    num_folds = len(fold_residuals)
    # With n folds the k-th smallest vote holds k / (n + 1); for few folds that is the extreme.
    rank = min(num_folds, int(np.ceil(coverage * (num_folds + 1))))
    upper = np.sort(logs + fold_residuals, axis=1)[:, rank - 1]
    lower = np.sort(logs - fold_residuals, axis=1)[:, num_folds - rank]
    return np.exp(lower), np.exp(upper)
