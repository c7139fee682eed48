"""From what the database knows of a job to its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from service.database.models import ArtifactRow
from service.jobs.job_states import TERMINAL
from service.reports.architecture import architecture_of, read_subnet
from service.reports.charts import Chart
from service.reports.effects import effects_of, waterfalls
from service.reports.fronts import front_charts, hypervolume_chart, hypervolumes
from service.reports.record import EARLIER, SEARCH, JobRecord
from service.reports.schema import (
    Asked,
    File,
    JobReport,
    Learned,
    Lineage,
    Searched,
    TargetAsked,
    TargetFound,
    Unsearched,
)
from service.reports.stages import stage_times
from service.reports.telling import headline, notes, target_sentence
from service.reports.training import convergence_chart
from service.reports.words import promise_sentence
from service.schemas import Event, JobProgress, StatusReason

UNSEARCHED = {"baseline": "unsearched, fp32", "quantized_only": "unsearched, int8"}


def build_report(record: JobRecord) -> JobReport:
    job = record.job
    targets = _targets(record)
    reason = None
    if job.reason_code:
        reason = StatusReason(code=job.reason_code, message=job.reason_message or "")
    return JobReport(
        id=job.id,
        name=job.name,
        state=job.state,
        terminal=job.state in TERMINAL,
        stage=job.stage,
        progress=JobProgress(
            done=job.progress_done or 0,
            total=job.progress_total or 0,
            unit=job.progress_unit or "",
        ),
        status_reason=reason,
        labels=job.labels,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        written_at=record.now,
        last_event_seq=job.last_event_seq,
        headline=headline(record, targets),
        notes=notes(record, targets),
        metric=record.metric,
        asked=_asked(record),
        targets=targets,
        unsearched=_unsearched(record),
        searched=_searched(record),
        learned=_learned(record),
        stages=stage_times(record),
        charts=_charts(record, targets),
        warnings=[Event.model_validate(event) for event in record.warnings],
        lineage=_lineage(record),
    )


def _asked(record: JobRecord) -> Asked:
    spec = record.spec
    return Asked(
        task=spec.task,
        model=spec.model.upload,
        data=spec.data.upload,
        targets=_targets_asked(record),
        space=_space_words(record),
        evaluations=spec.search.num_evaluations,
        spec_yaml=spec_yaml(record.job.spec),
    )


def spec_yaml(spec: dict[str, Any]) -> str:
    """Without what nobody chose: null is the default of all that may be null."""

    def chosen(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: chosen(v) for key, v in value.items() if v is not None and v != {}}
        return [chosen(v) for v in value] if isinstance(value, list) else value

    text: str = yaml.safe_dump(chosen(spec), sort_keys=False, allow_unicode=True, width=90)
    return text


def _targets_asked(record: JobRecord) -> list[TargetAsked]:
    return [
        TargetAsked(
            index=index,
            device=target.device,
            workload=target.workload.model_dump(mode="json"),
            statistic=target.statistic,
            budget_ms=target.budget_ms,
            budget_ratio=target.budget_ratio,
            min_quality=target.min_quality,
            sentence=promise_sentence(target),
        )
        for index, target in enumerate(record.spec.targets)
    ]


def _space_words(record: JobRecord) -> str:
    networks = record.told("prepared").get("networks")
    preset = f"preset {record.spec.space.preset}"
    return preset if networks is None else f"{networks:,} networks ({preset})"


def _targets(record: JobRecord) -> list[TargetFound]:
    found = []
    for asked, budget_ms in zip(_targets_asked(record), record.budgets_ms, strict=True):
        figures = record.report["targets"][asked.index] if record.report is not None else {}
        found.append(_target(record, asked, budget_ms, figures))
    return found


def _target(
    record: JobRecord, asked: TargetAsked, budget_ms: float | None, figures: dict[str, Any]
) -> TargetFound:
    within = figures.get("quality_interval") or {}
    subnet, shape = read_subnet(figures.get("subnet")), record.shape
    architecture = None
    if subnet is not None and shape is not None:
        architecture = architecture_of(subnet, shape, figures.get("vocab_size"))
    copied = (
        *("is_met", "predicted_ms", "p50_ms", "p95_ms", "quality", "quality_kept", "speedup"),
        *("size_bytes", "params", "energy_mj", "precision", "onnx", "subnet"),
    )
    target = TargetFound(
        index=asked.index,
        asked=asked,
        budget_ms=budget_ms,
        quality_lower=within.get("lower"),
        quality_upper=within.get("upper"),
        repairs=figures.get("repairs", 0),
        fingerprint=None if subnet is None else subnet.fingerprint,
        architecture=architecture,
        effects=effects_of(figures, (record.report or {}).get("baseline")) if figures else [],
        files=files_of(record.artifacts, asked.index),
        best_found_ms=figures.get("p50_ms") or figures.get("predicted_ms"),
        **{name: figures.get(name) for name in copied},
    )
    return target.model_copy(update={"sentence": target_sentence(record, target)})


def files_of(artifacts: Sequence[ArtifactRow], target: int | None) -> list[File]:
    """Of a target, or those of the job itself."""
    own = [row for row in artifacts if row.target_index == target]
    return [
        File(
            id=row.id,
            name=row.name,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            media_type=row.media_type,
        )
        for row in own
    ]


def _unsearched(record: JobRecord) -> list[Unsearched]:
    report = record.report or {}
    return [
        Unsearched(
            name=name,
            p50_ms=figures["p50_ms"],
            p95_ms=figures["p95_ms"],
            quality=figures["quality"],
            size_bytes=figures["size_bytes"],
            params=figures.get("params"),
        )
        for key, name in UNSEARCHED.items()
        if (figures := report.get(key))
    ]


def _searched(record: JobRecord) -> list[Searched]:
    found = []
    for source in record.sources:
        own = record.found_by(source)
        if source == EARLIER:
            continue
        known = [*record.found_by(EARLIER), *own] if source == SEARCH else own
        best = []
        for budget, promise in zip(record.budgets_ms, record.promise_of_target, strict=True):
            within = [
                f.quality
                for f in known
                if budget is not None
                and promise < len(f.latencies_ms)
                and f.latencies_ms[promise] <= budget
            ]
            best.append(max(within, default=None))
        found.append(
            Searched(
                source=source,
                evaluations=len(own),
                distinct=len({f.fingerprint for f in own}),
                hypervolume=_hypervolume(record, source),
                best_within=best,
            )
        )
    return found


def _hypervolume(record: JobRecord, source: str) -> float | None:
    """As the job told it; of one that goes on, as far as it came."""
    if record.report is not None:
        searched = record.report["search"]
        figures = searched if source == SEARCH else searched["baselines"].get(source)
        return None if figures is None else figures["hypervolume"]
    limits, budgets = record.quality_range, record.budgets_ms
    known = [b for b, p in zip(budgets, record.promise_of_target, strict=True) if b and p == 0]
    if limits is None or not known:
        return None
    own = record.found_by(*((EARLIER, SEARCH) if source == SEARCH else (source,)))
    places = [(f.latencies_ms[0], f.quality) for f in own]
    volumes = hypervolumes(places, slowest_ms=max(known), chance=limits[0], best=limits[1])
    return volumes[-1] if volumes else None


def _learned(record: JobRecord) -> list[Learned]:
    """Of every profile: by the report, and before it by what was announced."""
    if record.report is not None:
        told = [
            (p["device"].get("cpu_model", ""), p["workload"]["runtime"], p["predictor"])
            for p in record.report["profiles"]
        ]
    else:
        told = [
            (
                record.spec.targets[0].device,
                event.data.get("workload", {}).get("runtime", ""),
                event.data["fit_report"],
            )
            for event in record.events_of("onboarded")
            if event.data.get("fit_report")
        ]
    return [_fit(*one) for one in told if one[2]]


def _fit(device: str, runtime: str, fit: dict[str, Any]) -> Learned:
    names = set(Learned.model_fields) - {"device", "runtime"}
    return Learned(device=device, runtime=runtime, **{name: fit.get(name) for name in names})


def _charts(record: JobRecord, targets: Sequence[TargetFound]) -> list[Chart]:
    charts = [*front_charts(record), hypervolume_chart(record), convergence_chart(record)]
    for target in targets:
        charts += waterfalls(target.effects, target.index, record.metric)
    return [chart for chart in charts if chart is not None]


def _lineage(record: JobRecord) -> Lineage:
    report = record.report or {}
    data = report.get("data") or {}
    devices = [p["device"].get("cpu_model", "") for p in report.get("profiles", [])]
    return Lineage(
        job_id=record.job.id,
        seed=record.job.seed,
        data_sha256=data.get("sha256"),
        model_sha256=data.get("model_sha256"),
        supernet_of=record.spec.supernet_of,
        test_rows=data.get("test_rows"),
        labels=data.get("labels") or [],
        versions=report.get("versions") or {},
        devices=list(dict.fromkeys(filter(None, devices))),
        repeat="snugnet submit job.yaml --watch",
    )
