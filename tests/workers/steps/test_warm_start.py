"""A supernet that an earlier job trained, searched again for another workload and budget."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.models import Job
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
