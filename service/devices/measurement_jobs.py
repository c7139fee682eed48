"""Work for measuring agents, leased like steps: claim, renew, complete, fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.orm import Session

from predictors.spec import MeasuringSpec
from service.database.db import epoch_now
from service.database.models import Device, Job, MeasurementJob
from service.devices import agents, measurements
from service.devices.devices import touch_device
from service.devices.measurements import CheckedResult
from service.jobs.events import append_event
from service.jobs.job_states import conclude_job
from service.steps import outbox
from service.steps.step_types import MAX_ATTEMPTS, LeaseLost, NewMeasurement, NewStep


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasurementLease:
    """A claimed measurement job: what to measure, and the token that every report must carry."""

    id: str
    job_id: str | None
    token: int
    spec: dict[str, Any]
    traceparent: str | None = None


def create(session: Session, new: NewMeasurement, *, job_id: str | None) -> MeasurementJob:
    job = MeasurementJob(
        tenant_id=session.get_one(Device, new.device_id).tenant_id,
        device_id=new.device_id,
        job_id=job_id,
        spec=new.spec,
        then_kind=new.then.kind if new.then else None,
        then_input=new.then.input if new.then else None,
        purposes=new.purposes,
        agent_timeout_s=new.agent_timeout_s,
    )
    session.add(job)
    session.flush()
    if job_id is not None:
        data = {"measurement_job_id": job.id, "device_id": new.device_id}
        append_event(session, job_id, "measuring", "waits for measurements", data)
    agents.note_if_waiting(session, job)
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
            agents.is_free(),
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
            waiting_noted_at=None,
        )
        .returning(
            MeasurementJob.id, MeasurementJob.job_id, MeasurementJob.token, MeasurementJob.spec
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    return MeasurementLease(
        id=row.id,
        job_id=row.job_id,
        token=row.token,
        spec=row.spec,
        traceparent=session.scalar(select(Job.traceparent).where(Job.id == row.job_id)),
    )


def renew(session: Session, measurement_job_id: str, token: int, lease_seconds: float) -> None:
    """Raises: LeaseLost when the work is not held by this token any more."""
    until = epoch_now() + lease_seconds
    job = _write(session, measurement_job_id, token, lease_until=until)
    touch_device(session, job.device_id)


def asked_of(session: Session, measurement_job_id: str, token: int) -> MeasuringSpec:
    """What the holder of the claim is to measure.

    Raises:
        LeaseLost: the work is not held by this token any more.
    """
    query = select(MeasurementJob.spec).where(*_held(measurement_job_id, token))
    spec = session.scalars(query).one_or_none()
    if spec is None:
        raise _lost(measurement_job_id, token)
    return MeasuringSpec.from_dict(spec)


def complete(
    session: Session,
    measurement_job_id: str,
    token: int,
    result: dict[str, Any],
    checked: CheckedResult | None = None,
) -> None:
    """Store the result and make the step that waits for it ready.

    Args:
        checked: the result, where it was checked before this transaction began.

    Raises:
        LeaseLost: the work is not held by this token any more.
        InvalidInput: the result is not an answer to what was asked; the claim stays as it was.
    """
    if checked is None:
        checked = CheckedResult.of(asked_of(session, measurement_job_id, token), result)
    job = _write(
        session,
        measurement_job_id,
        token,
        state="done",
        result=result,
        lease_until=None,
        finished_at=epoch_now(),
    )
    measurements.record_session(session, job, checked)
    touch_device(session, job.device_id)
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
    give_up(session, job, code, message)


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
    give_up(session, job, "measuring_failed", f"{job.attempts} agents vanished while measuring")
    return True


def fail_all_of(session: Session, device_id: str, code: str, message: str) -> None:
    """Fail what the device still has to measure, and the jobs that wait for it."""
    query = select(MeasurementJob).where(
        MeasurementJob.device_id == device_id, MeasurementJob.state.in_(("ready", "running"))
    )
    for job in session.scalars(query.with_for_update()).all():
        give_up(session, job, code, message)


def _lease_ran_out() -> ColumnElement[bool]:
    return and_(MeasurementJob.state == "running", MeasurementJob.lease_until <= epoch_now())


def give_up(session: Session, job: MeasurementJob, code: str, message: str) -> None:
    """For good, and the job that waits for it with it."""
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
        .where(*_held(measurement_job_id, token))
        .values(**values)
        .returning(MeasurementJob)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if job is None:
        raise _lost(measurement_job_id, token)
    return job


def _held(measurement_job_id: str, token: int) -> tuple[ColumnElement[bool], ...]:
    return (
        MeasurementJob.id == measurement_job_id,
        MeasurementJob.state == "running",
        MeasurementJob.token == token,
    )


def _lost(measurement_job_id: str, token: int) -> LeaseLost:
    return LeaseLost(f"{measurement_job_id} is no longer held by token {token}")
