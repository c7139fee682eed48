"""What people ask of a job under way, whoever works on it at the time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from service.database.db import Database
from service.database.models import Job
from service.devices import measurement_jobs
from service.jobs import events, jobs, lifecycle
from service.jobs.job_states import conclude_job
from service.jobs.lifecycle import WrongState
from service.steps import steps
from service.steps.step_types import NewStep, StepResult
from tests.service.helpers import (
    claim,
    claimed,
    create_job,
    create_measuring_job,
    finish,
    job_of,
    let_leases_run_out,
    measurement_of,
    steps_of,
)


def ask(database: Database, job_id: str, what: Callable[[Session, str], Job | None]) -> Job:
    with database.write() as session:
        job = what(session, job_id)
        assert job is not None
        return job


def cancel(database: Database, job_id: str) -> None:
    ask(database, job_id, lifecycle.request_cancel)


def pause(database: Database, job_id: str) -> None:
    ask(database, job_id, lifecycle.request_pause)


def resume(database: Database, job_id: str) -> None:
    ask(database, job_id, lifecycle.resume)


def retry(database: Database, job_id: str) -> None:
    ask(database, job_id, lifecycle.retry)


def states_told(database: Database, job_id: str) -> list[str]:
    with database.read() as session:
        found = events.list_events(session, job_id)
        return [event.data["state"] for event in found if event.kind == "state"]


# --- cancel -------------------------------------------------------------------------------------


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
        assert lifecycle.request_cancel(session, "job_unknown") is None


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


@pytest.mark.parametrize(
    ("result", "retried"),
    [
        (StepResult(output={"a": 1}, next=NewStep(kind="teacher")), "teacher"),
        (StepResult(result={"a": 1}), "prepare"),
    ],
)
def test_a_step_that_finishes_in_spite_of_a_cancel_is_the_last_until_a_retry(
    database: Database, result: StepResult, retried: str
) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    cancel(database, job_id)
    finish(database, lease, result)
    assert job_of(database, job_id).state == "cancelled"
    assert not {s.state for s in steps_of(database, job_id)} & {"ready", "running"}
    retry(database, job_id)
    assert claimed(database, job_id).kind == retried


def test_a_part_that_finishes_in_spite_of_a_cancel_is_joined_after_a_retry(
    database: Database,
) -> None:
    job_id = create_job(database)
    parts = [NewStep(kind="evaluate"), NewStep(kind="evaluate")]
    finish(
        database,
        claimed(database, job_id),
        StepResult(next=NewStep(kind="report"), parts=parts),
    )
    lease = claimed(database, job_id)
    cancel(database, job_id)
    finish(database, lease, StepResult())
    assert job_of(database, job_id).state == "cancelled"
    retry(database, job_id)
    finish(database, claimed(database, job_id), StepResult())
    assert claimed(database, job_id).kind == "report"


def test_a_cancelling_job_whose_worker_died_is_cancelled_and_its_step_not_claimed(
    database: Database,
) -> None:
    job_id = create_job(database)
    claimed(database, job_id)
    cancel(database, job_id)
    with database.write() as session:
        assert not lifecycle.finish_cancel(session, job_id)
    let_leases_run_out(database)
    assert claim(database, job_id) is None
    with database.write() as session:
        assert lifecycle.finish_cancel(session, job_id)
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


# --- pause and resume ---------------------------------------------------------------------------


def test_a_paused_job_is_worked_on_no_more_until_it_is_resumed(database: Database) -> None:
    job_id = create_job(database)
    pause(database, job_id)
    assert job_of(database, job_id).state == "paused"
    assert claim(database, job_id) is None
    resume(database, job_id)
    assert job_of(database, job_id).state == "queued"
    assert claim(database, job_id) is not None
    assert states_told(database, job_id) == ["queued", "pausing", "paused", "queued", "running"]


def test_a_running_step_is_told_to_rest_and_goes_back_unharmed(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    pause(database, job_id)
    assert job_of(database, job_id).state == "pausing"
    with database.write() as session:
        assert steps.renew(session, lease, 60.0) is steps.Renewal.PAUSE
        steps.release(session, lease)
    assert job_of(database, job_id).state == "paused"
    resume(database, job_id)
    assert job_of(database, job_id).state == "running"
    again = claimed(database, job_id)
    assert (again.step_id, again.attempts) == (lease.step_id, 1)


def test_a_step_that_ends_in_spite_of_a_pause_leaves_the_next_one_waiting(
    database: Database,
) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    pause(database, job_id)
    finish(database, lease, StepResult(next=NewStep(kind="teacher")))
    assert job_of(database, job_id).state == "paused"
    assert [(s.kind, s.state) for s in steps_of(database, job_id)] == [
        ("prepare", "done"),
        ("teacher", "ready"),
    ]
    assert claim(database, job_id) is None


def test_a_job_that_ends_while_it_is_to_pause_has_ended(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    pause(database, job_id)
    finish(database, lease, StepResult(result={"winner": 1}))
    assert job_of(database, job_id).state == "succeeded"


def test_a_pausing_job_whose_worker_died_is_paused_and_goes_on_when_resumed(
    database: Database,
) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    pause(database, job_id)
    with database.write() as session:
        assert not lifecycle.finish_pause(session, job_id)
    let_leases_run_out(database)
    with database.write() as session:
        assert lifecycle.finish_pause(session, job_id)
    resume(database, job_id)
    assert claimed(database, job_id).step_id == lease.step_id


def test_all_parts_of_a_step_have_to_rest_before_the_job_does(database: Database) -> None:
    job_id = create_job(database)
    parts = [NewStep(kind="evaluate", input={"n": n}) for n in range(2)]
    finish(database, claimed(database, job_id), StepResult(next=NewStep(kind="join"), parts=parts))
    first = claimed(database, job_id)
    with database.write() as session:
        ready = next(s for s in steps_of(database, job_id) if s.state == "ready")
        second = steps.claim(session, ready.id, "you", 60.0)
    assert second is not None
    pause(database, job_id)
    with database.write() as session:
        steps.release(session, first)
    assert job_of(database, job_id).state == "pausing"
    finish(database, second, StepResult())
    assert job_of(database, job_id).state == "paused"


def test_no_agent_gets_the_measurements_of_a_paused_job(database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    pause(database, job_id)
    with database.write() as session:
        assert measurement_jobs.claim(session, device_id, "agent", 60.0) is None
    resume(database, job_id)
    with database.write() as session:
        assert measurement_jobs.claim(session, device_id, "agent", 60.0) is not None


def test_pausing_or_resuming_twice_changes_nothing_more(database: Database) -> None:
    job_id = create_job(database)
    for ask_again in (pause, resume):
        ask_again(database, job_id)
        before = job_of(database, job_id)
        ask_again(database, job_id)
        after = job_of(database, job_id)
        assert (before.version, before.last_event_seq) == (after.version, after.last_event_seq)


def test_a_paused_job_can_be_cancelled(database: Database) -> None:
    job_id = create_job(database)
    pause(database, job_id)
    cancel(database, job_id)
    assert job_of(database, job_id).state == "cancelled"


@pytest.mark.parametrize("what", [lifecycle.request_pause, lifecycle.resume])
def test_what_has_ended_neither_rests_nor_goes_on(
    database: Database, what: Callable[[Session, str], Job | None]
) -> None:
    job_id = create_job(database)
    cancel(database, job_id)
    with pytest.raises(WrongState, match="the job is cancelled, and cannot be"):
        ask(database, job_id, what)
    assert job_of(database, job_id).state == "cancelled"


# --- retry --------------------------------------------------------------------------------------


def test_a_failed_job_goes_on_from_the_step_that_failed(database: Database) -> None:
    job_id = create_job(database)
    finish(database, claimed(database, job_id), StepResult(next=NewStep(kind="teacher")))
    lease = claimed(database, job_id)
    with database.write() as session:
        steps.fail(session, lease, "diverged", "the loss is no number")
    assert job_of(database, job_id).state == "failed"
    retry(database, job_id)
    job = job_of(database, job_id)
    assert (job.state, job.reason_code, job.finished_at) == ("running", None, None)
    again = claimed(database, job_id)
    assert (again.step_id, again.kind, again.attempts) == (lease.step_id, "teacher", 1)
    assert again.token > lease.token
    finish(database, again, StepResult(result={"winner": 1}))
    assert job_of(database, job_id).state == "succeeded"


def test_of_parts_those_alone_are_done_again_that_were_not_done(database: Database) -> None:
    job_id = create_job(database)
    parts = [NewStep(kind="evaluate", input={"n": n}) for n in range(2)]
    finish(database, claimed(database, job_id), StepResult(next=NewStep(kind="join"), parts=parts))
    finish(database, claimed(database, job_id), StepResult())
    with database.write() as session:
        steps.fail(session, claimed(database, job_id), "broken", "no disk")
    retry(database, job_id)
    found = {(s.kind, s.state) for s in steps_of(database, job_id)}
    assert found == {
        ("prepare", "done"),
        ("evaluate", "done"),
        ("evaluate", "ready"),
        ("join", "waiting"),
    }
    finish(database, claimed(database, job_id), StepResult())
    assert claimed(database, job_id).kind == "join"


def test_a_measurement_that_failed_is_asked_for_again(database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    with database.write() as session:
        lease = measurement_jobs.claim(session, device_id, "agent", 60.0)
        assert lease is not None
        measurement_jobs.fail(session, lease.id, lease.token, "broken", "no", retry=False)
    assert job_of(database, job_id).state == "failed"
    retry(database, job_id)
    assert measurement_of(database, job_id).state == "ready"
    with database.write() as session:
        again = measurement_jobs.claim(session, device_id, "agent", 60.0)
        assert again is not None
        assert again.token > lease.token


def test_a_cancelled_job_may_be_tried_again(database: Database) -> None:
    job_id = create_job(database)
    cancel(database, job_id)
    retry(database, job_id)
    assert job_of(database, job_id).state == "queued"
    assert claim(database, job_id) is not None


def test_what_neither_failed_nor_was_cancelled_is_not_tried_again(database: Database) -> None:
    job_id = create_job(database)
    with pytest.raises(WrongState, match="the job is queued"):
        retry(database, job_id)
    finish(database, claimed(database, job_id), StepResult(result={}))
    with pytest.raises(WrongState, match="the job is succeeded"):
        retry(database, job_id)


# --- delete -------------------------------------------------------------------------------------


def test_a_job_that_has_ended_is_deleted_with_what_hangs_on_it(database: Database) -> None:
    job_id, _ = create_measuring_job(database)
    cancel(database, job_id)
    with database.write() as session:
        assert lifecycle.delete_job(session, job_id)
    with database.read() as session:
        assert jobs.get_job(session, job_id) is None
        assert events.list_events(session, job_id) == []
    assert steps_of(database, job_id) == []
    with database.write() as session:
        assert not lifecycle.delete_job(session, job_id)


def test_a_job_that_goes_on_is_not_deleted(database: Database) -> None:
    job_id = create_job(database)
    with pytest.raises(WrongState, match="cancel it before"), database.write() as session:
        lifecycle.delete_job(session, job_id)


def test_a_supernet_that_a_live_job_searches_is_not_deleted(database: Database) -> None:
    job_id = create_job(database)
    with database.write() as session:
        conclude_job(session, job_id, "succeeded", result={})
        user = jobs.create_job(session, {"supernet_of": job_id}, name="again").id
    with pytest.raises(WrongState, match=user), database.write() as session:
        lifecycle.delete_job(session, job_id)
    cancel(database, user)
    with database.write() as session:
        assert lifecycle.delete_job(session, job_id)
