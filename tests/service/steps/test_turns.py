"""Whose turn it is, among steps of several tenants."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from service.database.db import Database, epoch_now
from service.database.models import Step, Tenant
from service.jobs import lifecycle
from service.steps.turns import next_in_turn
from service.tenants.tenancy import DEFAULT_TENANT
from service.tenants.tenants import create_tenant, set_limits
from tests.service.helpers import claimed, create_job, let_leases_run_out, open_step


@pytest.fixture
def other(everybody: Database) -> Database:
    """Of a second tenant."""
    with everybody.write() as session:
        tenant = create_tenant(session, "other")
    return everybody.for_tenant(tenant.id)


def due(database: Database, *, kind: str = "prepare") -> str:
    """A job's due step."""
    return open_step(database, create_job(database, kind=kind)).id


def turn(everybody: Database, step_id: str, *without: str) -> str | None:
    with everybody.read() as session:
        return next_in_turn(session, step_id, without)


def test_the_oldest_is_served_first(everybody: Database, database: Database) -> None:
    first, second = due(database), due(database)
    assert turn(everybody, second) == turn(everybody, first) == first
    assert turn(everybody, first, first) == second


def test_a_tenant_with_many_jobs_does_not_hold_up_another(
    everybody: Database, database: Database, other: Database
) -> None:
    claimed(database, create_job(database))
    many = [due(database) for _ in range(3)]
    theirs = due(other)
    assert turn(everybody, many[0]) == theirs
    assert turn(everybody, many[0], theirs) == many[0]


def test_a_tenant_whose_worker_died_is_not_busy(
    everybody: Database, database: Database, other: Database
) -> None:
    lost = claimed(database, create_job(database))
    theirs = due(other)
    assert turn(everybody, theirs) == theirs
    let_leases_run_out(everybody)
    assert turn(everybody, theirs) == lost.step_id


def test_steps_of_other_queues_are_left_to_their_workers(
    everybody: Database, database: Database
) -> None:
    light, train, search = (due(database, kind=k) for k in ("prepare", "supernet", "evaluate"))
    for step_id in (search, train, light):
        assert turn(everybody, step_id) == step_id
    assert turn(everybody, search, search) is None


def test_what_may_not_begin_yet_is_passed_over(everybody: Database, database: Database) -> None:
    later, resting, ready = due(database), create_job(database), due(database)
    with everybody.write() as session:
        session.execute(
            update(Step).where(Step.id == later).values(not_before=epoch_now() + 3600.0)
        )
        lifecycle.request_pause(session, resting)
    assert turn(everybody, later) == ready


def test_a_job_that_waits_for_its_tenants_others_is_passed_over(
    everybody: Database, database: Database, other: Database
) -> None:
    running = claimed(database, create_job(database))
    queued, theirs = due(database), due(other)
    claimed(other, create_job(other))
    claimed(other, create_job(other))
    assert turn(everybody, queued) == queued
    with everybody.write() as session:
        limits: dict[str, int | None] = {"max_running_jobs": 1}
        set_limits(session, session.get_one(Tenant, DEFAULT_TENANT), limits)
    assert turn(everybody, queued) == theirs
    let_leases_run_out(everybody)
    assert turn(everybody, queued) == running.step_id


def test_a_wake_up_for_nothing_that_is_known_asks_for_nothing(
    everybody: Database, database: Database
) -> None:
    due(database)
    assert turn(everybody, "step_unknown") is None
