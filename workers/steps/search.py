"""One generation of the search: ask, evaluate, record. What is recorded already is not redone."""

from __future__ import annotations

from search.pareto import Candidate, ParetoFront
from search.space import SubnetConfig
from service.jobs.evaluations import Evaluation
from service.steps.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.evaluating import Evaluator
from workers.steps.searching import EARLIER, SOURCE, GenerationRun, recall
from workers.steps.state import State
from workers.steps.training import without_checkpoint


def run(ctx: JobContext) -> StepResult:
    ctx.stage("search")
    state = without_checkpoint(ctx, State.parse(ctx.input))
    generation = GenerationRun.of(ctx, state, Evaluator(ctx, state), SOURCE, state.generation)
    if state.generation == 0:
        recall(ctx, generation.evaluator, generation.task)
    children = generation.children()
    again = NewStep(kind="search", input=state.dump())
    if parts := generation.parts(children.missing):
        return StepResult(parts=parts, next=again)
    if not generation.advance(children.missing):
        return StepResult(next=again)
    _announce(ctx, state)
    search = ctx.spec.search
    state = state.updated(generation=state.generation + 1)
    is_over = state.generation == search.generations or children.count < search.population
    kind = "baseline" if is_over else "search"
    return StepResult(next=NewStep(kind=kind, input=state.dump()))


def to_candidate(evaluation: Evaluation) -> Candidate:
    return Candidate(
        subnet=SubnetConfig.from_dict(evaluation.subnet),
        latency_ms=evaluation.metrics["latency_ms"],
        quality=evaluation.metrics["quality"],
        source=evaluation.source,
    )


def _announce(ctx: JobContext, state: State) -> None:
    generation = state.generation
    found = [*ctx.evaluations(EARLIER), *ctx.evaluations(SOURCE)]
    front = ParetoFront.of(to_candidate(e) for e in found)
    points = [{"latency_ms": c.latency_ms, "quality": c.quality} for c in front]
    ctx.event(
        "generation",
        f"generation {generation + 1}: front of {len(front)}, "
        + ", ".join(f"{state.task.show(c.quality)} at {c.latency_ms:.2f} ms" for c in front),
        {"generation": generation, "front": points},
    )
