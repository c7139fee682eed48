"""Repetition: the same seed gives the same job, and so does a job whose every step was killed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import pytest

from service.database.models import ArtifactRow, Step
from service.steps import outbox, steps
from tests.service.helpers import let_leases_run_out
from tests.workers.steps.conftest import OpenWorkshop, WholeJob, submitted
from tests.workers.steps.in_process import Workshop, comparable
from workers.context import JobContext

# These name the job, or say when things happened.
TELLS_THE_JOB = {
    *("metrics.json", "README.md", "manifest.json", "manifest.sig", "report.json", "pareto.png")
}


class Killed(BaseException):
    """As if the process had died here: nobody catches it, nobody cleans up the row."""


class Killer:
    """Lets a step die in the middle of its writes, then just before its end, then after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deaths: Counter[str] = Counter()
        self._writes_left: int | None = None
        for name in ("put_blob", "record_evaluation", "event", "save_predictor"):
            self._let_die(monkeypatch, JobContext, name)
        self._finish = steps.finish
        self._publish = outbox.publish
        self._at: str | None = None
        monkeypatch.setattr(steps, "finish", self._die_instead_of_finishing)
        monkeypatch.setattr(outbox, "publish", self._die_before_publishing)

    def run(self, workshop: Workshop, step: Step) -> None:
        for self._writes_left, self._at in ((2, "finish"), (None, "finish"), (None, "publish")):
            try:
                workshop.run_step(step)
            except Killed:
                let_leases_run_out(workshop.database)
        self._at = None

    def _let_die(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        original = getattr(owner, name)

        def write(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if self._writes_left is not None:
                self._writes_left -= 1
                if self._writes_left == 0:
                    self._die("write")
            return result

        monkeypatch.setattr(owner, name, write)

    def _die(self, place: str) -> NoReturn:
        self.deaths[place] += 1
        raise Killed

    def _die_instead_of_finishing(self, *args: Any, **kwargs: Any) -> None:
        if self._at == "finish":
            self._die("finish")
        self._finish(*args, **kwargs)

    def _die_before_publishing(self, *args: Any, **kwargs: Any) -> int:
        if self._at == "publish":
            self._die("publish")
        return self._publish(*args, **kwargs)


def content(artifacts: list[ArtifactRow]) -> dict[tuple[int | None, str], str]:
    return {
        (a.target_index, a.name): a.sha256 if a.name not in TELLS_THE_JOB else ""
        for a in artifacts
    }


def test_the_same_seed_gives_the_same_job_however_it_is_sliced(
    whole_job: WholeJob, open_workshop: OpenWorkshop, files: dict[str, list[Path]]
) -> None:
    with open_workshop(whole_job.device) as workshop:
        job = workshop.run(workshop.submit(submitted(workshop, files)))
        assert job.state == "succeeded"
        assert len(workshop.steps(job.id)) < len(whole_job.workshop.steps(whole_job.job.id))
        assert comparable(workshop.evaluations(job.id)) == comparable(
            whole_job.workshop.evaluations(whole_job.job.id)
        )
        assert content(workshop.artifacts(job.id)) == content(
            whole_job.workshop.artifacts(whole_job.job.id)
        )


def test_another_seed_gives_other_candidates(
    whole_job: WholeJob, open_workshop: OpenWorkshop, files: dict[str, list[Path]]
) -> None:
    with open_workshop() as workshop:
        workshop.measure = _measured_before(whole_job)
        job_id = workshop.submit(submitted(workshop, files, seed=6))
        workshop.run_until(job_id, "shortlist")
        assert [e.subnet for e in workshop.evaluations(job_id, "random")] != [
            e.subnet for e in whole_job.workshop.evaluations(whole_job.job.id, "random")
        ]


def test_a_job_whose_every_step_was_killed_is_the_same_job(
    whole_job: WholeJob,
    open_workshop: OpenWorkshop,
    files: dict[str, list[Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killer = Killer(monkeypatch)
    with open_workshop(whole_job.device) as workshop:
        job_id = workshop.submit(submitted(workshop, files))
        job = workshop.run(job_id, lambda step: killer.run(workshop, step))
        assert job.state == "succeeded", job.reason_message
        finished = workshop.steps(job_id)
        assert {step.attempts for step in finished} == {3}
        assert killer.deaths["publish"] == len(finished)
        # A measure of robustness writes nothing before its step's end.
        writing = [step for step in finished if step.kind != "robustness"]
        assert killer.deaths["write"] > len(writing) / 2
        assert killer.deaths["write"] + killer.deaths["finish"] == 2 * len(finished)
        evaluations = workshop.evaluations(job_id)
        places = Counter((e.source, e.generation, e.index_in_generation) for e in evaluations)
        assert set(places.values()) == {1}
        assert comparable(evaluations) == comparable(
            whole_job.workshop.evaluations(whole_job.job.id)
        )
        artifacts = workshop.artifacts(job_id)
        assert len({(a.target_index, a.name) for a in artifacts}) == len(artifacts)
        assert content(artifacts) == content(whole_job.workshop.artifacts(whole_job.job.id))
        events = workshop.events(job_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        told = [
            event.data["index_in_generation"] for event in events if event.kind == "evaluation"
        ]
        assert len(told) == len(evaluations)


def _measured_before(whole_job: WholeJob) -> Any:
    """Another seed asks for other networks: they are given the times of the known ones."""

    def measure(spec: Any) -> dict[str, Any]:
        (known,) = list(whole_job.device.results.values())[:1]
        times = known["measurements"]
        measurements = []
        for place, network in enumerate(spec.networks):
            like = times[place % len(times)]
            measurements.append({**like, "key": network.key, "subnet": network.subnet.to_dict()})
        return {**known, "measurements": measurements}

    return measure
