"""Last figures of a job: the test split is read here, once, by the exported files themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.compress.files import stored_precision
from search.costs import flops, num_params
from search.export.running import evaluate_file
from search.pareto import ParetoFront
from search.space import SubnetConfig
from search.training.confidence import interval
from search.training.evaluate import quality_of
from search.training.rows import Rows
from service.jobs.evaluations import Evaluation
from service.steps.step_types import NewArtifact, NewStep, StepResult
from workers.context import JobContext
from workers.steps.artifacts import ONNX_NAMES, target_files, versions
from workers.steps.data import load_rows
from workers.steps.figure import draw_front
from workers.steps.network import network_of, rows_for
from workers.steps.search import to_candidate
from workers.steps.searching import EARLIER, SOURCE
from workers.steps.state import Look, MeasuredFile, ProfileState, Recipe, State, Target
from workers.steps.uploads import weights_sha256

UNSEARCHED_NAMES = {
    "fp32": "baseline/model.onnx",
    "int8": "quantized-only/model_quantized.onnx",
}
MEDIA_TYPES = {
    ".json": "application/json",
    ".sig": "application/json",
    ".png": "image/png",
    ".md": "text/markdown",
    ".xml": "application/xml",
    ".py": "text/x-python",
    ".onnx": "application/octet-stream",
    ".safetensors": "application/octet-stream",
}


def run(ctx: JobContext) -> StepResult:
    ctx.stage("report")
    state = State.parse(ctx.input)
    rows = load_rows(ctx, state.blobs.test)
    profiles = [_profile(ctx, profile) for profile in state.profiles]
    first = state.first_measured
    report: dict[str, Any] = {
        # `profiles` has all of them.
        "device": profiles[state.profiles.index(first)]["device"],
        "workload": first.workload,
        "profiles": profiles,
        "task": state.model_shape.task,
        "metric": state.task.metric,
        "quality_range": [state.task.chance(state.model_shape), state.task.best],
        "shape": state.shape,
        "data": _data_figures(ctx, state, rows),
        "versions": versions(),
        "baseline": _unsearched(ctx, state, first, "fp32", rows),
        "quantized_only": _unsearched(ctx, state, first, "int8", rows),
        "predictor": first.fit_report,
        "supernet": {"convergence": state.convergence},
        "search": search_figures(ctx, state),
    }
    quality = report["baseline"]["quality"] if report["baseline"] else None
    report["targets"] = [
        _target(ctx, state, index, target, rows, quality)
        for index, target in enumerate(state.targets)
    ]
    artifacts = _store(ctx, state, report)
    state_and_report = {"report": report, "met": [t.is_met for t in state.targets]}
    return StepResult(
        output={"report": report},
        next=NewStep(kind="conclude", input=state_and_report),
        artifacts=artifacts,
    )


def search_figures(ctx: JobContext, state: State) -> dict[str, Any]:
    """Front and hypervolume of the search, and of every baseline that was evaluated beside it.

    The reference point is the loosest budget and the quality of guessing; the volume is in units
    of the rectangle up to a model that is always right.
    """
    evaluations = ctx.evaluations()
    searched = [e for e in evaluations if e.source == SOURCE]
    earlier = [e for e in evaluations if e.source == EARLIER]
    baselines = sorted({e.source for e in evaluations} - {SOURCE, EARLIER})
    return {
        "evaluations": len(searched),
        "distinct_evaluations": len({e.fingerprint for e in searched}),
        "known_before": len(earlier),
        "space": state.space,
        **_front(state, [*earlier, *searched]),
        "baselines": {
            source: _front(state, [e for e in evaluations if e.source == source])
            for source in baselines
        },
    }


def _front(state: State, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    chance, slowest_ms = state.task.chance(state.model_shape), _slowest_ms(state)
    front = ParetoFront.of(to_candidate(e) for e in evaluations)
    area = front.hypervolume(reference_latency_ms=slowest_ms, reference_quality=chance)
    return {
        "hypervolume": area / (slowest_ms * (state.task.best - chance)),
        "front": [
            {"latency_ms": c.latency_ms, "quality": c.quality, "subnet": c.subnet.to_dict()}
            for c in front
        ],
    }


def _slowest_ms(state: State) -> float:
    """The loosest budget of the targets that share the first one's promise."""
    first = state.profiles_of_target[0]
    return max(
        target.budget_ms
        for target, profiles in zip(state.targets, state.profiles_of_target, strict=True)
        if profiles == first
    )


def _data_figures(ctx: JobContext, state: State, rows: Rows) -> dict[str, Any]:
    teachers = {name: ctx.upload_files(s.upload) for name, s in ctx.spec.teachers.items()}
    unlabelled = ctx.spec.unlabelled and ctx.upload_files(ctx.spec.unlabelled.upload)
    return {
        "sha256": state.data_sha256,
        "labels": list(state.label_names),
        "test_rows": len(rows),
        "model_sha256": state.model_sha256,
        "teachers_sha256": {name: weights_sha256(files) for name, files in teachers.items()},
        "unlabelled_sha256": next(iter(unlabelled.values())) if unlabelled else None,
    }


def _profile(ctx: JobContext, profile: ProfileState) -> dict[str, Any]:
    """Where targets run: the device, how well it was learnt, and the unsearched model there."""

    def times(measured: MeasuredFile | None) -> dict[str, float] | None:
        return {"p50_ms": measured.p50_ms, "p95_ms": measured.p95_ms} if measured else None

    return {
        "device": ctx.device(profile.device_id).identity | {"environment": profile.environment},
        "workload": profile.workload,
        "predictor": profile.fit_report,
        "baseline": times(profile.baseline),
        "quantized_only": times(profile.quantized),
        "measurement_job": profile.measurement_job_id,
    }


