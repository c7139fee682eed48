from __future__ import annotations

from pathlib import Path

from celery import Celery

from service.settings import Settings
from service.steps.queue import CeleryQueue, hard_limit_seconds, worker_config


def test_a_missing_broker_is_reported_and_does_not_raise(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, broker_url=f"redis+socket://{tmp_path}/none.sock")
    queue = CeleryQueue(settings)
    assert not queue.enqueue("step_x", "prepare")
    queue.close()


def test_the_broker_redelivers_later_than_any_step_can_run(settings: Settings) -> None:
    config = worker_config(settings)
    assert config["task_soft_time_limit"] < config["task_time_limit"]
    timeout = config["broker_transport_options"]["visibility_timeout"]
    assert timeout > hard_limit_seconds(settings) > settings.lease_seconds


def test_celery_has_the_patience_for_a_child_that_starts_slowly(settings: Settings) -> None:
    """Its own four seconds are fewer than a spawned one takes on a busy machine."""
    app = Celery("test", set_as_current=False)
    app.conf.update(worker_config(settings))
    assert app.conf.worker_proc_alive_timeout >= 60
