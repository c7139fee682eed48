"""What the search and its baselines share: the task, and generations that are evaluated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np

from search.baselines import hardware_agnostic
from search.costs import flops, num_params, peak_memory_bytes, size_bytes
from search.evolution import EvaluatedGenotype, SearchTask, ask_generation
from search.genotypes import Genotype
from search.objectives import (
    ENERGY,
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
from search.space import SearchSpace, SubnetConfig
from service.jobs.evaluations import Evaluation
from service.steps.step_types import NewStep
from workers.context import JobContext
from workers.steps.evaluating import Candidate, Evaluator
from workers.steps.state import State

SOURCE = "search"
EARLIER = "earlier"
"""Source of what another job evaluated on the same supernet: it cost this one nothing."""

CostOf = Callable[[SubnetConfig], int]
ValuesOf = Callable[[Sequence[SubnetConfig]], Floats]
EXTRA_OBJECTIVES = {
    objective.name: objective for objective in (FLOPS, PARAMS, SIZE, PEAK_MEMORY, ENERGY)
}


def search_task(ctx: JobContext, state: State, evaluator: Evaluator) -> SearchTask:
    """Latency of every promise, what else the job weighs, and quality."""
    values_of = {**_counted_costs(state), ENERGY.name: evaluator.energies_mj}
    extra = [EXTRA_OBJECTIVES[name] for name in ctx.spec.search.objectives]

    def known(subnets: Sequence[SubnetConfig]) -> Floats:
        costs = [values_of[objective.name](subnets) for objective in extra]
        columns = [*evaluator.latencies_ms(subnets), *costs]
        return np.stack(columns, axis=1)

    return SearchTask(
        space=state.search_space,
        objectives=(*_latency_objectives(evaluator.num_promises), *extra, QUALITY),
        known=known,
        are_feasible=evaluator.are_feasible,
    )


def _flops_of(state: State) -> CostOf:
    """Operations of a network at the first target's workload."""
    shape, size = state.model_shape, _input_size(state)
    return lambda subnet: flops(shape, subnet, **size)


def _counted_costs(state: State) -> dict[str, ValuesOf]:
    """By the name of the objective."""
    shape, size = state.model_shape, _input_size(state)
    cost_of: dict[str, CostOf] = {
        FLOPS.name: _flops_of(state),
        PARAMS.name: partial(num_params, shape),
        SIZE.name: partial(size_bytes, shape),
        PEAK_MEMORY.name: lambda subnet: peak_memory_bytes(shape, subnet, **size),
    }
    return {name: partial(_values, of_one) for name, of_one in cost_of.items()}


def _values(cost_of: CostOf, subnets: Sequence[SubnetConfig]) -> Floats:
    return np.array([cost_of(subnet) for subnet in subnets], dtype=np.float64)


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
    """One generation of a search that goes by `source` in the records."""

    ctx: JobContext
    state: State
    evaluator: Evaluator
    task: SearchTask
    source: str
    generation: int

    @classmethod
    def of(
        cls, ctx: JobContext, state: State, evaluator: Evaluator, source: str, generation: int
    ) -> Self:
        task = search_task(ctx, state, evaluator)
        if source == "flops":
            shape = state.model_shape
            ratio = evaluator.loosest_ratio(shape)
            task = hardware_agnostic(task, shape, _flops_of(state), budget_ratio=ratio)
        return cls(
            ctx=ctx,
            state=state,
            evaluator=evaluator,
            task=task,
            source=source,
            generation=generation,
        )

    def children(self) -> Children:
        search = self.ctx.spec.search
        recorded = self.ctx.evaluations(self.source)
        done = {e.index_in_generation for e in recorded if e.generation == self.generation}
        if len(done) == search.population:
            return Children(count=len(done), missing={})
        before = self._before()
        # What another job told counts as a generation before the first.
        shift = 1 if any(e.source == EARLIER for e in before) else 0
        found = ask_generation(
            self.task,
            [remembered(e, 0 if e.source == EARLIER else shift) for e in before],
            SAMPLERS["random" if self.source == "random" else search.sampler],
            generation=self.generation + shift,
            population=search.population,
            seed=self.ctx.seed,
        )
        missing = {i: child.genotype for i, child in enumerate(found) if i not in done}
        return Children(count=len(found), missing=missing)

    def advance(self, missing: Mapping[int, Genotype]) -> bool:
        """Evaluates children by their index; False when the step's time is up before the last."""
        if not missing:
            return True  # a baseline looks at its finished generations in every step
        rivals = self.evaluator.rivals(self._before(), self.task)
        candidates = [
            Candidate(subnet=self.task.space.decode(found), index=index, genotype=found)
            for index, found in missing.items()
        ]
        return self.evaluator.record(
            candidates,
            source=self.source,
            generation=self.generation,
            task=self.task,
            rivals=rivals,
        )

    def _before(self) -> list[Evaluation]:
        """What this search knew when the generation was proposed."""
        earlier = self.ctx.evaluations(EARLIER) if self.source == SOURCE else []
        recorded = self.ctx.evaluations(self.source)
        return earlier + [e for e in recorded if e.generation < self.generation]

    def parts(self, missing: Mapping[int, Genotype]) -> list[NewStep]:
        """The same as steps for several workers; none where they would have nothing to share."""
        count = min(self.ctx.settings.search_workers, len(missing))
        if count < 2:
            return []
        children = sorted(missing.items())
        return [
            NewStep(
                kind="evaluate",
                input={
                    "state": self.state.dump(),
                    "source": self.source,
                    "generation": self.generation,
                    "children": [list(child) for child in children[place::count]],
                },
            )
            for place in range(count)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Children:
    """Of a generation: how many, and by index the genotypes that are not yet evaluated.

    Fewer than the population mean that the space is used up.
    """

    count: int
    missing: Mapping[int, Genotype]


def recall(ctx: JobContext, evaluator: Evaluator, task: SearchTask) -> None:
    """Records what the job whose supernet is searched again found out on the same rows.

    All of it at once: a step that is repeated finds either nothing of it or everything.
    """
    if ctx.spec.supernet_of is None or ctx.evaluations(EARLIER):
        return
    known: dict[str, Evaluation] = {}
    for evaluation in ctx.evaluations_of(ctx.spec.supernet_of):
        if evaluation.fidelity == evaluator.fidelity and _is_in(task.space, evaluation):
            known.setdefault(evaluation.fingerprint, evaluation)
    evaluator.recall(list(known.values()), source=EARLIER, task=task)


def _is_in(space: SearchSpace, evaluation: Evaluation) -> bool:
    """Whether its genotype is one of this space, and stands for the same network there."""
    genotype, choices = evaluation.genotype, space.gene_choices
    if genotype is None or genotype.keys() != choices.keys():
        return False
    if any(genotype[gene] not in choices[gene] for gene in choices):
        return False
    return space.decode(genotype).fingerprint == evaluation.fingerprint


def remembered(evaluation: Evaluation, shift: int) -> EvaluatedGenotype:
    assert evaluation.genotype is not None
    assert evaluation.state is not None
    return EvaluatedGenotype(
        generation=evaluation.generation + shift,
        index=evaluation.index_in_generation,
        genotype=evaluation.genotype,
        values=tuple(evaluation.state["values"]),
    )
