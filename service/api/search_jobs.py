"""Search jobs over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.api.dependencies import Caller, JobsReader, JobsWriter, Parts, Service
from service.api.etags import matches
from service.api.feeds import (
    MAX_WAIT_SECONDS,
    cursor_after,
    read_cursor,
    stream_events,
    wait_for_events,
)
from service.artifacts.artifacts import list_artifacts
from service.database.models import Job as JobRow
from service.jobs import jobs, lifecycle
from service.jobs.evaluations import list_evaluations
from service.jobs.job_spec import JobSpec
from service.jobs.job_states import TERMINAL
from service.jobs.submission import check_exports, check_submission
from service.jobs.warm_start import extended
from service.problems import Conflict, NotFound, PreconditionFailed
from service.schemas import (
    LABEL_KEY,
    MAX_LABELS,
    Artifact,
    ArtifactPage,
    Evaluation,
    EvaluationPage,
    EventPage,
    Extension,
    Job,
    JobChange,
    JobPage,
    JobProgress,
    JobState,
    StatusReason,
)
from service.tenants.tenants import check_new_job

Find = Callable[[Session, str], JobRow]
Ask = Callable[[Session, str], JobRow | None]
Answered = TypeVar("Answered", bound=BaseModel)
IfMatch = Annotated[str | None, Header()]

router = APIRouter(prefix="/v1/search-jobs", tags=["search jobs"])


@router.post("", status_code=201)
def submit(spec: JobSpec, parts: Service, caller: JobsWriter) -> Job:
    return _create(parts, caller, spec)


def _create(parts: Parts, caller: Caller, spec: JobSpec) -> Job:
    with caller.database.read() as session:
        check_submission(session, parts.store, spec, parts.checker.inspector.inspect)
    if parts.settings.worker_is_here:
        check_exports(spec)
    with caller.write() as session:
        check_new_job(session, caller.tenant_id, spec)
        row = jobs.create_job(
            session,
            spec.model_dump(mode="json"),
            name=spec.name,
            seed=spec.seed,
            labels=spec.labels,
        )
        created = caller.answer(session, to_job(row))
    parts.notifier.notify()
    return created


@router.get("")
def list_all(
    caller: JobsReader,
    state: Annotated[list[JobState] | None, Query()] = None,
    label: Annotated[list[str] | None, Query(max_length=MAX_LABELS)] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobPage:
    """Newest first.

    Args:
        state: of these states alone.
        label: `key=value`, or `key` for any value; all of them must be there.
    """
    before = read_cursor(cursor)
    labels = dict(_label(text) for text in label or ())
    with caller.database.read() as session:
        rows = jobs.list_jobs(session, states=state, labels=labels, limit=limit + 1, before=before)
    return JobPage(
        items=[to_job(row) for row in rows[:limit]],
        next_cursor=cursor_after(rows[limit - 1]) if len(rows) > limit else None,
    )


def _label(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not LABEL_KEY.fullmatch(key):
        raise InvalidInput("label", f"must be `key=value` or `key`, got {text!r}")
    return key, value if equals else None


@router.get(
    "/{job_id}",
    response_model=Job,
    responses={304: {"description": "it is as the caller knows it"}},
)
def get(
    job_id: str,
    response: Response,
    parts: Service,
    caller: JobsReader,
    if_none_match: IfMatch = None,
) -> Job | Response:
    """With its `ETag`, by which to ask whether it has changed, or to change it as it is."""
    with caller.database.read() as session:
        row = find_job(session, job_id)
        finish = parts.finish_times.of(session, row)
    etag = _etag(row)
    if if_none_match is not None and matches(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return to_job(row).model_copy(update={"estimated_finish": finish})


@router.patch("/{job_id}")
def change(
    job_id: str, body: JobChange, parts: Service, caller: JobsWriter, if_match: IfMatch = None
) -> Job:
    """Give it another name, or other labels in place of all that it has."""

    def write(session: Session, job_id: str) -> JobRow:
        row = find_job(session, job_id)
        row.name = row.name if body.name is None else body.name
        row.labels = row.labels if body.labels is None else dict(body.labels)
        row.version += 1
        session.flush()
        return row

    return _asked(parts, caller, write, job_id, if_match)


@router.post("/{job_id}:cancel", status_code=202)
def cancel(job_id: str, parts: Service, caller: JobsWriter, if_match: IfMatch = None) -> Job:
    """Ask the job to stop. Repeating it, or asking it of a job that has ended, changes nothing."""
    return _asked(parts, caller, lifecycle.request_cancel, job_id, if_match)


@router.post("/{job_id}:pause", status_code=202)
def pause(job_id: str, parts: Service, caller: JobsWriter, if_match: IfMatch = None) -> Job:
    """Ask the job to rest. Its step in progress goes back to the last checkpoint."""
    return _asked(parts, caller, lifecycle.request_pause, job_id, if_match)


@router.post("/{job_id}:resume", status_code=202)
def resume(job_id: str, parts: Service, caller: JobsWriter, if_match: IfMatch = None) -> Job:
    """Let a paused job go on where it was."""
    return _asked(parts, caller, lifecycle.resume, job_id, if_match)


@router.post("/{job_id}:retry", status_code=202)
def retry(job_id: str, parts: Service, caller: JobsWriter, if_match: IfMatch = None) -> Job:
    """Try a failed or cancelled job again, from its last checkpoint."""
    return _asked(parts, caller, lifecycle.retry, job_id, if_match)


@router.post("/{job_id}:extend", status_code=201)
def extend(job_id: str, extension: Extension, parts: Service, caller: JobsWriter) -> Job:
    """A new job that goes on searching the supernet of one that has ended, from its evaluations.

    The finished job and what it made stay as they are.
    """
    with caller.database.read() as session:
        row = find_job(session, job_id)
    if row.state not in TERMINAL:
        raise Conflict(f"the job is {row.state}: only a search that has ended is extended")
    return _create(parts, caller, extended(row, extension.generations))


@router.delete("/{job_id}", status_code=204)
def delete(job_id: str, caller: JobsWriter, if_match: IfMatch = None) -> None:
    """Delete a job that has ended, with its events, evaluations and artifacts."""
    with caller.write() as session:
        find_job(session, job_id)
        _check_unchanged(session, job_id, if_match)
        lifecycle.delete_job(session, job_id)


@router.get("/{job_id}/events")
async def events(
    job_id: str,
    parts: Service,
    caller: JobsReader,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0,
) -> EventPage:
    """Events after `after`; waits up to `wait_s` for one while the job goes on."""
    return await wait_for_events(
        parts, caller, find_job, job_id, after=after, limit=limit, wait_s=wait_s
    )


def _existing(job_id: str, caller: JobsReader) -> None:
    """Before a stream begins: an error cannot be told once it has. Of the caller first."""
    with caller.database.read() as session:
        find_job(session, job_id)


@router.get(
    "/{job_id}/events/stream",
    response_class=EventSourceResponse,
    dependencies=[Depends(_existing)],
)
async def event_stream(
    job_id: str,
    parts: Service,
    caller: JobsReader,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**31)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events after `after`, or after `Last-Event-ID` where a browser comes again."""
    async for event in stream_events(
        parts, caller, find_job, job_id, after=after, last_event_id=last_event_id
    ):
        yield event


