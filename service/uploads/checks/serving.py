"""The checker as a program of its own, beside API processes that run none."""

from __future__ import annotations

import logging
import signal
import threading

from service.database.db import Database
from service.settings import Settings
from service.store.opening import open_store
from service.telemetry import logs, metrics_server, tracing
from service.uploads.checks.checker import Checker

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""What other processes commit is seen after this time at the latest."""


def serve(settings: Settings) -> None:
    """Check uploads until SIGTERM or SIGINT; what is in progress is given back."""
    logs.configure(
        log_format=settings.log_format, log_level=settings.log_level, secrets=settings.secrets
    )
    tracing.configure("checker")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    database = Database(settings.database_url)
    store = open_store(settings)
    checker = Checker(settings, database=database, store=store, poll_seconds=POLL_SECONDS)
    metrics_server.start(settings, lambda: checker.is_alive)
    checker.start()
    logger.info("the checker runs")
    stopping.wait()
    checker.stop()
    database.dispose()
