"""Devices over HTTP: list them, rename or retire one, ask it for measurements."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.api.dependencies import DevicesReader, DevicesWriter, Service
from service.api.measurement_jobs import to_measurement_job
from service.api.onboardings import to_onboarding
from service.database.db import epoch_now
from service.database.models import Device as DeviceRow
from service.database.models import PredictorRow
from service.devices import devices, measurement_jobs, onboardings
from service.devices.device_schemas import (
    Device,
    DeviceChange,
    DevicePage,
    MeasurementJob,
    MeasureRequest,
    Onboarding,
    OnboardingRequest,
)

router = APIRouter(prefix="/v1/devices", tags=["devices"])


@router.get("")
def list_all(
    caller: DevicesReader,
    retired: Annotated[bool, Query()] = False,
    cursor: str = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> DevicePage:
    """Those in use, by name; with `retired`, the others too."""
    with caller.database.read() as session:
        rows = devices.list_devices(
            session, with_retired=retired, after_name=cursor, limit=limit + 1
        )
        return DevicePage(
            items=[to_device(session, row) for row in rows[:limit]],
            next_cursor=rows[limit - 1].name if len(rows) > limit else None,
        )


@router.get("/{device_id}")
def get(device_id: str, caller: DevicesReader) -> Device:
    """By id or name."""
    with caller.database.read() as session:
        return to_device(session, devices.get_device(session, device_id))


@router.patch("/{device_id}")
def change(device_id: str, body: DeviceChange, parts: Service, caller: DevicesWriter) -> Device:
    """Rename it, retire it, or bring it back. Its agent stays its own under any name."""
    if body.name is None and body.retired is None:
        raise InvalidInput("body", "give a name, or retired")
    with caller.write() as session:
        row = devices.get_device(session, device_id)
        if body.name is not None and body.name != row.name:
            devices.rename_device(session, row, body.name)
        if body.retired is not None:
            _set_retired(session, row, body.retired)
        answer = caller.answer(session, to_device(session, row))
    parts.notifier.notify()
    return answer


@router.delete("/{device_id}")
def retire(device_id: str, parts: Service, caller: DevicesWriter) -> Device:
    """Measure on it no more; what was measured stays. Repeating it changes nothing."""
    with caller.write() as session:
        row = devices.get_device(session, device_id)
        _set_retired(session, row, True)
        answer = caller.answer(session, to_device(session, row))
    parts.notifier.notify()
    return answer


@router.post("/{device_id}:onboard", status_code=202)
def onboard(
    device_id: str, body: OnboardingRequest, parts: Service, caller: DevicesWriter
) -> Onboarding:
    """Learn how fast the device runs the networks of a space."""
    with caller.write() as session:
        row = devices.get_device(session, device_id)
        answer = caller.answer(
            session, to_onboarding(onboardings.create_onboarding(session, row, body))
        )
    parts.notifier.notify()
    return answer


@router.post("/{device_id}:measure", status_code=202)
def measure(
    device_id: str, body: MeasureRequest, parts: Service, caller: DevicesWriter
) -> MeasurementJob:
    """Time some networks; the answer names the work to ask after."""
    with caller.write() as session:
        row = devices.get_device(session, device_id)
        answer = caller.answer(
            session,
            to_measurement_job(session, onboardings.create_measurement(session, row, body)),
        )
    parts.notifier.notify()
    return answer


def to_device(session: Session, row: DeviceRow) -> Device:
    of_device = select(func.count()).where(PredictorRow.device_id == row.id)
    return Device(
        id=row.id,
        name=row.name,
        identity=row.identity,
        fingerprint=row.fingerprint,
        last_seen_at=row.last_seen_at,
        is_online=row.retired_at is None and devices.is_online(session, row),
        retired_at=row.retired_at,
        num_predictors=session.execute(of_device).scalar_one(),
    )


def _set_retired(session: Session, row: DeviceRow, retired: bool) -> None:
    if retired == (row.retired_at is not None):
        return
    row.retired_at = epoch_now() if retired else None
    session.flush()
    session.refresh(row)
    if retired:
        message = f"the device {row.name!r} was retired"
        measurement_jobs.fail_all_of(session, row.id, "device_retired", message)
