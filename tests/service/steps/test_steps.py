from __future__ import annotations

import pytest

from service.artifacts import artifacts
from service.database.db import Database
from service.jobs import events, lifecycle
from service.steps import steps
from service.steps.step_types import (
    MAX_ATTEMPTS,
    LeaseLost,
    NewArtifact,
    NewStep,
    StepFailed,
    StepResult,
)
from tests.service.helpers import (
    claim,
    claimed,
    create_job,
    finish,
    job_of,
    let_leases_run_out,
    open_step,
    steps_of,
)

NEXT = StepResult(output={"loss": 1.5}, next=NewStep(kind="teacher", input={"slice": 0}))


def test_a_claim_raises_token_and_attempts_and_starts_the_job(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    assert (lease.token, lease.attempts, lease.input) == (1, 1, {"n": 0})
    job = job_of(database, job_id)
    assert (job.state, job.started_at is not None) == ("running", True)


def test_a_second_claim_finds_nothing(database: Database) -> None:
    job_id = create_job(database)
    claimed(database, job_id)
    assert claim(database, job_id, "another") is None


def test_a_message_for_an_unknown_step_does_nothing(database: Database) -> None:
    with database.write() as session:
        assert steps.claim(session, "step_unknown", "me", 60.0) is None
        assert not steps.fail_if_poisonous(session, "step_unknown")


def test_a_step_whose_lease_ran_out_is_claimed_and_the_zombie_turned_away(
    database: Database,
) -> None:
    job_id = create_job(database)
    zombie = claimed(database, job_id)
    let_leases_run_out(database)
    heir = claimed(database, job_id)
    assert heir.token == zombie.token + 1

    with pytest.raises(LeaseLost):
        finish(database, zombie, NEXT)
    with database.write() as session:
        assert steps.renew(session, zombie, 60.0) is steps.Renewal.LOST
        with pytest.raises(LeaseLost):
            steps.guard(session, zombie)
        with pytest.raises(LeaseLost):
            steps.retry(session, zombie, ValueError("late"), backoff_seconds=0.0)

    finish(database, heir, NEXT)
    assert [s.kind for s in steps_of(database, job_id)] == ["prepare", "teacher"]


def test_finishing_writes_output_artifacts_and_the_next_step_together(database: Database) -> None:
    job_id = create_job(database)
    artifact = NewArtifact(
        name="onnx/model.onnx", sha256="0" * 64, size_bytes=3, media_type="application/onnx"
    )
    result = StepResult(output={"a": 1}, next=NewStep(kind="teacher"), artifacts=[artifact])
    finish(database, claimed(database, job_id), result)

    done, ready = steps_of(database, job_id)
    assert (done.state, done.output, ready.state) == ("done", {"a": 1}, "ready")
    with database.read() as session:
        assert [a.name for a in artifacts.list_artifacts(session, job_id)] == ["onnx/model.onnx"]


def test_a_finish_that_fails_halfway_leaves_nothing(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    not_a_number = StepResult(next=NewStep(kind="teacher", input={"loss": float("nan")}))
    with pytest.raises(Exception, match="not JSON compliant"):
        finish(database, lease, not_a_number)
    assert [s.state for s in steps_of(database, job_id)] == ["running"]


def test_an_artifact_of_a_repeated_step_replaces_the_former(database: Database) -> None:
    job_id = create_job(database)
    for content in ("a", "b"):
        artifact = NewArtifact(
            name="report.json", sha256=content * 64, size_bytes=1, media_type="application/json"
        )
        result = StepResult(next=NewStep(kind="again"), artifacts=[artifact])
        finish(database, claimed(database, job_id), result)
    with database.read() as session:
        assert [a.sha256 for a in artifacts.list_artifacts(session, job_id)] == ["b" * 64]


def test_a_result_ends_the_job_for_good(database: Database) -> None:
    job_id = create_job(database)
    finish(database, claimed(database, job_id), StepResult(result={"targets": []}))
    with database.write() as session:
        lifecycle.request_cancel(session, job_id)
    job = job_of(database, job_id)
    assert (job.state, job.result) == ("succeeded", {"targets": []})
    assert job.finished_at is not None


def test_a_step_ends_with_either_a_next_one_or_a_result() -> None:
    with pytest.raises(ValueError, match="either"):
        StepResult(next=NewStep(kind="x"), result={})


def test_a_permanent_failure_fails_the_job_with_its_code_and_data(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    error = StepFailed("budget_unreachable", "too tight", {"closest_ms": 1.5})
    with database.write() as session:
        steps.fail(session, lease, error.code, str(error), error.data)
    job = job_of(database, job_id)
    assert (job.state, job.reason_code) == ("failed", "budget_unreachable")
    assert job.reason_message == "too tight"
    with database.read() as session:
        last = events.list_events(session, job_id)[-1]
    assert (last.data["state"], last.data["closest_ms"], last.level) == ("failed", 1.5, "error")


def test_an_unexpected_error_is_retried_until_the_step_counts_as_poison(
    database: Database,
) -> None:
    job_id = create_job(database)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        lease = claimed(database, job_id)
        assert lease.attempts == attempt
        with database.write() as session:
            steps.retry(session, lease, ValueError("flaky"), backoff_seconds=0.0)
    job = job_of(database, job_id)
    assert (job.state, job.reason_code) == ("failed", "poison_step")
    assert "ValueError: flaky" in (job.reason_message or "")


def test_a_retried_step_waits_before_it_can_be_claimed(database: Database) -> None:
    job_id = create_job(database)
    with database.write() as session:
        lease = steps.claim(session, open_step(database, job_id).id, "me", 60.0)
        assert lease is not None
        steps.retry(session, lease, ValueError("flaky"), backoff_seconds=30.0)
    assert claim(database, job_id) is None


def test_a_step_whose_workers_all_died_is_poison(database: Database) -> None:
    job_id = create_job(database)
    for _ in range(MAX_ATTEMPTS):
        claimed(database, job_id)
        let_leases_run_out(database)
    assert claim(database, job_id) is None
    with database.write() as session:
        assert steps.fail_if_poisonous(session, open_step(database, job_id).id)
    assert job_of(database, job_id).reason_code == "poison_step"


def test_a_released_step_does_not_count_the_attempt(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    with database.write() as session:
        steps.release(session, lease)
    again = claimed(database, job_id)
    assert (again.attempts, again.token) == (1, 2)


def test_expiring_the_lease_of_a_dead_owner_spares_a_later_one(database: Database) -> None:
    job_id = create_job(database)
    lease = claimed(database, job_id)
    with database.write() as session:
        assert not steps.expire(session, lease.step_id, "somebody else")
        assert steps.expire(session, lease.step_id, lease.owner)
    assert claimed(database, job_id).token == 2
