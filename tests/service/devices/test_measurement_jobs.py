from __future__ import annotations

import pytest

from service.database.db import Database
from service.devices import measurement_jobs
from service.devices.measurement_jobs import MeasurementLease
from service.jobs import lifecycle
from service.steps.step_types import MAX_ATTEMPTS, LeaseLost
from tests.service.helpers import (
    claimed,
    create_device,
    create_measuring_job,
    job_of,
    let_leases_run_out,
    measurement_of,
    steps_of,
)
from tests.service.measuring import answer, measuring_spec


def claim(database: Database, device_id: str) -> MeasurementLease | None:
    with database.write() as session:
        return measurement_jobs.claim(session, device_id, "agent", 60.0)


def claim_held(database: Database, device_id: str) -> MeasurementLease:
    lease = claim(database, device_id)
    assert lease is not None
    return lease


def test_a_result_makes_the_waiting_step_ready_with_its_id(database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    lease = claim_held(database, device_id)
    assert lease.spec == measuring_spec().to_dict()
    with database.write() as session:
        measurement_jobs.complete(session, lease.id, lease.token, answer())
    ready = steps_of(database, job_id)[-1]
    assert (ready.kind, ready.state) == ("onboard", "ready")
    assert ready.input == {"n": 1, "measurement_job_id": lease.id}
    assert claimed(database, job_id).kind == "onboard"
    assert measurement_of(database, job_id).result == answer()


def test_an_agent_gets_only_work_of_its_device_and_each_once(database: Database) -> None:
    _, device_id = create_measuring_job(database)
    other = create_device(database, "other")
    assert claim(database, other.id) is None
    assert claim(database, device_id) is not None
    assert claim(database, device_id) is None


def test_a_vanished_agents_work_goes_to_the_next_and_its_result_is_refused(
    database: Database,
) -> None:
    job_id, device_id = create_measuring_job(database)
    zombie = claim_held(database, device_id)
    let_leases_run_out(database)
    heir = claim_held(database, device_id)
    with database.write() as session:
        with pytest.raises(LeaseLost):
            measurement_jobs.complete(session, zombie.id, zombie.token, answer(noisy=True))
        with pytest.raises(LeaseLost):
            measurement_jobs.renew(session, zombie.id, zombie.token, 60.0)
        measurement_jobs.renew(session, heir.id, heir.token, 60.0)
        measurement_jobs.complete(session, heir.id, heir.token, answer())
    assert len(steps_of(database, job_id)) == 2
    assert measurement_of(database, job_id).result == answer()


def test_a_result_that_comes_twice_is_taken_once(database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    lease = claim_held(database, device_id)
    with database.write() as session:
        measurement_jobs.complete(session, lease.id, lease.token, answer())
    with pytest.raises(LeaseLost), database.write() as session:
        measurement_jobs.complete(session, lease.id, lease.token, answer())
    assert len(steps_of(database, job_id)) == 2


def test_failed_measuring_is_tried_again_until_the_job_fails(database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    for _ in range(MAX_ATTEMPTS):
        assert job_of(database, job_id).state == "running"
        lease = claim_held(database, device_id)
        with database.write() as session:
            measurement_jobs.fail(session, lease.id, lease.token, "noisy", "too noisy")
    job = job_of(database, job_id)
    assert (job.state, job.reason_code, job.reason_message) == ("failed", "noisy", "too noisy")
    assert claim(database, device_id) is None


def test_a_failure_that_cannot_be_retried_fails_the_job_at_once(database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    lease = claim_held(database, device_id)
    with database.write() as session:
        measurement_jobs.fail(session, lease.id, lease.token, "bad_spec", "no", retry=False)
    assert job_of(database, job_id).reason_code == "bad_spec"
    assert measurement_of(database, job_id).state == "failed"


def test_a_cancelled_job_turns_its_agent_away(database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    lease = claim_held(database, device_id)
    with database.write() as session:
        lifecycle.request_cancel(session, job_id)
    assert job_of(database, job_id).state == "cancelled"
    with pytest.raises(LeaseLost), database.write() as session:
        measurement_jobs.renew(session, lease.id, lease.token, 60.0)
