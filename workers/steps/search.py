"""One generation of the search: ask, evaluate, record. What is recorded already is not redone."""

from __future__ import annotations

from search.pareto import Candidate, ParetoFront
from search.space import SubnetConfig
from service.evaluations import Evaluation
from service.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.evaluating import Evaluator
from workers.steps.searching import GenerationRun, search_task
from workers.steps.state import State
from workers.steps.training import drop_checkpoint

SOURCE = "search"


def run(ctx: JobContext) -> StepResult:
    ctx.stage("search")
    state = State.parse(ctx.input)
    drop_checkpoint(ctx, state.checkpoint)
    search = ctx.spec.search
    evaluator = Evaluator(ctx, state)
    done = state.generation * search.population
    total = search.num_evaluations * (1 + len(search.baselines))
    generation = GenerationRun(
        ctx=ctx,
        evaluator=evaluator,
        task=search_task(ctx, state, evaluator),
        source=SOURCE,
        sampler=search.sampler,
        generation=state.generation,
        on_progress=lambda count: ctx.progress(done + count, total, "evaluations"),
    )
    num_children = generation.advance()
    _announce(ctx, state.generation)
    state = state.updated(generation=state.generation + 1, checkpoint=None)
    is_over = state.generation == search.generations or num_children != search.population
    kind = "baseline" if is_over else "search"
    return StepResult(next=NewStep(kind=kind, input=state.dump()))


def to_candidate(evaluation: Evaluation) -> Candidate:
    return Candidate(
        subnet=SubnetConfig.from_dict(evaluation.subnet),
        latency_ms=evaluation.metrics["latency_ms"],
        quality=evaluation.metrics["quality"],
        source=evaluation.source,
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
