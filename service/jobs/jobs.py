"""Jobs of every kind: create, find, list. Knows neither HTTP nor what a spec means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from service.database.ids import new_id
from service.database.models import Job
from service.database.pages import newest_first
from service.jobs.events import append_event
from service.steps import outbox
from service.steps.step_types import NewStep
from service.telemetry import tracing

SEARCH = "search"
ONBOARDING = "onboarding"
ID_PREFIXES = {SEARCH: "job", ONBOARDING: "onb"}
FIRST_STEP = NewStep(kind="prepare", input={})


def create_job(
    session: Session,
    spec: dict[str, Any],
    *,
    name: str,
    seed: int = 0,
    labels: Mapping[str, str] | None = None,
    tenant_id: str | None = None,
    first: NewStep = FIRST_STEP,
    kind: str = SEARCH,
) -> Job:
    """Write a queued job, its first step, its first event and the wake-up.

    Args:
        spec: a validated job spec, as JSON.
        tenant_id: where it is not the session's.
    """
    job = Job(
        id=new_id(ID_PREFIXES[kind]),
        tenant_id=tenant_id,
        kind=kind,
        name=name,
        spec=spec,
        seed=seed,
        labels=dict(labels or {}),
        traceparent=tracing.current_traceparent(),
    )
    session.add(job)
    session.flush()
    append_event(session, job.id, "state", "the job was created", {"state": "queued"})
    outbox.add_step(session, job.id, first)
    session.refresh(job)
    return job


def get_job(session: Session, job_id: str, kind: str | None = None) -> Job | None:
    """None also when the job is of another kind than asked for."""
    job = session.get(Job, job_id)
    return job if job is not None and kind in (None, job.kind) else None


def list_jobs(
    session: Session,
    *,
    kind: str = SEARCH,
    device_id: str | None = None,
    states: Sequence[str] | None = None,
    labels: Mapping[str, str | None] | None = None,
    name_part: str = "",
    with_result: bool = True,
    limit: int = 50,
    before: tuple[float, str] | None = None,
) -> list[Job]:
    """Newest first. `before` is `(created_at, id)` of the last job of the page before.

    Args:
        device_id: of onboardings, those of one device.
        labels: that a job must have, all of them; with None, whatever its value is.
        name_part: what its name has in it, in capitals or not.
        with_result: False leaves the results out, which are long.
    """
    query = select(Job).where(Job.kind == kind)
    if not with_result:
        query = query.options(defer(Job.result, raiseload=True))
    if name_part:
        query = query.where(Job.name.icontains(name_part, autoescape=True))
    if device_id is not None:
        query = query.where(Job.spec["device"].as_string() == device_id)
    if states is not None:
        query = query.where(Job.state.in_(states))
    for key, value in (labels or {}).items():
        found = Job.labels[key].as_string()
        query = query.where(found.is_not(None) if value is None else found == value)
    return list(session.scalars(newest_first(query, Job, limit=limit, before=before)))


def found_for_targets(session: Session, job_ids: Sequence[str]) -> dict[str, list[Any]]:
    """What jobs that succeeded found for each of their targets, out of their results."""
    query = select(Job.id, Job.result["targets"]).where(
        Job.id.in_(job_ids), Job.result.is_not(None)
    )
    return {job_id: found for job_id, found in session.execute(query) if found is not None}
