"""When running jobs will end, without asking the database anew for every reader.

Whoever watches a job reads it again and again; what earlier jobs took changes when one ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from sqlalchemy.orm import Session

from service.database.models import Job
from service.jobs.estimates import Rates, estimated_finish, has_finish

FINISH_SECONDS = 10.0
RATES_SECONDS = 60.0
MAX_KEPT = 10_000

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class FinishTimes:
    """One for the process; any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._finishes = _Kept[tuple[str, int], float | None](FINISH_SECONDS, clock)
        self._rates = _Kept[tuple[str, str], Rates](RATES_SECONDS, clock)

    def of(self, session: Session, job: Job) -> float | None:
        """Epoch seconds; None while it does not run, or nothing like it has."""
        if not has_finish(job):
            return None

        def rates_of(session: Session, task: str) -> Rates:
            return self._rates.get((job.tenant_id, task), lambda: Rates.of_task(session, task))

        return self._finishes.get(
            (job.id, job.version), lambda: estimated_finish(session, job, rates_of)
        )


class _Kept(Generic[Key, Value]):
    """Values that are as good as new for some seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._values: dict[Key, tuple[float, Value]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Two threads that miss at once both make it: neither waits for the other."""
        now = self._clock()
        with self._lock:
            until, value = self._values.get(key, (now, None))
        if until > now:
            return value  # type: ignore[return-value]
        made = make()
        with self._lock:
            if len(self._values) >= MAX_KEPT:
                self._values.clear()
            self._values[key] = (now + self._seconds, made)
        return made
