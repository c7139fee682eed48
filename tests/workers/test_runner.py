"""One step at a time, in this process: what a handler's end does to its job."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select, update

from search.errors import BudgetUnreachable, InvalidInput
from service.database.db import Database, epoch_now
from service.database.models import Job, Step
from service.jobs import events, lifecycle
from service.settings import Settings
from service.steps.queue import InMemoryQueue
from service.steps.step_types import NewArtifact, NewMeasurement, NewStep, StepFailed, StepResult
from service.store.filesystem import FilesystemStore
from service.tenants.tenants import create_tenant
from tests.service.helpers import (
    claimed,
    create_device,
    create_job,
    job_of,
    measurement_of,
    steps_of,
)
from workers import handlers, runner
from workers.context import JobContext
from workers.runner import StepRunner, sweep_scratch

Handler = Callable[[JobContext], StepResult]


class Bench:
    """A runner with its queue; `handle` says what the steps of a kind do."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: FilesystemStore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.queue = InMemoryQueue()
        self.database = database
        self.runner = StepRunner(settings, database=database, queue=self.queue, store=store)
        self._handlers: dict[str, Handler] = {}
        monkeypatch.setattr(runner, "load_handler", lambda kind, _: self._handlers[kind])

    def handle(self, kind: str, handler: Handler) -> None:
        self._handlers[kind] = handler

    def run_open_step(self, job_id: str) -> str:
        step = next(s for s in steps_of(self.database, job_id) if s.state in ("ready", "running"))
        return self.runner.run(step.id, "host:1:task")


