"""Work of measuring agents, as those who asked for it see it."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from service.api.dependencies import DevicesReader
from service.database.models import MeasurementJob as MeasurementJobRow
from service.devices import measurement_jobs, measurements
from service.devices.device_schemas import MeasurementJob
from service.problems import NotFound

router = APIRouter(prefix="/v1/measurement-jobs", tags=["measurement jobs"])


@router.get("/{measurement_job_id}")
def get(measurement_job_id: str, caller: DevicesReader) -> MeasurementJob:
    with caller.database.read() as session:
        row = measurement_jobs.get(session, measurement_job_id)
        if row is None:
            raise NotFound("measurement job", measurement_job_id)
        return to_measurement_job(session, row)


def to_measurement_job(session: Session, row: MeasurementJobRow) -> MeasurementJob:
    return MeasurementJob(
        id=row.id,
        device_id=row.device_id,
        state=row.state,
        attempts=row.attempts,
        error=row.error,
        session_id=measurements.session_of(session, row.id),
        waiting_since=row.waiting_noted_at if row.state == "ready" else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
