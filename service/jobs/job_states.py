"""The states of a job. `succeeded`, `failed` and `cancelled` are final: nothing leaves them but a
retry that somebody asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Exists, exists, select, update
from sqlalchemy.orm import Session

from service.database.db import epoch_now
from service.database.models import Job, MeasurementJob, Step
from service.jobs.events import append_event
from service.jobs.room import wake_next
from service.problems import Conflict

TERMINAL = ("succeeded", "failed", "cancelled")
GOING = ("queued", "running")  # steps may be claimed
PAUSED = ("pausing", "paused")
ACTIVE = (*GOING, *PAUSED, "cancelling")


class WrongState(Conflict):
    """A job in its state cannot do what is asked."""


def move_job(
    session: Session,
    job_id: str,
    states: tuple[str, ...],
    values: Mapping[str, Any],
    *conditions: ColumnElement[bool],
) -> str | None:
    """The job's state, if it was in one of those and now has the values."""
    return session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.in_(states), *conditions)
        .values(**values, version=Job.version + 1)
        .returning(Job.state)
        .execution_options(synchronize_session=False)
    ).scalar()


def start_job(session: Session, job_id: str) -> None:
    """queued -> running, once."""
    if move_job(session, job_id, ("queued",), {"state": "running", "started_at": epoch_now()}):
        append_event(session, job_id, "state", "the job runs", {"state": "running"})


def conclude_job(
    session: Session,
    job_id: str,
    state: str,
    *,
    code: str | None = None,
    message: str | None = None,
    data: Mapping[str, Any] | None = None,
    result: dict[str, Any] | None = None,
) -> bool:
    """Move the job to a final state and close its open work; False when it already was in one."""
    assert state in TERMINAL
    values: dict[str, Any] = {
        "state": state,
        "finished_at": epoch_now(),
        "reason_code": code,
        "reason_message": message,
    }
    if result is not None:
        values["result"] = result
    if not move_job(session, job_id, ACTIVE, values):
        return False
    _close_open_work(session, job_id)
    wake_next(session, job_id)
    append_event(
        session,
        job_id,
        "state",
        message or f"the job {'was ' if state == 'cancelled' else ''}{state}",
        {**(data or {}), "state": state, **({"code": code} if code else {})},
        level="error" if state == "failed" else "info",
    )
    return True


def has_live_step(session: Session, job_id: str) -> bool:
    """Whether a step of the job is held under a lease that has not run out."""
    return bool(session.execute(select(_is_live(job_id))).scalar())


def settle_pause(session: Session, job_id: str) -> bool:
    """pausing -> paused, once nobody works on the job any more; whether it did."""
    if not move_job(session, job_id, ("pausing",), {"state": "paused"}, ~_is_live(job_id)):
        return False
    append_event(session, job_id, "state", "the job is paused", {"state": "paused"})
    wake_next(session, job_id)
    return True


def _is_live(job_id: str) -> Exists:
    return exists().where(
        Step.job_id == job_id, Step.state == "running", Step.lease_until > epoch_now()
    )


def _close_open_work(session: Session, job_id: str) -> None:
    """Cancel open steps and measurements; the raised token turns their holders away."""
    for table in (Step, MeasurementJob):
        session.execute(
            update(table)
            .where(table.job_id == job_id, table.state.in_(("waiting", "ready", "running")))
            .values(
                state="cancelled",
                token=table.token + 1,
                lease_until=None,
                finished_at=epoch_now(),
            )
            .execution_options(synchronize_session=False)
        )
