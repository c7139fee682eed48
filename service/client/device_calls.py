"""Calls about devices: measurements, predictors, onboardings, agents. A device is named by its id,
or by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from service.client.calls import (
    LONG_POLL_SECONDS,
    Call,
    Page,
    get,
    nothing,
    page_after,
    patch,
    path_of,
    post,
    reads,
)
from service.client.events import PAGE_TIMEOUT_SECONDS, PATIENCE_SECONDS, Feed, page_params
from service.client.plans import Plan, ask
from service.devices.device_schemas import (
    ClaimedMeasurementJob,
    Device,
    DevicePage,
    MeasurementJob,
    MeasurementPage,
    MeasuringSessionPage,
    Onboarding,
    OnboardingPage,
    PredictedPage,
    PredictorDetail,
    PredictorPage,
)
from service.schemas import EventPage


def device_pages(*, retired: bool = False) -> Call[DevicePage]:
    """All in use, by name; with `retired`, the others too."""
    return get(DevicePage, path_of("devices"), {"retired": "true"} if retired else {})


def devices(*, retired: bool = False) -> Plan[list[Device]]:
    """All in use, by name; with `retired`, the others too."""
    found: list[Device] = []
    call: Call[Page[Device]] | None = device_pages(retired=retired)
    while call is not None:
        page = yield from ask(call)
        found += page.items
        call = page_after(call, page)
    return found


def device(device: str) -> Call[Device]:
    return get(Device, path_of("devices", device))


def rename_device(device: str, name: str) -> Call[Device]:
    return patch(Device, path_of("devices", device), {"name": name})


def retire_device(device: str) -> Call[Device]:
    return Call(method="DELETE", path=path_of("devices", device), parse=reads(Device))


def revive_device(device: str) -> Call[Device]:
    return patch(Device, path_of("devices", device), {"retired": False})


# --- measurements and predictors -----------------------------------------------------------


def measure(device: str, request: Mapping[str, Any]) -> Call[MeasurementJob]:
    """Ask for some networks to be timed; see `device_schemas.MeasureRequest`."""
    return post(reads(MeasurementJob), f"{path_of('devices', device)}:measure", dict(request))


def measurement_job(measurement_job_id: str) -> Call[MeasurementJob]:
    return get(MeasurementJob, path_of("measurement-jobs", measurement_job_id))


def measurements(device: str, **filters: Any) -> Call[MeasurementPage]:
    """One page, newest first. Filters: purpose, precision, runtime, session, since; `cursor` of
    the page before; `limit`."""
    return get(MeasurementPage, path_of("devices", device, "measurements"), filters)


def measuring_sessions(device: str, **paging: Any) -> Call[MeasuringSessionPage]:
    """One page, newest first; `cursor` of the page before; `limit`."""
    return get(MeasuringSessionPage, path_of("devices", device, "measuring-sessions"), paging)


def predictors(device: str, **filters: Any) -> Call[PredictorPage]:
    """One page, newest first. Filters: key, shape_key, precision, latest; `cursor` of the page
    before; `limit`."""
    return get(PredictorPage, path_of("devices", device, "predictors"), filters)


def predictor(device: str, predictor_id: str) -> Call[PredictorDetail]:
    return get(PredictorDetail, path_of("devices", device, "predictors", predictor_id))


def predict(device: str, request: Mapping[str, Any]) -> Call[PredictedPage]:
    """Latency of networks; see `device_schemas.Prediction`."""
    path = f"{path_of('devices', device)}/predictors:predict"
    return post(reads(PredictedPage), path, dict(request))


# --- onboarding ----------------------------------------------------------------------------


def onboard(device: str, request: Mapping[str, Any]) -> Call[Onboarding]:
    """Learn a device; see `device_schemas.OnboardingRequest`."""
    return post(reads(Onboarding), f"{path_of('devices', device)}:onboard", dict(request))


def onboardings(device: str | None = None, **paging: Any) -> Call[OnboardingPage]:
    """One page, newest first, of one device or all; `cursor` of the page before; `limit`."""
    return get(OnboardingPage, path_of("onboardings"), {"device": device, **paging})


def onboarding(onboarding_id: str) -> Call[Onboarding]:
    return get(Onboarding, path_of("onboardings", onboarding_id))


def cancel_onboarding(onboarding_id: str) -> Call[Onboarding]:
    return post(reads(Onboarding), f"{path_of('onboardings', onboarding_id)}:cancel")


def onboarding_stream(
    onboarding_id: str, *, after: int = 0, patience_s: float = PATIENCE_SECONDS
) -> Feed:
    """Every event once, as they happen, until the onboarding has ended; as `stream`."""
    path = path_of("onboardings", onboarding_id, "events", "stream")
    return Feed(path, after=after, patience_s=patience_s)


def onboarding_events_page(
    onboarding_id: str,
    *,
    after: int = 0,
    limit: int = 500,
    wait_s: float = 0.0,
    patience_s: float = 0.0,
) -> Call[EventPage]:
    return get(
        EventPage,
        path_of("onboardings", onboarding_id, "events"),
        page_params(after, limit, wait_s),
        timeout_s=wait_s + PAGE_TIMEOUT_SECONDS,
        patience_s=patience_s,
    )


# --- agents --------------------------------------------------------------------------------


def register_device(
    name: str, identity: Mapping[str, Any], agent_id: str | None = None
) -> Call[Device]:
    """Make the device known, or say that it is still there."""
    body: dict[str, Any] = {"name": name, "identity": dict(identity)}
    if agent_id is not None:
        body["agent_id"] = agent_id
    return post(reads(Device), path_of("devices"), body)


def claim_measurement_job(
    device_id: str, *, agent_id: str | None = None, wait_s: float = LONG_POLL_SECONDS
) -> Call[ClaimedMeasurementJob | None]:
    """The device's next work, or None when none came up within `wait_s`. Work whose answer got
    lost comes again when its lease has ended."""

    def parse(response: httpx.Response) -> ClaimedMeasurementJob | None:
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        return reads(ClaimedMeasurementJob)(response)

    return post(
        parse,
        path_of("devices", device_id, "measurement-jobs", "claim"),
        params={"wait_s": wait_s} | ({"agent_id": agent_id} if agent_id else {}),
        timeout_s=wait_s + PAGE_TIMEOUT_SECONDS,
        is_harmless_twice=True,
    )


def renew_measurement_job(measurement_job_id: str, token: int) -> Call[None]:
    """Raises: Conflict when the lease was lost: then let go of the work."""
    path = path_of("measurement-jobs", measurement_job_id, "renew")
    return post(nothing, path, {"token": token}, is_harmless_twice=True)


def report_result(measurement_job_id: str, token: int, result: Mapping[str, Any]) -> Call[None]:
    body = {"token": token, "result": dict(result)}
    return post(nothing, path_of("measurement-jobs", measurement_job_id, "result"), body)


def report_failure(
    measurement_job_id: str, token: int, code: str, message: str, *, retry: bool = True
) -> Call[None]:
    """Give up; without `retry`, for good."""
    body = {"token": token, "code": code, "message": message[:4000], "retry": retry}
    return post(nothing, path_of("measurement-jobs", measurement_job_id, "failure"), body)
