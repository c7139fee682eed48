"""Jobs of every kind: create, find, list, cancel. Knows neither HTTP nor what a spec means."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from service import outbox
from service.db import epoch_now
from service.events import append_event
from service.ids import new_id
from service.job_states import ACTIVE, TERMINAL, conclude_job
from service.models import Job, MeasurementJob, Step
from service.step_types import NewStep

__all__ = [
    "ONBOARDING",
    "SEARCH",
    "TERMINAL",
    "create_job",
    "finish_cancel",
    "get_job",
    "has_live_step",
    "list_jobs",
    "request_cancel",
]

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
    first: NewStep = FIRST_STEP,
    kind: str = SEARCH,
) -> Job:
    """Write a queued job, its first step, its first event and the wake-up.

    Args:
        spec: a validated job spec, as JSON.
    """
    job = Job(id=new_id(ID_PREFIXES[kind]), kind=kind, name=name, spec=spec, seed=seed)
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
    limit: int = 50,
    before: tuple[float, str] | None = None,
) -> list[Job]:
    """Newest first. `before` is `(created_at, id)` of the last job of the page before.

    Args:
        device_id: of onboardings, those of one device.
    """
    query = select(Job).where(Job.kind == kind)
    query = query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    if device_id is not None:
        query = query.where(Job.spec["device"].as_string() == device_id)
    if before is not None:
        query = query.where(tuple_(Job.created_at, Job.id) < before)
    return list(session.scalars(query))


def request_cancel(session: Session, job_id: str) -> Job | None:
    """Ask a job to stop; None when there is no such job. Repeating it changes nothing.

    A job of which no step runs is cancelled at once, any other one when its step notices.
    """
    is_live = _lock_open_work(session, job_id)
    requested = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.in_(ACTIVE), Job.cancel_requested.is_(False))
        .values(cancel_requested=True, state="cancelling", version=Job.version + 1)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).first()
    if requested:
        append_event(session, job_id, "state", "cancel requested", {"state": "cancelling"})
        if not is_live:
            conclude_job(session, job_id, "cancelled")
    session.expire_all()
    return session.get(Job, job_id)


def finish_cancel(session: Session, job_id: str) -> bool:
    """Cancel a `cancelling` job whose step's holder is gone; False while one is alive."""
    return not _lock_open_work(session, job_id) and conclude_job(session, job_id, "cancelled")


def has_live_step(session: Session, job_id: str) -> bool:
    """Whether a step of the job is held under a lease that has not run out."""
    query = select(Step.id).where(
        Step.job_id == job_id, Step.state == "running", Step.lease_until > epoch_now()
    )
    return session.execute(query.limit(1)).first() is not None


def _lock_open_work(session: Session, job_id: str) -> bool:
    """Lock the job's open steps and measurements, so that none is claimed meanwhile; whether a
    step is live. They are locked before the job, as everywhere."""
    for table in (Step, MeasurementJob):
        is_open = table.state.in_(("ready", "running"))
        query = select(table.id).where(table.job_id == job_id, is_open).with_for_update()
        session.execute(query).all()
    return has_live_step(session, job_id)
