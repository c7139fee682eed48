"""The baselines of a search, each with no more evaluations than the search itself had.

`random` is what chance finds, `uniform` what shrinking all layers alike finds, `flops` what the
same search finds when it counts operations and knows no device.
"""

from __future__ import annotations

from search.baselines import uniform_networks
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.evaluating import Candidate, Evaluator
from workers.steps.searching import GenerationRun, search_task
from workers.steps.state import State


def run(ctx: JobContext) -> StepResult:
    ctx.stage("search")
    state = State.parse(ctx.input)
    baselines = _Baselines(ctx, state)
    again = NewStep(kind="baseline", input=state.dump())
    for source in ctx.spec.search.baselines:
        if not baselines.advance(source):
            return StepResult(parts=baselines.parts, next=again)
    return StepResult(next=NewStep(kind="shortlist", input=state.dump()))


class _Baselines:
    """Goes on with a baseline where the records say that it stopped.

    Attributes:
        parts: for other workers, where that is how a baseline goes on.
    """

    def __init__(self, ctx: JobContext, state: State) -> None:
        self.parts: list[NewStep] = []
        self._ctx = ctx
        self._state = state
        self._evaluator = Evaluator(ctx, state)

    def advance(self, source: str) -> bool:
        """Whether the baseline is complete; False once there is more to do than a step may."""
        return self._evaluate_uniform() if source == "uniform" else self._search(source)

    def _search(self, source: str) -> bool:
        search = self._ctx.spec.search
        for number in range(search.generations):
            generation = GenerationRun.of(self._ctx, self._state, self._evaluator, source, number)
            children = generation.children()
            self.parts = generation.parts(children.missing)
            if self.parts or not generation.advance(children.missing):
                return False
            if children.count < search.population:
                break
        return True

    def _evaluate_uniform(self) -> bool:
        task = search_task(self._ctx, self._state, self._evaluator)
        networks = uniform_networks(task, self._ctx.spec.search.num_evaluations)
        done = {e.index_in_generation for e in self._ctx.evaluations("uniform")}
        candidates = [
            Candidate(subnet=subnet, index=index)
            for index, subnet in enumerate(networks)
            if index not in done
        ]
        return self._evaluator.record(candidates, source="uniform", generation=0)
