"""Steps and their wake-ups: written together, sent after the commit.

A message is only a hint that carries a step's id. It may be lost (the reconciler sends it again)
or come twice (the second claim finds nothing); so sending needs no care beyond trying.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.database.db import Database, after_commit, epoch_now
from service.database.models import Job, OutboxRow, Step
from service.steps.step_types import NewStep
from service.telemetry import tracing
from service.telemetry.logs import log_context

if TYPE_CHECKING:
    from service.steps.queue import JobQueue

logger = logging.getLogger(__name__)

BATCH_ROWS = 200

_sleepers: set[threading.Event] = set()


def nudge() -> None:
    """Wake the dispatchers of this process: something was committed that they should see."""
    for sleeper in tuple(_sleepers):
        sleeper.set()


def add_sleeper(sleeper: threading.Event) -> None:
    _sleepers.add(sleeper)


def remove_sleeper(sleeper: threading.Event) -> None:
    _sleepers.discard(sleeper)


def add_step(
    session: Session,
    job_id: str,
    new: NewStep,
    *,
    parts: Sequence[NewStep] = (),
    delay_seconds: float = 0.0,
) -> Step:
    """Write a ready step of a job together with its wake-up.

    With `parts` these are ready, and the step itself waits until all of them are done.
    """
    step = Step(
        job_id=job_id,
        kind=new.kind,
        input=new.input,
        not_before=epoch_now() + delay_seconds,
        state="waiting" if parts else "ready",
        waits_for=len(parts),
    )
    session.add(step)
    session.flush()
    if not parts:
        add_wakeup(session, step.id)
    for new_part in parts:
        part = Step(job_id=job_id, kind=new_part.kind, input=new_part.input, joins_id=step.id)
        session.add(part)
        session.flush()
        add_wakeup(session, part.id)
    return step


def add_wakeup(session: Session, step_id: str) -> None:
    session.add(OutboxRow(step_id=step_id))
    session.flush()
    after_commit(session, nudge)


def publish(database: Database, queue: JobQueue) -> int:
    """Send what is due; return how many messages went out.

    No lock is held while the broker is talked to, so two publishers may send a row twice.
    """
    with database.read() as session:
        rows = session.execute(
            select(OutboxRow.id, OutboxRow.step_id, Step.kind, Job.traceparent)
            .join(Step, Step.id == OutboxRow.step_id)
            .join(Job, Job.id == Step.job_id)
            .where(OutboxRow.sent_at.is_(None), Step.not_before <= epoch_now())
            .order_by(OutboxRow.id)
            .limit(BATCH_ROWS)
        ).all()
    if not rows:
        return 0
    sent = []
    for row in rows:
        with (
            log_context(step=row.step_id),
            tracing.span("dispatch", parent=row.traceparent, step=row.step_id, kind=row.kind),
        ):
            is_sent = queue.enqueue(row.step_id, row.kind)
        if not is_sent:
            break  # the broker is away: keep the rest for the next round
        sent.append(row)
    _mark_sent(database, [row.id for row in sent], [row.step_id for row in sent])
    return len(sent)


def _mark_sent(database: Database, row_ids: list[int], step_ids: list[str]) -> None:
    if not row_ids:
        return
    with database.write() as session:
        session.execute(
            update(OutboxRow).where(OutboxRow.id.in_(row_ids)).values(sent_at=epoch_now())
        )
        mark_published(session, step_ids)


def mark_published(session: Session, step_ids: list[str]) -> None:
    session.execute(
        update(Step)
        .where(Step.id.in_(step_ids))
        .values(published_at=epoch_now(), num_published=Step.num_published + 1)
        .execution_options(synchronize_session=False)
    )
