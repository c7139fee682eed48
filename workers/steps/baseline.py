"""The baselines of a search, each with no more evaluations than the search itself had.

`random` is what chance finds, `uniform` what shrinking all layers alike finds, `flops` what the
same search finds when it counts operations and knows no device.
"""

from __future__ import annotations

import time
from functools import partial

from search.baselines import hardware_agnostic, uniform_networks
from search.evolution import SearchTask
from service.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.evaluating import Evaluator
from workers.steps.searching import GenerationRun, flops_of, search_task
from workers.steps.state import State


def run(ctx: JobContext) -> StepResult:
    ctx.stage("search")
    state = State.parse(ctx.input)
    baselines = _Baselines(ctx, state)
    for place, source in enumerate(ctx.spec.search.baselines, start=1):
        if not baselines.advance(source, place):
            return StepResult(next=NewStep(kind="baseline", input=state.dump()))
    return StepResult(next=NewStep(kind="shortlist", input=state.dump()))


class _Baselines:
    """Goes on with a baseline where the records say that it stopped."""

    def __init__(self, ctx: JobContext, state: State) -> None:
        self._ctx = ctx
        self._spec = ctx.spec.search
        self._deadline = time.monotonic() + ctx.settings.step_seconds
        self._evaluator = Evaluator(ctx, state)
        self._task = search_task(ctx, state, self._evaluator)
        self._agnostic = hardware_agnostic(
            self._task,
            state.model_shape,
            flops_of(state),
            budget_ratio=self._evaluator.loosest_ratio(state.model_shape),
        )

    def advance(self, source: str, place: int) -> bool:
        """Whether the baseline is complete; False once the step has run long enough.

        `place` is its number among the baselines, from 1, to show progress.
        """
        if source == "uniform":
            return self._evaluate_uniform(place)
        if source == "flops":
            return self._search(self._agnostic, source, self._spec.sampler, place)
        return self._search(self._task, source, "random", place)

    def _search(self, task: SearchTask, source: str, sampler: str, place: int) -> bool:
        for generation in range(self._spec.generations):
            done = generation * self._spec.population
            num_children = GenerationRun(
                ctx=self._ctx,
                evaluator=self._evaluator,
                task=task,
                source=source,
                sampler=sampler,
                generation=generation,
                on_progress=partial(self._progress, place, done),
            ).advance(self._should_pause)
            if num_children is None:
                return False
            if num_children < self._spec.population:
                break
        return True

    def _evaluate_uniform(self, place: int) -> bool:
        networks = uniform_networks(self._task, self._spec.num_evaluations)
        for index in range(len(self._ctx.evaluations("uniform")), len(networks)):
            if self._should_pause():
                return False
            self._ctx.check_abort()
            self._evaluator.record(networks[index], source="uniform", generation=0, index=index)
            self._progress(place, 0, index + 1)
        return True

    def _should_pause(self) -> bool:
        return self._evaluator.num_recorded > 0 and time.monotonic() >= self._deadline

    def _progress(self, place: int, done: int, count: int) -> None:
        each = self._spec.num_evaluations
        total = (1 + len(self._spec.baselines)) * each
        self._ctx.progress(place * each + done + count, total, "evaluations")