@pytest.fixture
def bench(
    settings: Settings,
    database: Database,
    store: FilesystemStore,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    return Bench(settings, database, store, monkeypatch)


def test_a_step_leads_to_the_next_whose_wake_up_is_sent_at_once(bench: Bench) -> None:
    job_id = create_job(bench.database)
    bench.handle("prepare", lambda _: StepResult(next=NewStep(kind="teacher", input={"n": 1})))
    assert bench.run_open_step(job_id) == "done"
    teacher = steps_of(bench.database, job_id)[-1]
    assert (teacher.kind, teacher.input) == ("teacher", {"n": 1})
    assert bench.queue.step_ids[-1] == teacher.id


def test_a_duplicate_message_does_nothing(bench: Bench) -> None:
    job_id = create_job(bench.database)
    step_id = steps_of(bench.database, job_id)[0].id
    bench.handle("prepare", lambda _: StepResult(result={}))
    assert bench.runner.run(step_id, "a") == "done"
    assert bench.runner.run(step_id, "b") == "nothing to do"


def test_a_wake_up_serves_whose_turn_it_is_and_every_step_is_served(
    settings: Settings,
    everybody: Database,
    database: Database,
    store: FilesystemStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(settings, everybody, store, monkeypatch)
    with everybody.write() as session:
        other = everybody.for_tenant(create_tenant(session, "other").id)
    claimed(database, create_job(database))
    own_id, other_id = create_job(database), create_job(other)
    served: list[str] = []

    def handle(context: JobContext) -> StepResult:
        served.append(context.job_id)
        return StepResult(result={})

    bench.handle("prepare", handle)
    for job_id in (own_id, other_id):
        step_id = steps_of(everybody, job_id)[0].id
        assert bench.runner.run(step_id, "host:1:task") == "done"
    assert served == [other_id, own_id]


def test_a_step_may_wait_for_measurements(bench: Bench) -> None:
    device = create_device(bench.database)
    job_id = create_job(bench.database)
    measurement = NewMeasurement(device_id=device.id, spec={}, then=NewStep(kind="onboard"))
    bench.handle("prepare", lambda _: StepResult(next=measurement))
    bench.run_open_step(job_id)
    assert measurement_of(bench.database, job_id).state == "ready"
    assert job_of(bench.database, job_id).state == "running"


@pytest.mark.parametrize(
    ("error", "code", "data"),
    [
        (StepFailed("no_room", "disk is full", {"free": 1}), "no_room", {"free": 1}),
        (InvalidInput("data.label", "no such column"), "invalid_input", {"field": "data.label"}),
        (
            BudgetUnreachable("targets[0].budget_ms", 0.1, 0.7),
            "budget_unreachable",
            {"closest_ms": 0.7},
        ),
    ],
)
def test_an_error_of_the_domain_fails_the_job_without_a_retry(
    bench: Bench, error: Exception, code: str, data: dict[str, object]
) -> None:
    def handler(_: JobContext) -> StepResult:
        raise error

    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    bench.run_open_step(job_id)
    job = job_of(bench.database, job_id)
    assert (job.state, job.reason_code, job.reason_message) == ("failed", code, str(error))
    with bench.database.read() as session:
        last = events.list_events(session, job_id)[-1]
    assert data.items() <= last.data.items()


def test_any_other_error_is_tried_again(bench: Bench) -> None:
    attempts = []

    def handler(context: JobContext) -> StepResult:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise OSError("flaky disk")
        return StepResult(result={"ok": True})

    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    outcomes = [bench.run_open_step(job_id) for _ in range(3)]
    assert outcomes == ["to be tried again", "to be tried again", "done"]
    assert (attempts, job_of(bench.database, job_id).state) == ([1, 2, 3], "succeeded")


def test_a_step_that_always_raises_is_poison(bench: Bench) -> None:
    job_id = create_job(bench.database)
    bench.handle("prepare", lambda _: StepResult())  # neither next nor result: a ValueError
    while job_of(bench.database, job_id).state in ("queued", "running"):
        bench.run_open_step(job_id)
    assert job_of(bench.database, job_id).reason_code == "poison_step"


def test_output_that_is_not_json_is_an_error_of_the_step(bench: Bench) -> None:
    job_id = create_job(bench.database)
    bench.handle("prepare", lambda _: StepResult(output={"p": Path()}, result={}))
    assert bench.run_open_step(job_id) == "to be tried again"


def test_the_handler_sees_a_cancel_and_the_job_is_cancelled(bench: Bench) -> None:
    def handler(context: JobContext) -> StepResult:
        with bench.database.write() as session:
            lifecycle.request_cancel(session, context.job_id)
        while True:
            context.check_abort()

    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    assert bench.run_open_step(job_id) == "stopped: cancel"
    assert job_of(bench.database, job_id).state == "cancelled"


def test_the_handler_sees_a_pause_and_its_step_is_begun_again_when_the_job_goes_on(
    bench: Bench,
) -> None:
    def handler(context: JobContext) -> StepResult:
        attempts.append(context.attempt)
        if len(attempts) > 1:
            return StepResult(result={})
        with bench.database.write() as session:
            lifecycle.request_pause(session, context.job_id)
        while True:
            context.check_abort()

    attempts: list[int] = []
    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    assert bench.run_open_step(job_id) == "stopped: pause"
    assert job_of(bench.database, job_id).state == "paused"
    assert bench.run_open_step(job_id) == "nothing to do"
    with bench.database.write() as session:
        lifecycle.resume(session, job_id)
    assert bench.run_open_step(job_id) == "done"
    assert (attempts, job_of(bench.database, job_id).state) == ([1, 1], "succeeded")


def test_a_handler_that_lost_its_step_is_told_and_writes_nothing(bench: Bench) -> None:
    def handler(context: JobContext) -> StepResult:
        with bench.database.write() as session:
            session.execute(
                update(Step).values(token=Step.token + 1, lease_until=epoch_now() + 60)
            )
        while not context.should_abort():
            pass
        return StepResult(result={"by": "the zombie"})

    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    assert bench.run_open_step(job_id) == "lost"
    job = job_of(bench.database, job_id)
    assert (job.state, job.result) == ("running", None)


def test_a_shutdown_gives_the_step_back_and_takes_no_other(bench: Bench) -> None:
    def handler(context: JobContext) -> StepResult:
        bench.runner.shut_down()
        context.check_abort()
        raise AssertionError("not reached")

    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    assert bench.run_open_step(job_id) == "stopped: shutdown"
    (step,) = steps_of(bench.database, job_id)
    assert (step.state, step.attempts) == ("ready", 0)
    assert bench.run_open_step(job_id) == "shutting down"


def test_the_lease_outlives_itself_while_the_handler_works(
    bench: Bench, settings: Settings
) -> None:
    def handler(context: JobContext) -> StepResult:
        first = lease_until(context)
        while lease_until(context) == first:  # until the heartbeat has renewed it
            pass
        assert not context.should_abort()
        return StepResult(result={"first": first, "later": lease_until(context)})

    def lease_until(context: JobContext) -> float:
        with bench.database.read() as session:
            return session.get_one(Step, context.step_id).lease_until or 0.0

    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    assert bench.run_open_step(job_id) == "done"
    result = job_of(bench.database, job_id).result
    assert result is not None
    assert result["later"] >= result["first"] + settings.heartbeat_seconds / 2


def test_scratch_is_empty_for_each_step_and_gone_after_it(
    bench: Bench, settings: Settings
) -> None:
    folders = []

    def handler(context: JobContext) -> StepResult:
        assert list(context.scratch.iterdir()) == []
        (context.scratch / "big.bin").write_bytes(b"x")
        folders.append(context.scratch)
        sha256 = context.put_blob(context.scratch / "big.bin")
        artifact = NewArtifact(
            name="big.bin", sha256=sha256, size_bytes=1, media_type="application/octet-stream"
        )
        assert context.blob(sha256).read_bytes() == b"x"
        return StepResult(result={}, artifacts=[artifact])

    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    assert bench.run_open_step(job_id) == "done"
    assert not folders[0].exists()
    assert list(settings.scratch_dir.iterdir()) == []


def test_scratch_of_dead_processes_is_swept(settings: Settings) -> None:
    dead_pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(dead_pid, 0)
    for pid in (dead_pid, os.getpid()):
        (settings.scratch_dir / f"{pid}-search-x").mkdir(parents=True)
    sweep_scratch(settings.scratch_dir)
    assert [p.name for p in settings.scratch_dir.iterdir()] == [f"{os.getpid()}-search-x"]


def test_a_step_is_put_off_while_the_device_is_measured(
    settings: Settings,
    database: Database,
    store: FilesystemStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "QUIET_WAIT_SECONDS", 0.0)
    lock = tmp_path / "quiet.lock"
    quiet = settings.model_copy(update={"quiet_lock": lock})
    bench = Bench(quiet, database, store, monkeypatch)
    bench.handle("prepare", lambda _: StepResult(result={}))
    job_id = create_job(database)

    with lock.open("w") as agent:
        fcntl.flock(agent, fcntl.LOCK_EX)
        assert bench.run_open_step(job_id).startswith("put off")
        (step,) = steps_of(database, job_id)
        assert (step.state, step.attempts, bench.queue.step_ids) == ("ready", 0, [step.id])
    assert bench.run_open_step(job_id) == "done"


def test_an_unknown_kind_of_step_is_a_lookup_error() -> None:
    with pytest.raises(LookupError, match="juggle"):
        handlers.load_handler("juggle", {})


def test_handlers_can_be_overridden_by_path() -> None:
    path = "tests.workers.small_steps:second"
    assert handlers.load_handler("search", {"search": path}).__name__ == "second"


def test_the_stage_and_the_progress_show_on_the_job(bench: Bench) -> None:
    seen: list[tuple[str | None, float | None, float | None, str | None]] = []

    def look(context: JobContext) -> None:
        with bench.database.read() as session:
            job = session.execute(select(Job).where(Job.id == context.job_id)).scalar_one()
            seen.append((job.stage, job.progress_done, job.progress_total, job.progress_unit))

    def handler(context: JobContext) -> StepResult:
        for stage in ("teacher", "teacher", "supernet"):
            context.stage(stage)
            look(context)
            context.progress(10, 10, "batches")
            look(context)
        return StepResult(result={})

    job_id = create_job(bench.database)
    bench.handle("prepare", handler)
    bench.run_open_step(job_id)
    assert seen[0] == ("teacher", None, None, None)
    assert seen[1] == seen[2] == ("teacher", 10.0, 10.0, "batches")
    assert seen[4] == ("supernet", None, None, None)
    with bench.database.read() as session:
        stages = [e.message for e in events.list_events(session, job_id) if e.kind == "stage"]
    assert stages == ["teacher", "supernet"]
