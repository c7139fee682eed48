"""The devices that a search can be for."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.devices import to_device
from service.devices.devices import list_devices
from service.web.rendering import render
from service.web.viewers import DevicesViewer

router = APIRouter(include_in_schema=False)


@router.get("/devices")
def list_all(request: Request, viewer: DevicesViewer) -> Response:
    with viewer.database.read() as session:
        found = [to_device(session, row) for row in list_devices(session)]
    return render(
        request,
        viewer,
        "devices_list.html" if "hx-request" in request.headers else "devices.html",
        devices=[device for device in found if device.retired_at is None],
        retired=[device for device in found if device.retired_at is not None],
        server_url=str(request.base_url).rstrip("/"),
    )
