"""A clock that jumps while an agent measures: seen, named, and no figure is spoilt."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from predictors.protocol import Measurer
from service.client import Client
from service.database.db import Database
from service.settings import Settings
from service.tenants.auth import DEVICES_WRITE, create_key
from tests.service.measuring import measuring_spec
from tests.workers.agent_threads import Running
from tests.workers.agents import (
    NAME,
    Server,
    agent_key,
    ask,
    connect_to,
    registered,
    wait_for_state,
)
from workers.agent import Agent

HOUR_S = 3600.0


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    server = Server(settings)
    server.start()
    yield server
    server.stop()


class JumpingClock:
    """Two hours ahead at every 50th look, and back again at the next jump."""

    def __init__(self) -> None:
        self._looks = 0
        self._offset_s = 0.0

    def __call__(self) -> float:
        self._looks += 1
        if self._looks % 50 == 0:
            self._offset_s = 0.0 if self._offset_s else 2 * HOUR_S
        return time.perf_counter() + self._offset_s


def use_clock(monkeypatch: pytest.MonkeyPatch, clock: object) -> None:
    assert Measurer.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Measurer.__init__.__kwdefaults__, "clock", clock)


def test_runs_over_which_the_clock_jumped_are_dropped_and_counted(
    server: Server, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_clock(monkeypatch, JumpingClock())
    key = agent_key(database)
    with Running(Agent(lambda: connect_to(server, key), NAME, claim_wait_s=0.5)):
        device_id = registered(database)
        wait_for_state(database, ask(database, device_id, measuring_spec()), "done")
    with database.write() as session:
        user = create_key(session, "user", scopes=(DEVICES_WRITE,))
    with Client(server.url, user) as client:
        (measured,) = client.measuring_sessions(device_id).items
        rows = client.measurements(device_id).items
    assert measured.summary["dropped_runs"] > 0
    samples = [ms for row in rows for visit in row.samples["rounds_ms"] for ms in visit]
    assert all(0 < ms < 1000 * HOUR_S for ms in samples)


def test_a_clock_that_stands_still_fails_the_job_and_not_the_agent(
    server: Server, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_clock(monkeypatch, lambda: 7.0)
    key = agent_key(database)
    with Running(Agent(lambda: connect_to(server, key), NAME, claim_wait_s=0.5)) as running:
        job_id = ask(database, registered(database), measuring_spec())
        job = wait_for_state(database, job_id, "failed")
        assert running.error is None
    assert job.error is not None
    assert job.error["code"] == "unreliable_clock"
