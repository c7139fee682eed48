"""Agents in threads, whose end can be seen, and what holds them up in the middle of a job."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import update

from search.errors import SnugnetError
from service.database.db import Database
from service.database.models import Device, MeasurementJob
from tests.workers.agents import NAME
from workers.agent import Agent


class Running:
    """An agent in a thread until the block ends; `error` is what it ended with by itself."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._thread = threading.Thread(target=self._run)
        self.error: SnugnetError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._agent.stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._agent.run()
        except SnugnetError as error:
            self.error = error


@contextmanager
def held(quiet_lock: Path) -> Iterator[None]:
    """No agent measures meanwhile, though it may have claimed something to measure."""
    with quiet_lock.open("a") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH)
        yield


def device_of(database: Database) -> Device:
    with database.read() as session:
        return session.query(Device).filter_by(name=NAME).one()


def set_values(database: Database, row: Device | MeasurementJob, **values: Any) -> None:
    table = type(row)
    with database.write() as session:
        session.execute(update(table).where(table.id == row.id).values(**values))
