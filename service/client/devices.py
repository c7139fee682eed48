"""The SDK's part on devices: agents, measurements, predictors, onboardings, and API keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from service.client.connection import LONG_POLL_SECONDS, Connection, parse_answer
from service.device_schemas import (
    ApiKey,
    ApiKeyPage,
    ClaimedMeasurementJob,
    CreatedKey,
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
from service.schemas import Event, EventPage


class DeviceCalls(Connection):
    """Devices are named by their id, or by their name."""

    def devices(self, *, retired: bool = False) -> list[Device]:
        """All in use, by name; with `retired`, the others too."""
        params = {"retired": "true"} if retired else {}
        page = self._call(DevicePage, "GET", "/v1/devices", params=params)
        found = page.items
        while page.next_cursor is not None:
            params["cursor"] = page.next_cursor
            page = self._call(DevicePage, "GET", "/v1/devices", params=params)
            found = [*found, *page.items]
        return found

    def device(self, device: str) -> Device:
        return self._call(Device, "GET", f"/v1/devices/{device}")

    def rename_device(self, device: str, name: str) -> Device:
        return self._call(Device, "PATCH", f"/v1/devices/{device}", json={"name": name})

    def retire_device(self, device: str) -> Device:
        return self._call(Device, "DELETE", f"/v1/devices/{device}")

    def revive_device(self, device: str) -> Device:
        return self._call(Device, "PATCH", f"/v1/devices/{device}", json={"retired": False})

    # --- measurements and predictors -------------------------------------------------------

    def measure(self, device: str, request: Mapping[str, Any]) -> MeasurementJob:
        """Ask for some networks to be timed; see `device_schemas.MeasureRequest`."""
        path = f"/v1/devices/{device}:measure"
        return self._call(MeasurementJob, "POST", path, json=dict(request), is_repeatable=False)

    def measurement_job(self, measurement_job_id: str) -> MeasurementJob:
        return self._call(MeasurementJob, "GET", f"/v1/measurement-jobs/{measurement_job_id}")

    def measurements(self, device: str, **filters: Any) -> MeasurementPage:
        """One page, newest first. Filters: purpose, precision, runtime, session, since; `cursor`
        of the page before; `limit`."""
        path = f"/v1/devices/{device}/measurements"
        return self._call(MeasurementPage, "GET", path, params=filters)

    def measuring_sessions(self, device: str, **paging: Any) -> MeasuringSessionPage:
        path = f"/v1/devices/{device}/measuring-sessions"
        return self._call(MeasuringSessionPage, "GET", path, params=paging)

    def predictors(self, device: str, **filters: Any) -> PredictorPage:
        """One page, newest first. Filters: key, shape_key, precision, latest; `cursor` of the
        page before; `limit`."""
        path = f"/v1/devices/{device}/predictors"
        return self._call(PredictorPage, "GET", path, params=filters)

    def predictor(self, device: str, predictor_id: str) -> PredictorDetail:
        path = f"/v1/devices/{device}/predictors/{predictor_id}"
        return self._call(PredictorDetail, "GET", path)

    def predict(self, device: str, request: Mapping[str, Any]) -> PredictedPage:
        """Latency of networks; see `device_schemas.Prediction`."""
        path = f"/v1/devices/{device}/predictors:predict"
        return self._call(PredictedPage, "POST", path, json=dict(request))

    # --- onboarding ------------------------------------------------------------------------

    def onboard(self, device: str, request: Mapping[str, Any]) -> Onboarding:
        """Learn a device; see `device_schemas.OnboardingRequest`."""
        path = f"/v1/devices/{device}:onboard"
        return self._call(Onboarding, "POST", path, json=dict(request), is_repeatable=False)

    def onboardings(self, device: str | None = None, **paging: Any) -> OnboardingPage:
        """One page, newest first, of one device or all; `cursor` of the page before; `limit`."""
        params = paging if device is None else {"device": device, **paging}
        return self._call(OnboardingPage, "GET", "/v1/onboardings", params=params)

    def onboarding(self, onboarding_id: str) -> Onboarding:
        return self._call(Onboarding, "GET", f"/v1/onboardings/{onboarding_id}")

    def cancel_onboarding(self, onboarding_id: str) -> Onboarding:
        return self._call(Onboarding, "POST", f"/v1/onboardings/{onboarding_id}:cancel")

    def onboarding_events(
        self, onboarding_id: str, *, after: int = 0, patience_s: float = 60.0
    ) -> Iterator[Event]:
        """Every event, as they happen, until the onboarding has ended."""

        def read(after: int) -> EventPage:
            return self.onboarding_events_page(
                onboarding_id, after=after, wait_s=LONG_POLL_SECONDS
            )

        return self._follow(read, after, patience_s)

    def onboarding_events_page(
        self, onboarding_id: str, *, after: int = 0, wait_s: float = 0.0
    ) -> EventPage:
        return self._call(
            EventPage,
            "GET",
            f"/v1/onboardings/{onboarding_id}/events",
            params={"after": after, "wait_s": wait_s},
            timeout_s=wait_s + 15.0,
        )

    # --- agents ----------------------------------------------------------------------------

    def register_device(
        self, name: str, identity: Mapping[str, Any], agent_id: str | None = None
    ) -> Device:
        """Make the device known, or say that it is still there."""
        body: dict[str, Any] = {"name": name, "identity": dict(identity)}
        if agent_id is not None:
            body["agent_id"] = agent_id
        return self._call(Device, "POST", "/v1/devices", json=body)

    def claim_measurement_job(
        self,
        device_id: str,
        *,
        agent_id: str | None = None,
        wait_s: float = LONG_POLL_SECONDS,
    ) -> ClaimedMeasurementJob | None:
        """The device's next work, or None when none came up within `wait_s`."""
        response = self._request(
            "POST",
            f"/v1/devices/{device_id}/measurement-jobs/claim",
            params={"wait_s": wait_s} | ({"agent_id": agent_id} if agent_id else {}),
            timeout_s=wait_s + 15.0,
            is_repeatable=False,
        )
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        return parse_answer(ClaimedMeasurementJob, response)

    def renew_measurement_job(self, measurement_job_id: str, token: int) -> None:
        """Raises: Conflict when the lease was lost: then let go of the work."""
        self._request(
            "POST", f"/v1/measurement-jobs/{measurement_job_id}/renew", json={"token": token}
        )

    def report_result(
        self, measurement_job_id: str, token: int, result: Mapping[str, Any]
    ) -> None:
        body = {"token": token, "result": dict(result)}
        self._request("POST", f"/v1/measurement-jobs/{measurement_job_id}/result", json=body)

    def report_failure(
        self,
        measurement_job_id: str,
        token: int,
        code: str,
        message: str,
        *,
        retry: bool = True,
    ) -> None:
        """Give up; without `retry`, for good."""
        body = {"token": token, "code": code, "message": message[:4000], "retry": retry}
        self._request("POST", f"/v1/measurement-jobs/{measurement_job_id}/failure", json=body)

    def download_blob(self, sha256: str, path: Path) -> Path:
        return self._fetch(f"/v1/blobs/{sha256}", path, sha256)

    # --- API keys --------------------------------------------------------------------------

    def create_key(
        self, name: str, scopes: Sequence[str], expires_at: float | None = None
    ) -> CreatedKey:
        """The key is in the answer, and nowhere else."""
        body = {"name": name, "scopes": list(scopes), "expires_at": expires_at}
        return self._call(CreatedKey, "POST", "/v1/api-keys", json=body, is_repeatable=False)

    def api_keys(self) -> list[ApiKey]:
        return self._call(ApiKeyPage, "GET", "/v1/api-keys").items

    def revoke_key(self, key_id: str) -> ApiKey:
        return self._call(ApiKey, "POST", f"/v1/api-keys/{key_id}:revoke")
