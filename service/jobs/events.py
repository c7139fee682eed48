"""What happened to a job, in order: the feed that users, the CLI and the dashboard follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.database.models import Event, Job
from service.webhooks.webhooks import announce_state

STATE = "state"


def append_event(
    session: Session,
    job_id: str,
    kind: str,
    message: str,
    data: Mapping[str, Any] | None = None,
    *,
    level: str = "info",
) -> int:
    """Write the job's next event and return its `seq`.

    The number comes from the job's row, which stays locked until the commit: a reader that saw
    event n will never find an event before n later on.
    """
    seq = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(last_event_seq=Job.last_event_seq + 1)
        .returning(Job.last_event_seq)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    session.add(
        Event(
            job_id=job_id, seq=seq, kind=kind, message=message, level=level, data=dict(data or {})
        )
    )
    session.flush()
    if kind == STATE:
        announce_state(session, job_id, (data or {})["state"])
    return seq


def list_events(session: Session, job_id: str, *, after: int = 0, limit: int = 100) -> list[Event]:
    """Events with `seq` > `after`, oldest first."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after)
    return list(session.scalars(query.order_by(Event.seq).limit(limit)))
