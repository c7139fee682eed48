"""The Celery program: `celery --app workers.app worker`.

The parent receives messages and keeps one spawned child, which runs the steps. Torch is loaded by
the handlers alone, so only ever in the child.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import cache
from typing import Any

import billiard.process
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import Celery, Task, signals
from sqlalchemy import select

from service import outbox, steps
from service.db import Database
from service.models import Step
from service.queue import RUN_STEP, CeleryQueue, worker_config
from service.settings import Settings
from workers.owners import Owner
from workers.runner import StepRunner, sweep_scratch

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1

settings = Settings()
if settings.threads is not None:
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))

app = Celery("snugnet")
app.conf.update(worker_config(settings))


@app.task(name=RUN_STEP, bind=True)  # type: ignore[untyped-decorator]
def run_step(task: Task, step_id: str) -> None:
    owner = Owner.in_worker(os.getppid(), task.request.id)
    outcome = _runner().run(step_id, str(owner))
    logger.info("step %s: %s", step_id, outcome)


@cache
def _runner() -> StepRunner:
    return StepRunner.from_settings(settings)


# --- in the child ------------------------------------------------------------------------------


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _prepare_child(**_: Any) -> None:
    _die_with_parent()
    signal.signal(signal.SIGUSR2, lambda *_: _runner().shut_down())


def _die_with_parent() -> None:
    """A child whose parent was killed would compute on for nothing: its step is claimed anew."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# --- in the parent -----------------------------------------------------------------------------


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _take_over_from_the_dead(**_: Any) -> None:
    """Free at once what killed workers of this host held, instead of after their leases."""
    sweep_scratch(settings.scratch_dir)
    database = Database(settings.database_url)
    with database.read() as session:
        running = session.execute(
            select(Step.id, Step.owner).where(Step.state == "running", Step.owner.is_not(None))
        ).all()
    for step_id, text in running:
        owner = Owner.parse(text or "")
        if owner is not None and owner.is_dead:
            _expire(database, step_id, str(owner))
    database.dispose()


@signals.task_failure.connect  # type: ignore[untyped-decorator]
def _free_step_of_lost_child(
    task_id: str, exception: BaseException, args: tuple[str, ...], **_: Any
) -> None:
    """The child died in the middle of a step: let the next one take it up at once."""
    if not isinstance(exception, WorkerLostError | TimeLimitExceeded | Terminated):
        return
    database = Database(settings.database_url)
    _expire(database, args[0], str(Owner.in_worker(os.getpid(), task_id)))
    database.dispose()


def _expire(database: Database, step_id: str, owner: str) -> None:
    with database.write() as session:
        is_freed = steps.expire(session, step_id, owner)
    if is_freed:
        logger.warning("step %s lost its process (%s)", step_id, socket.gethostname())
        outbox.publish(database, _parent_queue())


@cache
def _parent_queue() -> CeleryQueue:
    return CeleryQueue(settings)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _tell_children(**_: Any) -> None:
    for child in billiard.process.active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGUSR2)
