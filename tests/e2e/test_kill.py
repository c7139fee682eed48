"""`kill -9` of the worker at every stage of a job, and of the whole service in the middle.

The job is real and tiny: the real broker, database, worker and agent, a BERT of three layers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.client import Client
from service.database.db import Database
from service.embedded.embedded import start, stop
from service.embedded.instance import Instance, wait_until_free
from service.jobs.jobfile import parse_job
from service.schemas import JobState
from service.settings import Settings
from service.steps.step_types import NewStep
from service.store.filesystem import FilesystemStore
from service.tenants.tenancy import DEFAULT_TENANT
from tests.workers.steps import tiny_job
from tests.workers.steps.in_process import Workshop, comparable

pytestmark = pytest.mark.slow

STAGES = (
    *("prepare", "onboard", "teacher", "reorder", "supernet", "search", "baseline"),
    *("shortlist", "distill", "package", "verify", "robustness", "report", "conclude"),
)
PATIENCE_SECONDS = 240.0
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "SNUGNET_THREADS": "1",
    "SNUGNET_STEP_SECONDS": "2",
    "SNUGNET_LEASE_SECONDS": "10",
    "SNUGNET_HEARTBEAT_SECONDS": "2",
    "SNUGNET_RECONCILE_SECONDS": "1",
}


class Service:
    """The embedded service on a folder, and what its database says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instance = self.start()

    def start(self) -> Instance:
        self.instance = start(self.folder, port=0, dies_with_us=True, environment=ENVIRONMENT)
        return self.instance

    def client(self) -> Client:
        return Client(self.instance.url, self.instance.api_key)

    def query(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.folder / 'snugnet.db'}?mode=ro", uri=True)
        try:
            return connection.execute(sql, arguments).fetchall()
        finally:
            connection.close()

    def kill_worker(self) -> None:
        """The Celery parent and its pool children, all at once: nobody says goodbye."""
        assert self.instance.pid is not None
        for process in psutil.Process(self.instance.pid).children():
            if "workers.app" in " ".join(process.cmdline()):
                tree = [process, *process.children(recursive=True)]
                for one in tree:
                    one.suspend()
                for one in tree:
                    one.kill()

    def kill_everything(self) -> None:
        assert self.instance.pid is not None
        os.kill(self.instance.pid, signal.SIGKILL)
        assert wait_until_free(self.folder, PATIENCE_SECONDS)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    yield service
    stop(service.folder)


def submit(service: Service, tmp_path: Path) -> str:
    spec = tiny_job.spec("", "")
    spec["model"] = {"path": str(tiny_job.write_model(tmp_path / "model"))}
    spec["data"] = {"path": str(tiny_job.write_data(tmp_path / "rows.jsonl"))}
    with service.client() as client:
        return client.submit(parse_job(spec, tmp_path).resolve(client)).id


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.003)


def is_at(service: Service, job_id: str, kind: str) -> Callable[[], bool]:
    """Whether a step of this kind runs now. Quick ones may have ended when the kill arrives."""

    def condition() -> bool:
        found = service.query(
            "SELECT state FROM steps WHERE job_id = ? AND kind = ?", job_id, kind
        )
        return any(state in ("running", "done") for (state,) in found)

    return condition


def state_of(service: Service, job_id: str) -> str:
    ((state,),) = service.query("SELECT state FROM jobs WHERE id = ?", job_id)
    return str(state)


def assert_nothing_twice(service: Service, job_id: str) -> None:
    for table, columns in (
        ("evaluations", "source, generation, index_in_generation"),
        ("artifacts", "target_index, name"),
    ):
        rows = service.query(f"SELECT {columns} FROM {table} WHERE job_id = ?", job_id)
        assert rows
        assert len(set(rows)) == len(rows)


def search_again(folder: Path, job_id: str, service: Service) -> list[tuple[Any, ...]]:
    """The evaluations of the same search, undisturbed: from the same supernet and predictor."""
    ((spec, first),) = service.query(
        "SELECT jobs.spec, steps.input FROM steps JOIN jobs ON jobs.id = steps.job_id "
        "WHERE jobs.id = ? AND steps.kind = 'search' ORDER BY steps.created_at LIMIT 1",
        job_id,
    )
    settings = Settings(data_dir=folder, threads=1)
    database = Database(settings.database_url).for_tenant(DEFAULT_TENANT)
    workshop = Workshop(settings, database, FilesystemStore(settings.blobs_dir))
    again = workshop.submit(json.loads(spec), NewStep(kind="search", input=json.loads(first)))
    workshop.run_until(again, "baseline")
    undisturbed = comparable(workshop.evaluations(again, "search"))
    assert undisturbed == comparable(workshop.evaluations(job_id, "search"))
    database.dispose()
    return undisturbed


def test_a_worker_killed_at_every_stage_repeats_at_most_one_step_each_time(
    service: Service, tmp_path: Path
) -> None:
    job_id = submit(service, tmp_path)
    for kind in STAGES:
        started = time.monotonic()
        wait_for(is_at(service, job_id, kind))
        service.kill_worker()
        print(f"killed at {kind:10} after {time.monotonic() - started:5.1f} s more")
    wait_for(lambda: state_of(service, job_id) in ("succeeded", "failed", "cancelled"))
    with service.client() as client:
        job = client.job(job_id)
        assert job.state is JobState.SUCCEEDED, job.status_reason
        client.download(job_id, tmp_path / "found")
    steps = service.query(
        "SELECT kind, state, attempts FROM steps WHERE job_id = ? ORDER BY created_at", job_id
    )
    repeated = [(kind, attempts - 1) for kind, _, attempts in steps if attempts > 1]
    print(f"{len(steps)} steps, {len(STAGES)} kills, repeated: {repeated}")
    assert {state for _, state, _ in steps} == {"done"}
    assert repeated, "some kill hit a step in its middle"
    assert sum(times for _, times in repeated) <= len(STAGES)
    assert_nothing_twice(service, job_id)
    stop(service.folder)
    copy = tmp_path / "copy"
    shutil.copytree(service.folder, copy, ignore=shutil.ignore_patterns("*.sock", "logs"))
    print(f"{len(search_again(copy, job_id, service))} evaluations equal an undisturbed search")


def test_a_killed_service_goes_on_when_started_again(service: Service, tmp_path: Path) -> None:
    job_id = submit(service, tmp_path)
    for kind in ("teacher", "search", "distill"):
        wait_for(is_at(service, job_id, kind))
        service.kill_everything()
        service.start()
        print(f"killed the whole service at {kind}, and started it again")
    wait_for(lambda: state_of(service, job_id) in ("succeeded", "failed", "cancelled"))
    with service.client() as client:
        job = client.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.status_reason
    assert_nothing_twice(service, job_id)
