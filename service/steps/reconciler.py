"""Heals what messages and holders left behind, from the rows alone.

A lost message, a wiped broker, a dead worker or agent, a cancel or a pause that nobody is left to
act upon: each shows in the tables, and each round puts it right. A round that finds nothing only
reads.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from service.database.db import Database, epoch_now
from service.database.models import Job, MeasurementJob, OutboxRow, Step
from service.devices import agents, measurement_jobs
from service.jobs import lifecycle
from service.jobs.job_states import GOING, has_live_step
from service.steps import outbox, steps
from service.steps.step_types import MAX_ATTEMPTS
from service.telemetry import metrics

REPUBLISH_ROUNDS = 3
"""A message is sent again after this many rounds, then after twice and four times as many: a long
queue must not fill up with copies."""
KEEP_SENT_SECONDS = 3600.0

_silent: set[tuple[str, int]] = set()  # claims that were silent in the last round, by their token


def reconcile(database: Database, reconcile_seconds: float) -> int:
    """One round; returns how many things it put right. The caller publishes the outbox next."""
    with database.read() as session:
        _count_expiries(session)
        overdue = _overdue_steps(session, reconcile_seconds)
        poisonous_steps = _poisonous(session, Step)
        poisonous_measurements = _poisonous(session, MeasurementJob)
        silent, unattended = agents.unattended(session)
        stopping = session.execute(
            select(Job.id, Job.state).where(Job.state.in_(("cancelling", "pausing")))
        ).all()
        has_old_rows = session.execute(select(exists().where(is_old_wakeup()))).scalar()
    num_healed = 0
    for step_id in overdue:
        with database.write() as session:
            outbox.add_wakeup(session, step_id)
        num_healed += 1
    for step_id in poisonous_steps:
        with database.write() as session:
            num_healed += steps.fail_if_poisonous(session, step_id)
    for measurement_job_id in poisonous_measurements:
        with database.write() as session:
            num_healed += measurement_jobs.fail_if_poisonous(session, measurement_job_id)
    for measurement_job_id in silent:
        num_healed += _note_waiting(database, measurement_job_id)
    for measurement_job_id in unattended:
        num_healed += _give_up_waiting(database, measurement_job_id)
    for job_id, state in stopping:
        finish = lifecycle.finish_cancel if state == "cancelling" else lifecycle.finish_pause
        num_healed += _finish(database, job_id, finish)
    if has_old_rows:
        with database.write() as session:
            session.execute(delete(OutboxRow).where(is_old_wakeup()))
    return num_healed


def _overdue_steps(session: Session, reconcile_seconds: float) -> list[str]:
    interval = REPUBLISH_ROUNDS * reconcile_seconds
    silent_since = epoch_now() - func.coalesce(Step.published_at, 0.0)
    is_quiet = or_(
        and_(Step.num_published <= 1, silent_since > interval),
        and_(Step.num_published == 2, silent_since > 2 * interval),
        silent_since > 4 * interval,
    )
    is_unsent = exists().where(OutboxRow.step_id == Step.id, OutboxRow.sent_at.is_(None))
    query = (
        select(Step.id)
        .join(Job, Job.id == Step.job_id)
        .where(
            steps.is_due(),
            is_quiet,
            ~is_unsent,
            Job.state.in_(GOING),
        )
        .order_by(Step.created_at)
        .limit(outbox.BATCH_ROWS)
    )
    return list(session.scalars(query))


def _count_expiries(session: Session) -> None:
    """Of claims whose holder fell silent since the last round of this process."""
    query = select(Step.id, Step.token).where(
        Step.state == "running", Step.lease_until <= epoch_now()
    )
    silent = {(step_id, token) for step_id, token in session.execute(query)}
    metrics.LEASE_EXPIRIES.labels("reconciler").inc(len(silent - _silent))
    _silent.clear()
    _silent.update(silent)


def _poisonous(session: Session, table: type[Step] | type[MeasurementJob]) -> list[str]:
    query = select(table.id).where(
        table.state == "running",
        table.lease_until <= epoch_now(),
        table.attempts >= MAX_ATTEMPTS,
    )
    return list(session.scalars(query))


def _note_waiting(database: Database, measurement_job_id: str) -> bool:
    with database.write() as session:
        job = agents.lock_unattended(session, measurement_job_id)
        return job is not None and agents.note_if_waiting(session, job)


def _give_up_waiting(database: Database, measurement_job_id: str) -> bool:
    with database.write() as session:
        job = agents.lock_unattended(session, measurement_job_id)
        if job is None:
            return False
        message = f"no agent of the device came within {job.agent_timeout_s:g} s"
        measurement_jobs.give_up(session, job, "no_agent", message)
    return True


def _finish(database: Database, job_id: str, finish: Callable[[Session, str], bool]) -> bool:
    # Most jobs that are to stop have a live holder: look before taking the write lock.
    with database.read() as session:
        if has_live_step(session, job_id):
            return False
    with database.write() as session:
        return finish(session, job_id)


def is_old_wakeup() -> ColumnElement[bool]:
    return OutboxRow.sent_at < epoch_now() - KEEP_SENT_SECONDS
