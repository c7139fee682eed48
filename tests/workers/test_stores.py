"""Steps and their files: in a bucket, on a full disk, with a store that is away for a while."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from service.artifacts.artifacts import list_artifacts
from service.database.db import Database
from service.database.models import Event
from service.settings import Settings
from service.steps.queue import InMemoryQueue
from service.steps.step_types import NewArtifact, NewStep, StepResult
from service.store.opening import open_store
from service.store.protocol import StoreUnavailable
from tests.s3_server import S3Server
from tests.service.helpers import create_job, job_of, open_step, steps_of
from tests.service.serving import serving
from workers import runner
from workers.context import JobContext
from workers.runner import StepRunner

Handler = Callable[[JobContext], StepResult]
Handle = Callable[[str, Handler], None]
WEIGHTS = bytes(range(256)) * 1000


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Handle:
    """Says what the steps of a kind do."""
    handlers: dict[str, Handler] = {}
    monkeypatch.setattr(runner, "load_handler", lambda kind, _: handlers[kind])
    return handlers.__setitem__


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"put_off_seconds": 0.0})


def run_open_step(settings: Settings, database: Database, job_id: str) -> str:
    """As a worker of its own does."""
    store = open_store(settings)
    worker = StepRunner(settings, database=database, queue=InMemoryQueue(), store=store)
    return worker.run(open_step(database, job_id).id, "test:1:task")


def messages(database: Database, job_id: str, kind: str) -> list[str]:
    with database.read() as session:
        query = select(Event.message).where(Event.job_id == job_id, Event.kind == kind)
        return list(session.scalars(query))


def train(ctx: JobContext) -> StepResult:
    path = ctx.scratch / "weights"
    path.write_bytes(WEIGHTS)
    return StepResult(next=NewStep(kind="report", input={"weights": ctx.put_blob(path)}))


def report(ctx: JobContext) -> StepResult:
    weights = ctx.blob(ctx.input["weights"])
    artifact = NewArtifact(
        name="weights.bin",
        sha256=ctx.put_blob(weights),
        size_bytes=weights.stat().st_size,
        media_type="application/octet-stream",
    )
    return StepResult(result={}, artifacts=[artifact])


def test_steps_hand_their_files_on_through_a_bucket_and_the_api_gives_them_out(
    settings: Settings, database: Database, s3_server: S3Server, handle: Handle
) -> None:
    handle("prepare", train)
    handle("report", report)
    job_id = create_job(database)
    bucket = f"s3://{s3_server.new_bucket()}/snugnet"
    shared = {"artifacts_url": bucket, "s3_endpoint_url": s3_server.url}
    # Two workers and an API that share nothing but the database and the bucket.
    for host in ("one", "two"):
        own = shared | {"data_dir": settings.data_dir / host}
        assert run_open_step(settings.model_copy(update=own), database, job_id) == "done"
    assert job_of(database, job_id).state == "succeeded"
    with database.read() as session:
        (artifact,) = list_artifacts(session, job_id)
    with serving(settings.model_copy(update=shared)) as http:
        assert http.get(f"/v1/artifacts/{artifact.id}/content").content == WEIGHTS
    assert not settings.blobs_dir.exists()


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to make a file longer: as a full disk, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def put_much(ctx: JobContext) -> StepResult:
    """The database still fits on the disk, the step's file does not."""
    with files_limited_to(100_000):
        open_store(ctx.settings).put_bytes(WEIGHTS)
    return StepResult(result={})


def put_little_room(ctx: JobContext) -> StepResult:
    ctx.check_room(2**62)
    return StepResult(result={})


def find_bucket_gone(_: JobContext) -> StepResult:
    raise StoreUnavailable("there is no bucket 'snugnet'")


@pytest.mark.parametrize(
    ("trouble", "outcome", "told"),
    [
        (put_much, "put off: disk_full", "is full: File too large"),
        (put_little_room, "put off: disk_full", "is nearly full"),
        (find_bucket_gone, "put off: store_unavailable", "no bucket"),
    ],
)
def test_a_step_that_cannot_store_its_files_waits_and_is_not_lost(
    settings: Settings,
    database: Database,
    handle: Handle,
    trouble: Handler,
    outcome: str,
    told: str,
) -> None:
    handle("prepare", trouble)
    job_id = create_job(database)
    for _ in range(6):  # more often than a step may fail
        assert run_open_step(settings, database, job_id) == outcome
    (step,) = steps_of(database, job_id)
    assert (step.state, step.attempts) == ("ready", 0)
    (message,) = messages(database, job_id, "waiting")
    assert message.startswith("prepare waits: ")
    assert told in message
    assert [path for path in settings.blobs_dir.rglob("*") if path.is_file()] == []
    handle("prepare", lambda _: StepResult(result={}))
    assert run_open_step(settings, database, job_id) == "done"
    assert job_of(database, job_id).state == "succeeded"


def test_an_error_on_a_disk_that_is_nearly_full_is_not_the_steps_own(
    settings: Settings, database: Database, handle: Handle
) -> None:
    def fail(_: JobContext) -> StepResult:
        raise RuntimeError("a library that does not say why")

    handle("prepare", fail)
    job_id = create_job(database)
    crowded = settings.model_copy(update={"reserve_bytes": 2**62})
    assert run_open_step(crowded, database, job_id) == "put off: disk_full"
    (message,) = messages(database, job_id, "waiting")
    assert "are left on the disk" in message
    assert run_open_step(settings, database, job_id) == "to be tried again"


def test_a_step_that_is_put_off_comes_back_after_its_time(
    settings: Settings, database: Database, handle: Handle
) -> None:
    handle("prepare", find_bucket_gone)
    job_id = create_job(database)
    patient = settings.model_copy(update={"put_off_seconds": 3600.0})
    assert run_open_step(patient, database, job_id) == "put off: store_unavailable"
    assert run_open_step(patient, database, job_id) == "nothing to do"
