"""The events of a job of any kind, and pages that go on where the one before ended."""

from __future__ import annotations

import base64
import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from fastapi.sse import ServerSentEvent
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from search.errors import InvalidInput
from service.api.dependencies import Caller, Parts
from service.database.models import Job
from service.jobs.events import list_events
from service.jobs.job_states import TERMINAL
from service.schemas import Event, EventPage, JobState

MAX_WAIT_SECONDS = 20.0
EVENTS_AT_ONCE = 500
ROW_ID = re.compile(r"[a-z0-9_]{1,64}")


async def wait_for_events(
    parts: Parts,
    caller: Caller,
    find: Callable[[Session, str], Job],
    job_id: str,
    *,
    after: int,
    limit: int,
    wait_s: float,
) -> EventPage:
    """Events after `after`; waits up to `wait_s` for one while the job goes on.

    Args:
        find: the job, or NotFound.
    """

    def read() -> EventPage:
        with caller.database.read() as session:
            # The state first: an event of a job that is seen as ended is then never missed.
            state = JobState(find(session, job_id).state)
            rows = list_events(session, job_id, after=after, limit=limit + 1)
        items = [Event.model_validate(row) for row in rows[:limit]]
        is_over = state in TERMINAL
        return EventPage(items=items, job_state=state, terminal=is_over, more=len(rows) > limit)

    deadline = time.monotonic() + wait_s
    while True:
        page = await run_in_threadpool(read)
        left = deadline - time.monotonic()
        has_news = bool(page.items) or page.job_state in TERMINAL
        if has_news or left <= 0 or parts.notifier.is_closed:
            return page
        await parts.event_watch.wait(job_id, after=after, wait_s=left)


async def stream_events(
    parts: Parts,
    caller: Caller,
    find: Callable[[Session, str], Job],
    job_id: str,
    *,
    after: int,
    last_event_id: int | None,
) -> AsyncIterator[ServerSentEvent]:
    """Each event under its `seq`, as it happens; then `end` with the job's state, which tells a
    browser not to come again.

    Args:
        last_event_id: what a browser that comes again has seen; it goes before `after`.
    """
    after = after if last_event_id is None else last_event_id
    while not parts.notifier.is_closed:
        page = await wait_for_events(
            parts, caller, find, job_id, after=after, limit=EVENTS_AT_ONCE, wait_s=MAX_WAIT_SECONDS
        )
        for event in page.items:
            yield ServerSentEvent(id=str(event.seq), data=event)
            after = event.seq
        if page.job_state in TERMINAL and not page.more:
            yield ServerSentEvent(event="end", data={"state": page.job_state})
            return


class Dated(Protocol):
    """A row that pages are ordered by, the newest first."""

    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> float: ...


def cursor_after(row: Dated) -> str:
    """Where the page after the one that ends with this row begins."""
    text = json.dumps([row.created_at, row.id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> tuple[float, str] | None:
    """Raises: InvalidInput when it is none of this server's."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        created_at, row_id = json.loads(base64.urlsafe_b64decode(padded))
        is_row = isinstance(row_id, str) and ROW_ID.fullmatch(row_id) is not None
        if is_row and isinstance(created_at, int | float) and math.isfinite(created_at):
            return float(created_at), row_id
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise InvalidInput("cursor", "is not one that this server gave")
