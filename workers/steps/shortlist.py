"""Race a target's best candidates after a short distillation, since ranks change by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from search.compress.distill import Distillation
from search.model.extract import extract
from search.model.transformer import ElasticTransformer
from search.space import SubnetConfig
from search.training.evaluate import Quality
from search.training.loop import save_weights
from service.evaluations import Evaluation
from service.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.data import load_network, set_threads, task_data
from workers.steps.evaluating import load_predictor
from workers.steps.state import StageRecord, State
from workers.steps.training import drop_checkpoint


@dataclass(frozen=True, slots=True)
class Raced:
    subnet: SubnetConfig
    predicted_ms: float
    inherited: Evaluation
    model: ElasticTransformer
    quality: Quality


def run(ctx: JobContext) -> StepResult:
    ctx.stage("finish")
    set_threads(ctx)
    state = State.parse(ctx.input)
    drop_checkpoint(ctx, state.checkpoint)
    state = state.updated(checkpoint=None)
    candidates = choose_candidates(ctx, state)
    if not candidates:
        return _give_up(ctx, state)
    raced = list(_race(ctx, state, candidates))
    winner = max(raced, key=lambda r: (r.quality.accuracy, -r.quality.loss))
    path = ctx.scratch / "student.safetensors"
    save_weights(winner.model, path)
    target = state.target.updated(
        subnet=winner.subnet.to_dict(),
        predicted_ms=winner.predicted_ms,
        weights=ctx.put_blob(path),
        stages=(
            StageRecord(
                stage="search",
                accuracy=winner.inherited.metrics["accuracy"],
                latency_ms=winner.predicted_ms,
                note=f"found by {winner.inherited.source}; inherited weights, search split",
            ),
            StageRecord(
                stage="shortlist",
                accuracy=winner.quality.accuracy,
                latency_ms=winner.predicted_ms,
                note=f"best of {len(raced)} after {ctx.spec.training.shortlist_steps} steps",
            ),
        ),
    )
    _announce(ctx, state, raced, winner)
    state = state.with_target(target)
    return StepResult(next=NewStep(kind="distill", input=state.dump()))


def choose_candidates(ctx: JobContext, state: State) -> list[tuple[Evaluation, float]]:
    """The most accurate evaluated networks that keep the bound, with their predicted latency.

    Those of the random baseline count too: they have been paid for.

    The upper end of the interval counts, by the predictor as it is now: after a repair it has
    seen the measurement that missed. Where intervals are too wide for any (a noisy device), the
    expected latency counts; the measurement of the exported file decides in the end.
    """
    predictor = load_predictor(ctx, state)
    target = state.target
    found = {e.fingerprint: e for e in reversed(ctx.evaluations())}
    evaluations = [e for e in found.values() if e.fingerprint not in target.rejected]
    if not evaluations:
        return []
    statistic = ctx.spec.targets[state.current_target].statistic
    subnets = [SubnetConfig.from_dict(e.subnet) for e in evaluations]
    estimate = predictor.predict(subnets, statistic)
    for latency_ms in (estimate.upper_ms, estimate.mean_ms):
        within = [
            (evaluation, float(mean_ms))
            for evaluation, mean_ms, bound_ms in zip(
                evaluations, estimate.mean_ms, latency_ms, strict=True
            )
            if bound_ms <= target.bound_ms
        ]
        if within:
            break
    within.sort(key=lambda pair: (-pair[0].metrics["accuracy"], pair[0].metrics["loss"], pair[1]))
    return within[: ctx.spec.training.shortlist_size]


def _race(
    ctx: JobContext, state: State, candidates: list[tuple[Evaluation, float]]
) -> Iterator[Raced]:
    supernet = load_network(ctx, state, state.blobs.supernet)
    data = task_data(ctx, state)
    for evaluation, predicted_ms in candidates:
        ctx.check_abort()
        subnet = SubnetConfig.from_dict(evaluation.subnet)
        student = extract(supernet, subnet)
        distillation = Distillation(
            student,
            subnet,
            data,
            total_steps=ctx.spec.training.shortlist_steps,
            learning_rate=2 * ctx.spec.training.learning_rate,
            seed=ctx.seed + 2,
            precision=state.training_precision,
        )
        distillation.run.advance(distillation.losses_at, should_stop=ctx.should_abort)
        ctx.check_abort()
        yield Raced(subnet, predicted_ms, evaluation, student, distillation.quality())


def _give_up(ctx: JobContext, state: State) -> StepResult:
    """No evaluated network keeps the bound: the target fails, with what came closest."""
    index = state.current_target
    ctx.event(
        "target",
        f"target {index}: no candidate is predicted to keep {state.target.bound_ms:.3f} ms",
        {"target": index, "bound_ms": state.target.bound_ms},
        level="warning",
    )
    state = state.with_target(state.target.updated(is_hopeless=True))
    return StepResult(next=next_target(state))


def next_target(state: State) -> NewStep:
    """Go on with the next target that needs a network, or export them all."""
    for index in range(state.current_target + 1, len(state.targets)):
        if state.targets[index].needs_network:
            state = state.updated(current_target=index)
            return NewStep(kind="shortlist", input=state.dump())
    return NewStep(kind="package", input=state.dump())


def _announce(ctx: JobContext, state: State, raced: list[Raced], winner: Raced) -> None:
    index = state.current_target
    ctx.event(
        "shortlist",
        f"target {index}: {winner.quality.accuracy:.1%} after a short distillation, "
        f"predicted {winner.predicted_ms:.2f} ms",
        {
            "target": index,
            "raced": [
                {
                    "fingerprint": r.subnet.fingerprint,
                    "accuracy_before": r.inherited.metrics["accuracy"],
                    "accuracy": r.quality.accuracy,
                    "predicted_ms": r.predicted_ms,
                }
                for r in raced
            ],
        },
    )
