"""Random search with as many evaluations as the search had: what chance would have found."""

from __future__ import annotations

import time

from search.evolution import random_subnets
from service.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.evaluating import Evaluator
from workers.steps.state import State

SOURCE = "random"


def run(ctx: JobContext) -> StepResult:
    ctx.stage("search")
    state = State.parse(ctx.input)
    count = ctx.spec.search.population * ctx.spec.search.generations
    evaluator = Evaluator(ctx, state)
    subnets = random_subnets(
        state.search_space, count, seed=ctx.seed, is_feasible=evaluator.is_feasible
    )
    deadline = time.monotonic() + ctx.settings.step_seconds
    for index in range(len(ctx.evaluations(SOURCE)), count):
        if time.monotonic() >= deadline:
            return StepResult(next=NewStep(kind="baseline", input=state.dump()))
        ctx.check_abort()
        evaluator.record(subnets[index], source=SOURCE, generation=0, index=index)
        ctx.progress(count + index + 1, 2 * count, "evaluations")
    return StepResult(next=NewStep(kind="shortlist", input=state.dump()))
