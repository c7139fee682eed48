"""Jobs as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.table import Table

from service.cli.tables import make_table, print_facts, print_table, utc
from service.schemas import DryRun, Event, Job, JobProgress

TARGET_COLUMNS = {
    "budget_ms": "budget, ms",
    "p50_ms": "p50, ms",
    "quality": "quality",
    "quality_kept": "kept",
    "speedup": "speed-up",
    "size_bytes": "bytes",
}


def print_jobs(found: Sequence[Job]) -> None:
    has_labels = any(job.labels for job in found)
    columns = ["id", "name", "state", "stage", "created (UTC)"]
    table = make_table(*columns, *(["labels"] if has_labels else []))
    for job in found:
        labels = [_labels(job)] if has_labels else []
        table.add_row(job.id, job.name, job.state, job.stage or "", utc(job.created_at), *labels)
    print_table(table)


def print_job(job: Job) -> None:
    reason = job.status_reason
    facts = {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "reason": f"{reason.message} ({reason.code})" if reason else "",
        "stage": job.stage or "",
        "progress": amount(job.progress),
        "labels": _labels(job),
        "task": str(job.spec.get("task", "")),
        "seed": str(job.seed),
        "created": utc(job.created_at),
        "started": utc(job.started_at),
        "finished": utc(job.finished_at),
        "likely to finish": utc(job.estimated_finish),
    }
    print_facts({title: value for title, value in facts.items() if value})
    print_targets(job.result, title="targets")


def print_targets(result: Mapping[str, Any] | None, title: str = "") -> None:
    """What was found for each target, where there is a result."""
    targets = (result or {}).get("targets")
    if not isinstance(targets, list) or not targets:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in TARGET_COLUMNS.values():
        table.add_column(column, justify="right")
    for target in targets:
        table.add_row(*(_number(target.get(key)) for key in TARGET_COLUMNS))
    if title:
        typer.echo(f"\n{title}")
    print_table(table)


def print_events(found: Sequence[Event]) -> None:
    table = make_table("number", "at (UTC)", "level", "kind", "message")
    for event in found:
        table.add_row(str(event.seq), utc(event.at), event.level, event.kind, event.message)
    print_table(table)


def print_dry_run(found: DryRun) -> None:
    seconds = found.total_seconds
    print_facts(
        {
            "networks in the space": found.num_networks,
            "evaluations": str(found.num_evaluations),
            "time": f"about {_rounded(seconds)}" if seconds is not None else "not known yet",
            "judged by": f"{found.num_earlier_jobs} earlier jobs",
        }
    )
    stages = make_table("stage", "about, s")
    for stage in found.stages:
        stages.add_row(stage.stage, _number(stage.seconds))
    targets = make_table("device", "budget, ms", "closest, ms")
    for target in found.targets:
        targets.add_row(target.device, _number(target.budget_ms), _number(target.closest_ms))
    for table in (stages, targets):
        if table.rows:
            typer.echo()
            print_table(table)


def _rounded(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def amount(progress: JobProgress) -> str:
    return f"{progress.done:g}/{progress.total:g} {progress.unit}" if progress.total else ""


def _labels(job: Job) -> str:
    return " ".join(f"{key}={value}" for key, value in job.labels.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
