"""Parts of a step that run side by side, and the step that waits for all of them."""

from __future__ import annotations

import pytest

from service.database.db import Database
from service.database.models import Step
from service.jobs import lifecycle
from service.steps import steps
from service.steps.step_types import (
    LeaseLost,
    NewMeasurement,
    NewStep,
    StepFailed,
    StepLease,
    StepResult,
)
from tests.service.helpers import claimed, create_job, finish, job_of, let_leases_run_out, steps_of

NUM_PARTS = 3
IN_PARTS = StepResult(
    parts=[NewStep(kind="evaluate", input={"share": n}) for n in range(NUM_PARTS)],
    next=NewStep(kind="search", input={"n": 1}),
)


@pytest.fixture
def job_id(database: Database) -> str:
    """A job whose first step has just ended in parts."""
    job_id = create_job(database)
    finish(database, claimed(database, job_id), IN_PARTS)
    return job_id


def of_kind(database: Database, job_id: str, kind: str) -> list[Step]:
    return [step for step in steps_of(database, job_id) if step.kind == kind]


def claim_step(database: Database, step: Step, owner: str = "me") -> StepLease | None:
    with database.write() as session:
        return steps.claim(session, step.id, owner, 60.0)


def part(database: Database, job_id: str, place: int) -> StepLease:
    lease = claim_step(database, of_kind(database, job_id, "evaluate")[place])
    assert lease is not None
    return lease


def test_all_parts_may_be_held_at_once_while_the_next_step_waits(
    database: Database, job_id: str
) -> None:
    leases = [part(database, job_id, place) for place in range(NUM_PARTS)]
    assert sorted(lease.input["share"] for lease in leases) == [0, 1, 2]
    (joined,) = of_kind(database, job_id, "search")
    assert (joined.state, joined.waits_for) == ("waiting", NUM_PARTS)
    assert claim_step(database, joined) is None


def test_the_last_part_to_end_sets_the_next_step_free(database: Database, job_id: str) -> None:
    leases = [part(database, job_id, place) for place in range(NUM_PARTS)]
    for place, num_left in ((2, 2), (0, 1), (1, 0)):
        finish(database, leases[place], StepResult())
        (joined,) = of_kind(database, job_id, "search")
        assert joined.waits_for == num_left
    assert joined.state == "ready"
    lease = claim_step(database, joined)
    assert lease is not None
    assert lease.input == {"n": 1}


def test_a_part_that_is_repeated_counts_once(database: Database, job_id: str) -> None:
    zombie = part(database, job_id, 0)
    let_leases_run_out(database)
    heir = part(database, job_id, 0)
    finish(database, heir, StepResult())
    with pytest.raises(LeaseLost):
        finish(database, zombie, StepResult())
    (joined,) = of_kind(database, job_id, "search")
    assert (joined.state, joined.waits_for) == ("waiting", NUM_PARTS - 1)


def test_a_part_that_fails_ends_its_job_and_turns_the_others_away(
    database: Database, job_id: str
) -> None:
    failing, other = part(database, job_id, 0), part(database, job_id, 1)
    error = StepFailed("bad_data", "no")
    with database.write() as session:
        steps.fail(session, failing, error.code, error.message)
    with pytest.raises(LeaseLost):
        finish(database, other, StepResult())
    assert job_of(database, job_id).reason_code == "bad_data"
    assert [s.state for s in of_kind(database, job_id, "search")] == ["cancelled"]


def test_a_cancelled_job_leaves_nothing_waiting(database: Database, job_id: str) -> None:
    lease = part(database, job_id, 0)
    with database.write() as session:
        lifecycle.request_cancel(session, job_id)
    finish(database, lease, StepResult())
    assert job_of(database, job_id).state == "cancelled"
    assert {s.state for s in steps_of(database, job_id)} == {"done", "cancelled"}


def test_what_is_no_part_of_anything_cannot_end_with_nothing(database: Database) -> None:
    lease = claimed(database, create_job(database))
    with pytest.raises(ValueError, match="no part"):
        finish(database, lease, StepResult())


def test_parts_need_a_step_that_joins_them() -> None:
    parts = [NewStep(kind="evaluate")]
    with pytest.raises(ValueError, match="join"):
        StepResult(parts=parts, next=NewMeasurement(device_id="dev", spec={}))
    with pytest.raises(ValueError, match="join"):
        StepResult(parts=parts)
