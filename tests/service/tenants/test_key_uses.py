from __future__ import annotations

from fastapi.testclient import TestClient
from sqlalchemy import select

from service.database.db import Database
from service.database.models import ApiKey
from tests.workers.waiting import wait_until


def test_reading_does_not_wait_for_whoever_writes(http: TestClient, database: Database) -> None:
    with database.write() as session:
        session.execute(select(ApiKey).with_for_update()).all()
        for _ in range(2):
            assert http.get("/v1/search-jobs").status_code == 200
        assert uses(database) == {None}
    wait_until(lambda: None not in uses(database))


def uses(database: Database) -> set[float | None]:
    with database.read() as session:
        return set(session.scalars(select(ApiKey.last_used_at)))
