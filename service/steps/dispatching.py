"""The dispatcher as a program of its own, beside API processes that run none."""

from __future__ import annotations

import logging
import signal
import threading

from service.artifacts.collector import Collector
from service.database.db import Database
from service.settings import Settings
from service.steps.dispatcher import Dispatcher
from service.steps.queue import CeleryQueue
from service.store.opening import open_store
from service.telemetry import logs, metrics_server, tracing
from service.webhooks.webhook_sender import WebhookSender

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""What other processes commit is seen after this time at the latest."""
SILENT_ROUNDS, SILENCE_SECONDS = 3, 30.0
"""A dispatcher whose last round is longer ago than three of them and half a minute is not well."""


def serve(settings: Settings) -> None:
    """Send wake-ups and heal until SIGTERM or SIGINT; the round at hand is finished first."""
    logs.configure(
        log_format=settings.log_format, log_level=settings.log_level, secrets=settings.secrets
    )
    tracing.configure("dispatcher")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    database, queue = Database(settings.database_url), CeleryQueue(settings)
    dispatcher = Dispatcher(
        database,
        queue,
        reconcile_seconds=settings.reconcile_seconds,
        drift_check_hours=settings.drift_check_hours,
        poll_seconds=POLL_SECONDS,
    )
    sender = WebhookSender(database, settings.webhook_private_hosts)
    collector = Collector(database, open_store(settings), settings)
    background = (dispatcher, sender, collector)
    silence_limit_s = SILENT_ROUNDS * settings.reconcile_seconds + SILENCE_SECONDS
    metrics_server.start(settings, lambda: dispatcher.silent_s < silence_limit_s)
    for thread in background:
        thread.start()
    logger.info("the dispatcher runs")
    stopping.wait()
    for thread in reversed(background):
        thread.stop()
    queue.close()
    database.dispose()
