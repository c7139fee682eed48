"""What the readers of a running job cost the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from service.client import Client
from service.database.db import Database
from service.database.models import Job
from service.jobs.finish_times import FINISH_SECONDS, RATES_SECONDS, FinishTimes
from tests.service.helpers import claimed, job_of
from tests.service.jobs.test_estimates import ended
from tests.service.serving import upload_both


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def job_id(client: Client, database: Database, tmp_path: Path) -> str:
    """Of a job in its search, that is like one that has ended."""
    spec: dict[str, Any] = upload_both(client, tmp_path)
    ended(client, database, spec)
    job_id = client.submit(spec).id
    claimed(database, job_id)
    change(database, job_id, stage="search", progress_done=1.0, progress_total=2.0)
    return job_id


def change(database: Database, job_id: str, **values: Any) -> None:
    with database.write() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(version=Job.version + 1, **values)
        )


def asked(database: Database, times: FinishTimes, job_id: str) -> tuple[float | None, int]:
    """When it will end, and how many queries that took."""
    job = job_of(database, job_id)
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    with database.read() as session:
        finish = times.of(session, job)
    event.remove(database.engine, "before_cursor_execute", note)
    return finish, len(statements)


def test_a_job_that_is_read_again_and_again_is_estimated_once(
    database: Database, job_id: str, clock: Clock
) -> None:
    times = FinishTimes(clock)
    finish, first = asked(database, times, job_id)
    assert finish is not None
    assert first > 0
    assert asked(database, times, job_id) == (finish, 0)
    clock.now += FINISH_SECONDS + 1
    _, later = asked(database, times, job_id)
    assert 0 < later < first, "what earlier jobs took is still known"
    clock.now += RATES_SECONDS + 1
    assert asked(database, times, job_id)[1] == first


def test_a_job_that_has_changed_is_estimated_anew(
    database: Database, job_id: str, clock: Clock
) -> None:
    times = FinishTimes(clock)
    before, _ = asked(database, times, job_id)
    change(database, job_id, progress_done=2.0)
    after, _ = asked(database, times, job_id)
    assert before is not None
    assert after is not None
    assert after < before


def test_a_job_that_does_not_run_costs_nothing(
    database: Database, job_id: str, clock: Clock
) -> None:
    change(database, job_id, state="paused")
    assert asked(database, FinishTimes(clock), job_id) == (None, 0)