@router.get("/{job_id}/evaluations")
def evaluations(job_id: str, caller: JobsReader, source: str | None = None) -> EvaluationPage:
    with caller.database.read() as session:
        find_job(session, job_id)
        rows = list_evaluations(session, job_id, source)
    return EvaluationPage(items=[Evaluation.model_validate(row) for row in rows])


@router.get("/{job_id}/artifacts")
def artifacts(job_id: str, caller: JobsReader) -> ArtifactPage:
    with caller.database.read() as session:
        find_job(session, job_id)
        rows = list_artifacts(session, job_id)
    return ArtifactPage(items=[Artifact.model_validate(row) for row in rows])


def _asked(parts: Parts, caller: Caller, ask: Ask, job_id: str, if_match: str | None) -> Job:
    return asked(parts, caller, ask, find_job, job_id, to_job, if_match)


def asked(
    parts: Parts,
    caller: Caller,
    ask: Ask,
    find: Find,
    job_id: str,
    to_answer: Callable[[JobRow], Answered],
    if_match: str | None = None,
) -> Answered:
    """A job of any kind after something was asked of it.

    Args:
        find: the job, or NotFound.
        if_match: the `ETag` that it must have, or PreconditionFailed.
    """
    with caller.write() as session:
        find(session, job_id)
        _check_unchanged(session, job_id, if_match)
        row = ask(session, job_id)
        assert row is not None, "just found"
        answer = caller.answer(session, to_answer(row))
    parts.notifier.notify()
    return answer


def _check_unchanged(session: Session, job_id: str, if_match: str | None) -> None:
    if if_match is None:
        return
    row = lifecycle.lock_job(session, job_id)
    if row is None or not matches(if_match, _etag(row)):
        raise PreconditionFailed("the job has changed; read it again")


def _etag(row: JobRow) -> str:
    return f'"v{row.version}"'


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
        labels=row.labels,
        version=row.version,
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


def find_job(session: Session, job_id: str) -> JobRow:
    """Raises: NotFound."""
    row = jobs.get_job(session, job_id, jobs.SEARCH)
    if row is None:
        raise NotFound("search job", job_id)
    return row
