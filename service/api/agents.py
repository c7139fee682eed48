"""What measuring agents call: register, claim work, renew the lease, hand in a result, give up."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import Agent, Caller, Service
from service.api.devices import to_device
from service.devices import agents, devices, measurement_jobs
from service.devices.device_schemas import (
    AgentId,
    ClaimedMeasurementJob,
    Device,
    LeaseRenewal,
    MeasurementFailure,
    MeasurementResult,
    NewDevice,
)
from service.devices.measurements import CheckedResult

router = APIRouter(prefix="/v1", tags=["agents"])

MAX_WAIT_SECONDS = 20.0


@router.post("/devices")
def register(new: NewDevice, caller: Agent) -> Device:
    """Make a device known, or note that its agent is alive.

    409 `device_in_use` while another agent speaks for a device of this name, `device_retired`
    when nothing is measured on it any more.
    """
    with caller.database.write() as session:
        row = devices.register_device(session, new.name, new.identity, new.agent_id)
        return caller.answer(session, to_device(session, row))


@router.post(
    "/devices/{device_id}/measurement-jobs/claim",
    response_model=ClaimedMeasurementJob,
    responses={204: {"description": "no work came up"}},
)
async def claim(
    device_id: str,
    parts: Service,
    caller: Agent,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0,
    agent_id: Annotated[AgentId | None, Query()] = None,
) -> ClaimedMeasurementJob | Response:
    """The device's next work under a lease; waits up to `wait_s` for some."""
    await run_in_threadpool(_hear, caller, device_id, agent_id)

    def look() -> ClaimedMeasurementJob | None:
        return _claim(caller, device_id, agent_id, parts.settings.lease_seconds)

    claimed = await parts.notifier.wait_for(look, wait_s)
    return claimed or Response(status_code=204)


@router.post("/measurement-jobs/{measurement_job_id}/renew", status_code=204)
def renew(measurement_job_id: str, body: LeaseRenewal, parts: Service, caller: Agent) -> Response:
    with caller.database.write() as session:
        measurement_jobs.renew(
            session, measurement_job_id, body.token, parts.settings.lease_seconds
        )
    return Response(status_code=204)


@router.post("/measurement-jobs/{measurement_job_id}/result", status_code=204)
def result(
    measurement_job_id: str, body: MeasurementResult, parts: Service, caller: Agent
) -> Response:
    """422 names the sample that is wrong; the claim then stays with the agent."""
    with caller.database.read() as session:
        spec = measurement_jobs.asked_of(session, measurement_job_id, body.token)
    checked = CheckedResult.of(spec, body.result)
    with caller.database.write() as session:
        measurement_jobs.complete(session, measurement_job_id, body.token, body.result, checked)
    parts.notifier.notify()
    return Response(status_code=204)


@router.post("/measurement-jobs/{measurement_job_id}/failure", status_code=204)
def failure(
    measurement_job_id: str, body: MeasurementFailure, parts: Service, caller: Agent
) -> Response:
    with caller.database.write() as session:
        measurement_jobs.fail(
            session, measurement_job_id, body.token, body.code, body.message, retry=body.retry
        )
    parts.notifier.notify()
    return Response(status_code=204)


def _hear(caller: Caller, device_id: str, agent_id: str | None) -> None:
    with caller.database.write() as session:
        device = devices.check_agent(session, device_id, agent_id)
        devices.touch_device(session, device.id)


def _claim(
    caller: Caller, device_id: str, agent_id: str | None, lease_seconds: float
) -> ClaimedMeasurementJob | None:
    # Looking first keeps idle agents from taking the writer's lock every second.
    with caller.database.read() as session:
        devices.check_agent(session, device_id, agent_id)  # retired or taken over meanwhile
        if not agents.has_work(session, device_id):
            return None
    with caller.database.write() as session:
        lease = measurement_jobs.claim(session, device_id, caller.key_id, lease_seconds)
    if lease is None:
        return None
    return ClaimedMeasurementJob(
        id=lease.id,
        token=lease.token,
        spec=lease.spec,
        lease_seconds=lease_seconds,
        traceparent=lease.traceparent,
    )
