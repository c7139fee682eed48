"""The dashboard: all pages, and what they need, for `service.api.app`."""

from __future__ import annotations

from fastapi import FastAPI

from service.web import sign_in, static_files
from service.web.pages import (
    artifacts,
    compare,
    device,
    devices,
    job,
    job_actions,
    jobs,
    new_job,
    subnet,
    uploads,
)
from service.web.problem_pages import draw_problem
from service.web.protection import PageHeaders

# A job's page takes any name below /jobs that no page before it has.
PAGES = (
    sign_in,
    static_files,
    jobs,
    new_job,
    uploads,
    subnet,
    job_actions,
    job,
    artifacts,
    compare,
    devices,
    device,
)


def install(app: FastAPI) -> None:
    """Errors of pages are pages, and every answer to a browser is protected."""
    app.state.draw_problem = draw_problem
    app.add_middleware(PageHeaders)
