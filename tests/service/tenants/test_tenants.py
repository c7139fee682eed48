"""What a tenant may have, and what becomes of what is more."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from search.errors import InvalidInput
from service.client import Client, Conflict
from service.database.db import Database
from service.database.models import OutboxRow, Tenant
from service.jobs import lifecycle
from service.steps import steps
from service.steps.step_types import StepResult
from service.tenants.tenancy import DEFAULT_TENANT
from service.tenants.tenants import (
    QuotaExceeded,
    create_tenant,
    find_tenant,
    list_tenants,
    set_limits,
)
from tests.service.helpers import claim, claimed, create_job, finish, job_of, steps_of
from tests.service.serving import upload_both


def limit(database: Database, **limits: int | None) -> None:
    with database.write() as session:
        set_limits(session, session.get_one(Tenant, DEFAULT_TENANT), limits)


def test_tenants_are_made_found_and_listed(everybody: Database) -> None:
    with everybody.write() as session:
        made = create_tenant(session, "vision team")
        assert find_tenant(session, "vision team") is find_tenant(session, made.id) is made
        assert [t.name for t in list_tenants(session)] == ["default", "vision team"]
        with pytest.raises(InvalidInput, match="already"):
            create_tenant(session, "vision team")
        with pytest.raises(InvalidInput, match="no tenant 'audio'"):
            find_tenant(session, "audio")
        with pytest.raises(InvalidInput, match="max_bytes: must not be negative"):
            set_limits(session, made, {"max_bytes": -1})


def test_a_queue_that_is_full_takes_no_more(
    client: Client, database: Database, tmp_path: Path
) -> None:
    spec = upload_both(client, tmp_path)
    limit(database, max_queued_jobs=1)
    first = client.submit(spec)
    with pytest.raises(Conflict, match="1 jobs are queued") as refused:
        client.submit(spec)
    assert refused.value.problem.code == "quota_exceeded"
    claimed(database, first.id)
    client.submit(spec)


def test_a_search_that_is_too_long_is_refused(
    client: Client, database: Database, tmp_path: Path
) -> None:
    spec = upload_both(client, tmp_path)
    limit(database, max_evaluations=100)
    with pytest.raises(Conflict, match="at most 100 evaluations"):
        client.submit(spec)
    client.submit({**spec, "search": {"population": 20, "generations": 5}})


def test_bytes_are_counted_before_they_come(
    client: Client, database: Database, tmp_path: Path
) -> None:
    limit(database, max_bytes=1000)
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    small.write_text("text,label\n" + "good,1\nbad,0\n" * 30)
    large.write_text("text,label\n" + "good,1\nbad,0\n" * 60)
    client.upload_file(small)
    with pytest.raises(Conflict, match="of 1,000 bytes are in use"):
        client.upload_file(large)
    limit(database, max_bytes=None)
    client.upload_file(large)


def test_a_job_waits_until_there_is_room(database: Database) -> None:
    limit(database, max_running_jobs=1)
    first_id, second_id, third_id = (create_job(database) for _ in range(3))
    lease = claimed(database, first_id)
    assert claim(database, second_id) is None
    assert job_of(database, second_id).state == "queued"
    finish(database, lease, StepResult(result={}))
    assert claim(database, second_id) is not None
    assert claim(database, third_id) is None
    limit(database, max_running_jobs=None)
    assert claim(database, third_id) is not None


def test_a_job_that_rests_goes_on_when_there_is_room(database: Database) -> None:
    limit(database, max_running_jobs=1)
    first_id, second_id = create_job(database), create_job(database)
    lease = claimed(database, first_id)
    with database.write() as session:
        lifecycle.request_pause(session, first_id)
    assert claim(database, second_id) is None  # while the first is still at its step
    with database.write() as session:
        steps.release(session, lease)
    assert job_of(database, first_id).state == "paused"
    second = claimed(database, second_id)
    with pytest.raises(QuotaExceeded), database.write() as session:
        lifecycle.resume(session, first_id)
    finish(database, second, StepResult(result={}))
    with database.write() as session:
        lifecycle.resume(session, first_id)
    assert claim(database, first_id) is not None


def test_the_oldest_that_waits_is_woken_when_a_job_ends(database: Database) -> None:
    limit(database, max_running_jobs=1)
    first_id, second_id, _third_id = (create_job(database) for _ in range(3))
    lease = claimed(database, first_id)
    before = num_wakeups(database)
    finish(database, lease, StepResult(result={}))
    (woken,) = steps_of(database, second_id)
    assert num_wakeups(database) == before + 1
    with database.read() as session:
        newest = session.scalars(select(OutboxRow).order_by(OutboxRow.id.desc())).first()
        assert newest is not None
        assert newest.step_id == woken.id


def num_wakeups(database: Database) -> int:
    with database.read() as session:
        return session.execute(select(func.count(OutboxRow.id))).scalar_one()
