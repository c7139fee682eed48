"""Checks uploads that are whole, and fetches those that a hub has: in the API's own process, or in
one beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.artifacts import blobs
from service.database.db import Database
from service.database.models import Upload, UploadFile
from service.settings import Settings
from service.steps.step_types import LeaseLost
from service.store.protocol import ArtifactStore
from service.store.space import check_room
from service.uploads import uploads
from service.uploads.checks import leases
from service.uploads.checks.assembling import assemble
from service.uploads.checks.contents import reading_of, summary_of
from service.uploads.checks.crew import Crew
from service.uploads.checks.fetching import Fetcher
from service.uploads.checks.holding import Holding
from service.uploads.checks.inspector import Inspector
from service.uploads.checks.leases import CHECKING, FETCHING
from service.uploads.checks.limits import Limits
from service.uploads.chunks import chunks_of


class Checker:
    """Args:
    poll_seconds: how often it looks by itself for what waits; as the reconciler, by default.
    notify: called whenever an upload has come further.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        store: ArtifactStore,
        inspector: Inspector | None = None,
        poll_seconds: float | None = None,
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._notify = notify
        self.inspector = inspector or make_inspector(settings)
        self._crews = [
            Crew(
                settings,
                database=database,
                store=store,
                state=CHECKING,
                what="checked",
                work=self._check,
                num_threads=settings.check_processes,
                poll_seconds=poll_seconds or settings.reconcile_seconds,
                notify=notify,
            )
        ]
        if settings.allow_hub:
            self._crews.append(
                Crew(
                    settings,
                    database=database,
                    store=store,
                    state=FETCHING,
                    what="fetched",
                    work=Fetcher(settings, database=database, store=store).fetch,
                    num_threads=settings.fetch_processes,
                    poll_seconds=poll_seconds or settings.reconcile_seconds,
                    # What was fetched is checked next.
                    notify=self._has_fetched,
                )
            )

    def start(self) -> None:
        sweep(self._settings.scratch_dir)
        for crew in self._crews:
            crew.start()

    @property
    def is_alive(self) -> bool:
        return all(crew.is_alive for crew in self._crews)

    def stop(self) -> None:
        """Give back what is being worked at, and end."""
        for crew in self._crews:
            crew.stop()

    def nudge(self) -> None:
        """Something was committed that waits for a check, or to be fetched."""
        for crew in self._crews:
            crew.nudge()

    def _has_fetched(self) -> None:
        self._crews[0].nudge()
        self._notify()

    def _check(self, holding: Holding) -> None:
        upload_id = holding.lease.upload_id
        with self._database.read() as session:
            upload = uploads.get_upload(session, upload_id)
            files = uploads.files_of(session, upload_id)
            chunks = chunks_of(session, upload_id)
        in_chunks = [file for file in files if not file.received]
        try:
            with self._scratch() as scratch:
                for file in in_chunks:
                    check_room(scratch, file.size_bytes, self._settings.reserve_bytes)
                    digest = assemble(self._store, file, chunks[file.name], scratch, holding.check)
                    with self._database.write() as session:
                        blobs.describe(session, digest)
            self._read(holding, upload, files)
        except LeaseLost:
            hashes = [file.sha256 for file in in_chunks]
            blobs.delete_unnamed(self._database, self._store, hashes)
            raise

    def _read(self, holding: Holding, upload: Upload, files: list[UploadFile]) -> None:
        """In a process of its own; the upload is ready then."""
        found = self.inspector.inspect(
            reading_of(self._store, upload, files),
            tick_seconds=self._settings.heartbeat_seconds,
            is_wanted=holding.is_wanted,
        )
        summary = summary_of(upload, files, found)
        with self._database.write() as session:
            leases.settle(session, holding.lease, "ready", summary=summary)
            uploads.all_received(session, upload.id)
            unused = uploads.forget_chunks(session, upload.id)
        blobs.delete_unnamed(self._database, self._store, unused)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        root = self._settings.scratch_dir
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-check-", dir=root) as folder:
            yield Path(folder)


def make_inspector(settings: Settings) -> Inspector:
    return Inspector(
        Limits(memory_bytes=settings.check_memory_bytes, seconds=settings.check_seconds),
        num_processes=settings.check_processes,
        scratch=settings.scratch_dir,
    )


def sweep(scratch: Path) -> None:
    """Delete what killed processes of this machine left behind."""
    for folder in scratch.glob("*-check-*"):
        pid = folder.name.partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
