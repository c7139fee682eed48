"""The list of searches."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.web.rendering import render
from service.web.viewers import JobsViewer

router = APIRouter(include_in_schema=False)


@router.get("/jobs")
def list_all(request: Request, viewer: JobsViewer) -> Response:
    return render(request, viewer, "jobs.html")
