"""Bring a database to the schema that this version of the code expects."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event

import migrations
from service.database.db import make_engine


def upgrade(database_url: str, revision: str = "head") -> None:
    _run(database_url, command.upgrade, revision)


def downgrade(database_url: str, revision: str) -> None:
    """Back to an older schema; what only the newer ones can hold is lost."""
    _run(database_url, command.downgrade, revision)


def is_current(engine: Engine) -> bool:
    """Whether the database has exactly the newest schema."""
    return _revision(engine) == newest_revision()


def current_revision(database_url: str) -> str | None:
    """Of the database's schema; None before the first migration."""
    engine = make_engine(database_url)
    try:
        return _revision(engine)
    finally:
        engine.dispose()


@cache
def newest_revision() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _run(database_url: str, migration: Callable[[Config, str], None], revision: str) -> None:
    engine = migration_engine(database_url)
    try:
        with engine.connect() as connection:
            config = _config()
            config.attributes["connection"] = connection
            migration(config, revision)
            connection.commit()
    finally:
        engine.dispose()


def migration_engine(database_url: str) -> Engine:
    """SQLite changes a table by copying it: rows that refer to the original must not go with it
    when it is dropped."""
    engine = make_engine(database_url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _ignore_foreign_keys)
    return engine


def _ignore_foreign_keys(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.execute("PRAGMA foreign_keys = OFF")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
