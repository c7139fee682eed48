"""Lists that are read page by page, the newest first."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Select, tuple_

Rows = TypeVar("Rows", bound=Select[Any])


def newest_first(
    query: Rows, table: Any, *, limit: int, before: tuple[float, str] | None = None
) -> Rows:
    """One page of a query for rows of the table.

    Args:
        before: `(created_at, id)` of the last one of the page before.
    """
    if before is not None:
        query = query.where(tuple_(table.created_at, table.id) < before)
    return query.order_by(table.created_at.desc(), table.id.desc()).limit(limit)
