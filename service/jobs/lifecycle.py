"""What people ask of a job under way: cancel, pause, resume, retry, delete.

Only a retry leaves a final state. Every function locks steps and measurement jobs before the job,
as everywhere, and answers None where there is no such job.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, delete, select, update
from sqlalchemy.orm import Session

from service.database.db import epoch_now
from service.database.models import Job, MeasurementJob, Step
from service.jobs.events import append_event
from service.jobs.job_states import (
    ACTIVE,
    GOING,
    PAUSED,
    TERMINAL,
    WrongState,
    conclude_job,
    has_live_step,
    move_job,
    settle_pause,
)
from service.jobs.jobs import SEARCH
from service.steps import outbox
from service.tenants.tenants import check_going_on

RETRIABLE = ("failed", "cancelled")


def lock_job(session: Session, job_id: str) -> Job | None:
    """For a look at it that holds until the end of the transaction."""
    _lock_open_work(session, job_id)
    return session.get(Job, job_id, with_for_update=True, populate_existing=True)


# --- cancel -------------------------------------------------------------------------------------


def request_cancel(session: Session, job_id: str) -> Job | None:
    """Repeating it, or asking it of a job that has ended, changes nothing.

    A job of which no step runs is cancelled at once, any other one when its step notices.
    """
    is_live = _lock_open_work(session, job_id)
    if move_job(session, job_id, (*GOING, *PAUSED), {"state": "cancelling"}):
        append_event(session, job_id, "state", "cancel requested", {"state": "cancelling"})
        if not is_live:
            conclude_job(session, job_id, "cancelled")
    return _fresh(session, job_id)


def finish_cancel(session: Session, job_id: str) -> bool:
    """Cancel a `cancelling` job whose step's holder is gone; False while one is alive."""
    return not _lock_open_work(session, job_id) and conclude_job(session, job_id, "cancelled")


# --- pause and resume ---------------------------------------------------------------------------


def request_pause(session: Session, job_id: str) -> Job | None:
    """Nothing of it is begun any more; what runs goes back to its last checkpoint. Measurements
    that an agent is at are taken when they come.

    Raises: WrongState where the job has ended, or is about to.
    """
    _lock_open_work(session, job_id)
    if move_job(session, job_id, GOING, {"state": "pausing"}):
        append_event(session, job_id, "state", "pause requested", {"state": "pausing"})
        settle_pause(session, job_id)
    return _now_in(session, job_id, PAUSED, "paused")


def finish_pause(session: Session, job_id: str) -> bool:
    """Pause a `pausing` job whose step's holder is gone; False while one is alive."""
    _lock_open_work(session, job_id)
    return settle_pause(session, job_id)


def resume(session: Session, job_id: str) -> Job | None:
    """Go on where the job was paused; of a job that is not, nothing changes.

    Raises:
        WrongState: the job has ended, or is about to.
        QuotaExceeded: as many jobs as are allowed are running.
    """
    _lock_open_work(session, job_id)
    _check_room(session, job_id, PAUSED)
    if state := move_job(session, job_id, PAUSED, {"state": _as_before()}):
        append_event(session, job_id, "state", "the job goes on", {"state": state})
        _set_going(session, job_id)
    return _now_in(session, job_id, GOING, "resumed")


# --- retry --------------------------------------------------------------------------------------


def retry(session: Session, job_id: str) -> Job | None:
    """Begin again with the steps and measurements that were open when the job ended.

    Raises:
        WrongState: it has neither failed nor been cancelled, or has no checkpoints left.
        QuotaExceeded: as many jobs as are allowed are running.
    """
    _check_room(session, job_id, RETRIABLE)
    ended = {
        "state": _as_before(),
        "reason_code": None,
        "reason_message": None,
        "finished_at": None,
    }
    if state := move_job(session, job_id, RETRIABLE, ended, Job.swept_at.is_(None)):
        append_event(session, job_id, "state", "the job is tried again", {"state": state})
        _reopen(session, job_id)
        _set_going(session, job_id)
        return _fresh(session, job_id)
    job = _fresh(session, job_id)
    if job is not None and job.state in RETRIABLE:
        raise WrongState("the job's checkpoints are gone, as it ended long ago; submit it anew")
    return _now_in(session, job_id, (), "tried again: it has neither failed nor been cancelled")


