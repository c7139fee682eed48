"""The step protocol: claim, renew, finish, retry, fail, release.

The row is the truth. A claim raises its token, every later write names the token it got, and a
write with an old token raises `LeaseLost`. What a step leaves behind (its output, the next step,
the state of the job, events, artifacts) is written in the one transaction that ends it.
Lock order on every path: steps, measurement jobs, the job.
"""

from __future__ import annotations

import enum
import traceback
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.orm import Session

from service.artifacts import artifacts
from service.database.db import epoch_now
from service.database.models import Job, Step
from service.devices import measurement_jobs
from service.jobs.events import append_event
from service.jobs.job_states import GOING, PAUSED, conclude_job, settle_pause, start_job
from service.jobs.room import may_start
from service.steps import outbox
from service.steps.step_types import (
    MAX_ATTEMPTS,
    LeaseLost,
    NewArtifact,
    NewMeasurement,
    NewStep,
    StepFailed,
    StepLease,
    StepResult,
)

__all__ = [
    "MAX_ATTEMPTS",
    "LeaseLost",
    "NewArtifact",
    "NewMeasurement",
    "NewStep",
    "Renewal",
    "StepFailed",
    "StepLease",
    "StepResult",
    "claim",
    "fail",
    "fail_if_poisonous",
    "finish",
    "guard",
    "is_due",
    "release",
    "renew",
    "retry",
]


class Renewal(enum.Enum):
    HELD = "held"
    CANCEL = "cancel"  #: held, but the job shall stop
    PAUSE = "pause"  #: held, but the job shall rest
    LOST = "lost"  #: somebody else holds the step, or it has ended


