"""Real Celery workers on a real broker: what the step protocol promises when they are killed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import select, update

from service.database.db import Database
from service.database.models import Job, Step
from service.jobs import evaluations, events, jobs, lifecycle
from service.settings import Settings
from service.steps.dispatcher import Dispatcher
from service.steps.queue import CeleryQueue
from service.steps.step_types import MAX_ATTEMPTS, NewStep
from tests.workers.conftest import WorkerProcess
from tests.workers.small_steps import read_log
from tests.workers.waiting import wait_until

StartWorker = Callable[[], WorkerProcess]


@pytest.fixture
def queue(worker_settings: Settings, broker: redis.Redis) -> Iterator[CeleryQueue]:
    assert broker.ping()
    queue = CeleryQueue(worker_settings)
    yield queue
    queue.close()


@pytest.fixture
def _dispatcher(database: Database, queue: CeleryQueue) -> Iterator[None]:
    dispatcher = Dispatcher(database, queue, reconcile_seconds=0.2)
    dispatcher.start()
    yield
    dispatcher.stop()


def submit(database: Database, kind: str = "first", *, attempts: int = 0) -> str:
    """A new job, whose first step was tried in vain so many times already."""
    with database.write() as session:
        job = jobs.create_job(session, {}, name="two steps", first=NewStep(kind=kind))
        session.execute(update(Step).where(Step.job_id == job.id).values(attempts=attempts))
        return job.id


def job_state(database: Database, job_id: str) -> str:
    with database.read() as session:
        return session.execute(select(Job.state).where(Job.id == job_id)).scalar_one()


def wait_for_state(database: Database, job_id: str, state: str) -> None:
    wait_until(lambda: job_state(database, job_id) == state)


def wait_for_note(data_dir: Path, what: str, *, count: int = 1) -> int:
    """Wait until a step noted this `count` times; returns the process id of the last one."""
    wait_until(lambda: len([1 for line in read_log(data_dir) if line[3] == what]) >= count)
    return [line[2] for line in read_log(data_dir) if line[3] == what][-1]


def assert_each_step_ended_once(database: Database, data_dir: Path, job_id: str) -> None:
    ends = Counter(step for step, _, _, what in read_log(data_dir) if what == "end")
    with database.read() as session:
        rows = session.execute(
            select(Step.id, Step.kind, Step.state).where(Step.job_id == job_id)
        ).all()
        found = evaluations.list_evaluations(session, job_id)
        seqs = [event.seq for event in events.list_events(session, job_id)]
    assert sorted((row.kind, row.state) for row in rows) == [("first", "done"), ("second", "done")]
    assert ends == {row.id: 1 for row in rows}
    assert [evaluation.index_in_generation for evaluation in found] == [0, 1, 2]
    assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.usefixtures("_dispatcher")
def test_a_job_succeeds_though_its_child_is_killed_and_its_messages_come_twice(
    database: Database, data_dir: Path, start_worker: StartWorker, queue: CeleryQueue
) -> None:
    (data_dir / "gate").touch()
    start_worker()
    job_id = submit(database)
    child_pid = wait_for_note(data_dir, "evaluation-0")

    os.kill(child_pid, signal.SIGKILL)
    second_pid = wait_for_note(data_dir, "evaluation-0", count=2)
    step_id = read_log(data_dir)[0][0]
    queue.enqueue(step_id, "first")
    queue.enqueue(step_id, "first")
    (data_dir / "gate").unlink()

    wait_for_state(database, job_id, "succeeded")
    assert second_pid != child_pid
    assert_each_step_ended_once(database, data_dir, job_id)


@pytest.mark.usefixtures("_dispatcher")
def test_a_restarted_worker_takes_over_from_a_killed_one_though_the_broker_was_wiped(
    database: Database, data_dir: Path, start_worker: StartWorker, broker: redis.Redis
) -> None:
    (data_dir / "gate").touch()
    worker = start_worker()
    job_id = submit(database)
    child_pid = wait_for_note(data_dir, "evaluation-0")

    worker.kill()
    wait_until(lambda: not is_running(child_pid))
    broker.flushall()
    (data_dir / "gate").unlink()
    start_worker()

    wait_for_state(database, job_id, "succeeded")
    assert_each_step_ended_once(database, data_dir, job_id)


@pytest.mark.usefixtures("_dispatcher")
def test_a_wiped_broker_is_healed(
    database: Database, data_dir: Path, start_worker: StartWorker, broker: redis.Redis
) -> None:
    job_id = submit(database)
    wait_until(lambda: broker.llen("light"))
    broker.flushall()
    start_worker()
    wait_for_state(database, job_id, "succeeded")
    assert_each_step_ended_once(database, data_dir, job_id)


@pytest.mark.usefixtures("_dispatcher")
def test_cancel_and_shutdown_reach_the_running_step_and_a_poison_step_ends(
    database: Database, data_dir: Path, start_worker: StartWorker
) -> None:
    (data_dir / "gate").touch()
    worker = start_worker()
    cancelled = submit(database)
    wait_for_note(data_dir, "evaluation-0")
    with database.write() as session:
        lifecycle.request_cancel(session, cancelled)
    wait_for_state(database, cancelled, "cancelled")

    poisoned = submit(database, kind="poison", attempts=MAX_ATTEMPTS - 1)
    wait_for_state(database, poisoned, "failed")
    with database.read() as session:
        assert session.get_one(Job, poisoned).reason_code == "poison_step"
        step = session.scalars(select(Step).where(Step.job_id == poisoned)).one()
        assert (step.state, step.attempts) == ("failed", MAX_ATTEMPTS)

    interrupted = submit(database)
    wait_for_note(data_dir, "evaluation-0", count=2)
    worker.stop()
    with database.read() as session:
        step = session.scalars(select(Step).where(Step.job_id == interrupted)).one()
    assert (step.state, step.attempts) == ("ready", 0)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
