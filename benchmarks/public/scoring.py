"""How good a cost model of N rows is on 600 others, beside baselines that know less."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.public.table import Floats, Ints, Table, split
from predictors.linear import fit_costs
from predictors.metrics import spearman, spearman_within

NUM_HELD_OUT = 600
Scores = dict[str, float]
# (fitted rows, held-out rows) -> ms of the latter
Rival = Callable[[Ints, Ints], Floats]


def score_table(
    table: Table, num_fitted: int, *, num_splits: int, rivals: dict[str, Rival] | None = None
) -> Scores:
    """Means over random splits. In percent, but for the rank correlations.

    Args:
        rivals: further predictors, by the name of their error.
    """
    held_out = min(NUM_HELD_OUT, len(table) - num_fitted)
    return mean_scores(
        _score_split(table, *split(len(table), num_fitted, held_out, seed), rivals or {})
        for seed in range(num_splits)
    )


def mean_scores(scores: Iterable[Scores]) -> Scores:
    every = list(scores)
    return {name: float(np.mean([score[name] for score in every])) for name in every[0]}


def mape(predicted_ms: Floats, measured_ms: Floats) -> float:
    """In percent."""
    return 100 * float(np.mean(np.abs(predicted_ms / measured_ms - 1)))


def _score_split(table: Table, rows: Ints, held_out: Ints, rivals: dict[str, Rival]) -> Scores:
    measured = table.measured_ms[held_out]
    prediction = table.predict(table.fit(rows), held_out)
    errors = np.abs(prediction.mean_ms / measured - 1)
    inside = (measured >= prediction.lower_ms) & (measured <= prediction.upper_ms)
    half_widths = (prediction.upper_ms - prediction.lower_ms) / 2 / prediction.mean_ms
    depths = [table.depths[row] for row in held_out]
    rank_within = spearman_within(depths, prediction.mean_ms, measured)
    return {
        "mape": 100 * float(errors.mean()),
        "within_5": 100 * float((errors <= 0.05).mean()),
        "within_10": 100 * float((errors <= 0.10).mean()),
        "spearman": spearman(prediction.mean_ms, measured) or 0.0,
        "spearman_equal_depth": rank_within or 0.0,
        "coverage_90": 100 * float(inside.mean()),
        "half_width": 100 * float(np.median(half_widths)),
        "depth_only_mape": mape(_line(table, table.depth_terms, rows, held_out), measured),
        "flops_only_mape": mape(
            _line(table, np.stack([np.ones(len(table)), table.macs], axis=1), rows, held_out),
            measured,
        ),
        **{name: mape(rival(rows, held_out), measured) for name, rival in rivals.items()},
    }


def _line(table: Table, terms: Floats, rows: Ints, held_out: Ints) -> Floats:
    costs = fit_costs(terms[rows], table.measured_ms[rows], np.ones(len(rows)), ridge=1e-9)
    return np.asarray(terms[held_out] @ costs)
