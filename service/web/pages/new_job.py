"""A form to start a job: with fields for what most people say, and YAML for the rest."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, get_args

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from search.errors import InvalidInput
from search.export.formats import FormatName
from service.api import dry_runs, idempotency, search_jobs
from service.api.dependencies import Caller, Parts, Service
from service.api.idempotency import AlreadyAnswered
from service.devices.devices import is_online, list_devices
from service.devices.profiles import AUTO
from service.jobs.job_spec import JobSpec
from service.problems import ProblemError
from service.schemas import DryRun, TaskName
from service.uploads.uploads import list_ready, top_names
from service.web import job_form
from service.web.formats import as_words
from service.web.job_form import FormErrors, JobForm
from service.web.pages.choices import Choice, data_choice, model_choice
from service.web.rendering import render
from service.web.viewers import Form, JobsEditor, Viewer

NEW_JOB = "/jobs/new"
ONCE = "once"
"""The field that tells a form sent twice from two jobs."""

Answered = TypeVar("Answered")

router = APIRouter(include_in_schema=False)


@router.get(NEW_JOB)
def new_job_form(request: Request, parts: Service, viewer: JobsEditor) -> Response:
    return _show(request, parts, viewer, JobForm(_defaults(viewer)))


@router.post(NEW_JOB)
def new_job(request: Request, parts: Service, viewer: JobsEditor, fields: Form) -> Response:
    form, action = JobForm.of(fields), fields.get("action", "")
    if action == "add-target":
        return _show(request, parts, viewer, form.with_target())
    if action.startswith("remove-target-") and action[-1].isdigit():
        return _show(request, parts, viewer, form.without_target(int(action[-1])))
    try:
        spec = form.spec()
        if action == "check":
            found = _asked(form, lambda: dry_runs.dry_run(spec, parts, viewer.caller))
            return _show(request, parts, viewer, form, estimate=found, spec=spec)
        caller = _once(request, viewer, spec, form.value(ONCE))
        job_id = _asked(form, lambda: search_jobs.submit(spec, parts, caller)).id
    except AlreadyAnswered as answered:
        job_id = json.loads(answered.body)["id"]
    except FormErrors as errors:
        return _show(request, parts, viewer, form, errors=errors)
    return _go_to(request, f"/jobs/{job_id}")


@router.post(f"{NEW_JOB}/preview")
def preview(request: Request, viewer: JobsEditor, fields: Form) -> Response:
    """The job as it stands, as a file and as a command."""
    errors: FormErrors | None = None
    spec: JobSpec | None = None
    try:
        spec = JobForm.of(fields).spec()
    except FormErrors as found:
        errors = found
    return render(request, viewer, "new_job_preview.html", **_written(request, spec, errors))


def _asked(form: JobForm, ask: Callable[[], Answered]) -> Answered:
    """Raises: FormErrors, for what the service refuses."""
    try:
        return ask()
    except InvalidInput as error:
        raise FormErrors([error], form) from None
    except ProblemError as error:
        errors = FormErrors(error.errors, form)
        errors.other.append(error.detail)
        raise errors from None


def _once(request: Request, viewer: Viewer, spec: JobSpec, token: str) -> Caller:
    """A form that is sent twice makes one job, one that was changed in between another.

    Raises: AlreadyAnswered.
    """
    if not token or not token.isprintable():
        return viewer.caller
    body = spec.model_dump_json().encode()
    sha256 = hashlib.sha256(body).hexdigest()
    key = f"form-{hashlib.sha256(token.encode()).hexdigest()[:32]}-{sha256[:32]}"
    reservation = idempotency.reserve(viewer.database, key, sha256)
    request.state.release = partial(idempotency.release, viewer.database, reservation)
    return replace(viewer.caller, reservation=reservation, status=201)


def _go_to(request: Request, path: str) -> Response:
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": path})
    return RedirectResponse(path, status_code=303)


def _defaults(viewer: Viewer) -> list[tuple[str, str]]:
    with viewer.database.read() as session:
        first = next(iter(list_devices(session, with_retired=False, limit=1)), None)
        newest = {kind: list_ready(session, kind, limit=1) for kind in ("model", "dataset")}
    found = [(ONCE, secrets.token_urlsafe(16)), ("targets[0].budget_unit", job_form.SHARE)]
    if first is not None:
        found.append(("targets[0].device", first.name))
    for name, kind in (("model.upload", "model"), ("data.upload", "dataset")):
        found += [(name, upload.id) for upload in newest[kind]]
    return found


def _show(
    request: Request,
    parts: Parts,
    viewer: Viewer,
    form: JobForm,
    *,
    errors: FormErrors | None = None,
    estimate: DryRun | None = None,
    spec: JobSpec | None = None,
) -> Response:
    is_part = "hx-request" in request.headers
    return render(
        request,
        viewer,
        "new_job_form.html" if is_part else "new_job.html",
        status_code=422 if errors is not None else 200,
        form=form,
        errors=errors.by_field if errors is not None else {},
        other_errors=errors.other if errors is not None else [],
        estimate=estimate,
        tasks=[Choice(value=task, label=as_words(task)) for task in get_args(TaskName)],
        formats=get_args(FormatName),
        headings=list(job_form.SETTINGS),
        label_of=job_form.label_of,
        target_labels=job_form.TARGET_LABELS,
        settings=job_form.settings,
        target_settings=job_form.target_settings,
        max_targets=job_form.MAX_TARGETS,
        allows_hub=parts.settings.allow_hub,
        **_choices(viewer),
        **_written(request, spec, None),
    )


def _choices(viewer: Viewer) -> dict[str, Any]:
    with viewer.database.read() as session:
        devices = list_devices(session, with_retired=False)
        datasets = list_ready(session, "dataset")
        names = top_names(session, [upload.id for upload in datasets])
        known = {name for device in devices for name in device.identity.get("runtimes") or {}}
        return {
            "devices": [
                Choice(
                    value=device.name,
                    label=device.name + ("" if is_online(session, device) else " (away)"),
                )
                for device in devices
            ],
            "runtimes": [*sorted((known | {"onnxruntime"}) - {"torch"}), AUTO],
            "models": [model_choice(upload) for upload in list_ready(session, "model")],
            "datasets": [data_choice(upload, names.get(upload.id)) for upload in datasets],
        }


def _written(request: Request, spec: JobSpec | None, errors: FormErrors | None) -> dict[str, Any]:
    url = str(request.base_url).rstrip("/")
    missing = [*map(job_form.label_of, errors.by_field), *errors.other] if errors else []
    return {
        "as_yaml": job_form.as_yaml(spec) if spec is not None else "",
        "as_curl": job_form.as_curl(spec, url) if spec is not None else "",
        "missing": missing,
    }
