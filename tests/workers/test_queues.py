"""Workers for one sort of work each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from service.database.db import Database
from service.database.models import Job
from service.jobs import jobs
from service.settings import Settings
from service.steps.dispatcher import Dispatcher
from service.steps.queue import CeleryQueue
from service.steps.step_types import NewStep
from tests.workers.conftest import WorkerProcess
from tests.workers.small_steps import read_log
from tests.workers.waiting import wait_until

SECOND = "tests.workers.small_steps:second"


@pytest.fixture
def worker_settings(worker_settings: Settings) -> Settings:
    """A step of each queue, which does next to nothing."""
    handlers = dict.fromkeys(("supernet", "evaluate", "report"), SECOND)
    return worker_settings.model_copy(update={"step_handlers": handlers})


@pytest.fixture
def _dispatcher(database: Database, worker_settings: Settings) -> Iterator[None]:
    queue = CeleryQueue(worker_settings)
    # It hears of no commit, as if it were alone in its process.
    dispatcher = Dispatcher(database, queue, reconcile_seconds=60.0, poll_seconds=0.1)
    dispatcher.start()
    yield
    dispatcher.stop()
    queue.close()


def submit(database: Database, kind: str) -> str:
    with database.write() as session:
        return jobs.create_job(session, {}, name=kind, first=NewStep(kind=kind)).id


def has_ended(database: Database, job_id: str) -> bool:
    with database.read() as session:
        return session.get_one(Job, job_id).state == "succeeded"


@pytest.mark.usefixtures("broker", "_dispatcher")
def test_a_worker_takes_from_its_queues_only_and_others_take_the_rest(
    database: Database,
    data_dir: Path,
    broker: redis.Redis,
    start_worker: Callable[..., WorkerProcess],
) -> None:
    training, evaluation, report = (
        submit(database, kind) for kind in ("supernet", "evaluate", "report")
    )
    start_worker("search,light")
    wait_until(lambda: has_ended(database, evaluation) and has_ended(database, report))
    assert broker.llen("train") == 1
    assert len(read_log(data_dir)) == 4  # a beginning and an end each
    start_worker("train")
    wait_until(lambda: has_ended(database, training))
