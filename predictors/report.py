"""How good a predictor is on networks that it has not seen, and how good a trivial one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from predictors.predictor import LatencyPredictor, LatencyRow, fit_costs
from predictors.workload import Workload
from search.objectives import flops
from search.space import ModelShape

Floats = npt.NDArray[np.float64]

MIN_RANKED = 3  # ranks of two say nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class FitReport:
    """Errors are shares (0.05 = 5 %), of held-out networks that the fit has not seen.

    The Spearman figures also rank the fitted networks, each predicted without itself.
    `spearman_equal_depth` ranks only networks of equal depth and precision, since depth alone
    ranks nearly everything; None when no three networks are so alike. `noise_floor` is the error
    of the measurements themselves, below which no predictor gets.
    """

    num_measurements: int
    num_holdout: int
    num_outliers: int
    mape: float
    cross_validated_mape: float
    within_5: float
    within_10: float
    spearman: float | None
    spearman_equal_depth: float | None
    depth_only_mape: float
    flops_only_mape: float
    coverage: float
    interval_half_width: float
    noise_floor: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit_and_report(
    training: Sequence[LatencyRow],
    holdout: Sequence[LatencyRow],
    *,
    shape: ModelShape,
    workload: Workload,
    noise_floor: float,
) -> tuple[LatencyPredictor, FitReport]:
    """Judges a predictor of `training` on `holdout`, then hands out one of both together."""
    judged = LatencyPredictor.fit(training, shape=shape, workload=workload)
    report = report_fit(judged, holdout, noise_floor=noise_floor)
    return LatencyPredictor.fit([*training, *holdout], shape=shape, workload=workload), report


def report_fit(
    predictor: LatencyPredictor, holdout: Sequence[LatencyRow], *, noise_floor: float
) -> FitReport:
    """Raises: ValueError when nothing is held out."""
    if not holdout:
        raise ValueError("no held-out networks to judge by")
    estimate = predictor.predict([row.subnet for row in holdout])
    measured = predictor.measured_ms(holdout)
    errors = np.abs(estimate.mean_ms / measured - 1)
    fitted = predictor.measured_ms(predictor.rows)
    fitted_errors = np.abs(predictor.cross_validated_ms() / fitted - 1)
    rows = [*predictor.rows, *holdout]
    predicted_all = np.concatenate([predictor.cross_validated_ms(), estimate.mean_ms])
    measured_all = np.concatenate([fitted, measured])
    inside = (measured >= estimate.lower_ms) & (measured <= estimate.upper_ms)
    half_widths = (estimate.upper_ms - estimate.lower_ms) / 2 / estimate.mean_ms
    return FitReport(
        num_measurements=len(predictor.rows),
        num_holdout=len(holdout),
        num_outliers=predictor.num_outliers,
        mape=float(errors.mean()),
        cross_validated_mape=float(fitted_errors.mean()),
        within_5=float((errors <= 0.05).mean()),
        within_10=float((errors <= 0.10).mean()),
        spearman=spearman(predicted_all, measured_all),
        spearman_equal_depth=_spearman_equal_depth(rows, predicted_all, measured_all),
        depth_only_mape=_baseline_mape(predictor, holdout, _depth),
        flops_only_mape=_baseline_mape(predictor, holdout, _flops),
        coverage=float(inside.mean()),
        interval_half_width=float(np.median(half_widths)),
        noise_floor=noise_floor,
    )


def spearman(first: Floats, second: Floats) -> float | None:
    """Rank correlation; None for fewer than three values or when one side is constant."""
    if len(first) < MIN_RANKED or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _spearman_equal_depth(
    rows: Sequence[LatencyRow], predicted: Floats, measured: Floats
) -> float | None:
    """Mean over groups of equal depth and precision, each counted by its size."""
    kinds = [(row.subnet.num_layers, row.subnet.precision) for row in rows]
    total, weight = 0.0, 0
    for kind in sorted(set(kinds)):
        where = np.array([k == kind for k in kinds])
        rank = spearman(predicted[where], measured[where])
        if rank is not None:
            total += rank * int(where.sum())
            weight += int(where.sum())
    return total / weight if weight else None


def _depth(_shape: ModelShape, _workload: Workload, row: LatencyRow) -> float:
    return float(row.subnet.num_layers)


def _flops(shape: ModelShape, workload: Workload, row: LatencyRow) -> float:
    batch_size, seq_len = workload.batch_size, workload.seq_len
    return float(flops(shape, row.subnet, seq_len=seq_len, batch_size=batch_size))


def _baseline_mape(
    predictor: LatencyPredictor,
    holdout: Sequence[LatencyRow],
    cost: Callable[[ModelShape, Workload, LatencyRow], float],
) -> float:
    """A line through one figure, for each precision by itself and fitted in the same way."""
    errors: list[float] = []
    for precision in sorted({row.subnet.precision for row in holdout}):
        fitted = [row for row in predictor.rows if row.subnet.precision == precision]
        unseen = [row for row in holdout if row.subnet.precision == precision]
        terms, unseen_terms = (
            np.array([[1.0, cost(predictor.shape, predictor.workload, row)] for row in rows])
            for rows in (fitted, unseen)
        )
        costs = fit_costs(terms, predictor.measured_ms(fitted), np.ones(len(fitted)))
        errors += list(np.abs(unseen_terms @ costs / predictor.measured_ms(unseen) - 1))
    return float(np.mean(errors))
