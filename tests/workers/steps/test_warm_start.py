"""A supernet that an earlier job trained, searched again for another workload and budget."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.database.models import Job
from service.steps.step_types import NewStep
from tests.workers.steps.conftest import WholeJob, quietly

TARGET = {"budget_ratio": 1.0, "workload": {"seq_len": 16}}


@pytest.fixture(scope="module")
def again(whole_job: WholeJob) -> Job:
    workshop = whole_job.workshop
    workshop.measure = quietly(workshop.measure_here)
    try:
        spec = {**whole_job.spec, "targets": [TARGET], "supernet_of": whole_job.job.id}
        return workshop.run(workshop.submit(spec))
    finally:
        workshop.measure = whole_job.device


def report_of(whole_job: WholeJob, job: Job) -> dict[str, Any]:
    (artifact,) = [a for a in whole_job.workshop.artifacts(job.id) if a.name == "report.json"]
    report: dict[str, Any] = json.loads(whole_job.workshop.store.path(artifact.sha256).read_text())
    return report


def test_nothing_is_trained_but_the_winner(whole_job: WholeJob, again: Job) -> None:
    assert again.state == "succeeded", again.reason_message
    kinds = {step.kind for step in whole_job.workshop.steps(again.id)}
    assert kinds >= {"prepare", "onboard", "search", "shortlist", "distill", "report"}
    assert kinds.isdisjoint({"teacher", "reorder", "supernet"})


def test_the_front_is_of_the_new_workload_and_the_old_supernet(
    whole_job: WholeJob, again: Job
) -> None:
    old, new = report_of(whole_job, whole_job.job), report_of(whole_job, again)
    assert [p["workload"]["seq_len"] for p in new["profiles"]] == [16]
    assert new["supernet"] == old["supernet"]
    assert new["data"] == old["data"]
    assert new["search"]["space"]["layer_order"] == old["search"]["space"]["layer_order"]
    assert new["targets"][0]["is_met"]


def test_networks_that_the_earlier_job_evaluated_keep_their_quality(
    whole_job: WholeJob, again: Job
) -> None:
    known = {e.fingerprint: e.metrics for e in whole_job.workshop.evaluations(whole_job.job.id)}
    shared = [e for e in whole_job.workshop.evaluations(again.id) if e.fingerprint in known]
    assert shared
    for evaluation in shared:
        assert evaluation.metrics["quality"] == known[evaluation.fingerprint]["quality"]
        assert evaluation.metrics["latency_ms"] != known[evaluation.fingerprint]["latency_ms"]


def test_what_the_earlier_job_knew_is_taken_over_once_and_never_proposed_again(
    whole_job: WholeJob, again: Job
) -> None:
    old = whole_job.workshop.evaluations(whole_job.job.id)
    new = whole_job.workshop.evaluations(again.id)
    earlier = {e.fingerprint: e for e in new if e.source == "earlier"}
    assert earlier.keys() == {e.fingerprint for e in old if e.genotype is not None}
    searched = {e.fingerprint for e in new if e.source == "search"}
    assert searched
    assert searched.isdisjoint(earlier)
    found = report_of(whole_job, again)["search"]
    assert found["known_before"] == len(earlier)
    assert found["evaluations"] == len(searched)
    assert "earlier" not in found["baselines"]


def test_a_search_that_begins_with_what_was_known_is_the_same_when_it_is_repeated(
    whole_job: WholeJob, again: Job
) -> None:
    workshop = whole_job.workshop
    first = next(step for step in workshop.steps(again.id) if step.kind == "search")
    job = workshop.submit(again.spec, NewStep(kind="search", input=first.input))
    workshop.run_until(job, "shortlist")

    def places(job_id: str) -> dict[tuple[str, int, int], str]:
        return {
            (e.source, e.generation, e.index_in_generation): e.fingerprint
            for e in workshop.evaluations(job_id)
        }

    assert places(job) == places(again.id)


def test_a_job_that_goes_on_is_not_asked_what_it_knows(whole_job: WholeJob, again: Job) -> None:
    workshop = whole_job.workshop
    spec = {**again.spec, "supernet_of": None}
    given = next(step for step in workshop.steps(again.id) if step.kind == "search").input
    going_on = workshop.submit(spec, NewStep(kind="search", input=given))
    workshop.run_until(going_on, "baseline")
    job = workshop.submit(
        {**again.spec, "supernet_of": going_on}, NewStep(kind="search", input=given)
    )
    workshop.run_until(job, "baseline")
    assert {e.source for e in workshop.evaluations(job)} == {"search"}
