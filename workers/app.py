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
import billiard.util
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import Celery, Task, signals
from sqlalchemy import select

from service.database.db import Database
from service.database.models import Step
from service.settings import Settings
from service.steps import outbox, steps
from service.steps.queue import RUN_STEP, CeleryQueue, worker_config
from service.telemetry import logs, metrics, metrics_server, tracing
from service.telemetry.logs import log_context
from workers import messages
from workers.owners import Owner
from workers.runner import StepRunner, sweep_scratch

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1

settings = Settings()
if settings.threads is not None:
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))

messages.install()
app = Celery("snugnet")


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logging(**_: Any) -> None:
    """In parent and child, instead of Celery's own."""
    logs.configure(
        log_format=settings.log_format, log_level=settings.log_level, secrets=settings.secrets
    )
    pool_logger = billiard.util.get_logger()
    pool_logger.propagate = True
    # What became of a step is told by its runner.
    for name in (pool_logger.name, "celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)


app.conf.update(worker_config(settings))


@app.task(name=RUN_STEP, bind=True, Request=messages.StepRequest)  # type: ignore[untyped-decorator]
def run_step(task: Task, step_id: str) -> None:
    owner = Owner.in_worker(os.getppid(), task.request.id)
    sent_by = (task.request.headers or {}).get(tracing.TRACEPARENT)
    with log_context(step=step_id):
        outcome = _runner().run(step_id, str(owner), traceparent=sent_by)
        logger.debug("a wake-up was answered: %s", outcome)


@cache
def _runner() -> StepRunner:
    return StepRunner.from_settings(settings)


# --- in the child ------------------------------------------------------------------------------


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _prepare_child(**_: Any) -> None:
    _die_with_parent()
    tracing.configure("worker")
    signal.signal(signal.SIGUSR2, lambda *_: _runner().shut_down())


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _flush_traces(**_: Any) -> None:
    tracing.flush()


def _die_with_parent() -> None:
    """A child whose parent was killed would compute on for nothing: its step is claimed anew."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# --- in the parent -----------------------------------------------------------------------------


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _keep_children_quiet(**_: Any) -> None:
    """Celery has them write lines of its own until their logging is set up."""
    os.environ["_MP_FORK_LOGLEVEL_"] = ""


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _serve_metrics(**_: Any) -> None:
    _metrics_port()


@cache  # the signal comes again with each new connection to the broker
def _metrics_port() -> int | None:
    return metrics_server.start(settings)


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
def _free_step_of_lost_child(task_id: str, exception: BaseException, **_: Any) -> None:
    """The child died in the middle of a step: let the next one take it up at once."""
    if not isinstance(exception, WorkerLostError | TimeLimitExceeded | Terminated):
        return
    database = Database(settings.database_url)
    owner = str(Owner.in_worker(os.getpid(), task_id))
    with database.read() as session:  # not always the step that it was woken for
        held = session.scalars(
            select(Step.id).where(Step.state == "running", Step.owner == owner)
        ).all()
    for step_id in held:
        _expire(database, step_id, owner)
    database.dispose()


def _expire(database: Database, step_id: str, owner: str) -> None:
    with database.write() as session:
        is_freed = steps.expire(session, step_id, owner)
    if is_freed:
        metrics.LEASE_EXPIRIES.labels("worker").inc()
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
