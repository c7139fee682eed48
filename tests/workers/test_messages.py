"""The worker's side of the broker, on a real one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection

from service.settings import Settings
from service.steps.queue import RUN_STEP, CeleryQueue
from workers.messages import NoMessage, StepRequest, TolerantChannel


@pytest.fixture
def channel(broker: redis.Redis, worker_settings: Settings) -> Iterator[TolerantChannel]:
    """Of a worker with one slot that gives up on the broker soon."""
    assert broker.ping()
    options = {"socket_timeout": 0.3}
    with Connection(worker_settings.broker_url, transport_options=options) as connection:
        channel = TolerantChannel(connection.transport)
        channel.basic_qos(0, 1, False)
        yield channel
        channel.close()


def run_step(step_id: str) -> str:
    return step_id


def received(channel: TolerantChannel, settings: Settings) -> StepRequest:
    queue = CeleryQueue(settings)
    assert queue.enqueue("step_x", "first")
    queue.close()
    app = Celery("test", set_as_current=False)
    task = app.task(name=RUN_STEP)(run_step)
    message = channel.basic_get("light")
    return StepRequest(
        message,
        on_ack=message.ack_log_error,
        connection_errors=channel.connection_errors,
        app=app,
        task=task,
    )


def test_an_acknowledged_message_makes_room(
    channel: TolerantChannel, worker_settings: Settings, broker: redis.Redis
) -> None:
    request = received(channel, worker_settings)
    assert not channel.qos.can_consume()
    request.acknowledge()
    assert channel.qos.can_consume()
    assert not broker.exists("unacked")


def test_so_does_one_whose_acknowledgement_gets_lost(
    channel: TolerantChannel, worker_settings: Settings, broker: redis.Redis
) -> None:
    request = received(channel, worker_settings)
    pid = broker.info()["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        request.acknowledge()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert channel.qos.can_consume()
    assert request.acknowledged


@pytest.mark.parametrize(
    "content",
    [None, [], "text", {}, {"properties": {}}, {"properties": None, "body": "x"}],
)
def test_what_has_not_the_form_of_a_message_is_told_apart(
    channel: TolerantChannel, content: Any
) -> None:
    with pytest.raises(NoMessage):
        channel.Message(content, channel=channel)
    assert channel.qos.can_consume()
