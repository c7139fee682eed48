"""The dispatcher as a program of its own, beside API processes that run none."""

from __future__ import annotations

import logging
import signal
import threading

from service.db import Database
from service.dispatcher import Dispatcher
from service.queue import CeleryQueue
from service.settings import Settings
from service.webhook_sender import WebhookSender

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""What other processes commit is seen after this time at the latest."""


def serve(settings: Settings) -> None:
    """Send wake-ups and heal until SIGTERM or SIGINT; the round at hand is finished first."""
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
    dispatcher.start()
    sender.start()
    logger.info("the dispatcher runs")
    stopping.wait()
    dispatcher.stop()
    sender.stop()
    queue.close()
    database.dispose()
