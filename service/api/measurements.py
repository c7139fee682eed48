"""Everything that was measured on a device, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from predictors.workload import Workload
from service.api.dependencies import DevicesReader
from service.api.feeds import cursor_after, read_cursor
from service.database.models import MeasuringSession as MeasuringSessionRow
from service.devices import devices, measurements
from service.devices.device_schemas import (
    Measurement,
    MeasurementPage,
    MeasuringSession,
    MeasuringSessionPage,
)

router = APIRouter(prefix="/v1/devices", tags=["measurements"])

Limit = Annotated[int, Query(ge=1, le=500)]
Since = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False)]


@router.get("/{device_id}/measurements")
def list_all(
    device_id: str,
    caller: DevicesReader,
    purpose: str | None = None,
    precision: str | None = None,
    runtime: str | None = None,
    session: str | None = None,
    since: Since = None,
    cursor: str | None = None,
    limit: Limit = 50,
) -> MeasurementPage:
    """Newest first, raw samples and all.

    Args:
        session: id of a measuring session.
        since: epoch seconds.
    """
    asked = {"purpose": purpose, "precision": precision, "runtime": runtime, "session_id": session}
    filters = {column: value for column, value in asked.items() if value is not None}
    before = read_cursor(cursor)
    with caller.database.read() as opened:
        device = devices.get_device(opened, device_id)
        rows = measurements.list_measurements(
            opened, device.id, limit=limit + 1, before=before, filters=filters, since=since
        )
    return MeasurementPage(
        items=[Measurement.model_validate(row) for row in rows[:limit]],
        next_cursor=cursor_after(rows[limit - 1]) if len(rows) > limit else None,
    )


@router.get("/{device_id}/measuring-sessions")
def list_sessions(
    device_id: str,
    caller: DevicesReader,
    cursor: str | None = None,
    limit: Limit = 50,
) -> MeasuringSessionPage:
    """Newest first: anchors, conditions, and what was thrown away."""
    before = read_cursor(cursor)
    with caller.database.read() as session:
        device = devices.get_device(session, device_id)
        rows = measurements.list_sessions(session, device.id, limit=limit + 1, before=before)
    return MeasuringSessionPage(
        items=[_session(row) for row in rows[:limit]],
        next_cursor=cursor_after(rows[limit - 1]) if len(rows) > limit else None,
    )


def _session(row: MeasuringSessionRow) -> MeasuringSession:
    key = Workload.from_dict(row.workload).key
    return MeasuringSession.model_validate(row).model_copy(update={"workload_key": key})
