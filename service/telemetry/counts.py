"""How much there is, and how much there is to do."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database.models import Job, Step


def jobs_by_state(session: Session) -> dict[str, int]:
    """Jobs of every kind: searches and onboardings."""
    query = select(Job.state, func.count().label("number")).group_by(Job.state)
    return {row.state: row.number for row in session.execute(query)}


def open_steps_by_state(session: Session) -> dict[str, int]:
    """`ready` ones wait for a worker, `running` ones have one, `waiting` ones need others."""
    is_open = Step.state.in_(("waiting", "ready", "running"))
    query = select(Step.state, func.count().label("number")).where(is_open).group_by(Step.state)
    return {row.state: row.number for row in session.execute(query)}
