"""How long until a step runs again whose worker was killed, in the embedded service as it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from service.database.db import Database
from service.embedded.embedded import EmbeddedService
from service.jobs import jobs, lifecycle
from service.settings import Settings
from service.steps.step_types import NewStep, StepResult
from service.tenants.tenancy import DEFAULT_TENANT
from workers.context import JobContext

STEP_SECONDS = 240.0
PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.02
KIND = "prepare"
ROOT = Path(__file__).parents[1]


def long_step(ctx: JobContext) -> StepResult:
    """Notes when it began, and works until it is told to stop. A worker loads it by name."""
    with _log(ctx.settings.data_dir).open("a") as file:
        file.write(f"{ctx.job_id} {time.time()}\n")
    deadline = time.monotonic() + STEP_SECONDS
    while time.monotonic() < deadline:
        ctx.check_abort()
        time.sleep(0.1)
    return StepResult(result={})


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """A running service whose first steps are `long_step`."""

    folder: Path
    supervisor: psutil.Process
    database: Database

    def cpu_seconds(self) -> float:
        """Of all its processes, those that have ended included."""
        tree = [self.supervisor, *self.supervisor.children(recursive=True)]
        times = [process.cpu_times() for process in tree]
        ended = sum(t.children_user + t.children_system for t in times)
        return float(sum(t.user + t.system for t in times) + ended)

    def begun(self, job_id: str) -> list[float]:
        """Epoch seconds at which the job's step began, once for each attempt."""
        path = _log(self.folder)
        lines = path.read_text().splitlines() if path.exists() else []
        return [float(at) for job, at in map(str.split, lines) if job == job_id]

    def group(self) -> list[psutil.Process]:
        """The worker and the children of its pool, which run the steps."""
        for process in self.supervisor.children():
            if "workers.app" in " ".join(process.cmdline()):
                return [process, *process.children(recursive=True)]
        return []

    def pool_children(self) -> list[psutil.Process]:
        return [p for p in self.group() if "spawn_main" in " ".join(p.cmdline())]


@contextmanager
def embedded(folder: Path) -> Iterator[Embedded]:
    environment = {
        "SNUGNET_STEP_HANDLERS": json.dumps({KIND: "benchmarks.worker_deaths:long_step"}),
        "PYTHONPATH": str(ROOT),
    }
    with EmbeddedService(folder, environment=environment) as instance:
        database = Database(Settings(data_dir=folder).database_url).for_tenant(DEFAULT_TENANT)
        yield Embedded(
            folder=folder.resolve(),
            supervisor=psutil.Process(instance.pid),
            database=database,
        )
        database.dispose()


def idle_share(service: Embedded, seconds: float) -> float:
    """Of one core, while nothing is to be done."""
    before = service.cpu_seconds()
    time.sleep(seconds)
    return (service.cpu_seconds() - before) / seconds


def seconds_to_run_again(
    service: Embedded, victims: Callable[[Embedded], list[psutil.Process]]
) -> float:
    """From the kill to the beginning of the next attempt."""
    with service.database.write() as session:
        first = NewStep(kind=KIND, input={})
        job_id = jobs.create_job(session, {"task": "none"}, name="long", first=first).id
    _await(lambda: len(service.begun(job_id)) == 1)
    time.sleep(2.0)  # so that its lease is young, as on average it is
    killed_at = time.time()
    for process in victims(service):
        process.kill()
    _await(lambda: len(service.begun(job_id)) == 2)
    with service.database.write() as session:
        lifecycle.request_cancel(session, job_id)
    return service.begun(job_id)[1] - killed_at


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the step did not begin"
        time.sleep(POLL_SECONDS)


def _log(data_dir: Path) -> Path:
    return data_dir / "long-steps.log"
