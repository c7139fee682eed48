"""The page of one search: what it found, live, and what can be asked of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.api.dependencies import Service
from service.api.feeds import stream_events
from service.api.reports import html_response, report_of
from service.api.search_jobs import find_job
from service.artifacts.artifacts import list_artifacts
from service.database.models import Event
from service.jobs.job_states import ACTIVE, GOING, PAUSED, TERMINAL
from service.jobs.lifecycle import RETRIABLE
from service.problems import NotFound
from service.reports.building import files_of
from service.reports.charts import Chart
from service.reports.schema import JobReport
from service.web.pages.retarget import Wanted, wanted_of
from service.web.rendering import render
from service.web.viewers import JobsViewer, Viewer

ROWS_SHOWN = 200
"""Of a chart's table within its page; the others have pages of their own."""
LOG_ROWS = 50

router = APIRouter(include_in_schema=False)


@router.get("/jobs/{job_id}")
def show(job_id: str, request: Request, viewer: JobsViewer) -> Response:
    return job_page(request, viewer, job_id)


def job_page(
    request: Request, viewer: Viewer, job_id: str, wanted: Wanted | None = None
) -> Response:
    """Args:
    wanted: what somebody asked for in the form of other targets, with what was wrong about it.
    """
    with viewer.database.read() as session:
        parts = _live_parts(session, job_id)
        told = _log(session, job_id)
        wanted = wanted or wanted_of(session, job_id)
    return render(
        request,
        viewer,
        "job.html",
        status_code=422 if wanted.has_errors else 200,
        events=told,
        log_rows=LOG_ROWS,
        wanted=wanted,
        **parts,
    )


def _live_parts(session: Session, job_id: str) -> dict[str, Any]:
    """What `job_live.html` needs."""
    report = report_of(session, job_id)
    return {
        "report": report,
        "files": files_of(list_artifacts(session, job_id), None),
        "may": _possible(report),
        "rows_shown": ROWS_SHOWN,
    }


def _possible(report: JobReport) -> set[str]:
    """What can be asked of a job in its state."""
    found = set()
    if report.state in GOING:
        found.add("pause")
    if report.state in PAUSED:
        found.add("resume")
    if report.state in ACTIVE and report.state != "cancelling":
        found.add("cancel")
    if report.state in RETRIABLE:
        found.add("retry")
    if report.state in TERMINAL:
        found.add("delete")
        has_supernet = next(s for s in report.stages if s.stage == "search").steps > 0
        found |= {"extend", "retarget"} if has_supernet else set()
    return found


@router.get("/jobs/{job_id}/live")
def live(job_id: str, request: Request, viewer: JobsViewer) -> Response:
    """The parts of the page that change while the job runs."""
    with viewer.database.read() as session:
        parts = _live_parts(session, job_id)
    return render(request, viewer, "job_live.html", **parts)


def _existing(job_id: str, viewer: JobsViewer) -> None:
    """Before a stream begins: an error cannot be told once it has."""
    with viewer.database.read() as session:
        find_job(session, job_id)


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    dependencies=[Depends(_existing)],
)
async def events(
    job_id: str,
    parts: Service,
    viewer: JobsViewer,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**31)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Those after `after`, or after the last one that the browser has seen."""
    async for event in stream_events(
        parts, viewer.caller, find_job, job_id, after=after, last_event_id=last_event_id
    ):
        yield event


@router.get("/jobs/{job_id}/log")
def log(
    job_id: str,
    request: Request,
    viewer: JobsViewer,
    before: Annotated[int, Query(ge=1, lt=2**31)],
) -> Response:
    """Rows of the log that are older than an event."""
    with viewer.database.read() as session:
        find_job(session, job_id)
        found = _log(session, job_id, before)
    return render(request, viewer, "job_log.html", job_id=job_id, events=found, log_rows=LOG_ROWS)


@router.get("/jobs/{job_id}/charts/{key}.csv")
def chart_csv(job_id: str, key: str, viewer: JobsViewer) -> Response:
    """All of a chart's data, as its table shows them."""
    chart = _chart(viewer, job_id, key)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(chart.columns)
    writer.writerows(chart.rows())
    return _file(text.getvalue(), "text/csv", f"{job_id}-{chart.key}.csv")


@router.get("/jobs/{job_id}/charts/{key}")
def chart_table(
    job_id: str,
    key: str,
    request: Request,
    viewer: JobsViewer,
    start: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> Response:
    """Rows of a chart's data, page after page."""
    chart = _chart(viewer, job_id, key)
    return render(
        request,
        viewer,
        "job_chart.html",
        job_id=job_id,
        chart=chart,
        start=start,
        stop=min(start + ROWS_SHOWN, chart.num_rows),
        rows_shown=ROWS_SHOWN,
    )


@router.get("/jobs/{job_id}/report.html")
def report_html(job_id: str, viewer: JobsViewer) -> Response:
    with viewer.database.read() as session:
        return html_response(report_of(session, job_id))


@router.get("/jobs/{job_id}/report.json")
def report_json(job_id: str, viewer: JobsViewer) -> Response:
    with viewer.database.read() as session:
        text = report_of(session, job_id).model_dump_json(indent=1)
    return _file(text, "application/json", f"report-{job_id}.json")


@router.get("/jobs/{job_id}/job.json")
def spec_json(job_id: str, viewer: JobsViewer) -> Response:
    """The job as it was asked for."""
    with viewer.database.read() as session:
        text = json.dumps(find_job(session, job_id).spec, indent=1)
    return _file(text, "application/json", f"{job_id}.json")


def _file(text: str, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=media_type, headers=headers)


def _chart(viewer: Viewer, job_id: str, key: str) -> Chart:
    with viewer.database.read() as session:
        chart = report_of(session, job_id).chart(key)
    if chart is None:
        raise NotFound("chart", key)
    return chart


def _log(session: Session, job_id: str, before: int | None = None) -> list[Event]:
    """The newest first. Every evaluated network is an event too, and is left to the charts."""
    query = select(Event).where(Event.job_id == job_id, Event.kind != "evaluation")
    if before is not None:
        query = query.where(Event.seq < before)
    return list(session.scalars(query.order_by(Event.seq.desc()).limit(LOG_ROWS)))
