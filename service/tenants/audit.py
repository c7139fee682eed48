"""Who changed what, and when: written in the transaction of the change, never changed later."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database.models import AuditRow


def record_call(
    session: Session, *, key_id: str, action: str, target: str, request_id: str, client: str
) -> None:
    """
    Args:
        action: the method and the route, such as `POST /v1/search-jobs/{job_id}:cancel`.
        target: the path that was called.
        client: the caller's address.
    """
    session.add(
        AuditRow(key_id=key_id, action=action, target=target, request_id=request_id, client=client)
    )


def list_calls(session: Session, *, limit: int, before_id: int | None = None) -> list[AuditRow]:
    """Newest first; `before_id` is that of the last one of the page before."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(AuditRow.id < before_id)
    return list(session.scalars(query))
