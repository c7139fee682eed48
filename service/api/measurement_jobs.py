"""Work of measuring agents over HTTP: renew the lease, hand in a result, give up."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service import measurement_jobs
from service.api.dependencies import Key, Service
from service.schemas import LeaseRenewal, MeasurementFailure, MeasurementResult

router = APIRouter(prefix="/v1/measurement-jobs", tags=["measurement jobs"])


@router.post("/{measurement_job_id}/renew", status_code=204)
def renew(measurement_job_id: str, body: LeaseRenewal, parts: Service, _key: Key) -> Response:
    with parts.database.write() as session:
        measurement_jobs.renew(
            session, measurement_job_id, body.token, parts.settings.lease_seconds
        )
    return Response(status_code=204)


@router.post("/{measurement_job_id}/result", status_code=204)
def result(
    measurement_job_id: str, body: MeasurementResult, parts: Service, _key: Key
) -> Response:
    with parts.database.write() as session:
        measurement_jobs.complete(session, measurement_job_id, body.token, body.result)
    parts.notifier.notify()
    return Response(status_code=204)


@router.post("/{measurement_job_id}/failure", status_code=204)
def failure(
    measurement_job_id: str, body: MeasurementFailure, parts: Service, _key: Key
) -> Response:
    with parts.database.write() as session:
        measurement_jobs.fail(session, measurement_job_id, body.token, body.code, body.message)
    parts.notifier.notify()
    return Response(status_code=204)
