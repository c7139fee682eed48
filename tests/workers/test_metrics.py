"""What a worker and a dispatcher tell on ports of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from service.database.db import Database
from service.settings import Settings
from tests.service.telemetry.test_metrics import parsed
from tests.workers.conftest import REPOSITORY, environment_of
from tests.workers.test_app import submit, wait_for_note, wait_for_state
from tests.workers.waiting import wait_until

KEY = {"Authorization": "Bearer k3y"}


@contextmanager
def running(settings: Settings, folder: Path, *command: str) -> Iterator[tuple[str, Path]]:
    """`snugnet <command>` as a process: its metrics' address, and its log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / f"{command[0]}.log"
    given = {
        "PYTHONPATH": str(REPOSITORY),
        "SNUGNET_METRICS_PORT": str(port),
        "SNUGNET_METRICS_KEY": "k3y",
        "SNUGNET_LOG_FORMAT": "json",
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.snugnet", *command],
            cwd=REPOSITORY,
            env=os.environ | environment_of(settings) | given,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{port}", log
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        sys.stdout.write(log.read_text())  # shown by pytest when the test failed


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


@pytest.mark.usefixtures("broker")
def test_both_count_what_they_did_through_the_death_of_a_child(
    database: Database, data_dir: Path, worker_settings: Settings, tmp_path: Path
) -> None:
    (data_dir / "gate").touch()
    with (
        running(worker_settings, tmp_path, "dispatcher") as (dispatcher, _),
        running(worker_settings, tmp_path, "worker", "--queue", "light") as (worker, log),
    ):
        wait_until(lambda: is_up(worker) and is_up(dispatcher))
        first = submit(database)
        os.kill(wait_for_note(data_dir, "evaluation-0"), signal.SIGKILL)
        (data_dir / "gate").unlink()
        wait_for_state(database, first, "succeeded")
        wait_for_state(database, submit(database), "succeeded")

        assert httpx.get(f"{worker}/metrics").status_code == 401
        assert httpx.get(f"{worker}/secret").status_code == 404
        told = parsed(httpx.get(f"{worker}/metrics", headers=KEY).text)
        sent = parsed(httpx.get(f"{dispatcher}/metrics", headers=KEY).text)
        lines = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]

    assert told["snugnet_step_seconds_count kind=first outcome=done"] == 2
    assert told["snugnet_step_seconds_count kind=second outcome=done"] == 2
    assert told["snugnet_lease_expiries_total noticed_by=worker"] == 1
    # Those of the killed child too: three each of two jobs, and the one that was repeated.
    assert told["snugnet_evaluations_recorded_total"] == 7
    assert sent["snugnet_wakeups_total outcome=sent queue=light"] >= 2
    assert "process_resident_memory_bytes" in sent
    lost = [line for line in lines if "lost its process" in line["message"]]
    assert [line["level"] for line in lost] == ["warning"]


def test_a_dispatcher_whose_database_is_away_lives_on_and_tells_no_password(
    worker_settings: Settings, tmp_path: Path, broker: redis.Redis
) -> None:
    assert broker.ping()
    away = worker_settings.model_copy(
        update={"database_url": "postgresql+psycopg://nobody:pa55word@127.0.0.1:9/none"}
    )
    with running(away, tmp_path, "dispatcher") as (url, log):
        wait_until(lambda: is_up(url))
        wait_until(lambda: "round failed" in log.read_text())
        assert is_up(url)
    assert "pa55word" not in log.read_text()
