"""Jobs that wait because their tenant runs as many as it may."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session, aliased

from service.database.models import Job, Step, Tenant
from service.jobs.jobs import SEARCH
from service.steps import outbox

RUNNING = ("running", "pausing", "cancelling")


def may_start(session: Session, step_id: str) -> bool:
    """Whether the step's job runs already, or there is room for it."""
    query = select(Job.state, Job.kind, Job.tenant_id).join(Step, Step.job_id == Job.id)
    job = session.execute(query.where(Step.id == step_id)).one_or_none()
    if job is None or job.state != "queued" or job.kind != SEARCH:
        return True
    return has_room(session, job.tenant_id)


def has_room(session: Session, tenant_id: str) -> bool:
    """Whether one more job of the tenant may run."""
    limits = select(Tenant.max_running_jobs).where(Tenant.id == tenant_id)
    if session.execute(limits).scalar_one() is None:
        return True
    limit = locked_tenant(session, tenant_id).max_running_jobs
    return limit is None or num_jobs(session, tenant_id, *RUNNING) < limit


def is_held_back() -> ColumnElement[bool]:
    """Of a `Job`: it waits for others of its tenant, and not for a worker."""
    running = aliased(Job)
    is_running = and_(
        running.tenant_id == Tenant.id, running.kind == SEARCH, running.state.in_(RUNNING)
    )
    full_tenants = (
        select(Tenant.id)
        .outerjoin(running, is_running)
        .where(Tenant.max_running_jobs.is_not(None))
        .group_by(Tenant.id, Tenant.max_running_jobs)
        .having(func.count(running.id) >= Tenant.max_running_jobs)
    )
    return and_(Job.state == "queued", Job.kind == SEARCH, Job.tenant_id.in_(full_tenants))


def locked_tenant(session: Session, tenant_id: str) -> Tenant:
    """Whoever counts against a limit comes one after the other."""
    query = select(Tenant).where(Tenant.id == tenant_id).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()


def num_jobs(session: Session, tenant_id: str, *states: str) -> int:
    query = select(func.count()).where(
        Job.tenant_id == tenant_id, Job.kind == SEARCH, Job.state.in_(states)
    )
    return session.execute(query).scalar_one()


def wake_next(session: Session, job_id: str) -> None:
    """A job has stopped to run: the oldest one of its tenant that waited may begin."""
    tenant_id = select(Job.tenant_id).where(Job.id == job_id).scalar_subquery()
    waiting = (
        select(Step.id)
        .join(Job, Job.id == Step.job_id)
        .join(Tenant, Tenant.id == Job.tenant_id)
        .where(
            Job.tenant_id == tenant_id,
            Job.kind == SEARCH,
            Job.state == "queued",
            Step.state == "ready",
            Tenant.max_running_jobs.is_not(None),
        )
        .order_by(Job.created_at, Job.id)
        .limit(1)
    )
    for step_id in session.scalars(waiting).all():
        outbox.add_wakeup(session, step_id)
