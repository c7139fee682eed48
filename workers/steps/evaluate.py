"""A share of a generation's children, evaluated while other workers have the rest of it.

What is left when the step's time is up is dealt out anew by the step that waits for all shares.
"""

from __future__ import annotations

from service.steps.step_types import StepResult
from workers.context import JobContext
from workers.steps.evaluating import Evaluator
from workers.steps.searching import GenerationRun
from workers.steps.state import State


def run(ctx: JobContext) -> StepResult:
    state = State.parse(ctx.input["state"])
    evaluator = Evaluator(ctx, state)
    source, generation = ctx.input["source"], ctx.input["generation"]
    share = GenerationRun.of(ctx, state, evaluator, source, generation)
    share.advance(dict(ctx.input["children"]))
    return StepResult()
