"""What the tables say of the service's health, as gauges: read anew for each scrape.

One read transaction. What grows with the history of the service is read at most twice a minute,
and on PostgreSQL no statement may take longer than two seconds: watching must not slow what is
watched. Counts alone are told, never a name.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, and_, case, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from service.database.db import Database, epoch_now
from service.database.models import (
    BlobRow,
    Device,
    EvaluationRow,
    Job,
    MeasurementJob,
    OutboxRow,
    PredictorRow,
    Step,
    WebhookDelivery,
)
from service.devices.devices import was_heard
from service.jobs.job_states import ACTIVE, GOING, TERMINAL
from service.jobs.jobs import ONBOARDING, SEARCH
from service.jobs.room import is_held_back
from service.steps.step_kinds import QUEUES, queue_of

HISTORY_SECONDS = 30.0
STATEMENT_TIMEOUT_MS = 2000
STEP_STATES = ("waiting", "ready", "running")

Read = Callable[[Session], Iterable[Metric]]

logger = logging.getLogger(__name__)


class DatabaseMetrics:
    """The gauges of one database."""

    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_DatabaseCollector(database))

    def exposition(self) -> bytes:
        return bytes(generate_latest(self._registry))


class _DatabaseCollector(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()  # a second scraper waits instead of asking the same again
        self._history: list[Metric] = []
        self._history_read_at = -HISTORY_SECONDS

    def describe(self) -> Iterable[Metric]:
        return ()  # or the registry would read the tables to learn the names

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            started = time.monotonic()
            metrics, is_ok = self._read()
            took_s = time.monotonic() - started
        yield from metrics
        yield _gauge("snugnet_scrape_ok", "Whether the database could be read.", is_ok)
        yield _gauge("snugnet_scrape_seconds", "How long reading it took.", took_s)

    def _read(self) -> tuple[list[Metric], bool]:
        try:
            with self._database.read() as session:
                _limit_statements(session)
                metrics = [metric for read in PRESENT for metric in read(session)]
                if time.monotonic() - self._history_read_at >= HISTORY_SECONDS:
                    self._history = [metric for read in HISTORY for metric in read(session)]
                    self._history_read_at = time.monotonic()
        except (DBAPIError, PoolTimeout) as error:
            logger.warning("the metrics could not be read: %s", type(error).__name__)
            return [], False
        return [*metrics, *self._history], True


def _limit_statements(session: Session) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"))


# --- the present -------------------------------------------------------------------------------


def _jobs(session: Session) -> Iterable[Metric]:
    query = select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
    counts = {(kind, state): count for kind, state, count in session.execute(query)}
    keys = [(kind, state) for kind in (SEARCH, ONBOARDING) for state in (*ACTIVE, *TERMINAL)]
    yield _labelled("snugnet_jobs", "Jobs by kind and state.", ("kind", "state"), keys, counts)


def _steps(session: Session) -> Iterable[Metric]:
    """Of jobs that go on: those of a paused job wait for its owner, not for a worker, and those
    of a job that is held back for their tenant's other jobs."""
    is_due = and_(Step.state == "ready", Step.not_before <= epoch_now(), ~is_held_back())
    due_since = case((Step.not_before > Step.created_at, Step.not_before), else_=Step.created_at)
    query = (
        select(
            Step.kind,
            Step.state,
            func.count(),
            func.min(case((is_due, due_since))),
            _count(and_(Step.state == "running", Step.lease_until <= epoch_now())),
            epoch_now(),
        )
        .join(Job, Job.id == Step.job_id)
        .where(Step.state.in_(STEP_STATES), Job.state.in_(GOING))
        .group_by(Step.kind, Step.state)
    )
    keys = [(queue, state) for queue in QUEUES for state in STEP_STATES]
    counts: dict[tuple[str, ...], float] = dict.fromkeys(keys, 0.0)
    ages: dict[tuple[str, ...], float] = {(queue,): 0.0 for queue in QUEUES}
    num_expired = 0
    for kind, state, count, oldest, expired, now in session.execute(query):
        queue = queue_of(kind)
        counts[queue, state] += count
        num_expired += expired
        if oldest is not None:
            ages[queue,] = max(ages[queue,], now - oldest)
    yield _labelled(
        "snugnet_steps", "Open steps by queue and state.", ("queue", "state"), keys, counts
    )
    yield _labelled(
        "snugnet_queue_oldest_seconds",
        "How long the oldest step that is due has waited for a worker.",
        ("queue",),
        list(ages),
        ages,
    )
    yield _gauge("snugnet_expired_leases", "Running steps nobody holds any more.", num_expired)


