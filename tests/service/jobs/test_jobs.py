from __future__ import annotations

import pytest

from service.database.db import Database
from service.jobs import events, jobs, lifecycle
from service.jobs.job_states import conclude_job
from service.steps import steps
from service.steps.step_types import LeaseLost, StepResult
from tests.service.helpers import (
    claimed,
    create_job,
    job_of,
    open_step,
    steps_of,
)


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
        lifecycle.request_cancel(session, job_id)
        with pytest.raises(LeaseLost):
            steps.finish(session, lease, StepResult(result={}))
    after = job_of(database, job_id)
    assert (after.state, after.version, after.result) == (final, before.version, None)
    with pytest.raises(StopIteration):
        open_step(database, job_id)
