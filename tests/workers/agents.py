"""The API on a real socket, agents as real processes, and short ways to ask them for something."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from predictors.spec import MeasuringSpec
from service.api.app import create_app
from service.client import Client
from service.database.db import Database
from service.database.models import MeasurementJob
from service.devices import measurement_jobs
from service.devices.devices import find_device
from service.settings import Settings
from service.steps.queue import InMemoryQueue
from service.steps.step_types import NewMeasurement
from service.tenants.auth import MEASURE, create_key
from tests.service.measuring import measuring_spec
from tests.workers.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
NAME = "test-cpu"


class Server:
    """The API on a port of its own, which it keeps over restarts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._app = create_app(self._settings, InMemoryQueue())
        config = uvicorn.Config(
            self._app,
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
        self._app.state.parts.notifier.close()
        self._server.should_exit = True
        self._thread.join()


class AgentProcess:
    """`python -m workers.agent` with a state folder and a log of its own."""

    def __init__(
        self, url: str, key: str, folder: Path, *, name: str = NAME, state: str = "state"
    ) -> None:
        self.log = folder / f"agent-{os.urandom(4).hex()}.log"
        argv = ["--server", url, "--name", name, "--state-dir", str(folder / state)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers.agent", *argv],
                cwd=REPOSITORY,
                env=os.environ | {"SNUGNET_API_KEY": key, "OMP_NUM_THREADS": "1"},
                stderr=log,
            )

    def ended(self) -> tuple[int, str]:
        """Its exit status, and the last line that it said."""
        code = self.process.wait(timeout=60)
        return code, self.log.read_text().splitlines()[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def agent_key(database: Database) -> str:
    """As narrow as an agent's key should be."""
    with database.write() as session:
        return create_key(session, "agent", scopes=(MEASURE,))


def quick_spec() -> MeasuringSpec:
    return replace(measuring_spec(), rounds=1)


def long_spec() -> MeasuringSpec:
    """Takes far longer than any test waits."""
    shape = replace(measuring_spec().shape, max_seq_len=4096)
    workload = replace(measuring_spec().workload, batch_size=8, seq_len=4096)
    return replace(measuring_spec(), shape=shape, workload=workload, rounds=100, repeats=200)


def ask(database: Database, device_id: str, spec: MeasuringSpec | dict[str, Any]) -> str:
    asked = spec if isinstance(spec, dict) else spec.to_dict()
    with database.write() as session:
        new = NewMeasurement(device_id=device_id, spec=asked)
        return measurement_jobs.create(session, new, job_id=None).id


def registered(database: Database, name: str = NAME) -> str:
    """The device's id, once its agent has made it known."""
    found: list[str] = []

    def look() -> bool:
        with database.read() as session:
            device = find_device(session, name)
            found.extend([device.id] if device else [])
        return bool(found)

    wait_until(look)
    return found[0]


def job_of(database: Database, measurement_job_id: str) -> MeasurementJob:
    with database.read() as session:
        job = measurement_jobs.get(session, measurement_job_id)
        assert job is not None
        return job


def wait_for_state(database: Database, measurement_job_id: str, state: str) -> MeasurementJob:
    wait_until(lambda: job_of(database, measurement_job_id).state == state)
    return job_of(database, measurement_job_id)


def connect_to(server: Server, key: str) -> Client:
    return Client(server.url, key, max_tries=1, backoff_s=0.05)
