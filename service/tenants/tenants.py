"""Tenants and their limits. Made and changed by whoever runs the service, not over HTTP: no key
reaches beyond its own tenant."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.database.models import ArtifactRow, Tenant, Upload, UploadFile
from service.jobs.job_spec import JobSpec
from service.jobs.room import has_room, locked_tenant, num_jobs
from service.problems import ProblemError

LIMITS = ("max_running_jobs", "max_queued_jobs", "max_evaluations", "max_bytes")


class QuotaExceeded(ProblemError):
    """The tenant may not have more of this."""

    code = "quota_exceeded"
    status = 409


def create_tenant(session: Session, name: str) -> Tenant:
    """Raises: InvalidInput when there is one of this name."""
    if session.scalars(select(Tenant).where(Tenant.name == name)).first() is not None:
        raise InvalidInput("name", f"there is a tenant {name!r} already")
    tenant = Tenant(name=name)
    session.add(tenant)
    session.flush()
    return tenant


def find_tenant(session: Session, name_or_id: str) -> Tenant:
    """Raises: InvalidInput when there is none."""
    query = select(Tenant).where((Tenant.id == name_or_id) | (Tenant.name == name_or_id))
    tenant = session.scalars(query.order_by(Tenant.id != name_or_id).limit(1)).first()
    if tenant is None:
        raise InvalidInput("tenant", f"there is no tenant {name_or_id!r}")
    return tenant


def list_tenants(session: Session) -> list[Tenant]:
    return list(session.scalars(select(Tenant).order_by(Tenant.created_at, Tenant.id)))


def set_limits(session: Session, tenant: Tenant, limits: Mapping[str, int | None]) -> None:
    """A limit of None is lifted.

    Raises: InvalidInput when one is negative.
    """
    for name, value in limits.items():
        assert name in LIMITS, name
        if value is not None and value < 0:
            raise InvalidInput(name, f"must not be negative, got {value}")
        setattr(tenant, name, value)
    session.flush()


# --- limits ---------------------------------------------------------------------------------


def check_new_job(session: Session, tenant_id: str, spec: JobSpec) -> None:
    """Before a job is queued, in the transaction that does it.

    Raises: QuotaExceeded.
    """
    tenant = locked_tenant(session, tenant_id)
    num_evaluations = spec.search.num_evaluations
    if tenant.max_evaluations is not None and num_evaluations > tenant.max_evaluations:
        raise QuotaExceeded(
            f"the search has {num_evaluations} evaluations, {tenant.max_evaluations} are allowed",
            [InvalidInput("search", f"must have at most {tenant.max_evaluations} evaluations")],
        )
    if tenant.max_queued_jobs is None:
        return
    if num_jobs(session, tenant_id, "queued") >= tenant.max_queued_jobs:
        raise QuotaExceeded(
            f"{tenant.max_queued_jobs} jobs are queued, as many as are allowed; wait for one, or "
            "cancel one"
        )


def check_going_on(session: Session, tenant_id: str) -> None:
    """Before a job that rests or has ended goes on.

    Raises: QuotaExceeded.
    """
    if not has_room(session, tenant_id):
        raise QuotaExceeded("as many jobs are running as are allowed; wait for one, or pause one")


def check_bytes(session: Session, tenant_id: str, more: int) -> None:
    """Before an upload of `more` bytes is begun.

    Raises: QuotaExceeded.
    """
    tenant = locked_tenant(session, tenant_id)
    if tenant.max_bytes is None:
        return
    used = bytes_of(session, tenant_id)
    if used + more > tenant.max_bytes:
        raise QuotaExceeded(
            f"{used:,} of {tenant.max_bytes:,} bytes are in use, and {more:,} more do not fit; "
            "delete uploads or jobs that are not needed"
        )


def bytes_of(session: Session, tenant_id: str) -> int:
    """Of its uploads and artifacts, each file as often as it is named."""
    uploads = (
        select(func.coalesce(func.sum(UploadFile.size_bytes), 0))
        .join(Upload, Upload.id == UploadFile.upload_id)
        .where(Upload.tenant_id == tenant_id)
    )
    artifacts = select(func.coalesce(func.sum(ArtifactRow.size_bytes), 0)).where(
        ArtifactRow.tenant_id == tenant_id
    )
    return sum(int(session.execute(query).scalar_one()) for query in (uploads, artifacts))
