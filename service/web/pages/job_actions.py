"""What somebody asks of a search on its page: each a form, which leads back to a page."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from search.errors import InvalidInput
from service.api import search_jobs
from service.api.dependencies import Service
from service.jobs import lifecycle
from service.jobs.job_spec import JobSpec
from service.problems import NotFound
from service.schemas import MAX_GENERATIONS, Extension
from service.web.pages.job import job_page
from service.web.pages.retarget import read_wanted, spec_of
from service.web.viewers import Form, JobsEditor

ASKS = {
    "cancel": lifecycle.request_cancel,
    "pause": lifecycle.request_pause,
    "resume": lifecycle.resume,
    "retry": lifecycle.retry,
}

router = APIRouter(include_in_schema=False)


@router.post("/jobs/{job_id}/extend")
def extend(job_id: str, parts: Service, viewer: JobsEditor, form: Form) -> Response:
    """A new job, which goes on where this one's search stopped."""
    given = form.get("generations", "")
    if not given.isdecimal() or not 1 <= int(given) <= MAX_GENERATIONS:
        raise InvalidInput("generations", f"must be from 1 to {MAX_GENERATIONS}, got {given!r}")
    extension = Extension(generations=int(given))
    created = search_jobs.extend(job_id, extension, parts, viewer.caller)
    return _to(created.id)


@router.post("/jobs/{job_id}/retarget")
def retarget(
    job_id: str, request: Request, parts: Service, viewer: JobsEditor, form: Form
) -> Response:
    """A new job, which searches this one's supernet for other targets without training it."""
    with viewer.database.read() as session:
        wanted = read_wanted(session, job_id, form)
    if not wanted.has_errors:
        spec = spec_of(wanted)
        if isinstance(spec, JobSpec):
            try:
                created = search_jobs.submit(spec, parts, viewer.caller)
            except InvalidInput as error:
                wanted = wanted.with_error(error)
            else:
                return _to(created.id)
        else:
            wanted = spec
    return job_page(request, viewer, job_id, wanted)


@router.post("/jobs/{job_id}/delete")
def delete(job_id: str, viewer: JobsEditor) -> Response:
    search_jobs.delete(job_id, viewer.caller)
    return RedirectResponse("/jobs", status_code=303)


@router.post("/jobs/{job_id}/{verb}")
def ask(job_id: str, verb: str, parts: Service, viewer: JobsEditor) -> Response:
    if verb not in ASKS:
        raise NotFound("page", f"/jobs/{job_id}/{verb}")
    search_jobs.asked(
        parts, viewer.caller, ASKS[verb], search_jobs.find_job, job_id, search_jobs.to_job
    )
    return _to(job_id)


def _to(job_id: str) -> Response:
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)