def _unsearched(
    ctx: JobContext, state: State, profile: ProfileState, precision: str, rows: Rows
) -> dict[str, Any] | None:
    measured = profile.baseline if precision == "fp32" else profile.quantized
    if measured is None:
        return None
    subnet = SubnetConfig.full(state.model_shape, precision)
    return {
        "onnx": UNSEARCHED_NAMES[precision],
        "sha256": measured.onnx,
        **_judged(ctx, state, measured.onnx, rows),
        "robustness": state.robustness.get(measured.onnx),
        "p50_ms": measured.p50_ms,
        "p95_ms": measured.p95_ms,
        **_energy(measured),
        "size_bytes": measured.size_bytes,
        "params": num_params(state.model_shape, subnet),
        "flops": flops(state.model_shape, subnet, seq_len=profile.target_workload.seq_len),
    }


def _target(
    ctx: JobContext,
    state: State,
    index: int,
    target: Target,
    rows: Rows,
    baseline_quality: float | None,
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "budget_ms": target.budget_ms,
        "budget_ratio": target.budget_ratio,
        "is_met": target.is_met,
        "predicted_ms": target.predicted_ms,
        "repairs": target.repairs,
        "stages": [record.model_dump() for record in target.stages],
        "exports": [record.model_dump() for record in target.exports],
        "recipe": None if target.recipe is None else _recipe(ctx, state, target.recipe),
    }
    if target.measured is not None:
        figures |= {"p50_ms": target.measured.p50_ms, "p95_ms": target.measured.p95_ms}
        figures |= _energy(target.measured)
    if target.measured is None or target.onnx is None or target.profile is None:
        return figures
    workload = state.profiles[target.profile].target_workload
    network = network_of(ctx, state, target)
    if network.kept_tokens is not None:
        rows = rows_for(ctx, state, network, state.blobs.test)
    judged = _judged(ctx, state, target.onnx, rows)
    quality = judged["quality"]
    figures["stages"].append(
        {"stage": "report", "quality": quality, "note": "the exported file on the test split"}
    )
    return figures | {
        **judged,
        "robustness": state.robustness.get(target.onnx),
        "quality_kept": (
            None if baseline_quality is None else state.task.kept(quality, baseline_quality)
        ),
        "size_bytes": target.measured.size_bytes,
        "params": network.num_params,
        "zeros": network.num_zeros,
        "flops": network.flops(workload.seq_len),
        "profile": target.profile,
        "workload": workload.to_dict(),
        "speedup": target.measured.reference_ms / target.measured.p50_ms,
        "subnet": target.config.to_dict(),
        "precision": stored_precision(network),
        "vocab_size": network.model.shape.vocab_size,
        "onnx": f"target-{index}/{ONNX_NAMES[stored_precision(network)]}",
        "sha256": target.onnx,
    }


def _recipe(ctx: JobContext, state: State, recipe: Recipe) -> dict[str, Any]:
    """What each stage was given and made, and how their answers hold; latencies are predicted."""

    def seen(look: Look | None) -> dict[str, Any] | None:
        if look is None:
            return None
        robustness = state.robustness.get(look.file) if look.file else None
        return {**look.figures, "file_bytes": look.file_bytes, "robustness": robustness}

    spec = ctx.spec.compress
    return {
        "version": spec.version,
        "cost": spec.cost,
        "max_loss": spec.max_loss,
        "stages": [
            {
                "stage": outcome.stage,
                "before": seen(outcome.before),
                "after": seen(outcome.after),
                "is_kept": outcome.is_kept,
                "reason": outcome.reason,
            }
            for outcome in recipe.outcomes
        ],
    }


def _energy(measured: MeasuredFile) -> dict[str, float]:
    """Of one inference, by the whole processor package; nothing where it was not measured."""
    return {} if measured.energy_mj is None else {"energy_mj": measured.energy_mj}


def _judged(ctx: JobContext, state: State, onnx: str, rows: Rows) -> dict[str, Any]:
    """Quality of a file, with the interval of 95 % that holds for all files of the job at once."""
    ctx.check_abort()
    shape = state.model_shape
    scores = evaluate_file(ctx.blob(onnx), rows, shape)
    within = interval(
        scores.score.numpy(), scores.count.numpy(), num_compared=len(state.delivered_files)
    )
    return {"quality": quality_of(scores, shape).value, "quality_interval": within.to_dict()}


def _store(ctx: JobContext, state: State, report: dict[str, Any]) -> list[NewArtifact]:
    (ctx.scratch / "report.json").write_text(json.dumps(report, indent=1))
    draw_front(report, [to_candidate(e) for e in ctx.evaluations()], ctx.scratch / "pareto.png")
    artifacts = [
        _artifact(ctx, name, ctx.scratch / name) for name in ("report.json", "pareto.png")
    ]
    for kind in ("baseline", "quantized_only"):
        if report[kind]:
            artifacts.append(
                _artifact(ctx, report[kind]["onnx"], ctx.blob(report[kind]["sha256"]))
            )
    for index, target in enumerate(state.targets):
        if target.onnx is not None:
            files = target_files(ctx, state, index, report["targets"][index], report)
            artifacts += [_artifact(ctx, name, path, index) for name, path in files.items()]
    return artifacts


def _artifact(ctx: JobContext, name: str, path: Path, target: int | None = None) -> NewArtifact:
    return NewArtifact(
        name=name,
        sha256=ctx.put_blob(path),
        size_bytes=path.stat().st_size,
        media_type=MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream"),
        target_index=target,
    )
