"""Hold every exported file against its promise; a miss teaches the predictor and is repaired."""

from __future__ import annotations

from predictors.measurement import Measurement
from predictors.rows import LatencyRow
from predictors.spec import MeasuringResult
from service.jobs.job_spec import TargetSpec
from service.steps.step_types import StepResult
from service.telemetry import metrics
from workers.context import JobContext
from workers.steps import learning
from workers.steps.export import next_step
from workers.steps.latencies import Latencies
from workers.steps.onboard import MAX_MEASURING_TRIES, put_predictor
from workers.steps.package import QUANTIZED_KEY, measure_files, measure_next
from workers.steps.shortlist import next_target
from workers.steps.state import MeasuredFile, StageRecord, State, Target

MAX_REPAIRS = 3


def run(ctx: JobContext) -> StepResult:
    ctx.stage("finish")
    state = State.parse({k: v for k, v in ctx.input.items() if k != "measurement_job_id"})
    measurement_job_id = ctx.input["measurement_job_id"]
    result = MeasuringResult.from_dict(ctx.measurement(measurement_job_id))
    tries = state.profile.measuring_tries
    if result.session.noisy and tries < MAX_MEASURING_TRIES:
        state = state.with_profile(measuring_tries=tries + 1)
        ctx.event("noisy", "the device was noisy; measuring the files again", level="warning")
        return StepResult(next=measure_files(ctx, state))
    state = _record_unsearched(ctx, state, result).with_profile(
        measurement_job_id=measurement_job_id, environment=dict(result.environment)
    )
    missed: list[LatencyRow] = []
    for index, target in enumerate(state.targets):
        if not target.needs_measuring or target.profile != state.current_profile:
            continue
        measurement = result.measurement(f"t{index}")
        spec = ctx.spec.targets[index]
        judged = judge(target, spec, measurement, result.reference)
        _announce(ctx, index, judged)
        if target.predicted_ms is not None:
            metrics.PREDICTION_ERROR.observe(abs(target.predicted_ms / measurement.median_ms - 1))
        if not judged.is_met:
            workload = state.profile.target_workload
            if not judged.is_of_own_kind:
                missed.append(LatencyRow.of(measurement, workload, result.anchors))
            judged = (
                repaired(judged)
                if judged.repairs < MAX_REPAIRS
                else judged.updated(is_hopeless=True)
            )
        state = state.with_target(judged, index)
    if missed:
        state = _teach_predictor(ctx, state, missed)
    another = measure_next(ctx, state)
    if another is not None:
        return StepResult(next=another)
    if any(target.needs_network for target in state.targets):
        return StepResult(next=next_target(state.updated(current_target=-1)))
    return StepResult(next=next_step(ctx, state))


def judge(
    target: Target,
    spec: TargetSpec,
    measurement: Measurement,
    reference: Measurement,
) -> Target:
    """The target with its measurement, and whether that keeps the budget.

    A ratio is held against the unsearched model of the same session: both ran interleaved.
    """
    assert target.onnx is not None
    assert target.size_bytes is not None
    budget_ms = target.budget_ms
    if target.budget_ratio is not None:
        unsearched_ms = reference.median_ms if spec.statistic == "p50" else reference.p95_ms
        budget_ms = target.budget_ratio * unsearched_ms
    measured_ms = measurement.median_ms if spec.statistic == "p50" else measurement.p95_ms
    quality = target.quality
    is_good_enough = spec.min_quality is None or quality >= spec.min_quality
    record = StageRecord(
        stage="measure",
        quality=quality,
        latency_ms=measured_ms,
        size_bytes=target.size_bytes,
        note=f"on the device, {spec.statistic} of the exported file",
    )
    return target.with_stage(
        record,
        budget_ms=budget_ms,
        is_met=measured_ms <= budget_ms and is_good_enough,
        measured=MeasuredFile(
            onnx=target.onnx,
            size_bytes=target.size_bytes,
            p50_ms=measurement.median_ms,
            p95_ms=measurement.p95_ms,
            reference_ms=reference.median_ms,
            energy_mj=measurement.energy_mj,
        ),
    )


def repaired(target: Target) -> Target:
    """Back to the shortlist, with the bound tightened by as much as the file was too slow."""
    assert target.measured is not None
    overshoot = max(1.0, target.measured.p50_ms / target.budget_ms)
    return target.updated(
        bound_ms=target.bound_ms / overshoot,
        rejected=(*target.rejected, target.searched),
        repairs=target.repairs + 1,
        onnx=None,
        weights=None,
        subnet=None,
        profile=None,
        recipe=None,
        is_of_own_kind=False,
    )


def _teach_predictor(ctx: JobContext, state: State, missed: list[LatencyRow]) -> State:
    known = Latencies.of(ctx, state).predictor(state.current_profile)
    predictor = known.with_measurements(missed)
    learning.save(ctx, state.profile.device_id, predictor, state.profile.fit_report)
    return state.with_profile(predictor=put_predictor(ctx, predictor))


def _record_unsearched(ctx: JobContext, state: State, result: MeasuringResult) -> State:
    assert state.baseline_onnx is not None
    state = state.with_profile(
        baseline=_measured(ctx, state.baseline_onnx, result.reference, result)
    )
    if "int8" not in state.profile.target_workload.precisions:
        return state
    assert state.quantized_onnx is not None
    quantized = _measured(ctx, state.quantized_onnx, result.measurement(QUANTIZED_KEY), result)
    return state.with_profile(quantized=quantized)


def _measured(
    ctx: JobContext, sha256: str, measurement: Measurement, result: MeasuringResult
) -> MeasuredFile:
    return MeasuredFile(
        onnx=sha256,
        size_bytes=ctx.blob(sha256).stat().st_size,
        p50_ms=measurement.median_ms,
        p95_ms=measurement.p95_ms,
        reference_ms=result.reference.median_ms,
        energy_mj=measurement.energy_mj,
    )


def _announce(ctx: JobContext, index: int, target: Target) -> None:
    assert target.measured is not None
    verdict = "met" if target.is_met else "missed"
    ctx.event(
        "target",
        f"target {index} {verdict}: {target.measured.p50_ms:.2f} ms measured, "
        f"{target.predicted_ms:.2f} ms predicted, {target.budget_ms:.2f} ms allowed",
        {
            "target": index,
            "is_met": target.is_met,
            "p50_ms": target.measured.p50_ms,
            "predicted_ms": target.predicted_ms,
            "budget_ms": target.budget_ms,
        },
        level="info" if target.is_met else "warning",
    )
