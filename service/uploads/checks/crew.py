"""Threads that take uploads of one state and move each on: to the next state, or to its end.

Any number of crews may run beside each other: a row is taken by whoever is free, and again by
another one when its holder is gone.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable

from search.errors import InvalidInput
from service.artifacts import blobs
from service.database.db import Database
from service.database.models import Upload
from service.settings import Settings
from service.steps.step_types import LeaseLost
from service.store.protocol import ArtifactStore, StoreUnavailable
from service.uploads import uploads
from service.uploads.checks import leases
from service.uploads.checks.holding import Holding
from service.uploads.checks.inspector import NoLongerWanted
from service.uploads.checks.leases import MAX_ATTEMPTS, UploadLease

logger = logging.getLogger(__name__)

Work = Callable[[Holding], None]
"""Raises: InvalidInput for what is wrong with the upload; anything else is tried again."""


class Crew:
    """Args:
    what: that its members do, for messages: `checked`, say.
    poll_seconds: how often one of them looks by itself for what waits.
    notify: called whenever an upload was moved.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        store: ArtifactStore,
        state: str,
        what: str,
        work: Work,
        num_threads: int,
        poll_seconds: float,
        notify: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._state = state
        self._what = what
        self._work = work
        self._poll_seconds = poll_seconds
        self._notify = notify
        self._is_stopping = False
        self._num_nudges = 0
        self._nudged = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(place,), name=f"{what}-{place}", daemon=True)
            for place in range(num_threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Give back what is being worked at, and end."""
        self._is_stopping = True
        self.nudge()
        for thread in self._threads:
            thread.join()

    def nudge(self) -> None:
        """Something was committed that waits."""
        with self._nudged:
            self._num_nudges += 1
            self._nudged.notify_all()

    def _run(self, place: int) -> None:
        # One of the threads looks now and then for what was nudged elsewhere, or lost its holder.
        patience = self._poll_seconds if place == 0 else None
        while not self._is_stopping:
            with self._nudged:
                seen = self._num_nudges
            try:
                was_busy = self._move_one()
            except Exception:  # a dead thread would leave uploads where they are
                logger.exception("no upload could be taken; the next round will do it")
                was_busy = False
            with self._nudged:
                if not was_busy and seen == self._num_nudges and not self._is_stopping:
                    self._nudged.wait(patience)

    def _move_one(self) -> bool:
        """Whether there was one."""
        with self._database.read() as session:
            if not leases.is_any_free(session, self._state):
                return False
        owner = f"{socket.gethostname()}:{os.getpid()}"
        with self._database.write() as session:
            lease = leases.claim(session, self._state, owner, self._settings.lease_seconds)
        if lease is None:
            return False
        try:
            self._move(lease)
        except LeaseLost:
            logger.info("upload %s was discarded, or taken over", lease.upload_id)
        self._notify()
        return True

    def _move(self, lease: UploadLease) -> None:
        if self._was_refused(lease):
            self._end_failed(lease)
            return
        try:
            if lease.attempts > MAX_ATTEMPTS:
                raise InvalidInput(
                    "files", f"could not be {self._what}: every process that tried died"
                )
            with Holding(
                lease, self._database, self._settings, lambda: self._is_stopping
            ) as holding:
                self._work(holding)
        except InvalidInput as error:
            self._fail(lease, error)
        except NoLongerWanted:
            self._release(lease, counts=False)
        except LeaseLost:
            raise
        except StoreUnavailable as error:
            logger.warning("upload %s waits for the store: %s", lease.upload_id, error)
            self._release(lease, counts=False, delay_seconds=self._settings.put_off_seconds)
        except Exception:
            logger.exception("upload %s could not be %s", lease.upload_id, self._what)
            if lease.attempts >= MAX_ATTEMPTS:
                reason = f"could not be {self._what} in {lease.attempts} attempts"
                self._fail(lease, InvalidInput("files", f"{reason}; the server's log says why"))
            else:
                backoff = self._settings.retry_backoff_seconds
                self._release(lease, delay_seconds=backoff * 2 ** (lease.attempts - 1))

    def _was_refused(self, lease: UploadLease) -> bool:
        """By a process that died before it could say so."""
        with self._database.read() as session:
            upload = session.get(Upload, lease.upload_id)
        return upload is not None and upload.error is not None

    def _fail(self, lease: UploadLease, error: InvalidInput) -> None:
        """Nothing stays but the row that says why."""
        with self._database.write() as session:
            described = {"field": error.field, "reason": error.reason}
            leases.note(session, lease, error=described)
            unused = uploads.forget_files(session, lease.upload_id)
        blobs.delete_unnamed(self._database, self._store, unused)
        self._end_failed(lease)

    def _end_failed(self, lease: UploadLease) -> None:
        """Told only now: whoever hears of it finds nothing left."""
        with self._database.write() as session:
            leases.settle(session, lease, "failed")

    def _release(
        self, lease: UploadLease, *, counts: bool = True, delay_seconds: float = 0.0
    ) -> None:
        with self._database.write() as session:
            leases.release(session, lease, delay_seconds=delay_seconds, counts=counts)
