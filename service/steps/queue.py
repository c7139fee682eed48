"""Sending wake-ups. The producer knows tasks by name only; workers are another program."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from celery import Celery
from kombu.exceptions import OperationalError

from service.settings import Settings
from service.steps.step_kinds import LIGHT, QUEUES, queue_of
from service.telemetry import metrics, tracing

logger = logging.getLogger(__name__)

RUN_STEP = "snugnet.run_step"
KILL_GRACE_SECONDS = 60.0
CHILD_START_SECONDS = 120.0

# A stalled broker makes a publish with default timeouts hang for more than 25 s; with these it
# fails after about 4 s, and the outbox keeps the row.
SOCKET_TIMEOUT_SECONDS = 2.0


class JobQueue(Protocol):
    """Where wake-ups go."""

    def enqueue(self, step_id: str, kind: str) -> bool:
        """Send one wake-up to the queue of its kind; False when the broker did not take it."""

    def is_reachable(self) -> bool:
        """Whether the broker answers now; may take a few seconds to say no."""


class CeleryQueue:
    def __init__(self, settings: Settings) -> None:
        self._app = Celery("snugnet-producer", set_as_current=False)
        self._app.conf.update(
            broker_url=settings.broker_url,
            task_ignore_result=True,
            task_serializer="json",
            broker_transport_options={
                "visibility_timeout": visibility_timeout_seconds(settings),
                "socket_timeout": SOCKET_TIMEOUT_SECONDS,
                "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
            },
            task_publish_retry_policy={"max_retries": 1, "interval_start": 0.0},
        )

    def enqueue(self, step_id: str, kind: str) -> bool:
        queue = queue_of(kind)
        try:
            headers = dict(tracing.current_headers())
            self._app.send_task(RUN_STEP, args=[step_id], queue=queue, headers=headers)
        except (OperationalError, OSError) as error:
            logger.warning("the broker did not take %s (%s): %s", step_id, kind, error)
            metrics.WAKEUPS.labels(queue, "refused").inc()
            return False
        metrics.WAKEUPS.labels(queue, "sent").inc()
        return True

    def is_reachable(self) -> bool:
        try:
            # A connection of its own: one of the pool may have been opened before a stall.
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=SOCKET_TIMEOUT_SECONDS)
        except (OperationalError, OSError):
            return False
        return True

    def close(self) -> None:
        self._app.close()


class InMemoryQueue:
    """Keeps step ids in a list, for whoever runs the steps in the same process."""

    def __init__(self) -> None:
        self.step_ids: list[str] = []

    def enqueue(self, step_id: str, kind: str) -> bool:
        self.step_ids.append(step_id)
        return True

    def is_reachable(self) -> bool:
        return True


def visibility_timeout_seconds(settings: Settings) -> float:
    """After this time the broker hands an unacknowledged message out again, even while its task
    still runs: so it must exceed the longest step by far."""
    return 2 * hard_limit_seconds(settings)


def hard_limit_seconds(settings: Settings) -> float:
    return settings.step_limit_seconds + KILL_GRACE_SECONDS


def worker_config(settings: Settings) -> dict[str, Any]:
    """The settings of a worker, as they were measured to survive kills and broker outages.

    No result backend and no redelivery by the broker: a late acknowledgement or a second delivery
    is harmless, since the step's row and its token decide who works.
    """
    return {
        "broker_url": settings.broker_url,
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_retry_on_worker_lost": False,
        "task_ignore_result": True,
        # What a worker serves unless `--queues` names some of them.
        "task_queues": {name: {"exchange": name, "routing_key": name} for name in QUEUES},
        "task_default_queue": LIGHT,
        "worker_prefetch_multiplier": 1,
        "worker_pool": "prefork",
        # A forked child hangs in torch; a spawned one starts clean.
        "worker_pool_start_method": "spawn",
        # It takes seconds to start, on a busy machine more than Celery's own four; a child that is
        # killed for that is followed by one that starts no faster, for ever.
        "worker_proc_alive_timeout": CHILD_START_SECONDS,
        "worker_concurrency": 1,
        # Idle wake-ups count too, and a new child takes seconds: with 50, a worker whose steps are
        # short did little but start children.
        "worker_max_tasks_per_child": 500,
        "task_soft_time_limit": settings.step_limit_seconds,
        "task_time_limit": hard_limit_seconds(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": 20,
        "worker_enable_remote_control": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "broker_transport_options": {
            "visibility_timeout": visibility_timeout_seconds(settings),
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
        },
    }
