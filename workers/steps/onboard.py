"""Learn the device from what it measured, and check that every budget can be kept."""

from __future__ import annotations

import json
from collections.abc import Sequence

from predictors.predictor import LatencyPredictor, predictor_key, rows_of
from predictors.reach import check_reachable, fastest_ms, resolve_budget
from predictors.report import FitReport, fit_and_report
from predictors.spec import MeasuringResult
from search.space import SearchSpace
from service.schemas import TargetSpec
from service.step_types import NewStep, StepResult
from workers.context import JobContext
from workers.steps.prepare import measure_space
from workers.steps.state import State, Target

MAX_MEASURING_TRIES = 2  # the agent itself has tried twice each time


def run(ctx: JobContext) -> StepResult:
    ctx.stage("onboard")
    state = State.parse({k: v for k, v in ctx.input.items() if k != "measurement_job_id"})
    result = MeasuringResult.from_dict(ctx.measurement(ctx.input["measurement_job_id"]))
    if result.session.noisy:
        state = state.updated(measuring_tries=state.measuring_tries + 1)
        noise = f"the device was noisy: {result.session.noise_floor:.1%} between rounds"
        if state.measuring_tries < MAX_MEASURING_TRIES:
            ctx.event("noisy", f"{noise}; measuring again", level="warning")
            return StepResult(next=measure_space(ctx, state))
        ctx.event("noisy", f"{noise}; going on with wider intervals", level="warning")
    predictor, report = fit_and_report(
        rows_of(result, "n"),
        rows_of(result, "h"),
        shape=state.model_shape,
        workload=state.target_workload,
        noise_floor=result.session.noise_floor,
    )
    targets = resolve_targets(ctx.spec.targets, predictor, state.search_space)
    _announce(ctx, predictor, report, targets)
    state = state.updated(
        predictor=store_predictor(ctx, state, predictor, report),
        fit_report=report.to_dict(),
        targets=targets,
        environment=dict(result.environment),
    )
    return StepResult(next=NewStep(kind="teacher", input=state.dump()))


def resolve_targets(
    wanted: Sequence[TargetSpec], predictor: LatencyPredictor, space: SearchSpace
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


def store_predictor(
    ctx: JobContext, state: State, predictor: LatencyPredictor, report: FitReport | None = None
) -> str:
    """The predictor as a blob for the steps to come, and as the newest one of its device."""
    payload = predictor.to_json()
    ctx.save_predictor(
        state.device_id,
        state.workload,
        payload,
        report.to_dict() if report else state.fit_report,
        workload_key=predictor_key(state.model_shape, state.target_workload),
    )
    path = ctx.scratch / "predictor.json"
    path.write_text(json.dumps(payload))
    return ctx.put_blob(path)


def _announce(
    ctx: JobContext, predictor: LatencyPredictor, report: FitReport, targets: Sequence[Target]
) -> None:
    budgets = ", ".join(f"{target.budget_ms:.2f} ms" for target in targets)
    ctx.event(
        "onboarded",
        f"unsearched model {predictor.reference_ms:.2f} ms, predictor off by {report.mape:.1%} "
        f"on unseen networks; budgets {budgets}",
        {
            "reference_ms": predictor.reference_ms,
            "fit_report": report.to_dict(),
            "budgets_ms": [target.budget_ms for target in targets],
        },
    )
