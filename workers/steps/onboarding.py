"""A device learnt for its own sake: no model is trained, only networks of its shape are timed."""

from __future__ import annotations

import time
from typing import Any

from predictors.drift import judge_drift
from predictors.onboarding import OnboardingPlan, networks_to_check
from predictors.predictor import anchors_by_size
from predictors.rows import LatencyRow
from predictors.spec import MeasuringResult
from search.model.checkpoint import check_model_folder
from search.shape import ModelShape
from search.space import SearchSpace
from service.jobs.workloads import workload_for
from service.steps.step_types import NewMeasurement, NewStep, StepResult
from workers.context import JobContext
from workers.steps import learning
from workers.steps.learning import Curriculum
from workers.steps.onboard import MAX_MEASURING_TRIES
from workers.steps.state import Frozen

STAGE = "onboard"


class Progress(Frozen):
    """What one session hands to the next."""

    shape: dict[str, Any]
    started_at: float
    measurement_jobs: tuple[str, ...] = ()
    tries: int = 0
    is_check: bool = False
    drift: dict[str, Any] | None = None


def run(ctx: JobContext) -> StepResult:
    ctx.stage(STAGE)
    if "measurement_job_id" not in ctx.input:
        return StepResult(next=_begin(ctx))
    given = {k: v for k, v in ctx.input.items() if k != "measurement_job_id"}
    progress = Progress.model_validate(given)
    newest = ctx.input["measurement_job_id"]
    result = MeasuringResult.from_dict(ctx.measurement(newest))
    if result.session.noisy and progress.tries + 1 < MAX_MEASURING_TRIES:
        noise = f"the device was noisy: {result.session.noise_floor:.1%} between rounds"
        ctx.event("noisy", f"{noise}; measuring again", level="warning")
        return StepResult(next=_measure(ctx, progress.updated(tries=progress.tries + 1)))
    if progress.is_check:
        return _judge_drift(ctx, progress, result)
    return _learn(ctx, progress.updated(measurement_jobs=(*progress.measurement_jobs, newest)))


def curriculum(ctx: JobContext, shape: ModelShape) -> Curriculum:
    spec = ctx.onboarding_spec
    space = SearchSpace.for_shape(shape, spec.space.preset).with_choices(
        {**spec.space.choices, "precision_groups": 1}
    )
    return Curriculum(
        device_id=ctx.device(spec.device).id,
        shape=shape,
        space=space,
        workload=workload_for(spec.workload, shape),
        num_networks=min(20, spec.max_measurements) * len(space.precision),
        num_holdout=spec.num_holdout,
        max_networks=spec.max_measurements,
        max_seconds=60 * spec.max_minutes,
        tolerance=spec.tolerance,
        rounds=spec.rounds,
        repeats=spec.repeats,
        seed=ctx.seed,
        agent_timeout_s=spec.agent_timeout_s,
    )


def _begin(ctx: JobContext) -> NewMeasurement:
    spec = ctx.onboarding_spec
    if spec.shape is not None:
        shape = ModelShape.from_dict(spec.shape)
    else:
        assert spec.model is not None, "an onboarding has a model or a shape"
        folder = ctx.scratch / "model"
        folder.mkdir()
        for name, sha256 in ctx.upload_files(spec.model.upload).items():
            (folder / name).symlink_to(ctx.blob(sha256))
        shape = check_model_folder(folder, num_labels=2).shape
    is_check = spec.mode == "check"
    progress = Progress(shape=shape.to_dict(), started_at=time.time(), is_check=is_check)
    return _measure(ctx, progress)


def _measure(ctx: JobContext, progress: Progress) -> NewMeasurement:
    """The first session of its kind: the networks that span the space, or a few to check by."""
    wanted = curriculum(ctx, ModelShape.from_dict(progress.shape))
    then = NewStep(kind="onboarding", input=progress.model_dump(mode="json"))
    seed = ctx.seed + progress.tries
    if not progress.is_check:
        return wanted.first_session(then, seed=seed)
    plan = OnboardingPlan(training=networks_to_check(wanted.space), holdout=())
    return wanted.session(plan, then, seed=seed)


def _learn(ctx: JobContext, progress: Progress) -> StepResult:
    spec = ctx.onboarding_spec
    wanted = curriculum(ctx, ModelShape.from_dict(progress.shape))
    results = [MeasuringResult.from_dict(ctx.measurement(i)) for i in progress.measurement_jobs]
    learned = learning.learn(ctx, wanted, results)
    elapsed_s = time.time() - progress.started_at
    width = learned.interval(wanted.space, spec.budgets_ms)
    ctx.progress(learned.num_measured, wanted.num_networks + wanted.num_holdout, "networks")
    more = learning.networks_to_add(wanted, learned, spec.budgets_ms, elapsed_s=elapsed_s)
    if more:
        ctx.event(
            "onboarding", f"exact to {width:.1%} where it matters; measuring {len(more)} more"
        )
        then = NewStep(kind="onboarding", input=progress.model_dump(mode="json"))
        seed = ctx.seed + len(progress.measurement_jobs)
        return StepResult(next=wanted.next_session(more, then, seed=seed))
    fit_report = learned.report.to_dict()
    ids = learning.save(ctx, wanted.device_id, learned.predictor, fit_report)
    ctx.event(
        "onboarded",
        f"{learned.num_measured} networks measured, predictor off by {learned.report.mape:.1%} on "
        f"unseen ones, exact to {width:.1%}",
        {"fit_report": fit_report, "half_width": width},
    )
    return StepResult(
        result={
            "predictors": ids,
            "fit_report": fit_report,
            "num_measured": learned.num_measured,
            "half_width": width,
            "is_exact": width <= spec.tolerance,
            "minutes": elapsed_s / 60,
            "reference_ms": learned.predictor.reference_ms,
            "drift": progress.drift,
        }
    )


def _judge_drift(ctx: JobContext, progress: Progress, result: MeasuringResult) -> StepResult:
    """Scale alone is corrected by an offset; a change of shape calls for new measurements."""
    wanted = curriculum(ctx, ModelShape.from_dict(progress.shape))
    known = learning.stored_predictor(ctx, wanted, max_age_seconds=float("inf"))
    if known is None:
        ctx.event("drift", "there is no predictor to check; measuring the whole space")
        return StepResult(next=_measure(ctx, progress.updated(is_check=False, tries=0)))
    predictor, fit_report = known
    size = wanted.workload.batch_size, wanted.workload.seq_len
    before_ms = anchors_by_size(predictor.rows)[size]
    drift = judge_drift(before_ms, [anchor.median_ms for anchor in result.anchors])
    ctx.event(
        "drift",
        f"drift: {drift.kind}; {drift.scale:.3f} times the latency, anchors agree to "
        f"{drift.disagreement:.1%}",
        drift.to_dict(),
        level="info" if drift.kind == "none" else "warning",
    )
    if drift.kind == "shape":
        progress = progress.updated(is_check=False, tries=0, drift=drift.to_dict())
        return StepResult(next=_measure(ctx, progress))
    ids: dict[str, str] = {}
    if drift.kind == "scale":
        session = LatencyRow.of(result.measurements[0], wanted.workload, result.anchors)
        ids = learning.save(ctx, wanted.device_id, predictor.rebased(session), fit_report)
    return StepResult(result={"drift": drift.to_dict(), "predictors": ids})
