"""A job that is paused, or cancelled and tried again, in the middle of every step is the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.database.models import Job, Step
from service.jobs import lifecycle
from tests.service.helpers import job_of
from tests.workers.steps.conftest import OpenWorkshop, WholeJob, submitted
from tests.workers.steps.in_process import Workshop, comparable
from tests.workers.steps.test_repeat import content
from tests.workers.waiting import wait_until
from workers.context import JobContext

pytestmark = pytest.mark.chaos

Ask = Callable[[Session, str], Job | None]
WRITES = ("put_blob", "record_evaluation", "event", "save_predictor", "progress")


class Stopper:
    """Stops a job before each of its steps, and again after the first thing that the step writes;
    then lets it go on."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, workshop: Workshop, stop: Ask, go_on: Ask, rest: str
    ) -> None:
        self._workshop = workshop
        self._stop, self._go_on, self._rest = stop, go_on, rest
        self._is_armed = False
        self._seen: set[str] = set()
        self.stopped: Counter[str] = Counter()
        for name in WRITES:
            self._watch(monkeypatch, name)

    def run(self, step: Step) -> None:
        if step.id in self._seen:  # it goes on after its stop
            self._workshop.run_step(step)
            return
        self._seen.add(step.id)
        self._ask(self._stop, step.job_id)
        assert self._state(step.job_id) == self._rest
        assert self._workshop.run_step(step) == "nothing to do"
        self._ask(self._go_on, step.job_id)
        self._is_armed = True
        self._workshop.run_step(step)
        self._is_armed = False
        if self._state(step.job_id) == self._rest:
            self.stopped[step.kind] += 1
            self._assert_at_rest(step.job_id)
            self._ask(self._go_on, step.job_id)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(JobContext, name)

        def write(context: JobContext, *args: Any, **kwargs: Any) -> Any:
            result = original(context, *args, **kwargs)
            if self._is_armed:
                self._is_armed = False
                self._ask(self._stop, context.job_id)
                wait_until(context.should_abort)  # the heartbeat has heard of it
            return result

        monkeypatch.setattr(JobContext, name, write)

    def _ask(self, ask: Ask, job_id: str) -> None:
        with self._workshop.database.write() as session:
            ask(session, job_id)

    def _state(self, job_id: str) -> str:
        return job_of(self._workshop.database, job_id).state

    def _assert_at_rest(self, job_id: str) -> None:
        states = {step.state for step in self._workshop.steps(job_id)}
        assert "running" not in states
        if self._rest == "cancelled":
            assert not states & {"ready", "waiting"}


@pytest.mark.parametrize(
    ("stop", "go_on", "rest"),
    [
        (lifecycle.request_pause, lifecycle.resume, "paused"),
        (lifecycle.request_cancel, lifecycle.retry, "cancelled"),
    ],
    ids=["paused and resumed", "cancelled and retried"],
)
def test_a_job_stopped_in_every_step_is_the_same_job(
    whole_job: WholeJob,
    open_workshop: OpenWorkshop,
    files: dict[str, list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    stop: Ask,
    go_on: Ask,
    rest: str,
) -> None:
    with open_workshop(whole_job.device, heartbeat_seconds=0.02) as workshop:
        stopper = Stopper(monkeypatch, workshop, stop, go_on, rest)
        started = time.monotonic()
        job = workshop.run(workshop.submit(submitted(workshop, files)), stopper.run)
        assert job.state == "succeeded", job.reason_message
        print(
            f"\n{rest} before each of {len(workshop.steps(job.id))} steps and amid "
            f"{stopper.stopped.total()}, in {time.monotonic() - started:.0f} s: {stopper.stopped}"
        )
        kinds = {step.kind for step in workshop.steps(job.id)}
        assert len(stopper.stopped) > len(kinds) / 2
        assert comparable(workshop.evaluations(job.id)) == comparable(
            whole_job.workshop.evaluations(whole_job.job.id)
        )
        assert content(workshop.artifacts(job.id)) == content(
            whole_job.workshop.artifacts(whole_job.job.id)
        )
        events = workshop.events(job.id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
