"""The audit log over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.dependencies import Admin
from service.schemas import AuditedCall, AuditPage
from service.tenants.audit import list_calls

router = APIRouter(prefix="/v1/audit-log", tags=["audit log"])


@router.get("")
def list_all(
    caller: Admin,
    cursor: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> AuditPage:
    """Who changed what, newest first."""
    with caller.database.read() as session:
        rows = list_calls(session, limit=limit + 1, before_id=cursor)
    return AuditPage(
        items=[AuditedCall.model_validate(row) for row in rows[:limit]],
        next_cursor=rows[limit - 1].id if len(rows) > limit else None,
    )
