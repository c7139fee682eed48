"""A broker that hangs instead of refusing: the dispatcher must not hang with it for ever."""

from __future__ import annotations

import os
import signal

import redis

from service.settings import Settings
from service.steps.queue import CeleryQueue


def test_a_stalled_broker_is_given_up_and_used_again_later(
    broker: redis.Redis, worker_settings: Settings
) -> None:
    pid = broker.info()["process_id"]
    queue = CeleryQueue(worker_settings)
    assert queue.enqueue("step_a", "first")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not queue.enqueue("step_b", "first")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert queue.enqueue("step_c", "first")
    queue.close()
    assert broker.llen("light") >= 2
