"""K measurements of a device, with and without the help of all other devices' predictors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.public.scoring import NUM_HELD_OUT, mape, mean_scores
from benchmarks.public.table import Floats, Table, split
from predictors.costmodel import CostModel

NUM_SOURCE_ROWS = 600


def score_few_shot(
    tables: Mapping[str, Table],
    sizes: tuple[int, ...],
    *,
    num_splits: int,
    num_source_rows: int = NUM_SOURCE_ROWS,
) -> dict[str, Any]:
    """{target: {K: {"mape", "no_transfer_mape", "kinds"}}}; sources have rows of their own."""
    models = {name: _source(table, num_source_rows) for name, table in tables.items()}
    scores = {}
    for name, table in tables.items():
        predicted = _predicted_by([models[other] for other in tables if other != name], table)
        scores[name] = {str(k): _score(table, predicted, k, num_splits) for k in sizes}
    return scores


def _source(table: Table, num_rows: int) -> CostModel:
    rows, _ = split(len(table), min(num_rows, len(table)), 0, seed=1)
    return table.fit(rows)


def _predicted_by(models: list[CostModel], target: Table) -> Floats:
    """(n, s) ms of the target's networks on the sources."""
    every = np.arange(len(target))
    return np.stack([target.predict(model, every).mean_ms for model in models], axis=1)


def _score(table: Table, predicted: Floats, size: int, num_splits: int) -> dict[str, Any]:
    scores, kinds = [], Counter[str]()
    for seed in range(num_splits):
        held_out_size = min(NUM_HELD_OUT, len(table) - size)
        rows, held_out = split(len(table), size, held_out_size, seed)
        measured = table.measured_ms[held_out]
        helped, alone = table.fit(rows, sources=predicted[rows]), table.fit(rows)
        kinds[helped.kind] += 1
        given = predicted[held_out] if helped.uses_sources else None
        scores.append(
            {
                "mape": mape(table.predict(helped, held_out, given).mean_ms, measured),
                "no_transfer_mape": mape(table.predict(alone, held_out).mean_ms, measured),
            }
        )
    return {**mean_scores(scores), "kinds": dict(kinds.most_common())}
