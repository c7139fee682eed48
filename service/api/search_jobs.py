"""Search jobs over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from service import jobs, lifecycle
from service.api.dependencies import JobsKey, Parts, Service
from service.api.feeds import (
    MAX_WAIT_SECONDS,
    cursor_after,
    read_cursor,
    stream_events,
    wait_for_events,
)
from service.artifacts import list_artifacts
from service.evaluations import list_evaluations
from service.job_spec import JobSpec
from service.job_states import TERMINAL
from service.models import Job as JobRow
from service.problems import Conflict, NotFound
from service.schemas import (
    Artifact,
    ArtifactPage,
    Evaluation,
    EvaluationPage,
    EventPage,
    Extension,
    Job,
    JobPage,
    JobProgress,
    JobState,
    StatusReason,
)
from service.submission import check_exports, check_submission
from service.warm_start import extended

Find = Callable[[Session, str], JobRow]
Ask = Callable[[Session, str], JobRow | None]

router = APIRouter(prefix="/v1/search-jobs", tags=["search jobs"])


@router.post("", status_code=201)
def submit(spec: JobSpec, parts: Service, _key: JobsKey) -> Job:
    return _create(parts, spec)


def _create(parts: Parts, spec: JobSpec) -> Job:
    with parts.database.read() as session:
        check_submission(session, parts.store, spec)
    if parts.settings.worker_is_here:
        check_exports(spec)
    with parts.database.write() as session:
        row = jobs.create_job(
            session, spec.model_dump(mode="json"), name=spec.name, seed=spec.seed
        )
        created = to_job(row)
    parts.notifier.notify()
    return created


@router.get("")
def list_all(
    parts: Service,
    _key: JobsKey,
    state: Annotated[list[JobState] | None, Query()] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobPage:
    """Newest first; of the states alone that are named, where some are."""
    before = read_cursor(cursor)
    with parts.database.read() as session:
        rows = jobs.list_jobs(session, states=state, limit=limit + 1, before=before)
    return JobPage(
        items=[to_job(row) for row in rows[:limit]],
        next_cursor=cursor_after(rows[limit - 1]) if len(rows) > limit else None,
    )


@router.get("/{job_id}")
def get(job_id: str, parts: Service, _key: JobsKey) -> Job:
    with parts.database.read() as session:
        return to_job(_job(session, job_id))


@router.post("/{job_id}:cancel", status_code=202)
def cancel(job_id: str, parts: Service, _key: JobsKey) -> Job:
    """Ask the job to stop. Repeating it, or asking it of a job that has ended, changes nothing."""
    return _asked(parts, job_id, lifecycle.request_cancel)


@router.post("/{job_id}:pause", status_code=202)
def pause(job_id: str, parts: Service, _key: JobsKey) -> Job:
    """Ask the job to rest. Its step in progress goes back to the last checkpoint."""
    return _asked(parts, job_id, lifecycle.request_pause)


@router.post("/{job_id}:resume", status_code=202)
def resume(job_id: str, parts: Service, _key: JobsKey) -> Job:
    """Let a paused job go on where it was."""
    return _asked(parts, job_id, lifecycle.resume)


@router.post("/{job_id}:retry", status_code=202)
def retry(job_id: str, parts: Service, _key: JobsKey) -> Job:
    """Try a failed or cancelled job again, from its last checkpoint."""
    return _asked(parts, job_id, lifecycle.retry)


@router.post("/{job_id}:extend", status_code=201)
def extend(job_id: str, extension: Extension, parts: Service, _key: JobsKey) -> Job:
    """A new job that goes on searching the supernet of one that has ended, from its evaluations.

    The finished job and what it made stay as they are.
    """
    with parts.database.read() as session:
        row = _job(session, job_id)
    if row.state not in TERMINAL:
        raise Conflict(f"the job is {row.state}: only a search that has ended is extended")
    return _create(parts, extended(row, extension.generations))


@router.delete("/{job_id}", status_code=204)
def delete(job_id: str, parts: Service, _key: JobsKey) -> None:
    """Delete a job that has ended, with its events, evaluations and artifacts."""
    with parts.database.write() as session:
        _job(session, job_id)
        lifecycle.delete_job(session, job_id)


@router.get("/{job_id}/events")
async def events(
    job_id: str,
    parts: Service,
    _key: JobsKey,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0,
) -> EventPage:
    """Events after `after`; waits up to `wait_s` for one while the job goes on."""
    return await wait_for_events(parts, _job, job_id, after=after, limit=limit, wait_s=wait_s)


def _existing(job_id: str, parts: Service, _key: JobsKey) -> None:
    """Before a stream begins: an error cannot be told once it has. Of the caller first."""
    with parts.database.read() as session:
        _job(session, job_id)


@router.get(
    "/{job_id}/events/stream",
    response_class=EventSourceResponse,
    dependencies=[Depends(_existing)],
)
async def event_stream(
    job_id: str,
    parts: Service,
    _key: JobsKey,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events after `after`, or after `Last-Event-ID` where a browser comes again."""
    start = after if last_event_id is None else last_event_id
    async for event in stream_events(parts, _job, job_id, after=start):
        yield event


@router.get("/{job_id}/evaluations")
def evaluations(
    job_id: str, parts: Service, _key: JobsKey, source: str | None = None
) -> EvaluationPage:
    with parts.database.read() as session:
        _job(session, job_id)
        rows = list_evaluations(session, job_id, source)
    return EvaluationPage(items=[Evaluation.model_validate(row) for row in rows])


@router.get("/{job_id}/artifacts")
def artifacts(job_id: str, parts: Service, _key: JobsKey) -> ArtifactPage:
    with parts.database.read() as session:
        _job(session, job_id)
        rows = list_artifacts(session, job_id)
    return ArtifactPage(items=[Artifact.model_validate(row) for row in rows])


def _asked(parts: Parts, job_id: str, ask: Ask) -> Job:
    return to_job(asked(parts, _job, job_id, ask))


def asked(parts: Parts, find: Find, job_id: str, ask: Ask) -> JobRow:
    """A job of any kind after something was asked of it.

    Args:
        find: the job, or NotFound.
    """
    with parts.database.write() as session:
        find(session, job_id)
        row = ask(session, job_id)
        assert row is not None, "just found"
    parts.notifier.notify()
    return row


def to_job(row: JobRow) -> Job:
    return Job(
        id=row.id,
        name=row.name,
        state=JobState(row.state),
        terminal=row.state in TERMINAL,
        stage=row.stage,
        progress=progress_of(row),
        status_reason=status_reason_of(row),
        seed=row.seed,
        spec=row.spec,
        result=row.result,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def progress_of(row: JobRow) -> JobProgress:
    return JobProgress(
        done=row.progress_done or 0,
        total=row.progress_total or 0,
        unit=row.progress_unit or "",
    )


def status_reason_of(row: JobRow) -> StatusReason | None:
    if not row.reason_code:
        return None
    return StatusReason(code=row.reason_code, message=row.reason_message or "")


def _job(session: Session, job_id: str) -> JobRow:
    row = jobs.get_job(session, job_id, jobs.SEARCH)
    if row is None:
        raise NotFound("search job", job_id)
    return row
