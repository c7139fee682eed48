"""Whose turn it is: which of the steps that are due in a queue is served next.

A wake-up asks for its queue, and not for its own step: served in the order of messages, a tenant
with a hundred jobs would make everybody else wait for all of them.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from service.database.db import epoch_now
from service.database.models import Job, Step
from service.jobs.job_states import GOING
from service.jobs.room import is_held_back
from service.steps.step_kinds import LIGHT, QUEUE_BY_KIND, queue_of
from service.steps.steps import is_due


def next_in_turn(session: Session, step_id: str, without: Collection[str] = ()) -> str | None:
    """Of the queue in which the step waits, a due one of the tenant who has the fewest running; of
    several the oldest. None: nothing is due, or there is no such step.

    Args:
        without: steps that others were found to have taken.
    """
    kind = session.scalar(select(Step.kind).where(Step.id == step_id))
    if kind is None:
        return None
    busy = (
        select(Job.tenant_id, func.count().label("num_running"))
        .join(Step, Step.job_id == Job.id)
        .where(Step.state == "running", Step.lease_until > epoch_now())
        .group_by(Job.tenant_id)
        .subquery()
    )
    query = (
        select(Step.id)
        .join(Job, Job.id == Step.job_id)
        .outerjoin(busy, busy.c.tenant_id == Job.tenant_id)
        .where(
            is_due(),
            Step.id.not_in(without),
            _waits_in(queue_of(kind)),
            Job.state.in_(GOING),
            ~is_held_back(),
        )
        .order_by(func.coalesce(busy.c.num_running, 0), Step.created_at, Step.id)
        .limit(1)
    )
    return session.scalar(query)


def _waits_in(queue: str) -> ColumnElement[bool]:
    if queue == LIGHT:
        return Step.kind.not_in(QUEUE_BY_KIND)
    return Step.kind.in_([kind for kind, of_kind in QUEUE_BY_KIND.items() if of_kind == queue])
