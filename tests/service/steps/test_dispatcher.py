from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, update

from service.database.db import Database, epoch_now
from service.database.models import OutboxRow, Step
from service.devices import measurement_jobs
from service.jobs import jobs, lifecycle
from service.steps import outbox, steps
from service.steps.dispatcher import Dispatcher
from service.steps.queue import InMemoryQueue
from service.steps.reconciler import KEEP_SENT_SECONDS, reconcile
from service.steps.step_types import MAX_ATTEMPTS, NewStep, StepResult
from tests.service.helpers import (
    claimed,
    create_job,
    create_measuring_job,
    finish,
    job_of,
    let_leases_run_out,
    open_step,
)

ROUND_SECONDS = 5.0


class OfflineQueue:
    """A broker that is away until `is_back`."""

    def __init__(self) -> None:
        self.is_back = False
        self.sent = threading.Event()

    def enqueue(self, step_id: str, kind: str) -> bool:
        if self.is_back:
            self.sent.set()
        return self.is_back


@pytest.fixture
def queue() -> InMemoryQueue:
    return InMemoryQueue()


def heal(database: Database, queue: InMemoryQueue) -> list[str]:
    """One round; returns what was sent in it."""
    queue.step_ids.clear()
    reconcile(database, ROUND_SECONDS)
    outbox.publish(database, queue)
    return list(queue.step_ids)


def age_messages(database: Database, seconds: float) -> None:
    with database.write() as session:
        session.execute(update(Step).values(published_at=Step.published_at - seconds))


def test_a_step_is_sent_once(database: Database, queue: InMemoryQueue) -> None:
    job_id = create_job(database)
    assert outbox.publish(database, queue) == 1
    assert outbox.publish(database, queue) == 0
    assert queue.step_ids == [open_step(database, job_id).id]


def test_a_message_waits_until_its_step_is_due(database: Database, queue: InMemoryQueue) -> None:
    job_id = create_job(database)
    with database.write() as session:
        session.execute(update(Step).values(not_before=epoch_now() + 60))
    assert outbox.publish(database, queue) == 0
    with database.write() as session:
        session.execute(update(Step).values(not_before=epoch_now()))
    assert outbox.publish(database, queue) == 1
    assert queue.step_ids == [open_step(database, job_id).id]


def test_a_broker_that_is_away_loses_nothing(database: Database) -> None:
    create_job(database)
    queue = OfflineQueue()
    assert outbox.publish(database, queue) == 0
    queue.is_back = True
    assert outbox.publish(database, queue) == 1


def test_a_lost_message_is_sent_again_ever_more_rarely(
    database: Database, queue: InMemoryQueue
) -> None:
    job_id = create_job(database)
    step_id = open_step(database, job_id).id
    outbox.publish(database, queue)
    for wait_rounds in (3, 6, 12, 12):
        age_messages(database, (wait_rounds - 1) * ROUND_SECONDS)
        assert heal(database, queue) == []
        age_messages(database, 1.1 * ROUND_SECONDS)
        assert heal(database, queue) == [step_id]


def test_a_step_of_a_dead_worker_is_sent_again(database: Database, queue: InMemoryQueue) -> None:
    job_id = create_job(database)
    outbox.publish(database, queue)
    lease = claimed(database, job_id)
    assert heal(database, queue) == []
    let_leases_run_out(database)
    assert heal(database, queue) == [lease.step_id]
    assert heal(database, queue) == []


def test_a_step_that_killed_all_its_workers_ends(database: Database, queue: InMemoryQueue) -> None:
    job_id = create_job(database)
    for _ in range(MAX_ATTEMPTS):
        claimed(database, job_id)
        let_leases_run_out(database)
    heal(database, queue)
    assert job_of(database, job_id).reason_code == "poison_step"


def test_a_cancel_whose_worker_died_is_carried_out(
    database: Database, queue: InMemoryQueue
) -> None:
    job_id = create_job(database)
    claimed(database, job_id)
    with database.write() as session:
        lifecycle.request_cancel(session, job_id)
    heal(database, queue)
    assert job_of(database, job_id).state == "cancelling"
    let_leases_run_out(database)
    heal(database, queue)
    assert job_of(database, job_id).state == "cancelled"


def test_a_measurement_that_lost_all_its_agents_fails_its_job(
    database: Database, queue: InMemoryQueue
) -> None:
    job_id, device_id = create_measuring_job(database)
    for _ in range(MAX_ATTEMPTS):
        with database.write() as session:
            assert measurement_jobs.claim(session, device_id, "agent", 60.0)
        let_leases_run_out(database)
    heal(database, queue)
    assert job_of(database, job_id).reason_code == "measuring_failed"


def test_steps_of_finished_jobs_are_not_sent(database: Database, queue: InMemoryQueue) -> None:
    job_id = create_job(database)
    finish(database, claimed(database, job_id), StepResult(result={}))
    heal(database, queue)
    age_messages(database, 1e6)
    assert heal(database, queue) == []


def test_sent_rows_are_deleted_after_a_while(database: Database, queue: InMemoryQueue) -> None:
    create_job(database)
    outbox.publish(database, queue)
    with database.write() as session:
        session.execute(update(OutboxRow).values(sent_at=epoch_now() - 2 * KEEP_SENT_SECONDS))
    reconcile(database, ROUND_SECONDS)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(OutboxRow)) == 0


@pytest.fixture
def offline(database: Database) -> Iterator[OfflineQueue]:
    """The queue of a running dispatcher that sleeps for very long between its rounds."""
    queue = OfflineQueue()
    dispatcher = Dispatcher(database, queue, reconcile_seconds=3600.0)
    dispatcher.start()
    yield queue
    dispatcher.stop()


def test_a_commit_wakes_the_dispatcher(database: Database, offline: OfflineQueue) -> None:
    offline.is_back = True
    with database.write() as session:
        jobs.create_job(session, {}, name="job", first=NewStep(kind="prepare"))
    assert offline.sent.wait(20.0)


def test_a_rolled_back_step_wakes_nobody(database: Database, offline: OfflineQueue) -> None:
    offline.is_back = True

    def create_and_fail() -> None:
        with database.write() as session:
            jobs.create_job(session, {}, name="job")
            raise RuntimeError("rolled back")

    with pytest.raises(RuntimeError):
        create_and_fail()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Step)) == 0
    assert not offline.sent.is_set()


def test_expiring_a_lease_wakes_the_dispatcher(database: Database, offline: OfflineQueue) -> None:
    lease = claimed(database, create_job(database))
    offline.is_back = True
    with database.write() as session:
        assert steps.expire(session, lease.step_id, lease.owner)
    assert offline.sent.wait(20.0)
