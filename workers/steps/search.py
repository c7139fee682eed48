"""One generation of NSGA-II: ask, evaluate, record. What is recorded already is not redone."""

from __future__ import annotations

from search.evolution import EvaluatedGenotype, ask_generation
from search.pareto import Candidate, ParetoFront
from search.space import SubnetConfig
from service.evaluations import Evaluation
from service.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.evaluating import Evaluator
from workers.steps.state import State
from workers.steps.training import drop_checkpoint

SOURCE = "search"


def run(ctx: JobContext) -> StepResult:
    ctx.stage("search")
    state = State.parse(ctx.input)
    drop_checkpoint(ctx, state.checkpoint)
    search = ctx.spec.search
    evaluator = Evaluator(ctx, state)
    recorded = ctx.evaluations(SOURCE)
    children = ask_generation(
        state.search_space,
        [_remembered(e) for e in recorded if e.generation < state.generation],
        generation=state.generation,
        population=search.population,
        seed=ctx.seed,
        is_feasible=evaluator.is_feasible,
    )
    done = {e.index_in_generation for e in recorded if e.generation == state.generation}
    total = 2 * search.population * search.generations  # as many again for the random baseline
    for index, child in enumerate(children):
        if index not in done:
            ctx.check_abort()
            evaluator.record(
                child.subnet,
                source=SOURCE,
                generation=state.generation,
                index=index,
                genotype=child.genotype,
            )
        ctx.progress(state.generation * search.population + index + 1, total, "evaluations")
    _announce(ctx, state.generation)
    state = state.updated(generation=state.generation + 1, checkpoint=None)
    kind = "search" if state.generation < search.generations else "baseline"
    return StepResult(next=NewStep(kind=kind, input=state.dump()))


def to_candidate(evaluation: Evaluation) -> Candidate:
    return Candidate(
        subnet=SubnetConfig.from_dict(evaluation.subnet),
        latency_ms=evaluation.metrics["latency_ms"],
        quality=evaluation.metrics["quality"],
        source=evaluation.source,
    )


def _remembered(evaluation: Evaluation) -> EvaluatedGenotype:
    assert evaluation.genotype is not None
    return EvaluatedGenotype(
        generation=evaluation.generation,
        genotype=evaluation.genotype,
        latency_ms=evaluation.metrics["latency_ms"],
        quality=evaluation.metrics["quality"],
    )


def _announce(ctx: JobContext, generation: int) -> None:
    front = ParetoFront.of(to_candidate(e) for e in ctx.evaluations(SOURCE))
    points = [{"latency_ms": c.latency_ms, "quality": c.quality} for c in front]
    ctx.event(
        "generation",
        f"generation {generation + 1}: front of {len(front)}, "
        + ", ".join(f"{c.quality:.1%} at {c.latency_ms:.2f} ms" for c in front),
        {"generation": generation, "front": points},
    )
