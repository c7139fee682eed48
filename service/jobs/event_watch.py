"""Tells the streams and long polls of this process which jobs have news.

One query for all that are watched, instead of one for each reader: two hundred open streams cost
what one does, until something happens.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.database.db import Database
from service.database.models import Job
from service.jobs.job_states import TERMINAL
from service.steps.notifier import Notifier

POLL_SECONDS = 0.5
"""Workers write from other processes, so the database itself is looked at so often."""
LEAST_SECONDS = 0.05
"""Between two looks, however much this process writes meanwhile."""

GONE = (0, "gone")
ENDED = (*TERMINAL, "gone")

logger = logging.getLogger(__name__)


class EventWatch:
    """One for the process; readers of several event loops do not meet."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()

    async def wait(self, job_id: str, *, after: int, wait_s: float) -> None:
        """Return when the job has an event after `after`, or has ended, or is gone; after `wait_s`
        at the latest, and at once when the server goes down. The job is then to be read."""
        loop = asyncio.get_running_loop()
        watch = self._watches.get(loop)
        if watch is None:
            watch = self._watches[loop] = _Watch(self._database, self._notifier)
        await watch.wait(_Reader(job_id, after), wait_s)


@dataclass(eq=False, slots=True)
class _Reader:
    job_id: str
    after: int
    has_news: asyncio.Event = field(default_factory=asyncio.Event)


class _Watch:
    """Of one event loop: a task looks for as long as there are readers."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._readers: set[_Reader] = set()
        self._task: asyncio.Task[None] | None = None

    async def wait(self, reader: _Reader, wait_s: float) -> None:
        self._readers.add(reader)
        if self._task is None:
            self._task = asyncio.create_task(self._look_again_and_again())
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.has_news.wait(), wait_s)
        finally:
            self._readers.remove(reader)
            if not self._readers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _look_again_and_again(self) -> None:
        with self._notifier.listening() as may_have_changed:
            while not self._notifier.is_closed:
                may_have_changed.clear()
                await self._look()
                await asyncio.sleep(LEAST_SECONDS)
                with suppress(TimeoutError):
                    await asyncio.wait_for(may_have_changed.wait(), POLL_SECONDS - LEAST_SECONDS)
        for reader in self._readers:
            reader.has_news.set()

    async def _look(self) -> None:
        job_ids = {reader.job_id for reader in self._readers}
        try:
            found = await run_in_threadpool(self._read, job_ids)
        except SQLAlchemyError as error:
            # Readers have patience: a database that comes back is not an error of theirs.
            logger.warning("the jobs that are watched could not be read: %s", error)
            return
        for reader in self._readers:
            if reader.job_id in job_ids:
                seq, state = found.get(reader.job_id, GONE)
                if seq > reader.after or state in ENDED:
                    reader.has_news.set()

    def _read(self, job_ids: set[str]) -> dict[str, tuple[int, str]]:
        query = select(Job.id, Job.last_event_seq, Job.state).where(Job.id.in_(job_ids))
        with self._database.read() as session:
            return {job_id: (seq, state) for job_id, seq, state in session.execute(query)}
