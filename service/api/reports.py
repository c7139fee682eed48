"""The report of a search job, as JSON or as one HTML file, at any time of its life."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from service.api.dependencies import JobsReader
from service.api.search_jobs import find_job
from service.reports.building import build_report
from service.reports.html import render_html
from service.reports.record import JobRecord
from service.reports.schema import JobReport

router = APIRouter(prefix="/v1/search-jobs", tags=["search jobs"])

HTML: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}}, "description": "the report, in the format asked for"}
}


@router.get("/{job_id}/report", response_model=JobReport, responses=HTML)
def report(
    job_id: str,
    caller: JobsReader,
    form: Annotated[Literal["json", "html"], Query(alias="format")] = "json",
) -> JobReport | Response:
    """What was asked, what was found, and the data of every picture. `html` is one file that needs
    no network, to be saved."""
    with caller.database.read() as session:
        found = report_of(session, job_id)
    return found if form == "json" else html_response(found)


def report_of(session: Session, job_id: str) -> JobReport:
    """Raises: NotFound when the session's tenant has no such search job."""
    return build_report(JobRecord.read(session, find_job(session, job_id), time.time()))


def html_response(report: JobReport) -> Response:
    """A file to be saved: its scripts would not run under the policy of the pages here."""
    return Response(
        render_html(report),
        media_type="text/html",
        headers={
            "Content-Disposition": f'attachment; filename="report-{report.id}.html"',
            "X-Content-Type-Options": "nosniff",
        },
    )
