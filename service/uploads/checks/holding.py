"""Keeps the lease of an upload from a thread of its own, however long the work at it takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from service.database.db import Database
from service.settings import Settings
from service.steps.step_types import LeaseLost
from service.uploads.checks import leases
from service.uploads.checks.inspector import NoLongerWanted
from service.uploads.checks.leases import UploadLease

logger = logging.getLogger(__name__)


class Holding:
    """An upload that is worked at.

    Args:
        is_stopping: whether the process is to end.
    """

    def __init__(
        self,
        lease: UploadLease,
        database: Database,
        settings: Settings,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.lease = lease
        self._database = database
        self._settings = settings
        self._is_stopping = is_stopping
        self._has_ended = threading.Event()
        self._is_lost = False
        self._thread = threading.Thread(target=self._run, name="upload-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._has_ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raises: LeaseLost when it was discarded, NoLongerWanted when the process is to end."""
        if self._is_lost:
            raise LeaseLost(f"upload {self.lease.upload_id} was discarded, or taken over")
        if self._is_stopping():
            raise NoLongerWanted("the process is to end")

    def is_wanted(self) -> bool:
        """Raises: LeaseLost."""
        try:
            self.check()
        except NoLongerWanted:
            return False
        return True

    def note(self, **values: Any) -> None:
        """Write something of the upload that was found out. Raises: LeaseLost."""
        with self._database.write() as session:
            leases.note(session, self.lease, **values)

    def _run(self) -> None:
        while not self._has_ended.wait(self._settings.heartbeat_seconds):
            try:
                self.note(lease_until=leases.until(self._settings.lease_seconds))
            except LeaseLost:
                self._is_lost = True
                return
            except Exception:  # the database is away: the token decides who may write
                logger.exception("the lease of %s was not renewed", self.lease.upload_id)
