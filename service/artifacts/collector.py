"""The thread that collects garbage now and then, beside the dispatcher."""

from __future__ import annotations

import logging
import threading

from service.artifacts.gc import collect
from service.database.db import Database
from service.settings import Settings
from service.store.protocol import ArtifactStore

logger = logging.getLogger(__name__)

FIRST_SECONDS = 3600.0
"""The first round comes so long after a start: one that is restarted daily collects too."""
STOP_SECONDS = 5.0


class Collector:
    """Any number of them may run beside each other, one in each process with a dispatcher."""

    def __init__(self, database: Database, store: ArtifactStore, settings: Settings) -> None:
        self._database = database
        self._store = store
        self._settings = settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def start(self) -> None:
        if self._settings.gc_hours > 0:
            self._thread.start()

    def stop(self) -> None:
        """Wait a little for a round that is under way; it may be cut off anywhere."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        interval_seconds = self._settings.gc_hours * 3600
        wait_seconds = min(FIRST_SECONDS, interval_seconds)
        while not self._stopping.wait(wait_seconds):
            wait_seconds = interval_seconds
            try:
                report = collect(self._database, self._store, self._settings)
            except Exception:  # the next round will do its work
                logger.exception("collecting garbage failed")
                continue
            for name, tally in report.classes.items():
                logger.info("deleted %d %s, %d bytes", tally.num, name, tally.size_bytes)
            if report.missing:
                logger.error("%d files are missing: see `snugnet gc`", len(report.missing))
