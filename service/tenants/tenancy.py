"""Whose rows a session sees: a tenant's own, or, where it has none, everybody's.

A session for a tenant adds `tenant_id = ...` to every statement on a table of `TenantOwned` rows,
in sub-queries and joins too: no query of the API can forget it, and another tenant's id is as
unknown as one that never was. New rows get the session's tenant. Workers and the dispatcher, which
serve everybody, name the tenant themselves.
"""

from __future__ import annotations

from sqlalchemy import event
from sqlalchemy.orm import (
    Mapped,
    ORMExecuteState,
    Session,
    UOWTransaction,
    mapped_column,
    with_loader_criteria,
)

DEFAULT_TENANT = "ten_default"
"""Of an installation that never made another one."""

_TENANT = "tenant_id"


class TenantOwned:
    """A row that belongs to a tenant."""

    tenant_id: Mapped[str] = mapped_column()


class TenantSession(Session):
    """A session that keeps to the tenant it was given, if it was given one."""

    @property
    def tenant_id(self) -> str | None:
        found = self.info.get(_TENANT)
        assert found is None or isinstance(found, str)
        return found

    @tenant_id.setter
    def tenant_id(self, tenant_id: str | None) -> None:
        self.info[_TENANT] = tenant_id


@event.listens_for(TenantSession, "do_orm_execute")
def _keep_to_tenant(state: ORMExecuteState) -> None:
    tenant_id = state.session.info.get(_TENANT)
    if tenant_id is None or state.is_column_load or state.is_relationship_load:
        return
    state.statement = state.statement.options(
        with_loader_criteria(
            TenantOwned, lambda table: table.tenant_id == tenant_id, include_aliases=True
        )
    )


@event.listens_for(TenantSession, "before_flush")
def _give_tenant(session: Session, _context: UOWTransaction, _instances: object) -> None:
    tenant_id = session.info.get(_TENANT)
    if tenant_id is None:
        return
    for row in session.new:
        if isinstance(row, TenantOwned):
            assert row.tenant_id in (None, tenant_id), "a row of another tenant"
            row.tenant_id = tenant_id
