"""Holding a step while it runs, and telling its handler when to stop."""

from __future__ import annotations

import enum
import logging
import threading
import time
from contextvars import copy_context
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from service.database.db import Database
from service.settings import Settings
from service.steps import steps
from service.steps.step_types import StepLease

logger = logging.getLogger(__name__)


class AbortReason(enum.Enum):
    CANCEL = "cancel"  #: the user cancelled the job
    PAUSE = "pause"  #: the user paused the job
    LOST = "lost"  #: somebody else may hold the step by now
    SHUTDOWN = "shutdown"  #: the worker is about to end


_WISHES = {
    steps.Renewal.CANCEL: AbortReason.CANCEL,
    steps.Renewal.PAUSE: AbortReason.PAUSE,
}


class StepAborted(Exception):
    """A handler stopped early because it was asked to."""

    def __init__(self, reason: AbortReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Abort:
    """A wish to stop; the first reason stays."""

    def __init__(self) -> None:
        self.reason: AbortReason | None = None

    def request(self, reason: AbortReason) -> None:
        if self.reason is None:
            self.reason = reason

    def check(self) -> None:
        if self.reason is not None:
            raise StepAborted(self.reason)


class Heartbeat:
    """A thread that renews the lease; as a thread it also beats while the handler computes."""

    def __init__(
        self, database: Database, lease: StepLease, abort: Abort, settings: Settings
    ) -> None:
        self._database = database
        self._lease = lease
        self._abort = abort
        self._settings = settings
        # Stop before the lease ends, so that the next holder never works beside this one.
        self._patience_seconds = settings.lease_seconds * 2 / 3
        self._ended = threading.Event()
        # Its lines belong to the step, too.
        run = partial(copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        last_renewed = time.monotonic()
        while not self._ended.wait(self._settings.heartbeat_seconds):
            asked_at = time.monotonic()
            renewal = self._renew()
            if renewal is not None:
                last_renewed = asked_at
            if renewal is not None and renewal in _WISHES:
                self._abort.request(_WISHES[renewal])
            elif renewal is steps.Renewal.LOST:
                self._abort.request(AbortReason.LOST)
                return
            elif time.monotonic() - last_renewed > self._patience_seconds:
                self._abort.request(AbortReason.LOST)

    def _renew(self) -> steps.Renewal | None:
        try:
            with self._database.write() as session:
                return steps.renew(session, self._lease, self._settings.lease_seconds)
        except SQLAlchemyError as error:
            logger.warning("could not renew the lease of %s: %s", self._lease.step_id, error)
            return None
