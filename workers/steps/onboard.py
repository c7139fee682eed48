"""Learn the device from what it measured, and check that every budget can be kept."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from predictors.onboarding import uncertainty
from predictors.reach import check_reachable, fastest_ms, resolve_budget
from predictors.spec import MeasuringResult
from predictors.workload_predictor import WorkloadPredictor
from search.errors import BudgetUnreachable
from search.space import SearchSpace
from service.schemas import TargetSpec
from service.step_types import NewMeasurement, NewStep, StepResult
from workers.context import JobContext
from workers.steps import learning
from workers.steps.learning import Curriculum
from workers.steps.state import State, Target

MAX_MEASURING_TRIES = 2  # the agent itself has tried twice each time


def curriculum(ctx: JobContext, state: State) -> Curriculum:
    """What a search job wants to know of its device."""
    measuring = ctx.spec.measuring
    return Curriculum(
        device_id=state.device_id,
        shape=state.model_shape,
        space=state.search_space,
        workload=state.target_workload,
        num_networks=measuring.num_networks,
        num_holdout=measuring.num_holdout,
        max_networks=measuring.max_networks,
        max_seconds=60 * measuring.max_minutes,
        tolerance=measuring.tolerance,
        rounds=measuring.rounds,
        repeats=measuring.repeats,
        seed=ctx.seed,
    )


def begin(ctx: JobContext, state: State) -> NewMeasurement | NewStep:
    """Measure the space, unless a fresh predictor already knows it well enough."""
    known = learning.stored_predictor(
        ctx, curriculum(ctx, state), max_age_seconds=3600 * ctx.spec.measuring.max_age_hours
    )
    if known is not None:
        predictor, fit_report = known
        try:
            targets = resolve_targets(ctx.spec.targets, predictor, state.search_space)
        except BudgetUnreachable:
            return measure_space(ctx, state)  # measured again before it is refused
        budgets_ms = [target.budget_ms for target in targets]
        width = uncertainty(predictor, state.search_space, budgets_ms)
        if width <= ctx.spec.measuring.tolerance:
            ctx.event(
                "onboarded",
                f"a fresh predictor of this device is used, exact to {width:.1%} near the "
                f"budgets; unsearched model {predictor.reference_ms:.2f} ms",
                {"reference_ms": predictor.reference_ms, "fit_report": fit_report},
            )
            return _teach(ctx, state, predictor, fit_report, targets)
    return measure_space(ctx, state)


def measure_space(ctx: JobContext, state: State) -> NewMeasurement:
    """Networks that span the space, for the agent of the device to measure."""
    state = state.updated(measuring_started_at=state.measuring_started_at or time.time())
    then = NewStep(kind="onboard", input=state.dump())
    return curriculum(ctx, state).first_session(then, seed=ctx.seed + state.measuring_tries)


def run(ctx: JobContext) -> StepResult:
    ctx.stage("onboard")
    state = State.parse({k: v for k, v in ctx.input.items() if k != "measurement_job_id"})
    newest = ctx.input["measurement_job_id"]
    result = MeasuringResult.from_dict(ctx.measurement(newest))
    if result.session.noisy:
        state = state.updated(measuring_tries=state.measuring_tries + 1)
        noise = f"the device was noisy: {result.session.noise_floor:.1%} between rounds"
        if state.measuring_tries < MAX_MEASURING_TRIES:
            ctx.event("noisy", f"{noise}; measuring again", level="warning")
            return StepResult(next=measure_space(ctx, state))
        ctx.event("noisy", f"{noise}; going on with wider intervals", level="warning")
    state = state.updated(onboarding_jobs=(*state.onboarding_jobs, newest))
    results = [MeasuringResult.from_dict(ctx.measurement(i)) for i in state.onboarding_jobs]
    wanted = curriculum(ctx, state)
    learned = learning.learn(ctx, wanted, results)
    targets = resolve_targets(ctx.spec.targets, learned.predictor, state.search_space)
    budgets_ms = [target.budget_ms for target in targets]
    elapsed_s = time.time() - (state.measuring_started_at or time.time())
    more = learning.networks_to_add(wanted, learned, budgets_ms, elapsed_s=elapsed_s)
    width = learned.interval(state.search_space, budgets_ms)
    if more:
        ctx.event(
            "onboarding", f"exact to {width:.1%} near the budgets; measuring {len(more)} more"
        )
        then = NewStep(kind="onboard", input=state.dump())
        return StepResult(
            next=wanted.next_session(more, then, seed=ctx.seed + len(state.onboarding_jobs))
        )
    fit_report = learned.report.to_dict()
    learning.save(ctx, state.device_id, learned.predictor, fit_report)
    _announce(ctx, learned.predictor, fit_report, targets, width)
    state = state.updated(environment=dict(result.environment))
    return StepResult(next=_teach(ctx, state, learned.predictor, fit_report, targets))


def resolve_targets(
    wanted: Sequence[TargetSpec], predictor: WorkloadPredictor, space: SearchSpace
) -> tuple[Target, ...]:
    """Every target with its budget in milliseconds.

    Raises:
        BudgetUnreachable: no network of the space keeps one of them.
    """
    targets = []
    for index, spec in enumerate(wanted):
        budget_ms = resolve_budget(
            predictor, budget_ms=spec.budget_ms, budget_ratio=spec.budget_ratio
        )
        field = f"targets[{index}].{spec.budget_field}"
        check_reachable(field, budget_ms, fastest_ms(predictor, space, spec.statistic))
        targets.append(
            Target(budget_ms=budget_ms, budget_ratio=spec.budget_ratio, bound_ms=budget_ms)
        )
    return tuple(targets)


def put_predictor(ctx: JobContext, predictor: WorkloadPredictor) -> str:
    """The predictor as a blob for the steps to come: a search holds on to one version."""
    path = ctx.scratch / "predictor.json"
    path.write_text(json.dumps(predictor.to_json()))
    return ctx.put_blob(path)


def _teach(
    ctx: JobContext,
    state: State,
    predictor: WorkloadPredictor,
    fit_report: Mapping[str, Any],
    targets: tuple[Target, ...],
) -> NewStep:
    state = state.updated(
        predictor=put_predictor(ctx, predictor), fit_report=dict(fit_report), targets=targets
    )
    return NewStep(kind="teacher", input=state.dump())


def _announce(
    ctx: JobContext,
    predictor: WorkloadPredictor,
    fit_report: Mapping[str, Any],
    targets: Sequence[Target],
    width: float,
) -> None:
    budgets = ", ".join(f"{target.budget_ms:.2f} ms" for target in targets)
    ctx.event(
        "onboarded",
        f"unsearched model {predictor.reference_ms:.2f} ms, predictor off by "
        f"{fit_report['mape']:.1%} on unseen networks; budgets {budgets}",
        {
            "reference_ms": predictor.reference_ms,
            "fit_report": dict(fit_report),
            "half_width": width,
            "budgets_ms": [target.budget_ms for target in targets],
        },
    )
