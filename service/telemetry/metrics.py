"""What the processes count. The database's own figures are in `metrics_database`.

A worker's steps run in child processes: with `PROMETHEUS_MULTIPROC_DIR` set they count in files of
that folder, which the parent adds up. The files are named by the child's slot, not its process, so
that a child's successor goes on counting in them.
"""

from __future__ import annotations

import os

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from service.roles import MULTIPROCESS_VARIABLE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STEP_BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)


def _slot() -> str:
    """Which of the pool's children this is; `parent` for the worker itself."""
    from billiard.process import current_process

    index = getattr(current_process(), "index", None)
    return "parent" if index is None else f"slot{index}"


if os.environ.get(MULTIPROCESS_VARIABLE):
    # Before the first metric is made: it is the class of all their values.
    values.ValueClass = values.MultiProcessValue(process_identifier=_slot)  # type: ignore[no-untyped-call]

REQUESTS = Counter("snugnet_http_requests", "Requests answered.", ("method", "route", "status"))
REQUEST_SECONDS = Histogram(
    "snugnet_http_request_seconds",
    "Time until an answer begins; long polls wait as long as they were asked to.",
    ("method", "route"),
    buckets=REQUEST_BUCKETS,
)
WAKEUPS = Counter("snugnet_wakeups", "Messages to workers.", ("queue", "outcome"))
LEASE_EXPIRIES = Counter(
    "snugnet_lease_expiries", "Steps whose holder died or fell silent.", ("noticed_by",)
)
STEP_SECONDS = Histogram(
    "snugnet_step_seconds",
    "Time a worker held a step.",
    ("kind", "outcome"),
    buckets=STEP_BUCKETS,
)
STALE_WRITES = Counter(
    "snugnet_stale_writes",
    "Results refused because somebody else held the work by then.",
    ("holder",),
)
WEBHOOK_ATTEMPTS = Counter("snugnet_webhook_attempts", "Messages sent to webhooks.", ("outcome",))
PREDICTION_ERROR = Histogram(
    "snugnet_prediction_error_ratio",
    "How far the predicted latency of a delivered file was from the measured one.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
EVALUATIONS = Counter("snugnet_evaluations_recorded", "Evaluations written by workers.")


def exposition() -> bytes:
    """What this process counts, and what its children do, in Prometheus's text format."""
    if not os.environ.get(MULTIPROCESS_VARIABLE):
        return bytes(generate_latest(REGISTRY))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return bytes(generate_latest(registry))
