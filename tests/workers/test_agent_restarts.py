"""Servers that restart and agents that are killed, both in the middle of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from service.database.db import Database
from service.database.models import Device
from service.devices.devices import rename_device
from service.settings import Settings
from tests.service.measuring import measuring_spec
from tests.workers.agent_threads import Running, held
from tests.workers.agents import (
    NAME,
    AgentProcess,
    Server,
    agent_key,
    ask,
    connect_to,
    job_of,
    registered,
    wait_for_state,
)
from tests.workers.waiting import wait_until
from workers.agent import Agent

Connect = Callable[[], Client]


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    server = Server(settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect(server: Server, database: Database) -> Connect:
    key = agent_key(database)
    return lambda: connect_to(server, key)


def test_a_claim_outlives_a_restart_of_the_server(
    server: Server, connect: Connect, database: Database, tmp_path: Path
) -> None:
    lock = tmp_path / "quiet.lock"
    with Running(Agent(connect, NAME, quiet_lock=lock, claim_wait_s=0.5)):
        with held(lock):  # work in hand cannot end before the server is back
            job_id = ask(database, registered(database), measuring_spec())
            wait_for_state(database, job_id, "running")
            server.stop()
            server.start()
        wait_for_state(database, job_id, "done")
    assert job_of(database, job_id).attempts == 1


def test_a_result_is_kept_until_the_server_is_back(
    server: Server, connect: Connect, database: Database, tmp_path: Path
) -> None:
    lock = tmp_path / "quiet.lock"
    tries = []

    class Counting(Client):
        def report_result(
            self, measurement_job_id: str, token: int, result: Mapping[str, Any]
        ) -> None:
            tries.append(token)
            super().report_result(measurement_job_id, token, result)

    def connect_counting() -> Client:
        client = connect()
        client.__class__ = Counting
        return client

    with Running(Agent(connect_counting, NAME, quiet_lock=lock, claim_wait_s=0.5)):
        with held(lock):
            job_id = ask(database, registered(database), measuring_spec())
            wait_for_state(database, job_id, "running")
            server.stop()
        wait_until(lambda: len(tries) > 1)
        server.start()
        wait_for_state(database, job_id, "done")
    assert job_of(database, job_id).attempts == 1


def test_a_killed_agents_work_goes_to_the_next_one(
    server: Server, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "quiet.lock"
    monkeypatch.setenv("SNUGNET_QUIET_LOCK", str(lock))
    key = agent_key(database)
    with held(lock):
        first = AgentProcess(server.url, key, tmp_path)
        job_id = ask(database, registered(database), measuring_spec())
        wait_for_state(database, job_id, "running")
        first.kill()
    # The same state folder: it is the same agent, and need not wait until it is forgotten.
    second = AgentProcess(server.url, key, tmp_path)
    assert wait_for_state(database, job_id, "done").attempts == 2
    assert second.stop() == 0


def test_an_agent_keeps_its_device_when_that_is_renamed(
    connect: Connect, database: Database
) -> None:
    with Running(Agent(connect, NAME, agent_id="agent_itself", claim_wait_s=0.5)):
        device_id = registered(database)
    with database.write() as session:
        rename_device(session, session.get_one(Device, device_id), "kitchen-pi")
    with Running(Agent(connect, NAME, agent_id="agent_itself", claim_wait_s=0.5)):
        wait_for_state(database, ask(database, device_id, measuring_spec()), "done")
    with database.read() as session:
        assert [device.name for device in session.query(Device)] == ["kitchen-pi"]
