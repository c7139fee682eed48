"""The database: engine, read and write sessions, and the database's own clock.

SQLite is for one host: WAL, and every writer begins IMMEDIATE, so that writers queue up at their
first statement instead of failing at their last. On PostgreSQL the same code relies on row locks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import Double

from service.tenants.tenancy import TenantSession

BUSY_TIMEOUT_MS = 15_000
_AFTER_COMMIT = "after_commit"


class epoch_now(FunctionElement[float]):
    """The database's clock in seconds since 1970 (UTC): leases never compare two clocks."""

    type = Double()
    inherit_cache = True


@compiles(epoch_now, "sqlite")
def _sqlite_now(_element: epoch_now, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(epoch_now, "postgresql")
def _postgresql_now(_element: epoch_now, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


class Database:
    """Short transactions: `with database.write() as session:`, and the same with `read`.

    Attributes:
        tenant_id: whose rows its sessions see; None sees all.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.tenant_id: str | None = None
        self.engine = make_engine(url)
        self._writer = self.engine.execution_options(begin_immediate=True)

    def for_tenant(self, tenant_id: str) -> Self:
        """The same database, of which only this tenant's rows are seen."""
        scoped = copy(self)
        scoped.tenant_id = tenant_id
        return scoped

    def write(self) -> AbstractContextManager[Session]:
        """A session that commits at the end of the block, or rolls back when it raises."""
        return _transaction(self._writer, self.tenant_id)

    def read(self) -> AbstractContextManager[Session]:
        return _transaction(self.engine, self.tenant_id)

    def dispose(self) -> None:
        self.engine.dispose()


@contextmanager
def _transaction(engine: Engine, tenant_id: str | None) -> Iterator[Session]:
    with TenantSession(engine, expire_on_commit=False) as session:
        session.tenant_id = tenant_id
        with session.begin():
            yield session
        for callback in session.info.get(_AFTER_COMMIT, ()):
            callback()


def after_commit(session: Session, callback: Callable[[], None]) -> None:
    """Call this once the block of `Database.write` has committed, and not when it rolls back."""
    session.info.setdefault(_AFTER_COMMIT, {})[callback] = None


def insert_into(session: Session, table: type[Any]) -> sqlite.Insert | postgresql.Insert:
    """Of which may be said what happens on a conflict: each dialect has a statement of its own."""
    dialect = session.get_bind().dialect.name
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def make_engine(url: str) -> Engine:
    parsed = make_url(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed,
        pool_pre_ping=not is_sqlite,
        # NaN is not JSON: refuse it here, where the culprit is still on the stack.
        json_serializer=lambda value: json.dumps(value, allow_nan=False),
    )
    if is_sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # The driver's own implicit BEGIN is deferred; `_begin_sqlite` says which one is wanted.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("begin_immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