def _reopen(session: Session, job_id: str) -> None:
    """Nobody else writes to what a final job left behind: here it may be locked after the job."""
    fresh = {"attempts": 0, "error": None, "finished_at": None, "owner": None}
    is_open_again = Step.waits_for > 0
    session.execute(
        update(Step)
        .where(Step.job_id == job_id, Step.state.in_(RETRIABLE))
        .values(state=case((is_open_again, "waiting"), else_="ready"), not_before=0.0, **fresh)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(MeasurementJob)
        .where(MeasurementJob.job_id == job_id, MeasurementJob.state.in_(RETRIABLE))
        .values(state="ready", **fresh)
        .execution_options(synchronize_session=False)
    )


# --- delete -------------------------------------------------------------------------------------


def delete_job(session: Session, job_id: str) -> bool:
    """With its events, evaluations and artifacts; measurements of devices stay. False where there
    is no such job.

    Raises: WrongState while it goes on, or another job that goes on searches its supernet.
    """
    job = session.get(Job, job_id, with_for_update=True)
    if job is None:
        return False
    if job.state not in TERMINAL:
        raise WrongState(f"the job is {job.state}: cancel it before it is deleted")
    used_by = session.scalars(
        select(Job.id)
        .where(Job.spec["supernet_of"].as_string() == job_id, Job.state.in_(ACTIVE))
        .limit(1)
    ).first()
    if used_by is not None:
        raise WrongState(f"{used_by} searches its supernet, and goes on")
    session.execute(delete(Job).where(Job.id == job_id))
    session.expire_all()
    return True


# ------------------------------------------------------------------------------------------------


def _check_room(session: Session, job_id: str, states: tuple[str, ...]) -> None:
    """Before a job of these states runs again."""
    job = _fresh(session, job_id)
    if job is not None and job.kind == SEARCH and job.state in states:
        check_going_on(session, job.tenant_id)


def _as_before() -> Any:
    """The state of a job that goes on."""
    return case((Job.started_at.is_(None), "queued"), else_="running")


def _set_going(session: Session, job_id: str) -> None:
    """Wake who works on the job's ready steps, and be patient anew with agents that are away."""
    ready = select(Step.id).where(Step.job_id == job_id, Step.state == "ready")
    for step_id in session.scalars(ready.order_by(Step.created_at, Step.id)).all():
        outbox.add_wakeup(session, step_id)
    session.execute(
        update(MeasurementJob)
        .where(MeasurementJob.job_id == job_id, MeasurementJob.state == "ready")
        .values(lease_until=epoch_now(), waiting_noted_at=None)
        .execution_options(synchronize_session=False)
    )


def _now_in(session: Session, job_id: str, states: tuple[str, ...], asked: str) -> Job | None:
    job = _fresh(session, job_id)
    if job is not None and job.state not in states:
        raise WrongState(f"the job is {job.state}, and cannot be {asked}")
    return job


def _fresh(session: Session, job_id: str) -> Job | None:
    session.expire_all()
    return session.get(Job, job_id)


def _lock_open_work(session: Session, job_id: str) -> bool:
    """Lock the job's open steps and measurements, so that none is claimed meanwhile; whether a
    step is live."""
    for table in (Step, MeasurementJob):
        is_open = table.state.in_(("waiting", "ready", "running"))
        query = select(table.id).where(table.job_id == job_id, is_open).with_for_update()
        session.execute(query).all()
    return has_live_step(session, job_id)
