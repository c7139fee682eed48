"""How good a predictor is on networks that it has not seen, and how good a trivial one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from predictors.costmodel import CostModel
from predictors.key import PredictorKey
from predictors.metrics import spearman, spearman_within
from predictors.predictor import LatencyPredictor
from predictors.rows import LatencyRow
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.costs import flops
from search.shape import ModelShape

Floats = npt.NDArray[np.float64]


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
    kinds: Mapping[str, str]  # of model, by precision
    by_precision: Mapping[str, Mapping[str, Any]]  # the same of each one's held-out networks

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit_and_report(
    training: Sequence[LatencyRow],
    holdout: Sequence[LatencyRow],
    *,
    keys: Mapping[str, PredictorKey],
    shape: ModelShape,
    workload: Workload,
    macs_per_byte: Mapping[str, float],
    noise_floor: float,
    sources: Mapping[str, Sequence[LatencyPredictor]] | None = None,
) -> tuple[WorkloadPredictor, FitReport]:
    """Judges a predictor of `training` on `holdout`, then hands out one of both together.

    Raises:
        InvalidInput: a precision of `keys` has too few rows.
    """

    def fit(rows: Sequence[LatencyRow]) -> WorkloadPredictor:
        return WorkloadPredictor.fit(
            rows,
            keys=keys,
            shape=shape,
            workload=workload,
            macs_per_byte=macs_per_byte,
            sources=sources,
        )

    judged = fit(training)
    report = report_fit(judged, holdout, noise_floor=noise_floor)
    parts = {
        precision: report_fit(
            WorkloadPredictor(workload, [part]),
            [row for row in holdout if row.subnet.precision == precision],
            noise_floor=noise_floor,
        ).to_dict()
        for precision, part in judged.predictors.items()
        if any(row.subnet.precision == precision for row in holdout)
    }
    report = replace(report, by_precision=parts)
    return fit([*training, *holdout]), report


def report_fit(
    predictor: WorkloadPredictor, holdout: Sequence[LatencyRow], *, noise_floor: float
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
    return FitReport(
        num_measurements=len(predictor.rows),
        num_holdout=len(holdout),
        num_outliers=predictor.num_outliers,
        mape=float(errors.mean()),
        cross_validated_mape=float(fitted_errors.mean()),
        within_5=float((errors <= 0.05).mean()),
        within_10=float((errors <= 0.10).mean()),
        spearman=spearman(predicted_all, measured_all),
        spearman_equal_depth=spearman_within(
            [
                (row.subnet.num_layers, row.subnet.precision, row.seq_len, row.batch_size)
                for row in rows
            ],
            predicted_all,
            measured_all,
        ),
        depth_only_mape=_baseline_mape(predictor, holdout, _depth),
        flops_only_mape=_baseline_mape(predictor, holdout, _flops),
        coverage=float(inside.mean()),
        interval_half_width=float(np.median(estimate.half_widths)),
        noise_floor=noise_floor,
        kinds={name: p.kind for name, p in predictor.predictors.items()},
        by_precision={},
    )


def _depth(_shape: ModelShape, _workload: Workload, row: LatencyRow) -> float:
    return float(row.subnet.num_layers)


def _flops(shape: ModelShape, _workload: Workload, row: LatencyRow) -> float:
    return float(flops(shape, row.subnet, seq_len=row.seq_len, batch_size=row.batch_size))


def _baseline_mape(
    predictor: WorkloadPredictor,
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
        line = CostModel.fit(terms, predictor.measured_ms(fitted), residual="none")
        errors += list(
            np.abs(line.predict(unseen_terms).mean_ms / predictor.measured_ms(unseen) - 1)
        )
    return float(np.mean(errors))
