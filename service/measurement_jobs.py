"""Work for measuring agents, leased like steps: claim, renew, complete, fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from service import outbox
from service.db import epoch_now
from service.events import append_event
from service.job_states import conclude_job
from service.models import MeasurementJob
from service.step_types import MAX_ATTEMPTS, LeaseLost, NewMeasurement, NewStep


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasurementLease:
    """A claimed measurement job: what to measure, and the token that every report must carry."""

    id: str
    job_id: str | None
    token: int
    spec: dict[str, Any]


def create(session: Session, new: NewMeasurement, *, job_id: str | None) -> MeasurementJob:
    job = MeasurementJob(
        device_id=new.device_id,
        job_id=job_id,
        spec=new.spec,
        then_kind=new.then.kind,
        then_input=new.then.input,
    )
    session.add(job)
    session.flush()
    if job_id is not None:
        data = {"measurement_job_id": job.id, "device_id": new.device_id}
        append_event(session, job_id, "measuring", "waits for measurements", data)
    return job


def get(session: Session, measurement_job_id: str) -> MeasurementJob | None:
    return session.get(MeasurementJob, measurement_job_id)


def claim(
    session: Session, device_id: str, owner: str, lease_seconds: float
) -> MeasurementLease | None:
    """Take the device's oldest work that nobody holds."""
    oldest = (
        select(MeasurementJob.id)
        .where(
            MeasurementJob.device_id == device_id,
            MeasurementJob.attempts < MAX_ATTEMPTS,
            or_(MeasurementJob.state == "ready", _lease_ran_out()),
        )
        .order_by(MeasurementJob.created_at, MeasurementJob.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    row = session.execute(
        update(MeasurementJob)
        .where(MeasurementJob.id == oldest)
        .values(
            state="running",
            owner=owner,
            token=MeasurementJob.token + 1,
            attempts=MeasurementJob.attempts + 1,
            lease_until=epoch_now() + lease_seconds,
        )
        .returning(
            MeasurementJob.id, MeasurementJob.job_id, MeasurementJob.token, MeasurementJob.spec
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    return MeasurementLease(id=row.id, job_id=row.job_id, token=row.token, spec=row.spec)


def renew(session: Session, measurement_job_id: str, token: int, lease_seconds: float) -> None:
    """Raises: LeaseLost when the work is not held by this token any more."""
    _write(session, measurement_job_id, token, lease_until=epoch_now() + lease_seconds)


def complete(
    session: Session, measurement_job_id: str, token: int, result: dict[str, Any]
) -> None:
    """Store the result and make the step that waits for it ready.

    Raises: LeaseLost when the work is not held by this token any more.
    """
    job = _write(
        session,
        measurement_job_id,
        token,
        state="done",
        result=result,
        lease_until=None,
        finished_at=epoch_now(),
    )
    if job.job_id is None or job.then_kind is None:
        return
    given = {**(job.then_input or {}), "measurement_job_id": job.id}
    outbox.add_step(session, job.job_id, NewStep(kind=job.then_kind, input=given))
    data = {"measurement_job_id": job.id, "device_id": job.device_id}
    append_event(session, job.job_id, "measured", "measurements are in", data)


def fail(
    session: Session,
    measurement_job_id: str,
    token: int,
    code: str,
    message: str,
    *,
    retry: bool = True,
) -> None:
    """An agent gives up on this attempt; after the last one the search job fails.

    Raises: LeaseLost when the work is not held by this token any more.
    """
    error = {"code": code, "message": message}
    job = _write(session, measurement_job_id, token, state="ready", lease_until=None, error=error)
    if retry and job.attempts < MAX_ATTEMPTS:
        if job.job_id is not None:
            text = f"measuring failed and is tried again: {message}"
            append_event(session, job.job_id, "retry", text, error, level="warning")
        return
    _give_up(session, job, code, message)


def fail_if_poisonous(session: Session, measurement_job_id: str) -> bool:
    """Fail the job of a measurement whose last allowed agent vanished."""
    job = session.scalars(
        select(MeasurementJob)
        .where(
            MeasurementJob.id == measurement_job_id,
            _lease_ran_out(),
            MeasurementJob.attempts >= MAX_ATTEMPTS,
        )
        .with_for_update()
    ).one_or_none()
    if job is None:
        return False
    _give_up(session, job, "measuring_failed", f"{job.attempts} agents vanished while measuring")
    return True


def _lease_ran_out() -> ColumnElement[bool]:
    return and_(MeasurementJob.state == "running", MeasurementJob.lease_until <= epoch_now())


def _give_up(session: Session, job: MeasurementJob, code: str, message: str) -> None:
    session.execute(
        update(MeasurementJob)
        .where(MeasurementJob.id == job.id)
        .values(
            state="failed",
            error={"code": code, "message": message},
            token=MeasurementJob.token + 1,
            lease_until=None,
            finished_at=epoch_now(),
        )
        .execution_options(synchronize_session=False)
    )
    if job.job_id is not None:
        data = {"measurement_job_id": job.id}
        conclude_job(session, job.job_id, "failed", code=code, message=message, data=data)


def _write(session: Session, measurement_job_id: str, token: int, **values: Any) -> MeasurementJob:
    job = session.scalars(
        update(MeasurementJob)
        .where(
            MeasurementJob.id == measurement_job_id,
            MeasurementJob.state == "running",
            MeasurementJob.token == token,
        )
        .values(**values)
        .returning(MeasurementJob)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if job is None:
        raise LeaseLost(f"{measurement_job_id} is no longer held by token {token}")
    return job
