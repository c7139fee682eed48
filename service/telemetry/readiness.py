"""Whether what the API depends on answers: asked at most once a second, and never waited for long.

Each part is asked by a thread of its own, so that a stalled one holds up neither the event loop
nor the threads that answer requests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping

from sqlalchemy.exc import SQLAlchemyError

from service.database.db import Database
from service.database.migrate import is_current
from service.steps.queue import JobQueue

CACHE_SECONDS = 1.0
PATIENCE_SECONDS = 1.5

Ask = Callable[[], str | None]
"""Says what is wrong with a part, or None."""


class Readiness:
    """Of a database and a broker; to be asked in one event loop."""

    def __init__(self, database: Database, queue: JobQueue) -> None:
        asks: Mapping[str, Ask] = {
            "database": lambda: _fault_of_database(database),
            "broker": lambda: None if queue.is_reachable() else "does not answer",
        }
        self._parts = {name: _Part(ask) for name, ask in asks.items()}
        self._looking: asyncio.Task[list[str]] | None = None
        self._looked_at = 0.0

    async def faults(self) -> list[str]:
        """What is wrong, in words; everybody who asks within a second gets the same answer."""
        is_stale = time.monotonic() - self._looked_at >= CACHE_SECONDS
        if self._looking is None or (self._looking.done() and is_stale):
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> list[str]:
        found = await asyncio.gather(*(part.fault() for part in self._parts.values()))
        self._looked_at = time.monotonic()
        faults = zip(self._parts, found, strict=True)
        return [f"the {name} {fault}" for name, fault in faults if fault]


class _Part:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._answer: asyncio.Future[str | None] | None = None

    async def fault(self) -> str | None:
        if self._answer is None or self._answer.done():
            self._answer = self._start()
        try:
            return await asyncio.wait_for(asyncio.shield(self._answer), PATIENCE_SECONDS)
        except TimeoutError:  # the thread is left to find its own end; no second one is started
            return "does not answer"

    def _start(self) -> asyncio.Future[str | None]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str | None] = loop.create_future()

        def settle(fault: str | None) -> None:
            if not answer.done():
                answer.set_result(fault)

        def run() -> None:
            try:
                fault = self._ask()
            except Exception as error:
                fault = f"failed: {type(error).__name__}"
            try:
                loop.call_soon_threadsafe(settle, fault)
            except RuntimeError:  # the loop has ended meanwhile
                return

        # A daemon: the process must be able to end while a part hangs.
        threading.Thread(target=run, name="readiness", daemon=True).start()
        return answer


def _fault_of_database(database: Database) -> str | None:
    try:
        is_migrated = is_current(database.engine)
    except SQLAlchemyError:
        return "does not answer"
    return None if is_migrated else "has another schema: its migrations have not been run"
