"""Alembic's entry: `service.database.migrate` hands a connection over; the command has a URL."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from service.database.migrate import migration_engine
from service.database.models import Base
from service.settings import Settings


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite alters a table by copying it
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = migration_engine(Settings().database_url)
    with engine.connect() as own:
        run(own)
        own.commit()
    engine.dispose()
