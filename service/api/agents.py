"""What measuring agents call: register, claim work, renew the lease, hand in a result, give up."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from service import agents, devices, measurement_jobs
from service.api.dependencies import MeasureKey, Parts, Service
from service.api.devices import to_device
from service.device_schemas import (
    AgentId,
    ClaimedMeasurementJob,
    Device,
    LeaseRenewal,
    MeasurementFailure,
    MeasurementResult,
    NewDevice,
)
from service.measurements import CheckedResult

router = APIRouter(prefix="/v1", tags=["agents"])

MAX_WAIT_SECONDS = 20.0


@router.post("/devices")
def register(new: NewDevice, parts: Service, _key: MeasureKey) -> Device:
    """Make a device known, or note that its agent is alive.

    409 `device_in_use` while another agent speaks for a device of this name, `device_retired`
    when nothing is measured on it any more.
    """
    with parts.database.write() as session:
        row = devices.register_device(session, new.name, new.identity, new.agent_id)
        return to_device(session, row)


@router.post(
    "/devices/{device_id}/measurement-jobs/claim",
    response_model=ClaimedMeasurementJob,
    responses={204: {"description": "no work came up"}},
)
async def claim(
    device_id: str,
    parts: Service,
    key: MeasureKey,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0,
    agent_id: Annotated[AgentId | None, Query()] = None,
) -> ClaimedMeasurementJob | Response:
    """The device's next work under a lease; waits up to `wait_s` for some."""
    await run_in_threadpool(_hear, parts, device_id, agent_id)

    def look() -> ClaimedMeasurementJob | None:
        return _claim(parts, device_id, agent_id, key)

    claimed = await parts.notifier.wait_for(look, wait_s)
    return claimed or Response(status_code=204)


@router.post("/measurement-jobs/{measurement_job_id}/renew", status_code=204)
def renew(
    measurement_job_id: str, body: LeaseRenewal, parts: Service, _key: MeasureKey
) -> Response:
    with parts.database.write() as session:
        measurement_jobs.renew(
            session, measurement_job_id, body.token, parts.settings.lease_seconds
        )
    return Response(status_code=204)


@router.post("/measurement-jobs/{measurement_job_id}/result", status_code=204)
def result(
    measurement_job_id: str, body: MeasurementResult, parts: Service, _key: MeasureKey
) -> Response:
    """422 names the sample that is wrong; the claim then stays with the agent."""
    with parts.database.read() as session:
        spec = measurement_jobs.asked_of(session, measurement_job_id, body.token)
    checked = CheckedResult.of(spec, body.result)
    with parts.database.write() as session:
        measurement_jobs.complete(session, measurement_job_id, body.token, body.result, checked)
    parts.notifier.notify()
    return Response(status_code=204)


@router.post("/measurement-jobs/{measurement_job_id}/failure", status_code=204)
def failure(
    measurement_job_id: str, body: MeasurementFailure, parts: Service, _key: MeasureKey
) -> Response:
    with parts.database.write() as session:
        measurement_jobs.fail(
            session, measurement_job_id, body.token, body.code, body.message, retry=body.retry
        )
    parts.notifier.notify()
    return Response(status_code=204)


def _hear(parts: Parts, device_id: str, agent_id: str | None) -> None:
    with parts.database.write() as session:
        device = devices.check_agent(session, device_id, agent_id)
        devices.touch_device(session, device.id)


def _claim(
    parts: Parts, device_id: str, agent_id: str | None, key: str
) -> ClaimedMeasurementJob | None:
    lease_seconds = parts.settings.lease_seconds
    # Looking first keeps idle agents from taking the writer's lock every second.
    with parts.database.read() as session:
        devices.check_agent(session, device_id, agent_id)  # retired or taken over meanwhile
        if not agents.has_work(session, device_id):
            return None
    with parts.database.write() as session:
        lease = measurement_jobs.claim(session, device_id, key, lease_seconds)
    if lease is None:
        return None
    return ClaimedMeasurementJob(
        id=lease.id, token=lease.token, spec=lease.spec, lease_seconds=lease_seconds
    )
