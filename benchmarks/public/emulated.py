"""Contiguous sessions of 30 networks cut out of a file in measuring order, with emulated anchors.

After every five networks the next row plays an anchor: what a predictor of the whole file, with
the drift taken out, says of it is its normal latency. A model of the session is judged on rows
elsewhere, with the drift taken out by their neighbours.
"""

from __future__ import annotations

import numpy as np

from benchmarks.public.scoring import Scores, mape, mean_scores
from benchmarks.public.table import Floats, Ints, Table
from predictors.linear import Layout, fit_prices
from predictors.sessions import Anchors, Session, session_offsets

NUM_NETWORKS = 30
NETWORKS_PER_ANCHOR = 5
LENGTH = NUM_NETWORKS + NUM_NETWORKS // NETWORKS_PER_ANCHOR
NUM_HELD_OUT = 600
NEIGHBOURS = 5  # on either side; what drift is to a row is the median of their residuals
ROUNDS = 3


def score_sessions(table: Table, *, num_sessions: int, seed: int = 0) -> Scores:
    """Means over sessions that start at evenly spread places; in percent.

    `floor_mape` is the error of a model of the whole file: how exact the rows themselves are.
    """
    offsets, normal_ms = drift_of(table)
    clean_ms = table.measured_ms / np.exp(offsets)
    starts = np.linspace(0, len(table) - LENGTH, num_sessions).astype(int)
    rng = np.random.default_rng(seed)
    scores = []
    for start in starts:
        rows = np.arange(start, start + LENGTH)
        elsewhere = np.setdiff1d(np.arange(len(table)), rows)
        held_out = rng.choice(elsewhere, min(NUM_HELD_OUT, len(elsewhere)), replace=False)
        scores.append(_score(table, rows, held_out, normal_ms, clean_ms))
    return {**mean_scores(scores), "num_sessions": float(num_sessions)}


def drift_of(table: Table) -> tuple[Floats, Floats]:
    """(n,) log offset of each row by its neighbours alone, and (n,) what is normal for it."""
    layout = Layout.of(table.terms, table.families, table.part_of_term)
    weights, offsets = np.ones(len(table)), np.zeros(len(table))
    normal_ms = table.measured_ms
    for _ in range(ROUNDS):
        parts_ms = table.parts_ms / np.exp(offsets)[:, None]
        normal_ms = table.terms @ fit_prices(table.terms, parts_ms, weights, layout)
        offsets = _neighbours_median(np.log(table.measured_ms / normal_ms))
        offsets -= np.median(offsets)
    return offsets, normal_ms


def _neighbours_median(values: Floats) -> Floats:
    """Without the row itself: else it would take its own noise for drift."""
    places = np.arange(len(values))[:, None] + np.delete(
        np.arange(-NEIGHBOURS, NEIGHBOURS + 1), NEIGHBOURS
    )
    inside = (places >= 0) & (places < len(values))
    near = np.where(inside, values[np.clip(places, 0, len(values) - 1)], np.nan)
    return np.asarray(np.nanmedian(near, axis=1))


def _score(
    table: Table, rows: Ints, held_out: Ints, normal_ms: Floats, clean_ms: Floats
) -> Scores:
    period = NETWORKS_PER_ANCHOR + 1
    is_anchor = np.arange(len(rows)) % period == NETWORKS_PER_ANCHOR // 2
    networks, anchors = rows[~is_anchor], rows[is_anchor]
    session = Session(
        at=networks.astype(np.float64),
        terms=table.terms[networks],
        parts_ms=table.parts_ms[networks],
        layout=Layout.of(table.terms, table.families, table.part_of_term),
    )
    visits = Anchors(
        at=anchors.astype(np.float64),
        log_ratios=np.log(table.measured_ms[anchors] / normal_ms[anchors]),
    )
    offsets = session_offsets(session, visits)
    corrected = session.parts_ms / np.exp(offsets)[:, None]
    models = {
        "with_anchors": table.fit(networks, parts_ms=corrected),
        "without_anchors": table.fit(networks),
    }
    measured = clean_ms[held_out]
    errors = {
        f"{name}_mape": mape(table.predict(model, held_out).mean_ms, measured)
        for name, model in models.items()
    }
    used = float(bool(offsets.any()))
    return {**errors, "floor_mape": mape(normal_ms[held_out], measured), "anchors_used": used}
