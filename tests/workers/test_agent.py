"""The agent against the real server: it measures, and reports what it found."""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from predictors.protocol import MeasuringAborted
from predictors.runtimes.base import Network
from predictors.runtimes.onnx_file import onnx_file
from predictors.spec import MeasuringResult, NetworkSpec
from search.space import SubnetConfig
from service.artifacts import blobs
from service.database.db import Database
from service.database.models import Device
from service.devices import measurement_jobs
from service.settings import Settings
from service.store.filesystem import FilesystemStore
from tests.service.helpers import create_job
from tests.service.measuring import SHAPE, measuring_spec
from tests.workers.agents import (
    NAME,
    Server,
    agent_key,
    ask,
    connect_to,
    job_of,
    long_spec,
    quick_spec,
    registered,
    wait_for_state,
)
from workers.agent import Agent, exclusive_quiet_lock


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    server = Server(settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def agent(server: Server, database: Database) -> Iterator[Agent]:
    """Running in a thread until the test ends."""
    key = agent_key(database)
    agent = Agent(lambda: connect_to(server, key), NAME, claim_wait_s=0.5)
    thread = threading.Thread(target=agent.run)
    thread.start()
    yield agent
    agent.stop()
    thread.join()


@pytest.mark.usefixtures("agent")
def test_the_agent_registers_measures_and_reports(database: Database) -> None:
    job_id = ask(database, registered(database), quick_spec())
    answer = wait_for_state(database, job_id, "done").result
    assert answer is not None
    result = MeasuringResult.from_dict(answer, quick_spec())
    assert [m.key for m in result.measurements] == [n.key for n in quick_spec().networks]
    with database.read() as session:
        device = session.get_one(Device, registered(database))
        assert "onnxruntime" in device.identity["runtimes"]
        assert device.agent_id is not None


@pytest.mark.usefixtures("agent")
def test_a_finished_file_comes_from_the_store(
    database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    subnet = SubnetConfig.full(SHAPE, "int8")
    path = onnx_file(Network(key="t0", shape=SHAPE, folder=tmp_path, subnet=subnet))
    blob = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    store.put(Path(path))
    search_job = create_job(database)
    with database.write() as session:
        blobs.refer(session, search_job, blob)
    network = NetworkSpec(key="t0", blob=blob)
    job_id = ask(database, registered(database), replace(quick_spec(), networks=(network,)))
    wait_for_state(database, job_id, "done")


@pytest.mark.usefixtures("agent")
def test_work_that_cannot_be_done_fails_at_once_with_its_reason(database: Database) -> None:
    impossible = measuring_spec().to_dict() | {"rounds": 0}
    job = wait_for_state(database, ask(database, registered(database), impossible), "failed")
    assert job.error is not None
    assert job.error["code"] == "invalid_input"
    assert "rounds" in job.error["message"]
    assert job.attempts == 1


@pytest.mark.usefixtures("agent")
def test_the_agent_outlives_a_restart_of_the_server(server: Server, database: Database) -> None:
    device = registered(database)
    server.stop()
    job_id = ask(database, device, quick_spec())
    server.start()
    wait_for_state(database, job_id, "done")


@pytest.mark.usefixtures("agent")
def test_work_whose_lease_is_lost_is_dropped(database: Database) -> None:
    job_id = ask(database, registered(database), long_spec())
    wait_for_state(database, job_id, "running")
    with database.write() as session:
        job = measurement_jobs.get(session, job_id)
        assert job is not None
        job.token += 1
        job.state = "done"
    follower = ask(database, registered(database), quick_spec())
    wait_for_state(database, follower, "done")
    assert job_of(database, job_id).result is None


def test_the_agent_waits_until_workers_let_go_of_the_quiet_lock(tmp_path: Path) -> None:
    path = tmp_path / "quiet.lock"
    asked = 0

    def should_abort() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            fcntl.flock(shared.fileno(), fcntl.LOCK_UN)
        return False

    with path.open("a") as shared, path.open("a") as other:
        fcntl.flock(shared.fileno(), fcntl.LOCK_SH)
        with exclusive_quiet_lock(path, should_abort), pytest.raises(BlockingIOError):
            fcntl.flock(other.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert asked == 2
        fcntl.flock(other.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(MeasuringAborted), exclusive_quiet_lock(path, lambda: True):
            pass
