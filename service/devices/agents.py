"""Work that no agent takes: it says so at once, and some of it does not wait for ever."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from service.database.db import epoch_now
from service.database.models import Device, Job, MeasurementJob
from service.devices.devices import was_heard
from service.jobs.events import append_event
from service.jobs.job_states import GOING


def note_if_waiting(session: Session, job: MeasurementJob) -> bool:
    """Tell the job's followers, once, that the device's agent is away; whether it did."""
    device = session.scalars(
        select(Device).where(Device.id == job.device_id, ~was_heard())
    ).one_or_none()
    if device is None or job.waiting_noted_at is not None:
        return False
    job.waiting_noted_at = epoch_now()
    session.flush()
    if job.job_id is not None:
        limit_s = job.agent_timeout_s
        until = f"for {limit_s:g} s at most" if limit_s is not None else "until one comes"
        append_event(
            session,
            job.job_id,
            "waiting",
            f"no agent of {device.name!r} is connected; start `snugnet agent --name "
            f"{device.name}` there; waiting {until}",
            {"measurement_job_id": job.id, "device_id": device.id, "agent_timeout_s": limit_s},
            level="warning",
        )
    return True


def unattended(session: Session) -> tuple[list[str], list[str]]:
    """Ids of measurement jobs whose waiting is still to be told, and of those out of patience."""
    query = (
        select(MeasurementJob, Device.last_seen_at)
        .join(Device, Device.id == MeasurementJob.device_id)
        .where(is_free(), ~was_heard())
    )
    now = session.execute(select(epoch_now())).scalar_one()
    news, overdue = [], []
    for job, last_seen_at in session.execute(query):
        waits_since = max(job.created_at, last_seen_at, job.lease_until or 0.0)
        if job.agent_timeout_s is not None and now - waits_since >= job.agent_timeout_s:
            overdue.append(job.id)
        elif job.waiting_noted_at is None:
            news.append(job.id)
    return news, overdue


def has_work(session: Session, device_id: str) -> bool:
    """Whether an agent of the device would get something."""
    query = select(MeasurementJob.id).where(MeasurementJob.device_id == device_id, is_free())
    return session.execute(query.limit(1)).first() is not None


def lock_unattended(session: Session, measurement_job_id: str) -> MeasurementJob | None:
    """For writing, unless an agent has come meanwhile."""
    query = (
        select(MeasurementJob)
        .join(Device, Device.id == MeasurementJob.device_id)
        .where(MeasurementJob.id == measurement_job_id, is_free(), ~was_heard())
        .with_for_update(of=MeasurementJob)
    )
    return session.scalars(query).one_or_none()


def is_free() -> ColumnElement[bool]:
    """Whether an agent may take it: nobody holds it, and its job, if it has one, goes on."""
    ran_out = and_(MeasurementJob.state == "running", MeasurementJob.lease_until <= epoch_now())
    goes_on = exists().where(Job.id == MeasurementJob.job_id, Job.state.in_(GOING))
    return and_(
        or_(MeasurementJob.state == "ready", ran_out),
        or_(MeasurementJob.job_id.is_(None), goes_on),
    )
