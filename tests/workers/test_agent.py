"""The agent against the real server: it measures, and outlives what happens to either."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from predictors.measuring import write_network
from predictors.onboarding import choose_networks
from predictors.protocol import MeasuringAborted
from predictors.spec import MeasuringResult, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from search.space import ModelShape, SearchSpace, SubnetConfig
from service import measurement_jobs
from service.app import create_app
from service.artifacts import FilesystemArtifactStore
from service.auth import create_key
from service.client import Client, NotAllowed
from service.db import Database
from service.models import Device, MeasurementJob
from service.queue import InMemoryQueue
from service.settings import Settings
from service.step_types import NewMeasurement, NewStep
from tests.workers.conftest import wait_until
from workers.agent import Agent, exclusive_quiet_lock

SHAPE = ModelShape(
    family="bert",
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    head_dim=8,
    ffn_dim=32,
    vocab_size=50,
    max_seq_len=16,
    num_token_types=2,
    num_labels=2,
)
WORKLOAD = Workload(seq_len=8)
NAME = "test-cpu"


class Server:
    """The API on a port of its own, which it keeps over restarts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        config = uvicorn.Config(
            create_app(self._settings, InMemoryQueue()),
            host="127.0.0.1",
            port=self._port,
            log_level="warning",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        wait_until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    server = Server(settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def api_key(database: Database) -> str:
    with database.write() as session:
        return create_key(session, "agent")


@pytest.fixture
def connect(server: Server, api_key: str) -> Callable[[], Client]:
    return lambda: Client(server.url, api_key, max_tries=1, backoff_s=0.05)


@pytest.fixture
def agent(connect: Callable[[], Client]) -> Iterator[Agent]:
    """Running in a thread until the test ends."""
    agent = Agent(connect, NAME, claim_wait_s=0.5)
    thread = threading.Thread(target=agent.run)
    thread.start()
    yield agent
    agent.stop()
    thread.join()


def spec(rounds: int = 1, blob: str | None = None) -> MeasuringSpec:
    plan = choose_networks(
        SearchSpace.for_shape(SHAPE), SHAPE, WORKLOAD, num_networks=4, num_holdout=1
    )
    asked = plan.to_spec(SHAPE, WORKLOAD, rounds=rounds, repeats=1, seed=0)
    if blob is None:
        return asked
    network = NetworkSpec(key="t0", blob=blob)
    return MeasuringSpec(
        workload=WORKLOAD, shape=SHAPE, reference=asked.reference, networks=(network,), rounds=1
    )


def ask(database: Database, device_id: str, spec: dict[str, object]) -> str:
    with database.write() as session:
        new = NewMeasurement(device_id=device_id, spec=spec, then=NewStep(kind="onboard"))
        return measurement_jobs.create(session, new, job_id=None).id


def device_id(database: Database) -> str | None:
    with database.read() as session:
        return session.query(Device.id).filter_by(name=NAME).scalar()


def registered(database: Database) -> str:
    wait_until(lambda: device_id(database))
    found = device_id(database)
    assert found is not None
    return found


def job_of(database: Database, measurement_job_id: str) -> MeasurementJob:
    with database.read() as session:
        job = measurement_jobs.get(session, measurement_job_id)
        assert job is not None
        return job


@pytest.mark.usefixtures("agent")
def test_the_agent_registers_measures_and_reports(database: Database) -> None:
    job_id = ask(database, registered(database), spec().to_dict())
    wait_until(lambda: job_of(database, job_id).state == "done")
    answer = job_of(database, job_id).result
    assert answer is not None
    result = MeasuringResult.from_dict(answer)
    assert [m.key for m in result.measurements] == [n.key for n in spec().networks]
    with database.read() as session:
        device = session.get(Device, device_id(database))
        assert device is not None
        assert "onnxruntime" in device.identity["runtimes"]


@pytest.mark.usefixtures("agent")
def test_a_finished_file_comes_from_the_store(
    database: Database, store: FilesystemArtifactStore, tmp_path: Path
) -> None:
    subnet = SubnetConfig.full(SHAPE, "int8")
    path = write_network(NetworkSpec(key="t0", subnet=subnet), SHAPE, tmp_path, None)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    store.put(path)
    job_id = ask(database, registered(database), spec(blob=sha256).to_dict())
    wait_until(lambda: job_of(database, job_id).state == "done")


@pytest.mark.usefixtures("agent")
def test_work_that_cannot_be_done_is_given_back_with_its_reason(database: Database) -> None:
    impossible = spec().to_dict() | {"rounds": 0}
    job_id = ask(database, registered(database), impossible)
    wait_until(lambda: job_of(database, job_id).state == "failed")
    error = job_of(database, job_id).error
    assert error is not None
    assert error["code"] == "invalid_input"
    assert "rounds" in error["message"]


@pytest.mark.usefixtures("agent")
def test_the_agent_outlives_a_restart_of_the_server(server: Server, database: Database) -> None:
    device = registered(database)
    server.stop()
    job_id = ask(database, device, spec().to_dict())
    server.start()
    wait_until(lambda: job_of(database, job_id).state == "done")


@pytest.mark.usefixtures("agent")
def test_work_whose_lease_is_lost_is_dropped(database: Database) -> None:
    endless = spec().to_dict() | {"rounds": 1_000_000}
    job_id = ask(database, registered(database), endless)
    wait_until(lambda: job_of(database, job_id).state == "running")
    with database.write() as session:
        job = measurement_jobs.get(session, job_id)
        assert job is not None
        job.token += 1
        job.state = "done"
    follower = ask(database, registered(database), spec().to_dict())
    wait_until(lambda: job_of(database, follower).state == "done")


def test_a_wrong_key_ends_the_agent(server: Server) -> None:
    with pytest.raises(NotAllowed):
        Agent(lambda: Client(server.url, "snug_x_y", max_tries=1), NAME).run()


def test_the_process_ends_at_once_when_it_is_terminated(
    server: Server, database: Database, api_key: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.agent", "--server", server.url, "--name", NAME],
        env=os.environ | {"SNUGNET_API_KEY": api_key},
        stderr=subprocess.DEVNULL,
    )
    registered(database)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


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
