"""A whole service of separate processes on one data directory, each of which may be harmed."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import redis
from sqlalchemy import select

from service.client import Client
from service.database.db import Database
from service.database.models import Job, Step
from service.embedded import broker
from service.jobs import jobs
from service.roles import PYTHON, worker_command
from service.settings import Settings
from service.steps.step_kinds import QUEUES
from service.steps.step_types import NewStep
from service.tenants.tenancy import DEFAULT_TENANT
from tests.chaos.programs import Program
from tests.chaos.steps import COPIES_VARIABLE
from tests.search.model.folders import write_model
from tests.service.serving import new_key, write_data
from tests.workers.conftest import REPOSITORY, environment_of
from tests.workers.waiting import wait_until

PATIENCE_S = 150.0
ENDED = ("succeeded", "failed", "cancelled")


class Site:
    """Programs are made running, and closed with the site."""

    def __init__(self, folder: Path, *, logs: Path | None = None, **options: Any) -> None:
        self.folder = folder
        self._socket_folder = tempfile.TemporaryDirectory(prefix="snug")  # a short path
        self._socket = Path(self._socket_folder.name) / "broker.sock"
        self.settings = Settings(
            data_dir=folder,
            broker_url=broker.socket_url(self._socket),
            **{
                "lease_seconds": 4.0,
                "heartbeat_seconds": 0.5,
                "reconcile_seconds": 0.3,
                "retry_backoff_seconds": 0.0,
                "calls_per_second": 0,
                **options,
            },
        )
        self.logs = logs or folder / "logs"
        self.logs.mkdir(exist_ok=True)
        self.database = Database(self.settings.database_url).for_tenant(DEFAULT_TENANT)
        self.programs: list[Program] = []
        self.redis = redis.Redis(unix_socket_path=str(self._socket))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.set_inheritable(True)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    # --- programs ---------------------------------------------------------------------------

    def start_broker(self) -> Program:
        """As the embedded service has it: with its log of what was accepted."""
        folder = self.folder / "valkey"
        folder.mkdir(exist_ok=True)
        program = self._start(
            "broker", broker.server_command(broker.find_server(), self._socket, folder)
        )
        self.wait_for_broker()
        return program

    def wait_for_broker(self) -> None:
        wait_until(self._is_broker_there, timeout_s=PATIENCE_S)

    def _is_broker_there(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.RedisError:
            return False

    def start_api(self, **environment: str) -> Program:
        """On a socket that stays ours, as below a supervisor: callers wait while it restarts."""
        descriptor = self._listener.fileno()
        program = self._start(
            "api",
            [*PYTHON, "service.server", "--fd", str(descriptor)],
            descriptors=(descriptor,),
            **environment,
        )
        self.wait_for_api()
        return program

    def wait_for_api(self) -> None:
        httpx.get(f"{self.url}/healthz", timeout=PATIENCE_S).raise_for_status()

    def start_dispatcher(self) -> Program:
        return self._start("dispatcher", [*PYTHON, "tests.workers.snugnet", "dispatcher"])

    def start_copying_dispatcher(self, copies: int) -> Program:
        """One that sends every message so many times."""
        # The module that makes the copies is loaded before the dispatcher runs.
        code = "import tests.chaos.steps, service.cli, sys; sys.argv = ['snugnet', 'dispatcher']"
        command = [sys.executable, "-P", "-c", f"{code}; service.cli.main()"]
        return self._start("dispatcher", command, **{COPIES_VARIABLE: str(copies)})

    def start_worker(
        self, *arguments: str, queues: Sequence[str] = QUEUES, **environment: str
    ) -> Program:
        return self._start("worker", [*worker_command(queues), *arguments], **environment)

    def _start(
        self, role: str, command: list[str], *, descriptors: Sequence[int] = (), **more: str
    ) -> Program:
        number = sum(1 for program in self.programs if program.name.startswith(role))
        paths = [more.pop("PYTHONPATH", ""), str(REPOSITORY)]
        environment = {
            **environment_of(self.settings),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **more,
        }
        program = Program(f"{role}-{number}", command, environment, self.logs, descriptors)
        self.programs.append(program)
        return program.start()

    def close(self) -> None:
        for program in reversed(self.programs):
            program.close()
        self.redis.close()
        self._listener.close()
        self.database.dispose()
        self._socket_folder.cleanup()

    # --- jobs -------------------------------------------------------------------------------

    def submit(self, kind: str, **given: Any) -> str:
        """A job that begins with a step of this kind, straight into the database."""
        with self.database.write() as session:
            first = NewStep(kind=kind, input=given)
            return jobs.create_job(session, {}, name=kind, first=first).id

    def state(self, job_id: str) -> str:
        with self.database.read() as session:
            return session.execute(select(Job.state).where(Job.id == job_id)).scalar_one()

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def steps(self, job_id: str) -> list[Step]:
        with self.database.read() as session:
            query = select(Step).where(Step.job_id == job_id).order_by(Step.created_at, Step.id)
            return list(session.scalars(query))

    def running_step(self, job_id: str) -> Step | None:
        return next((step for step in self.steps(job_id) if step.state == "running"), None)

    def wait_for_step(self, job_id: str, *, attempt: int = 1) -> Step:
        """Of the job, running."""
        found: list[Step] = []

        def look() -> bool:
            step = self.running_step(job_id)
            found.extend([step] if step is not None and step.attempts >= attempt else [])
            return bool(found)

        wait_until(look, timeout_s=PATIENCE_S)
        return found[-1]

    def wait_for_state(self, *job_ids: str, state: str = "succeeded") -> None:
        """Of each of the jobs; a job that ended otherwise is told at once."""
        for job_id in job_ids:
            wait_until(
                lambda job_id=job_id: self.state(job_id) in {state, *ENDED}, timeout_s=PATIENCE_S
            )
            job = self.job(job_id)
            assert job.state == state, job.reason_message

    # --- over HTTP --------------------------------------------------------------------------

    @cached_property
    def key(self) -> str:
        return new_key(self.settings)

    def http(self, *, timeout_s: float = PATIENCE_S) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def upload_spec(self, folder: Path) -> dict[str, Any]:
        """A spec of a tiny model and tiny data, both uploaded; its first step is `prepare`."""
        folder.mkdir(exist_ok=True)
        with Client(self.url, self.key) as client:
            model = client.upload_folder(write_model(folder / "model"))
            data = client.upload_file(write_data(folder / "data.csv"))
        return {
            "model": {"upload": model.id},
            "data": {"upload": data.id},
            "targets": [{"budget_ratio": 0.5, "workload": {"seq_len": 16}}],
            "training": {"max_seq_len": 16},
        }


def post_until_answered(
    http: httpx.Client, spec: dict[str, Any], key: str, *, patience_s: float = PATIENCE_S
) -> str:
    """Submit under an Idempotency-Key as often as it takes; the job's id."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            answer = http.post("/v1/search-jobs", json=spec, headers={"Idempotency-Key": key})
            if answer.status_code == httpx.codes.CREATED:
                return str(answer.json()["id"])
            assert answer.status_code in (409, 503), answer.text
        except httpx.TransportError:  # killed meanwhile
            pass
        assert time.monotonic() < deadline, "never answered"
        time.sleep(0.1)
