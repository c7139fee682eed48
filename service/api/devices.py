"""Devices over HTTP: agents register here and ask for work."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import devices, measurement_jobs
from service.api.dependencies import Key, Parts, Service
from service.db import epoch_now
from service.models import MeasurementJob
from service.problems import NotFound
from service.schemas import ClaimedMeasurementJob, Device, DevicePage, NewDevice

router = APIRouter(prefix="/v1/devices", tags=["devices"])

MAX_WAIT_SECONDS = 20.0


@router.get("")
def list_all(parts: Service, _key: Key) -> DevicePage:
    with parts.database.read() as session:
        rows = devices.list_devices(session)
        return DevicePage(items=[Device.model_validate(row) for row in rows])


@router.post("")
def register(new: NewDevice, parts: Service, _key: Key) -> Device:
    """Make a device known, or note that its agent is alive."""
    with parts.database.write() as session:
        row = devices.register_device(session, new.name, new.identity)
        return Device.model_validate(row)


@router.post(
    "/{device_id}/measurement-jobs/claim",
    response_model=ClaimedMeasurementJob,
    responses={204: {"description": "no work came up"}},
)
async def claim(
    device_id: str,
    parts: Service,
    key: Key,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0,
) -> ClaimedMeasurementJob | Response:
    """The device's next work under a lease; waits up to `wait_s` for some."""
    await run_in_threadpool(_touch, parts, device_id)
    claimed = await parts.notifier.wait_for(lambda: _claim(parts, device_id, key), wait_s)
    return claimed or Response(status_code=204)


def _touch(parts: Parts, device_id: str) -> None:
    with parts.database.write() as session:
        if devices.touch_device(session, device_id) is None:
            raise NotFound("device", device_id)


def _claim(parts: Parts, device_id: str, key: str) -> ClaimedMeasurementJob | None:
    lease_seconds = parts.settings.lease_seconds
    # Looking first keeps idle agents from taking the writer's lock every second.
    with parts.database.read() as session:
        if not _has_work(session, device_id):
            return None
    with parts.database.write() as session:
        lease = measurement_jobs.claim(session, device_id, key, lease_seconds)
    if lease is None:
        return None
    return ClaimedMeasurementJob(
        id=lease.id, token=lease.token, spec=lease.spec, lease_seconds=lease_seconds
    )


def _has_work(session: Session, device_id: str) -> bool:
    ran_out = and_(MeasurementJob.state == "running", MeasurementJob.lease_until <= epoch_now())
    query = select(MeasurementJob.id).where(
        MeasurementJob.device_id == device_id, or_(MeasurementJob.state == "ready", ran_out)
    )
    return session.execute(query.limit(1)).first() is not None
