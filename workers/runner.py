"""One step from its wake-up to its end: claim, keep the lease, handle, finish."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from search.errors import SnugnetError
from service.artifacts.signing_keys import prepare_signing_key
from service.database.db import Database
from service.database.models import Job, Step
from service.settings import Settings
from service.steps import outbox, steps
from service.steps.queue import CeleryQueue, JobQueue
from service.steps.step_types import LeaseLost, StepFailed, StepLease
from service.steps.turns import next_in_turn
from service.store.opening import open_store
from service.store.protocol import ArtifactStore, StoreUnavailable
from service.store.space import free_bytes, is_full, mib
from service.telemetry import metrics, tracing
from service.telemetry.logs import log_context
from workers.context import JobContext
from workers.handlers import load_handler
from workers.heartbeat import Abort, AbortReason, Heartbeat, StepAborted
from workers.owners import is_alive
from workers.quiet_lock import shared_quiet_lock

logger = logging.getLogger(__name__)

QUIET_WAIT_SECONDS = 60.0

Turns = Callable[[Session, str, Collection[str]], str | None]
"""Of the step that a wake-up is for, and of those that others have taken: whose turn it is."""


class StepRunner:
    """Runs steps in this process, one at a time.

    Args:
        turns: says which due step is served where one is woken for; None leaves it at that one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        queue: JobQueue,
        store: ArtifactStore,
        turns: Turns = next_in_turn,
    ) -> None:
        self._settings = settings
        self._turns = turns
        self._database = database
        self._queue = queue
        self._store = store
        self._current: Abort | None = None
        self._shutting_down = False

    @classmethod
    def from_settings(cls, settings: Settings) -> StepRunner:
        database = Database(settings.database_url)
        # A key that cannot be read is better told now than at the end of a job.
        prepare_signing_key(settings, database)
        return cls(
            settings,
            database=database,
            queue=CeleryQueue(settings),
            store=open_store(settings),
        )

    def run(self, step_id: str, owner: str, *, traceparent: str | None = None) -> str:
        """Answer one wake-up; returns what became of it.

        Args:
            step_id: whom the wake-up is for. Another step of the same queue may be served first.
            traceparent: of whoever sent the wake-up.
        """
        if self._shutting_down:
            return "shutting down"  # the step stays ready
        with shared_quiet_lock(
            self._settings.quiet_lock, wait_seconds=QUIET_WAIT_SECONDS
        ) as is_quiet:
            if not is_quiet:
                self._queue.enqueue(step_id, self._kind_of(step_id))  # at the back of the queue
                return "put off: the device is being measured"
            lease = self._claim(step_id, owner)
            if lease is None:
                return "nothing to do"
            outcome = self._run_claimed(lease, self._trace_of(lease, step_id, traceparent))
        outbox.publish(self._database, self._queue)
        return outcome

    def shut_down(self) -> None:
        """Give the running step back as soon as its handler looks, and take no other one."""
        self._shutting_down = True
        if self._current is not None:
            self._current.request(AbortReason.SHUTDOWN)

    def _trace_of(self, lease: StepLease, woken_for: str, sent_by: str | None) -> str | None:
        """A wake-up tells of its own step; another one goes on in the trace of its job."""
        if lease.step_id == woken_for:
            return sent_by
        with self._database.read() as session:
            return session.scalar(select(Job.traceparent).where(Job.id == lease.job_id))

    def _kind_of(self, step_id: str) -> str:
        with self._database.read() as session:
            return session.scalar(select(Step.kind).where(Step.id == step_id)) or ""

    def _claim(self, woken_for: str, owner: str) -> StepLease | None:
        """The step whose turn it is, of the queue that the wake-up came through."""
        tried: set[str] = set()
        while True:
            with self._database.read() as session:
                step_id = self._turns(session, woken_for, tried) or woken_for
            if step_id in tried:
                return None
            with self._database.write() as session:
                lease = steps.claim(session, step_id, owner, self._settings.lease_seconds)
                if lease is None:
                    steps.fail_if_poisonous(session, step_id)
            if lease is not None:
                return lease
            tried.add(step_id)

    def _run_claimed(self, lease: StepLease, traceparent: str | None) -> str:
        abort = self._current = Abort()
        started = time.monotonic()
        outcome = "lost"
        try:
            with (
                _told_of(lease, traceparent),
                Heartbeat(self._database, lease, abort, self._settings),
                self._scratch(lease) as scratch,
            ):
                logger.info("the step begins")
                outcome = self._handle(lease, abort, scratch)
                logger.info("the step ended: %s", outcome)
        except LeaseLost:
            metrics.STALE_WRITES.labels("worker").inc()
            logger.warning("the step was taken over: what this attempt did is dropped")
        finally:
            self._current = None
        label = outcome.partition(":")[0]
        metrics.STEP_SECONDS.labels(lease.kind, label).observe(time.monotonic() - started)
        return outcome

    def _handle(self, lease: StepLease, abort: Abort, scratch: Path) -> str:
        try:
            context = JobContext(
                database=self._database,
                settings=self._settings,
                store=self._store,
                lease=lease,
                abort=abort,
                scratch=scratch,
            )
            result = load_handler(lease.kind, self._settings.step_handlers)(context)
            with self._database.write() as session:
                steps.finish(session, lease, result)
        except LeaseLost:
            raise
        except StepAborted as aborted:
            return self._stop(lease, aborted.reason)
        except SnugnetError as error:
            logger.warning("%s of %s failed: %s", lease.kind, lease.job_id, error)
            with self._database.write() as session:
                steps.fail(session, lease, error.code, str(error), _data_of(error))
            return f"failed: {error.code}"
        except Exception as error:
            if (reason := self._why_wait(error, scratch)) is not None:
                return self._put_off(lease, *reason)
            logger.exception("%s of %s raised", lease.kind, lease.job_id)
            backoff_seconds = self._settings.retry_backoff_seconds
            with self._database.write() as session:
                steps.retry(session, lease, error, backoff_seconds=backoff_seconds)
            return "to be tried again"
        return "done"

    def _why_wait(self, error: Exception, scratch: Path) -> tuple[str, str] | None:
        """Code and message where the step itself did nothing wrong: a store or a disk did."""
        if is_full(error):
            return "disk_full", str(error)
        if isinstance(error, StoreUnavailable):
            return "store_unavailable", str(error)
        # Not every library says why it could not write.
        free = free_bytes(scratch)
        if free < self._settings.reserve_bytes:
            return "disk_full", f"{mib(free)} are left on the disk of {scratch.parent}; {error}"
        return None

    def _put_off(self, lease: StepLease, code: str, message: str) -> str:
        logger.warning("%s of %s is put off: %s", lease.kind, lease.job_id, message)
        delay_seconds = self._settings.put_off_seconds
        with self._database.write() as session:
            steps.put_off(session, lease, code, message, delay_seconds=delay_seconds)
        return f"put off: {code}"

    def _stop(self, lease: StepLease, reason: AbortReason) -> str:
        if reason is AbortReason.LOST:
            return "lost"
        with self._database.write() as session:
            if reason is AbortReason.CANCEL:
                steps.cancel(session, lease)
            else:
                steps.release(session, lease)
        return f"stopped: {reason.value}"

    @contextmanager
    def _scratch(self, lease: StepLease) -> Iterator[Path]:
        root = self._settings.scratch_dir
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{lease.kind}-", dir=root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _told_of(lease: StepLease, traceparent: str | None) -> Iterator[None]:
    """Log lines and a span say which claim of which step they belong to."""
    told = {
        "job": lease.job_id,
        "step": lease.step_id,
        "kind": lease.kind,
        "token": lease.token,
        "attempt": lease.attempts,
    }
    with tracing.span(f"step {lease.kind}", parent=traceparent, **told), log_context(**told):
        yield


def sweep_scratch(root: Path) -> None:
    """Delete what killed processes left behind."""
    for folder in root.glob("*-*"):
        pid = folder.name.partition("-")[0]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _data_of(error: SnugnetError) -> dict[str, Any]:
    """What the error carries beside its message, as far as it is JSON."""
    carried = error.data if isinstance(error, StepFailed) else vars(error)
    return {key: value for key, value in carried.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
