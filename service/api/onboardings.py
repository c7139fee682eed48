"""Onboardings over HTTP: how a device is being learnt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from service.api.dependencies import DevicesReader, DevicesWriter, Service
from service.api.feeds import (
    MAX_WAIT_SECONDS,
    cursor_after,
    read_cursor,
    stream_events,
    wait_for_events,
)
from service.api.search_jobs import asked, progress_of, status_reason_of
from service.database.models import Job as JobRow
from service.devices import devices
from service.devices.device_schemas import Onboarding, OnboardingPage
from service.jobs import jobs, lifecycle
from service.jobs.job_states import TERMINAL
from service.problems import NotFound
from service.schemas import EventPage, JobState

router = APIRouter(prefix="/v1/onboardings", tags=["onboardings"])


@router.get("")
def list_all(
    caller: DevicesReader,
    device: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> OnboardingPage:
    """Newest first; with `device`, an id or a name, those of one."""
    before = read_cursor(cursor)
    with caller.database.read() as session:
        device_id = devices.get_device(session, device).id if device is not None else None
        rows = jobs.list_jobs(
            session,
            kind=jobs.ONBOARDING,
            device_id=device_id,
            limit=limit + 1,
            before=before,
        )
    return OnboardingPage(
        items=[to_onboarding(row) for row in rows[:limit]],
        next_cursor=cursor_after(rows[limit - 1]) if len(rows) > limit else None,
    )


@router.get("/{onboarding_id}")
def get(onboarding_id: str, caller: DevicesReader) -> Onboarding:
    with caller.database.read() as session:
        return to_onboarding(_onboarding(session, onboarding_id))


@router.get("/{onboarding_id}/events")
async def events(
    onboarding_id: str,
    parts: Service,
    caller: DevicesReader,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0,
) -> EventPage:
    """Events after `after`; waits up to `wait_s` for one while it goes on."""
    return await wait_for_events(
        parts, caller, _onboarding, onboarding_id, after=after, limit=limit, wait_s=wait_s
    )


def _existing(onboarding_id: str, caller: DevicesReader) -> None:
    """Before a stream begins: an error cannot be told once it has. Of the caller first."""
    with caller.database.read() as session:
        _onboarding(session, onboarding_id)


@router.get(
    "/{onboarding_id}/events/stream",
    response_class=EventSourceResponse,
    dependencies=[Depends(_existing)],
)
async def event_stream(
    onboarding_id: str,
    parts: Service,
    caller: DevicesReader,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**31)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events after `after`, or after `Last-Event-ID` where a browser comes again."""
    async for event in stream_events(
        parts, caller, _onboarding, onboarding_id, after=after, last_event_id=last_event_id
    ):
        yield event


@router.post("/{onboarding_id}:cancel", status_code=202)
def cancel(onboarding_id: str, parts: Service, caller: DevicesWriter) -> Onboarding:
    """Ask it to stop; what was measured stays. Repeating it changes nothing."""
    return asked(
        parts, caller, lifecycle.request_cancel, _onboarding, onboarding_id, to_onboarding
    )


def to_onboarding(row: JobRow) -> Onboarding:
    return Onboarding(
        id=row.id,
        device_id=row.spec["device"],
        state=JobState(row.state),
        terminal=row.state in TERMINAL,
        stage=row.stage,
        progress=progress_of(row),
        status_reason=status_reason_of(row),
        spec=row.spec,
        result=row.result,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _onboarding(session: Session, onboarding_id: str) -> JobRow:
    row = jobs.get_job(session, onboarding_id, jobs.ONBOARDING)
    if row is None:
        raise NotFound("onboarding", onboarding_id)
    return row