def _outbox(session: Session) -> Iterable[Metric]:
    due_since = case(
        (Step.not_before > OutboxRow.created_at, Step.not_before), else_=OutboxRow.created_at
    )
    query = (
        select(func.count(), func.min(due_since), epoch_now())
        .select_from(OutboxRow)
        .join(Step, Step.id == OutboxRow.step_id)
        .where(OutboxRow.sent_at.is_(None), Step.not_before <= epoch_now())
    )
    count, oldest, now = session.execute(query).one()
    lag_s = max(0.0, now - oldest) if oldest is not None else 0.0
    yield _gauge("snugnet_outbox_unsent", "Wake-ups that are due and not sent.", count)
    yield _gauge("snugnet_outbox_lag_seconds", "Age of the oldest of them.", lag_s)


def _devices(session: Session) -> Iterable[Metric]:
    in_use = Device.retired_at.is_(None)
    connected, total = session.execute(
        select(_count(and_(in_use, was_heard())), _count(in_use))
    ).one()
    yield _labelled(
        "snugnet_devices",
        "Devices in use, by whether their agent is connected.",
        ("connected",),
        [("yes",), ("no",)],
        {("yes",): connected, ("no",): total - connected},
    )
    # By device, since that is what the index begins with.
    query = (
        select(MeasurementJob.state, func.count())
        .where(
            MeasurementJob.device_id.in_(select(Device.id)),
            MeasurementJob.state.in_(("ready", "running")),
        )
        .group_by(MeasurementJob.state)
    )
    yield _labelled(
        "snugnet_measurement_jobs",
        "Open work for measuring agents.",
        ("state",),
        [("ready",), ("running",)],
        {(state,): count for state, count in session.execute(query)},
    )


def _webhooks(session: Session) -> Iterable[Metric]:
    overdue_since = func.min(WebhookDelivery.next_attempt_at)
    count, oldest, now = session.execute(
        select(func.count(), overdue_since, epoch_now()).where(WebhookDelivery.state == "pending")
    ).one()
    lag_s = max(0.0, now - oldest) if oldest is not None else 0.0
    yield _gauge("snugnet_webhook_pending", "Messages that nobody has taken yet.", count)
    yield _gauge(
        "snugnet_webhook_lag_seconds", "How overdue the next attempt of the oldest is.", lag_s
    )


# --- the history -------------------------------------------------------------------------------


def _evaluations(session: Session) -> Iterable[Metric]:
    count = session.scalar(select(func.count()).select_from(EvaluationRow)) or 0
    yield _gauge("snugnet_evaluations", "Evaluated networks on record.", count)


def _blobs(session: Session) -> Iterable[Metric]:
    is_here = BlobRow.size_bytes.is_not(None)
    num_blobs, size_bytes = session.execute(
        select(func.count(), func.coalesce(func.sum(BlobRow.size_bytes), 0)).where(is_here)
    ).one()
    yield _gauge("snugnet_blobs", "Files in the store.", num_blobs)
    yield _gauge("snugnet_blob_bytes", "Their size.", size_bytes or 0)


def _predictors(session: Session) -> Iterable[Metric]:
    """Of the newest version for each device and workload, on networks held out from the fit."""
    newest = (
        select(
            PredictorRow.device_id,
            PredictorRow.predictor_key,
            PredictorRow.shape_key,
            func.max(PredictorRow.version).label("version"),
        )
        .group_by(PredictorRow.device_id, PredictorRow.predictor_key, PredictorRow.shape_key)
        .subquery()
    )
    error = PredictorRow.fit_report["mape"].as_float()
    query = select(func.avg(error), func.max(error)).join(
        newest,
        and_(
            PredictorRow.device_id == newest.c.device_id,
            PredictorRow.predictor_key == newest.c.predictor_key,
            PredictorRow.shape_key == newest.c.shape_key,
            PredictorRow.version == newest.c.version,
        ),
    )
    mean, worst = session.execute(query).one()
    if mean is None:
        return
    yield _labelled(
        "snugnet_predictor_error_ratio",
        "Mean error of predicted latency against held-out measurements, over all predictors.",
        ("statistic",),
        [("mean",), ("max",)],
        {("mean",): mean, ("max",): worst},
    )


def _failed_webhooks(session: Session) -> Iterable[Metric]:
    failed = select(func.count()).where(WebhookDelivery.state == "failed")
    count = session.scalar(failed) or 0
    yield _gauge("snugnet_webhook_failed", "Messages given up, as long as they are kept.", count)


PRESENT: Sequence[Read] = (_jobs, _steps, _outbox, _devices, _webhooks)
HISTORY: Sequence[Read] = (_evaluations, _blobs, _predictors, _failed_webhooks)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _labelled(
    name: str,
    text: str,
    labels: Sequence[str],
    keys: Iterable[tuple[str, ...]],
    values: Mapping[Any, float],
) -> Metric:
    """With a sample for each of `keys`, zero where there is no value, and for each other value."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key in dict.fromkeys([*keys, *values]):
        family.add_metric(key, float(values.get(key, 0)))
    return family
