"""The stages of a job with the time that each took."""

from __future__ import annotations

from collections.abc import Sequence

from service.database.models import Event
from service.jobs.job_states import TERMINAL
from service.jobs.stages import STAGES
from service.reports.record import JobRecord, StepTime
from service.reports.schema import StageTime

STAGE_OF_KIND = {
    "prepare": "prepare",
    "onboard": "onboard",
    "teacher": "teacher",
    "reorder": "supernet",
    "supernet": "supernet",
    "search": "search",
    "evaluate": "search",
    "baseline": "search",
    "report": "report",
    "conclude": "report",
}


def stage_times(record: JobRecord) -> list[StageTime]:
    """Every stage in order, those to come included; one that a job skips is `skipped`, one that it
    ended before `not reached`."""
    own: dict[str, list[StepTime]] = {stage: [] for stage in STAGES}
    for step in record.steps:
        own[STAGE_OF_KIND.get(step.kind, "finish")].append(step)
    last = max((i for i, stage in enumerate(STAGES) if own[stage]), default=-1)
    return [_stage(record, stage, own[stage], is_past=i < last) for i, stage in enumerate(STAGES)]


def _stage(
    record: JobRecord, stage: str, steps: Sequence[StepTime], *, is_past: bool
) -> StageTime:
    if not steps:
        if is_past or record.job.state == "succeeded":
            return StageTime(stage=stage, state="skipped")
        is_over = record.job.state in TERMINAL
        return StageTime(stage=stage, state="not reached" if is_over else "waiting")
    started = min((s.started_at for s in steps if s.started_at is not None), default=None)
    state = _state(record, steps)
    ends = [step.finished_at for step in steps if step.finished_at is not None]
    finished = max(ends, default=None) if state != "running" else None
    end = finished if finished is not None else record.now
    seconds = None
    if started is not None:
        seconds = max(
            0.0, end - started - _paused_seconds(record.events_of("state"), started, end)
        )
    return StageTime(
        stage=stage,
        state=state,
        started_at=started,
        finished_at=finished,
        seconds=seconds,
        steps=len(steps),
        repeats=sum(max(0, step.attempts - 1) for step in steps),
    )


def _state(record: JobRecord, steps: Sequence[StepTime]) -> str:
    states = {step.state for step in steps}
    if "failed" in states:
        return "failed"
    if states & {"waiting", "ready", "running"}:
        return "waiting" if all(s.started_at is None for s in steps) else "running"
    if "cancelled" in states:
        return "cancelled"
    # Between two of its steps a measurement may be under way.
    is_last = steps[-1] is record.steps[-1]
    return "running" if is_last and record.job.state not in TERMINAL else "done"


def _paused_seconds(states: Sequence[Event], start: float, end: float) -> float:
    """Within the span, for how long the job rested."""
    total, since = 0.0, None
    for event in states:
        if event.data.get("state") == "paused":
            since = event.at
        elif since is not None:
            total += max(0.0, min(event.at, end) - max(since, start))
            since = None
    if since is not None:
        total += max(0.0, end - max(since, start))
    return total
