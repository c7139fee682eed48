"""Short ways to a job and a claimed step."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from service.database.db import Database, epoch_now
from service.database.models import Device, Job, MeasurementJob, Step
from service.devices.devices import register_device
from service.jobs import jobs
from service.steps import steps
from service.steps.step_types import NewMeasurement, NewStep, StepLease, StepResult
from tests.service.measuring import IDENTITY, measuring_spec

LEASE_SECONDS = 60.0


def create_job(database: Database, *, kind: str = "prepare", **options: Any) -> str:
    with database.write() as session:
        first = NewStep(kind=kind, input={"n": 0})
        return jobs.create_job(session, {"task": "x"}, name="job", first=first, **options).id


def job_of(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def steps_of(database: Database, job_id: str) -> list[Step]:
    with database.read() as session:
        query = select(Step).where(Step.job_id == job_id).order_by(Step.created_at, Step.id)
        return list(session.scalars(query))


def open_step(database: Database, job_id: str) -> Step:
    return next(s for s in steps_of(database, job_id) if s.state in ("ready", "running"))


def claim(
    database: Database, job_id: str, owner: str = "me", lease_seconds: float = LEASE_SECONDS
) -> StepLease | None:
    """Claim the job's open step."""
    with database.write() as session:
        step_id = open_step(database, job_id).id
        return steps.claim(session, step_id, owner, lease_seconds)


def claimed(database: Database, job_id: str) -> StepLease:
    lease = claim(database, job_id)
    assert lease is not None
    return lease


def finish(database: Database, lease: StepLease, result: StepResult) -> None:
    with database.write() as session:
        steps.finish(session, lease, result)


def let_leases_run_out(database: Database) -> None:
    with database.write() as session:
        for table in (Step, MeasurementJob):
            session.execute(
                update(table).where(table.state == "running").values(lease_until=epoch_now() - 1)
            )


def create_device(database: Database, name: str = "this-cpu") -> Device:
    with database.write() as session:
        return register_device(session, name, IDENTITY)


def create_measuring_job(database: Database) -> tuple[str, str]:
    """A job that waits for measurements; returns its id and the device's."""
    device = create_device(database)
    job_id = create_job(database)
    measurement = NewMeasurement(
        device_id=device.id,
        spec=measuring_spec().to_dict(),
        then=NewStep(kind="onboard", input={"n": 1}),
    )
    finish(database, claimed(database, job_id), StepResult(next=measurement))
    return job_id, device.id


def measurement_of(database: Database, job_id: str) -> MeasurementJob:
    with database.read() as session:
        query = select(MeasurementJob).where(MeasurementJob.job_id == job_id)
        return session.scalars(query).one()
