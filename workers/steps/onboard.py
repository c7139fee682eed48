"""Learn the device from what it measured, and check that every budget can be kept."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from predictors.onboarding import uncertainty
from predictors.reach import fastest_ms, resolve_budget
from predictors.spec import MeasuringResult
from predictors.workload_predictor import WorkloadPredictor
from search.compress.suitability import format_of
from search.space import PRECISIONS, SearchSpace
from service.jobs.job_spec import TargetSpec
from service.steps.step_types import NewMeasurement, NewStep, StepResult
from workers.context import JobContext
from workers.steps import energies, learning
from workers.steps.latencies import Latencies, resolve_targets
from workers.steps.learning import Curriculum
from workers.steps.state import State

MAX_MEASURING_TRIES = 2  # the agent itself has tried twice each time


def curriculum(ctx: JobContext, state: State) -> Curriculum:
    """What a search job wants to know of the current profile."""
    measuring, workload = ctx.spec.measuring, state.profile.target_workload
    space = state.search_space
    return Curriculum(
        device_id=state.profile.device_id,
        shape=state.model_shape,
        # Networks of mixed precision are predicted from those of one.
        space=space.with_choices(
            {
                "precision": [p for p in _precisions(ctx, space) if p in workload.precisions],
                "precision_groups": 1,
            }
        ),
        workload=workload,
        num_networks=measuring.num_networks,
        num_holdout=measuring.num_holdout,
        max_networks=measuring.max_networks,
        max_seconds=60 * measuring.max_minutes,
        tolerance=measuring.tolerance,
        rounds=measuring.rounds,
        repeats=measuring.repeats,
        seed=ctx.seed,
    )


def _precisions(ctx: JobContext, space: SearchSpace) -> list[str]:
    """That networks are searched in, or that a recipe brings them to: both are predicted."""
    wanted = {format_of(stage) for stage in ctx.spec.compress.recipe.stages}
    return [p for p in PRECISIONS if p in space.precision or p in wanted]


def begin(ctx: JobContext, state: State) -> NewMeasurement | NewStep:
    """Measure the space, unless a fresh predictor already knows it well enough."""
    wanted = curriculum(ctx, state)
    known = learning.stored_predictor(
        ctx, wanted, max_age_seconds=3600 * ctx.spec.measuring.max_age_hours
    )
    recalled = energies.recall(ctx, state, wanted)
    if known is not None and recalled is not None:
        predictor, fit_report = known
        budgets_ms = _budgets_here(ctx, state, predictor)
        if _keeps_all(ctx, state, predictor, wanted.space):
            width = uncertainty(predictor, wanted.space, budgets_ms)
            if width <= ctx.spec.measuring.tolerance:
                ctx.event(
                    "onboarded",
                    f"a fresh predictor of this device is used, exact to {width:.1%} near the "
                    f"budgets; unsearched model {predictor.reference_ms:.2f} ms",
                    {"reference_ms": predictor.reference_ms, "fit_report": fit_report},
                )
                return _go_on(ctx, recalled, predictor, fit_report)
    return measure_space(ctx, state)


def measure_space(ctx: JobContext, state: State) -> NewMeasurement:
    """Networks that span the space, for the agent of the device to measure."""
    profile = state.profile
    state = state.with_profile(measuring_started_at=profile.measuring_started_at or time.time())
    then = NewStep(kind="onboard", input=state.dump())
    return curriculum(ctx, state).first_session(then, seed=ctx.seed + profile.measuring_tries)


def run(ctx: JobContext) -> StepResult:
    ctx.stage("onboard")
    state = State.parse({k: v for k, v in ctx.input.items() if k != "measurement_job_id"})
    newest = ctx.input["measurement_job_id"]
    result = MeasuringResult.from_dict(ctx.measurement(newest))
    if result.session.noisy:
        state = state.with_profile(measuring_tries=state.profile.measuring_tries + 1)
        noise = f"the device was noisy: {result.session.noise_floor:.1%} between rounds"
        if state.profile.measuring_tries < MAX_MEASURING_TRIES:
            ctx.event("noisy", f"{noise}; measuring again", level="warning")
            return StepResult(next=measure_space(ctx, state))
        ctx.event("noisy", f"{noise}; going on with wider intervals", level="warning")
    state = state.with_profile(onboarding_jobs=(*state.profile.onboarding_jobs, newest))
    jobs = state.profile.onboarding_jobs
    wanted = curriculum(ctx, state)
    results = [_result(ctx, job) for job in jobs]
    learned = learning.learn(ctx, wanted, results)
    budgets_ms = _budgets_here(ctx, state, learned.predictor)
    elapsed_s = time.time() - (state.profile.measuring_started_at or time.time())
    more = learning.networks_to_add(wanted, learned, budgets_ms, elapsed_s=elapsed_s)
    width = learned.interval(wanted.space, budgets_ms)
    if more:
        ctx.event(
            "onboarding", f"exact to {width:.1%} near the budgets; measuring {len(more)} more"
        )
        then = NewStep(kind="onboard", input=state.dump())
        return StepResult(next=wanted.next_session(more, then, seed=ctx.seed + len(jobs)))
    fit_report = learned.report.to_dict()
    learning.save(ctx, state.profile.device_id, learned.predictor, fit_report)
    _announce(ctx, learned.predictor, fit_report, budgets_ms, width)
    state = energies.learn(ctx, state, wanted, results)
    state = state.with_profile(environment=dict(result.environment))
    return StepResult(next=_go_on(ctx, state, learned.predictor, fit_report))


def put_predictor(ctx: JobContext, predictor: WorkloadPredictor) -> str:
    """The predictor as a blob for the steps to come: a search holds on to one version."""
    path = ctx.scratch / "predictor.json"
    path.write_text(json.dumps(predictor.to_json()))
    return ctx.put_blob(path)


def _go_on(
    ctx: JobContext, state: State, predictor: WorkloadPredictor, fit_report: Mapping[str, Any]
) -> NewMeasurement | NewStep:
    """Learn the next profile; after the last one, training begins."""
    state = state.with_profile(
        predictor=put_predictor(ctx, predictor), fit_report=dict(fit_report)
    )
    if state.current_profile + 1 < len(state.profiles):
        return begin(ctx, state.updated(current_profile=state.current_profile + 1))
    targets = resolve_targets(Latencies.of(ctx, state), ctx.spec.targets, state.search_space)
    state = state.updated(targets=targets, current_profile=0)
    _announce_budgets(ctx, state)
    kind = "teacher" if state.blobs.supernet is None else "search"
    return NewStep(kind=kind, input=state.dump())


def _announce_budgets(ctx: JobContext, state: State) -> None:
    latencies = Latencies.of(ctx, state)
    promises = latencies.promises
    told = ", ".join(f"{target.budget_ms:.2f} ms" for target in state.targets)
    ctx.event(
        "budgets",
        f"budgets of the targets: {told}",
        {
            "budgets_ms": [target.budget_ms for target in state.targets],
            # The place of each target's latency among `latencies_ms` of an evaluation.
            "promise_of_target": [
                promises.index(latencies.promise_of(index)) for index in range(len(state.targets))
            ],
        },
    )


def _targets_here(ctx: JobContext, state: State) -> list[TargetSpec]:
    """Those that may run in the current profile."""
    return [
        spec
        for spec, profiles in zip(ctx.spec.targets, state.profiles_of_target, strict=True)
        if state.current_profile in profiles
    ]


def _budgets_here(ctx: JobContext, state: State, predictor: WorkloadPredictor) -> list[float]:
    return [
        resolve_budget(predictor, budget_ms=spec.budget_ms, budget_ratio=spec.budget_ratio)
        for spec in _targets_here(ctx, state)
    ]


def _keeps_all(
    ctx: JobContext, state: State, predictor: WorkloadPredictor, space: SearchSpace
) -> bool:
    """Whether every budget here is within reach; if not, the device is measured again first."""
    budgets_ms = _budgets_here(ctx, state, predictor)
    return all(
        fastest_ms(predictor, space, spec.statistic) <= budget_ms
        for spec, budget_ms in zip(_targets_here(ctx, state), budgets_ms, strict=True)
    )


def _result(ctx: JobContext, measurement_job: str) -> MeasuringResult:
    return MeasuringResult.from_dict(ctx.measurement(measurement_job))


def _announce(
    ctx: JobContext,
    predictor: WorkloadPredictor,
    fit_report: Mapping[str, Any],
    budgets_ms: Sequence[float],
    width: float,
) -> None:
    workload = predictor.workload
    budgets = ", ".join(f"{budget_ms:.2f} ms" for budget_ms in budgets_ms)
    ctx.event(
        "onboarded",
        f"{workload.runtime}: unsearched model {predictor.reference_ms:.2f} ms, predictor off by "
        f"{fit_report['mape']:.1%} on unseen networks; budgets {budgets}",
        {
            "reference_ms": predictor.reference_ms,
            "workload": workload.to_dict(),
            "fit_report": dict(fit_report),
            "half_width": width,
            "budgets_ms": list(budgets_ms),
        },
    )
