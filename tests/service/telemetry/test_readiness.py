"""Ready or not: what each part's failure shows, and that a stalled one slows nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service.database.db import Database
from service.embedded import broker
from service.settings import Settings
from service.steps.queue import CeleryQueue, InMemoryQueue
from service.telemetry.readiness import Readiness
from tests.service.serving import listening
from tests.workers.waiting import wait_until


class SlowQueue(InMemoryQueue):
    """A broker that answers when it is let, and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.num_asked = 0

    def is_reachable(self) -> bool:
        self.num_asked += 1
        return self.let.wait(60)


@contextmanager
def running_broker() -> Iterator[tuple[str, int]]:
    """A real server: the URL of its socket, and its process."""
    with tempfile.TemporaryDirectory(prefix="snug") as folder:  # a socket's path must be short
        socket = Path(folder) / "broker.sock"
        argv = broker.server_command(broker.find_server(), socket, Path(folder))
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            wait_until(socket.exists)
            yield broker.socket_url(socket), process.pid
        finally:
            process.kill()
            process.wait()


def test_ready_is_when_both_parts_answer(http: TestClient) -> None:
    assert http.get("/readyz").json() == {"status": "ok"}


def test_a_database_without_its_migrations_is_not_ready(
    http: TestClient, database: Database
) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.json()["detail"].startswith("the database has another schema")


def test_a_broker_that_stalls_is_not_ready_until_it_goes_on(settings: Settings) -> None:
    with running_broker() as (url, pid):
        queue = CeleryQueue(settings.model_copy(update={"broker_url": url}))
        with listening(settings, queue) as (server, _), httpx.Client(base_url=server) as client:
            assert client.get("/readyz").status_code == 200
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            assert client.get("/readyz").json()["detail"] == "the broker does not answer"
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: client.get("/readyz").status_code == 200)
        queue.close()


def test_other_routes_answer_while_many_wait_for_a_part_that_hangs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.telemetry.readiness.PATIENCE_SECONDS", 60.0)
    queue = SlowQueue()
    with listening(settings, queue) as (server, key):
        # More than there are threads for requests.
        with ThreadPoolExecutor(60) as pool:
            asked = [pool.submit(httpx.get, f"{server}/readyz", timeout=90) for _ in range(60)]
            wait_until(lambda: queue.num_asked)
            headers = {"Authorization": f"Bearer {key}"}
            other = httpx.get(f"{server}/v1/search-jobs", headers=headers, timeout=30)
            num_waiting = sum(not answer.done() for answer in asked)
            queue.let.set()
        assert (other.status_code, num_waiting) == (200, 60)
        assert {answer.result().status_code for answer in asked} == {200}
    assert queue.num_asked == 1


def test_everybody_who_asks_at_once_gets_one_answer(database: Database) -> None:
    async def ask() -> list[list[str]]:
        readiness = Readiness(database, queue)
        asked = [asyncio.create_task(readiness.faults()) for _ in range(50)]
        while not queue.num_asked:
            await asyncio.sleep(0)
        queue.let.set()
        return [await task for task in asked]

    queue = SlowQueue()
    assert asyncio.run(ask()) == [[]] * 50
    assert queue.num_asked == 1


def test_a_part_that_hangs_is_not_asked_a_second_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> list[list[str]]:
        readiness = Readiness(database, queue)
        return [await readiness.faults() for _ in range(3)]

    monkeypatch.setattr("service.telemetry.readiness.PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("service.telemetry.readiness.CACHE_SECONDS", 0.0)
    queue = SlowQueue()
    assert asyncio.run(ask()) == [["the broker does not answer"]] * 3
    assert queue.num_asked == 1
    queue.let.set()


def test_a_broker_that_refuses_is_not_reachable(tmp_path: Path) -> None:
    queue = CeleryQueue(Settings(data_dir=tmp_path, broker_url=f"redis+socket://{tmp_path}/no"))
    assert not queue.is_reachable()
    queue.close()