def claim(session: Session, step_id: str, owner: str, lease_seconds: float) -> StepLease | None:
    """Take a step that is due, or whose holder let its lease run out. None: nothing to do.

    A job that is queued stays so while its tenant runs as many as it may.
    """
    if not may_start(session, step_id):
        return None
    job_goes_on = exists().where(Job.id == Step.job_id, Job.state.in_(GOING))
    row = session.execute(
        update(Step)
        .where(Step.id == step_id, is_due(), job_goes_on)
        .values(
            state="running",
            owner=owner,
            token=Step.token + 1,
            attempts=Step.attempts + 1,
            lease_until=epoch_now() + lease_seconds,
            started_at=epoch_now(),
            published_at=None,
            num_published=0,
        )
        .returning(Step.job_id, Step.kind, Step.input, Step.token, Step.attempts)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    start_job(session, row.job_id)
    return StepLease(
        step_id=step_id,
        job_id=row.job_id,
        kind=row.kind,
        input=row.input,
        token=row.token,
        attempts=row.attempts,
        owner=owner,
    )


def is_due() -> ColumnElement[bool]:
    """Of a `Step`: it may be claimed as far as it is concerned."""
    is_free = or_(
        and_(Step.state == "ready", Step.not_before <= epoch_now()),
        and_(Step.state == "running", Step.lease_until <= epoch_now()),
    )
    return and_(is_free, Step.attempts < MAX_ATTEMPTS)


def renew(session: Session, lease: StepLease, lease_seconds: float) -> Renewal:
    row = session.execute(
        update(Step)
        .where(*_held_by(lease))
        .values(lease_until=epoch_now() + lease_seconds)
        .returning(Step.job_id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return Renewal.LOST
    state = session.execute(select(Job.state).where(Job.id == lease.job_id)).scalar()
    if state == "cancelling":
        return Renewal.CANCEL
    # Paused already, where the claim had looked before the pause was written.
    return Renewal.PAUSE if state in PAUSED else Renewal.HELD


def guard(session: Session, lease: StepLease) -> None:
    """Let the rest of this transaction be written by the holder of the step only."""
    query = select(Step.id).where(*_held_by(lease)).with_for_update()
    if session.execute(query).one_or_none() is None:
        raise LeaseLost(f"step {lease.step_id} is no longer held by token {lease.token}")


def finish(session: Session, lease: StepLease, result: StepResult) -> None:
    """End a step and begin what comes after it, all or nothing.

    Where the job is to be cancelled, what comes after is closed at once: a retry finds it. A last
    step is closed itself, and run again.
    """
    guard(session, lease)
    is_cancelled = _cancel_requested(session, lease.job_id)
    if is_cancelled and result.result is not None:
        conclude_job(session, lease.job_id, "cancelled")
        return
    _end(session, lease, "done", output=result.output)
    artifacts.record_artifacts(session, lease.job_id, result.artifacts)
    if result.result is not None:
        conclude_job(session, lease.job_id, "succeeded", result=result.result)
    elif isinstance(result.next, NewStep):
        outbox.add_step(session, lease.job_id, result.next, parts=result.parts)
    elif result.next is not None:
        measurement_jobs.create(session, result.next, job_id=lease.job_id)
    else:
        _join(session, lease)
    if is_cancelled:
        conclude_job(session, lease.job_id, "cancelled")
    settle_pause(session, lease.job_id)


def _join(session: Session, lease: StepLease) -> None:
    """One part less to wait for; the last one to end sets the step free that all of them join."""
    joins_id = session.execute(select(Step.joins_id).where(Step.id == lease.step_id)).scalar_one()
    if joins_id is None:
        raise ValueError(f"{lease.kind} is no part of anything: it ends with `next` or `result`")
    num_left = session.execute(
        update(Step)
        .where(Step.id == joins_id, Step.state == "waiting")
        .values(waits_for=Step.waits_for - 1)
        .returning(Step.waits_for)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    if num_left == 0:
        session.execute(
            update(Step)
            .where(Step.id == joins_id)
            .values(state="ready", not_before=epoch_now())
            .execution_options(synchronize_session=False)
        )
        outbox.add_wakeup(session, joins_id)


def fail(
    session: Session,
    lease: StepLease,
    code: str,
    message: str,
    data: Mapping[str, Any] | None = None,
) -> None:
    """End a step for good, and its job with it."""
    error = {**(data or {}), "code": code, "message": message}
    _end(session, lease, "failed", error=error)
    conclude_job(session, lease.job_id, "failed", code=code, message=message, data=data)


def retry(
    session: Session, lease: StepLease, error: BaseException, *, backoff_seconds: float
) -> None:
    """Put a step back after an unexpected error; after the last attempt the job fails."""
    described = _describe(error)
    if lease.attempts >= MAX_ATTEMPTS:
        _fail_as_poison(session, lease, described)
        return
    delay_seconds = min(60.0, backoff_seconds * 2 ** (lease.attempts - 1))
    _back_to_ready(session, lease, delay_seconds=delay_seconds, error=described)
    append_event(
        session,
        lease.job_id,
        "retry",
        f"{lease.kind} failed and is tried again: {described['message']}",
        {"step": lease.step_id, "kind": lease.kind, "attempt": lease.attempts},
        level="warning",
    )


def release(session: Session, lease: StepLease) -> None:
    """Give a step back unharmed (the worker shuts down, the job is paused): the attempt does not
    count."""
    _back_to_ready(session, lease, delay_seconds=0.0, attempts=Step.attempts - 1)


def put_off(
    session: Session, lease: StepLease, code: str, message: str, *, delay_seconds: float
) -> None:
    """Put a step back until something that is no fault of its own is put right, such as a full
    disk: the attempt does not count, and the job's followers are told once."""
    told = session.execute(select(Step.error).where(Step.id == lease.step_id)).scalar()
    error = {"code": code, "message": message}
    attempts = Step.attempts - 1
    _back_to_ready(session, lease, delay_seconds=delay_seconds, attempts=attempts, error=error)
    if told is None or told.get("code") != code:
        append_event(
            session,
            lease.job_id,
            "waiting",
            f"{lease.kind} waits: {message}",
            {"step": lease.step_id, "kind": lease.kind, "code": code},
            level="warning",
        )


def cancel(session: Session, lease: StepLease) -> None:
    """The holder stopped because its job is to be cancelled: now it is."""
    guard(session, lease)
    conclude_job(session, lease.job_id, "cancelled")


def fail_if_poisonous(session: Session, step_id: str) -> bool:
    """Fail the job of a step whose last allowed holder died without a word."""
    row = session.execute(
        select(Step.job_id, Step.kind, Step.input, Step.token, Step.owner, Step.attempts)
        .where(
            Step.id == step_id,
            Step.state == "running",
            Step.lease_until <= epoch_now(),
            Step.attempts >= MAX_ATTEMPTS,
        )
        .with_for_update()
    ).one_or_none()
    if row is None:
        return False
    lease = StepLease(
        step_id=step_id,
        job_id=row.job_id,
        kind=row.kind,
        input=row.input,
        token=row.token,
        attempts=row.attempts,
        owner=row.owner,
    )
    _fail_as_poison(session, lease, {"type": "WorkerLost", "message": "its worker died"})
    return True


def expire(session: Session, step_id: str, owner: str) -> bool:
    """The holder is known to be dead: do not wait for its lease to run out."""
    row = session.execute(
        update(Step)
        .where(Step.id == step_id, Step.state == "running", Step.owner == owner)
        .values(lease_until=epoch_now())
        .returning(Step.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return False
    outbox.add_wakeup(session, step_id)
    return True


def _held_by(lease: StepLease) -> tuple[Any, ...]:
    return (Step.id == lease.step_id, Step.state == "running", Step.token == lease.token)


def _cancel_requested(session: Session, job_id: str) -> bool:
    return session.execute(select(Job.state).where(Job.id == job_id)).scalar() == "cancelling"


def _end(session: Session, lease: StepLease, state: str, **values: Any) -> None:
    _write(session, lease, state=state, lease_until=None, finished_at=epoch_now(), **values)


def _back_to_ready(
    session: Session, lease: StepLease, *, delay_seconds: float, **values: Any
) -> None:
    not_before = epoch_now() + delay_seconds
    _write(session, lease, state="ready", lease_until=None, not_before=not_before, **values)
    outbox.add_wakeup(session, lease.step_id)
    settle_pause(session, lease.job_id)


def _write(session: Session, lease: StepLease, **values: Any) -> None:
    row = session.execute(
        update(Step)
        .where(*_held_by(lease))
        .values(**values)
        .returning(Step.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        raise LeaseLost(f"step {lease.step_id} is no longer held by token {lease.token}")


def _fail_as_poison(session: Session, lease: StepLease, error: dict[str, Any]) -> None:
    message = (
        f"the step {lease.kind} failed {lease.attempts} times, "
        f"the last time with {error['type']}: {error['message']}"
    )
    fail(session, lease, "poison_step", message, {"step": lease.step_id, "error": error})


def _describe(error: BaseException) -> dict[str, Any]:
    text = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error), "traceback": text[-4000:]}
