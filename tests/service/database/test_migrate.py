from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_mock_engine

from service.database import migrate
from service.database.db import Database
from service.database.models import Base


def test_the_migrations_build_exactly_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_twice_changes_nothing(empty_database_url: str) -> None:
    url = empty_database_url
    fresh = Database(url)
    assert not migrate.is_current(fresh.engine)
    migrate.upgrade(url)
    migrate.upgrade(url)
    assert migrate.is_current(fresh.engine)
    fresh.dispose()


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_the_tables_can_be_written_for(dialect: str) -> None:
    statements = []
    engine = create_mock_engine(f"{dialect}://", lambda sql, *_a, **_k: statements.append(sql))
    Base.metadata.create_all(engine, checkfirst=False)
    assert [str(s.compile(dialect=engine.dialect)) for s in statements]
