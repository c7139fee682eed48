"""The thread that sends wake-ups and heals: asleep until something is committed or a round is due.

Any number of them may run beside each other: one in each API process, or `snugnet dispatcher`,
which hears of no commit and therefore looks at the outbox twice a second.
"""

from __future__ import annotations

import logging
import math
import threading
import time

from service.database.db import Database
from service.devices.drift_checks import CHECK_INTERVAL_SECONDS, schedule_checks
from service.steps.outbox import add_sleeper, nudge, publish, remove_sleeper
from service.steps.queue import JobQueue
from service.steps.reconciler import reconcile

__all__ = ["Dispatcher", "nudge"]

logger = logging.getLogger(__name__)


class Dispatcher:
    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        *,
        reconcile_seconds: float,
        drift_check_hours: float = 0.0,
        poll_seconds: float = math.inf,
    ) -> None:
        self._database = database
        self._queue = queue
        self._reconcile_seconds = reconcile_seconds
        self._drift_check_hours = drift_check_hours
        self._poll_seconds = poll_seconds
        self._next_drift_check = time.monotonic() + CHECK_INTERVAL_SECONDS
        self._wake = threading.Event()
        self._stopping = False
        self._last_round = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    @property
    def silent_s(self) -> float:
        """Since the end of the last round, whether it went well or not."""
        return time.monotonic() - self._last_round

    def start(self) -> None:
        add_sleeper(self._wake)
        self._thread.start()

    def stop(self) -> None:
        """Finish the round at hand and end."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        remove_sleeper(self._wake)

    def _run(self) -> None:
        next_round = time.monotonic()
        while not self._stopping:
            self._wake.clear()
            is_due = time.monotonic() >= next_round
            if is_due:
                next_round = time.monotonic() + self._reconcile_seconds
            try:
                self.run_once(heal=is_due)
            except Exception:  # a dead dispatcher would stop every job
                logger.exception("the dispatcher's round failed; the next one will do its work")
            self._last_round = time.monotonic()
            due_in = max(0.0, next_round - time.monotonic())
            self._wake.wait(min(due_in, self._poll_seconds))

    def run_once(self, *, heal: bool = True) -> None:
        if heal:
            reconcile(self._database, self._reconcile_seconds)
            self._check_drift()
        publish(self._database, self._queue)

    def _check_drift(self) -> None:
        if time.monotonic() < self._next_drift_check:
            return
        self._next_drift_check = time.monotonic() + CHECK_INTERVAL_SECONDS
        with self._database.write() as session:
            schedule_checks(session, self._drift_check_hours)
