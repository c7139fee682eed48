"""What the search and its baselines share: the task, and generations that are evaluated once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from search.costs import flops, num_params, peak_memory_bytes, size_bytes
from search.evolution import EvaluatedGenotype, SearchTask, ask_generation
from search.objectives import (
    FLOPS,
    LATENCY,
    PARAMS,
    PEAK_MEMORY,
    QUALITY,
    SIZE,
    Floats,
    Objective,
)
from search.samplers import SAMPLERS
from search.space import SubnetConfig
from service.evaluations import Evaluation
from workers.context import JobContext
from workers.steps.evaluating import Evaluator
from workers.steps.state import State

CostOf = Callable[[SubnetConfig], int]
EXTRA_OBJECTIVES = {objective.name: objective for objective in (FLOPS, PARAMS, SIZE, PEAK_MEMORY)}


def search_task(ctx: JobContext, state: State, evaluator: Evaluator) -> SearchTask:
    """Latency of every promise, what else the job weighs, and quality."""
    cost_of = _counted_costs(state)
    extra = [EXTRA_OBJECTIVES[name] for name in ctx.spec.search.objectives]

    def known(subnets: Sequence[SubnetConfig]) -> Floats:
        costs = [[cost_of[o.name](subnet) for subnet in subnets] for o in extra]
        columns = [*evaluator.latencies_ms(subnets), *np.array(costs, dtype=np.float64)]
        return np.stack(columns, axis=1)

    return SearchTask(
        space=state.search_space,
        objectives=(*_latency_objectives(evaluator.num_promises), *extra, QUALITY),
        known=known,
        are_feasible=evaluator.are_feasible,
    )


def flops_of(state: State) -> CostOf:
    """Operations of a network at the first target's workload."""
    shape, size = state.model_shape, _input_size(state)
    return lambda subnet: flops(shape, subnet, **size)


def _counted_costs(state: State) -> dict[str, CostOf]:
    """By the name of the objective."""
    shape, size = state.model_shape, _input_size(state)
    return {
        FLOPS.name: flops_of(state),
        PARAMS.name: partial(num_params, shape),
        SIZE.name: partial(size_bytes, shape),
        PEAK_MEMORY.name: lambda subnet: peak_memory_bytes(shape, subnet, **size),
    }


def _input_size(state: State) -> dict[str, int]:
    """Of the first target's workload."""
    workload = state.profiles[state.profiles_of_target[0][0]].target_workload
    is_one_more = workload.phase == "decode"
    return {
        "batch_size": workload.batch_size,
        "seq_len": 1 if is_one_more else workload.seq_len,
        "past_len": workload.seq_len if is_one_more else 0,
    }


def _latency_objectives(count: int) -> list[Objective]:
    names = [LATENCY.name, *(f"{LATENCY.name}/{place}" for place in range(1, count))]
    return [replace(LATENCY, name=name) for name in names]


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRun:
    """One generation of a search that goes by `source` in the records.

    Attributes:
        on_progress: called with how many of its children are evaluated.
    """

    ctx: JobContext
    evaluator: Evaluator
    task: SearchTask
    source: str
    sampler: str
    generation: int
    on_progress: Callable[[int], None]

    def advance(self, should_pause: Callable[[], bool] = lambda: False) -> int | None:
        """Evaluates the children that are not recorded; how many the generation has.

        None once `should_pause` says so: the same call goes on later. Fewer than the population
        mean that the space is used up.
        """
        search = self.ctx.spec.search
        recorded = self.ctx.evaluations(self.source)
        children = ask_generation(
            self.task,
            [remembered(e) for e in recorded if e.generation < self.generation],
            SAMPLERS[self.sampler],
            generation=self.generation,
            population=search.population,
            seed=self.ctx.seed,
        )
        done = {e.index_in_generation for e in recorded if e.generation == self.generation}
        for index, child in enumerate(children):
            if index not in done:
                if should_pause():
                    return None
                self.ctx.check_abort()
                self.evaluator.record(
                    child.subnet,
                    source=self.source,
                    generation=self.generation,
                    index=index,
                    genotype=child.genotype,
                    task=self.task,
                )
            self.on_progress(index + 1)
        return len(children)


def remembered(evaluation: Evaluation) -> EvaluatedGenotype:
    assert evaluation.genotype is not None
    assert evaluation.state is not None
    return EvaluatedGenotype(
        generation=evaluation.generation,
        index=evaluation.index_in_generation,
        genotype=evaluation.genotype,
        values=tuple(evaluation.state["values"]),
    )
