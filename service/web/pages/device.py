"""One device: what it is, how well it is predicted, how steady it is, how it is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import QueryParams

from predictors.workload import Workload
from search.errors import InvalidInput
from service.api import devices as devices_api
from service.api import onboardings as onboardings_api
from service.api.dependencies import Service
from service.database.models import MeasuringSession
from service.devices import measurements
from service.devices.device_schemas import DeviceChange, Onboarding, OnboardingRequest
from service.devices.devices import get_device
from service.devices.predictor_store import StoredPredictor, list_predictors
from service.jobs import jobs
from service.problems import Conflict
from service.uploads.uploads import list_ready
from service.validation import field_errors
from service.web.device_charts import (
    Learnt,
    anchors_chart,
    learnt_of,
    noise_chart,
    predicted_chart,
    residuals_chart,
)
from service.web.pages.choices import model_choice
from service.web.rendering import render
from service.web.viewers import DevicesEditor, DevicesViewer, Form, Viewer

NUM_SESSIONS = 200  # that are drawn
NUM_SESSIONS_SHOWN = 10
NUM_VERSIONS = 50
NUM_ONBOARDINGS = 10
FIGURES = {
    "mape": "mean error",
    "within_5": "within 5 %",
    "coverage": "coverage",
    "interval_half_width": "half-width",
    "noise_floor": "noise floor",
}
"""Shares of a fit report, on networks that the fit never saw."""
ASKED = {
    "model.upload": "Model",
    "workload.runtime": "Runtime",
    "workload.batch_size": "Batch size",
    "workload.seq_len": "Tokens",
    "workload.threads": "Threads",
    "max_minutes": "Minutes at most",
    "max_measurements": "Networks at most",
}
NAME = "name"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A predictor as a row of the table."""

    stored: StoredPredictor
    precision: str
    runtime: str
    figures: dict[str, float | None]
    num_measurements: int | None

    @classmethod
    def of(cls, stored: StoredPredictor) -> Version:
        parts = stored.predictor_key.split("/")
        precision = parts[3] if len(parts) > 3 else ""
        # One report is of all precisions that were fitted together; each has its own within it.
        report = stored.fit_report
        fit = (report.get("by_precision") or {}).get(precision) or report
        return cls(
            stored=stored,
            precision=precision,
            runtime=" ".join((parts[1], *parts[4:])) if len(parts) > 4 else stored.predictor_key,
            figures={name: fit.get(name) for name in FIGURES},
            num_measurements=fit.get("num_measurements"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed:
    """What somebody typed into a form of this page, and what is wrong with it."""

    form: QueryParams = field(default_factory=QueryParams)
    errors: tuple[InvalidInput, ...] = ()

    def value(self, name: str) -> str:
        return str(self.form.get(name, ""))

    @property
    def by_field(self) -> dict[str, str]:
        return {error.field: _sentence(error.reason) for error in self.errors}

    @property
    def other(self) -> list[str]:
        known = {*ASKED, NAME}
        return [_sentence(str(error)) for error in self.errors if error.field not in known]


@router.get("/devices/{device_id}")
def device(device_id: str, request: Request, viewer: DevicesViewer) -> Response:
    """By id or name."""
    if "hx-request" in request.headers:
        with viewer.database.read() as session:
            row = get_device(session, device_id)
        return render(
            request, viewer, "onboardings.html", onboardings=_onboardings(viewer, row.id)
        )
    return _show(request, viewer, device_id)


@router.post("/devices/{device_id}/onboard")
def onboard(
    device_id: str, request: Request, parts: Service, viewer: DevicesEditor, form: Form
) -> Response:
    """Begin to learn it."""
    try:
        asked = OnboardingRequest.model_validate(_nested(form))
        devices_api.onboard(device_id, asked, parts, viewer.caller)
    except ValidationError as error:
        found = field_errors(error.errors(), OnboardingRequest)
        return _show(request, viewer, device_id, Typed(form=form, errors=tuple(found)))
    except InvalidInput as error:
        return _show(request, viewer, device_id, Typed(form=form, errors=(error,)))
    return _back(device_id, "#onboardings")


@router.post("/devices/{device_id}/rename")
def rename(
    device_id: str, request: Request, parts: Service, viewer: DevicesEditor, form: Form
) -> Response:
    """Its agent stays its own under any name."""
    try:
        change = DeviceChange.model_validate({NAME: form.get(NAME, "").strip()})
        renamed = devices_api.change(device_id, change, parts, viewer.caller)
    except ValidationError:
        reason = "small letters, digits, dots, dashes and underscores, 63 at most"
        errors: tuple[InvalidInput, ...] = (InvalidInput(NAME, reason),)
        return _show(request, viewer, device_id, Typed(form=form, errors=errors))
    except Conflict as error:
        errors = (InvalidInput(NAME, error.detail),)
        return _show(request, viewer, device_id, Typed(form=form, errors=errors))
    return _back(renamed.id)


@router.post("/devices/{device_id}/retire")
def retire(device_id: str, parts: Service, viewer: DevicesEditor) -> Response:
    devices_api.retire(device_id, parts, viewer.caller)
    return _back(device_id)


@router.post("/devices/{device_id}/bring-back")
def bring_back(device_id: str, parts: Service, viewer: DevicesEditor) -> Response:
    devices_api.change(device_id, DeviceChange(retired=False), parts, viewer.caller)
    return _back(device_id)


@router.post("/devices/{device_id}/onboardings/{onboarding_id}/cancel")
def cancel(device_id: str, onboarding_id: str, parts: Service, viewer: DevicesEditor) -> Response:
    onboardings_api.cancel(onboarding_id, parts, viewer.caller)
    return _back(device_id, "#onboardings")


def _show(
    request: Request, viewer: Viewer, device_id: str, typed: Typed | None = None
) -> Response:
    with viewer.database.read() as session:
        row = get_device(session, device_id)
        found = devices_api.to_device(session, row)
        newest = list_predictors(session, row.id, latest=True, limit=NUM_VERSIONS)
        versions = list_predictors(session, row.id, limit=NUM_VERSIONS)
        sessions = measurements.list_sessions(session, row.id, limit=NUM_SESSIONS)
        models = [model_choice(upload) for upload in list_ready(session, "model")]
    learnt = learnt_of(newest)
    chosen = _chosen(learnt, request.query_params.get("predictor"))
    return render(
        request,
        viewer,
        "device.html",
        status_code=422 if typed is not None else 200,
        device=found,
        learnt=learnt,
        chosen=chosen,
        charts_of_fit=[predicted_chart(chosen), residuals_chart(chosen)] if chosen else [],
        charts_of_sessions=[anchors_chart(sessions), noise_chart(sessions)] if sessions else [],
        versions=[Version.of(stored) for stored in versions],
        figures=FIGURES,
        sessions=[(one, _workload_of(one)) for one in sessions[:NUM_SESSIONS_SHOWN]],
        num_sessions=len(sessions),
        onboardings=_onboardings(viewer, row.id),
        models=models,
        asked=ASKED,
        runtimes=sorted(row.identity.get("runtimes") or {}),
        typed=typed or Typed(),
    )


def _onboardings(viewer: Viewer, device_id: str) -> list[Onboarding]:
    with viewer.database.read() as session:
        rows = jobs.list_jobs(
            session, kind=jobs.ONBOARDING, device_id=device_id, limit=NUM_ONBOARDINGS
        )
    return [onboardings_api.to_onboarding(row) for row in rows]


def _chosen(learnt: Sequence[Learnt], key: str | None) -> Learnt | None:
    return next((one for one in learnt if one.key == key), learnt[0] if learnt else None)


def _workload_of(session: MeasuringSession) -> str:
    return Workload.from_dict(session.workload).key


def _nested(form: QueryParams) -> dict[str, Any]:
    """What was typed, by its place in the request; what was left empty is left out."""
    found: dict[str, Any] = {}
    for name in ASKED:
        value = form.get(name, "").strip()
        first, _, last = name.partition(".")
        if value and last:
            found.setdefault(first, {})[last] = value
        elif value:
            found[first] = value
    return found


def _back(device_id: str, place: str = "") -> Response:
    return RedirectResponse(f"/devices/{device_id}{place}", status_code=303)


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}."
