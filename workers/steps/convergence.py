"""Whether a supernet converges: five of its subnets on rows of the validation split."""

from __future__ import annotations

from search.model.transformer import ElasticTransformer
from search.training.convergence import begin_report, describe, with_point
from search.training.evaluate import evaluate
from search.training.rows import Rows
from workers.context import JobContext
from workers.steps.data import load_rows
from workers.steps.state import State

CONVERGENCE_ROWS = 512


def begin_convergence(ctx: JobContext, state: State, model: ElasticTransformer) -> State:
    """`model` has its teacher's weights still: both start from the same quality."""
    quality = evaluate(model, _rows(ctx, state)).value
    report = begin_report(state.search_space, state.model_shape, quality)
    return follow_convergence(ctx, state.updated(convergence=report), model, 0)


def follow_convergence(
    ctx: JobContext, state: State, model: ElasticTransformer, step: int
) -> State:
    rows = _rows(ctx, state)
    report = with_point(state.convergence, step, lambda s: evaluate(model, rows, s).value)
    data = {**report["points"][-1], "teacher": report["teacher"]}
    ctx.event("convergence", describe(report, state.task), data)
    return state.updated(convergence=report)


def _rows(ctx: JobContext, state: State) -> Rows:
    return load_rows(ctx, state.blobs.validation).spread(CONVERGENCE_ROWS)
