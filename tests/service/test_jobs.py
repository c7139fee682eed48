from __future__ import annotations

import pytest

from service import events, jobs, steps
from service.db import Database
from service.job_states import conclude_job
from service.step_types import LeaseLost, NewStep, StepResult
from tests.service.helpers import (
    claim,
    claimed,
    create_job,
    create_measuring_job,
    finish,
    job_of,
    let_leases_run_out,
    measurement_of,
    open_step,
    steps_of,
)


def cancel(database: Database, job_id: str) -> None:
    with database.write() as session:
        jobs.request_cancel(session, job_id)


def test_a_new_job_is_queued_with_one_ready_step_and_one_event(database: Database) -> None:
    job_id = create_job(database, seed=7)
    job = job_of(database, job_id)
    assert (job.state, job.seed, job.spec) == ("queued", 7, {"task": "x"})
    assert [(s.kind, s.state) for s in steps_of(database, job_id)] == [("prepare", "ready")]
    with database.read() as session:
        assert [e.data for e in events.list_events(session, job_id)] == [{"state": "queued"}]


def test_jobs_are_listed_newest_first_in_pages(database: Database) -> None:
    ids = [create_job(database) for _ in range(5)]
    with database.read() as session:
        first = jobs.list_jobs(session, limit=3)
        rest = jobs.list_jobs(session, limit=3, before=(first[-1].created_at, first[-1].id))
    assert [job.id for job in first + rest] == sorted(
        ids, key=lambda id_: (job_of(database, id_).created_at, id_), reverse=True
    )


def test_cancelling_a_queued_job_ends_it_at_once(database: Database) -> None:
    job_id = create_job(database)
    cancel(database, job_id)
    assert job_of(database, job_id).state == "cancelled"
    assert [s.state for s in steps_of(database, job_id)] == ["cancelled"]


def test_cancelling_twice_changes_nothing_more(database: Database) -> None:
    job_id = create_job(database)
    cancel(database, job_id)
    before = job_of(database, job_id)
    cancel(database, job_id)
    after = job_of(database, job_id)
    assert (before.version, before.last_event_seq) == (after.version, after.last_event_seq)


def test_cancelling_an_unknown_job_gives_none(database: Database) -> None:
    with database.write() as session:
        assert jobs.request_cancel(session, "job_unknown") is None


def test_a_running_step_is_told_to_stop_and_its_end_cancels_the_job(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    cancel(database, job_id)
    assert job_of(database, job_id).state == "cancelling"
    with database.write() as session:
        assert steps.renew(session, lease, 60.0) is steps.Renewal.CANCEL
        steps.cancel(session, lease)
    assert job_of(database, job_id).state == "cancelled"
    assert [s.state for s in steps_of(database, job_id)] == ["cancelled"]


def test_a_step_that_finishes_in_spite_of_a_cancel_is_the_last(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    cancel(database, job_id)
    finish(database, lease, StepResult(output={"a": 1}, next=NewStep(kind="teacher")))
    assert job_of(database, job_id).state == "cancelled"
    assert [(s.kind, s.output) for s in steps_of(database, job_id)] == [("prepare", {"a": 1})]


def test_a_cancelling_job_whose_worker_died_is_cancelled_and_its_step_not_claimed(
    database: Database,
) -> None:
    job_id = create_job(database)
    claimed(database, job_id)
    cancel(database, job_id)
    with database.write() as session:
        assert not jobs.finish_cancel(session, job_id)
    let_leases_run_out(database)
    assert claim(database, job_id) is None
    with database.write() as session:
        assert jobs.finish_cancel(session, job_id)
    assert job_of(database, job_id).state == "cancelled"


def test_a_step_that_waits_for_its_retry_is_cancelled_at_once(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    with database.write() as session:
        steps.retry(session, lease, ValueError("flaky"), backoff_seconds=60.0)
    cancel(database, job_id)
    assert job_of(database, job_id).state == "cancelled"


def test_cancelling_a_measuring_job_cancels_its_measurements(database: Database) -> None:
    job_id, _ = create_measuring_job(database)
    cancel(database, job_id)
    assert job_of(database, job_id).state == "cancelled"
    assert measurement_of(database, job_id).state == "cancelled"


@pytest.mark.parametrize("final", ["succeeded", "failed", "cancelled"])
def test_nothing_leaves_a_final_state(database: Database, final: str) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    with database.write() as session:
        assert conclude_job(session, job_id, final)
    before = job_of(database, job_id)
    with database.write() as session:
        assert not conclude_job(session, job_id, "succeeded", result={})
        assert not conclude_job(session, job_id, "failed", code="late")
        jobs.request_cancel(session, job_id)
        with pytest.raises(LeaseLost):
            steps.finish(session, lease, StepResult(result={}))
    after = job_of(database, job_id)
    assert (after.state, after.version, after.result) == (final, before.version, None)
    with pytest.raises(StopIteration):
        open_step(database, job_id)
