"""What a report of a real job says, at every moment of a job's life."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from search.space import SubnetConfig
from service.jobs import lifecycle
from service.jobs.job_spec import JobSpec
from service.reports.html import render_html
from service.reports.record import SEARCH
from service.reports.schema import JobReport
from service.reports.words import in_words
from tests.service.reports.conftest import report_of
from tests.service.reports.pages import Page
from tests.workers.steps.conftest import OpenWorkshop, WholeJob, submitted
from tests.workers.steps.test_targets import Doctored, run_on


def test_it_is_the_same_after_a_trip_through_json(report: JobReport) -> None:
    assert JobReport.model_validate_json(report.model_dump_json()) == report


def test_every_evaluated_network_is_a_point_of_the_front(
    whole_job: WholeJob, report: JobReport
) -> None:
    chart = report.chart("front")
    assert chart is not None
    drawn = [
        name
        for series in chart.series
        if series.mark == "points" and series.role not in ("winner", "unsearched")
        for name in series.names
        if name != "unsearched, int8"
    ]
    evaluations = whole_job.workshop.evaluations(whole_job.job.id)
    assert sorted(drawn) == sorted(e.fingerprint for e in evaluations)


def test_points_over_the_budget_are_told_from_those_within(
    whole_job: WholeJob, report: JobReport
) -> None:
    within = {
        e.fingerprint: e.metrics["within_bounds"]
        for e in whole_job.workshop.evaluations(whole_job.job.id, SEARCH)
    }
    chart = report.chart("front")
    assert chart is not None
    for series in chart.series:
        if series.mark == "points" and series.role in ("search", "infeasible"):
            told = {within[name][0] for name in series.names}
            assert told == {series.role == "search"}


def test_winners_stand_where_they_were_predicted_and_where_they_were_measured(
    whole_job: WholeJob, report: JobReport
) -> None:
    chart = report.chart("front")
    assert chart is not None
    (links,) = [series for series in chart.series if series.mark == "links"]
    result = whole_job.job.result
    assert result is not None
    targets = result["targets"]
    assert links.x == pytest.approx([t["predicted_ms"] for t in targets], rel=1e-5)
    assert links.x_to == pytest.approx([t["p50_ms"] for t in targets], rel=1e-5)
    assert links.y_to == pytest.approx([t["quality"] for t in targets], rel=1e-5)
    budgets = [guide.value for guide in chart.guides if guide.axis == "x"]
    assert budgets == pytest.approx([t["budget_ms"] for t in targets], rel=1e-5)


def test_the_hypervolume_ends_where_the_job_says(whole_job: WholeJob, report: JobReport) -> None:
    chart = report.chart("hypervolume")
    assert chart is not None
    result = whole_job.job.result
    assert result is not None
    by_role = {series.role: series for series in chart.series}
    told = result["search"]
    assert by_role["search"].y[-1] == pytest.approx(told["hypervolume"], rel=1e-4)
    for source, figures in told["baselines"].items():
        assert by_role[source].y[-1] == pytest.approx(figures["hypervolume"], rel=1e-4)
    for series in chart.series:
        assert series.y == sorted(series.y)


def test_the_supernets_convergence_is_drawn_beside_its_teacher(
    whole_job: WholeJob, report: JobReport
) -> None:
    chart = report.chart("convergence")
    assert chart is not None
    result = whole_job.job.result
    assert result is not None
    account = result["supernet"]["convergence"]
    largest = next(s for s in chart.series if s.role == "largest")
    assert largest.x == [point["step"] for point in account["points"]]
    assert largest.y == pytest.approx([p["largest"] for p in account["points"]], rel=1e-5)
    (teacher,) = chart.guides
    assert (teacher.axis, teacher.value) == ("y", pytest.approx(account["teacher"], rel=1e-5))


def test_waterfalls_lead_from_the_unsearched_model_to_the_exported_file(
    report: JobReport,
) -> None:
    for target in report.targets:
        chart = report.chart(f"waterfall-{target.index}-latency")
        assert chart is not None
        totals = next(series for series in chart.series if series.role == "total")
        assert totals.y[0] == pytest.approx(report.unsearched[0].p50_ms, rel=1e-5)
        assert totals.y[1] == pytest.approx(target.p50_ms, rel=1e-5)
        steps = sorted(
            (x, low, y)
            for series in chart.series
            if series.role != "total"
            for x, low, y in zip(series.x, series.low, series.y, strict=True)
        )
        # Every bar begins where the one before it ends.
        ends = [totals.y[0], *(y for _, _, y in steps)]
        assert [low for _, low, _ in steps] == ends[:-1]


def test_networks_are_drawn_beside_the_original(report: JobReport) -> None:
    for target in report.targets:
        assert target.architecture is not None
        assert target.subnet is not None
        subnet = SubnetConfig.from_dict(target.subnet)
        kept = [layer for layer in target.architecture.layers if layer.is_kept]
        assert tuple(layer.index for layer in kept) == subnet.layers
        assert tuple(layer.num_heads for layer in kept) == subnet.num_heads
        assert len(target.architecture.layers) == 3
        assert target.architecture.full_heads == 4


def test_the_job_it_tells_of_can_be_asked_for_again(
    whole_job: WholeJob, report: JobReport
) -> None:
    again = JobSpec.model_validate(yaml.safe_load(report.asked.spec_yaml))
    assert again.model_dump(mode="json") == whole_job.job.spec


def test_every_stage_of_a_finished_job_is_done_and_has_its_time(report: JobReport) -> None:
    assert {stage.state for stage in report.stages} == {"done"}
    assert all(stage.seconds is not None for stage in report.stages)
    assert report.headline.startswith("Both budgets are kept.")


def test_a_job_has_a_report_while_it_goes_on_and_after_it_was_cancelled(
    open_workshop: OpenWorkshop, files: dict[str, Any]
) -> None:
    with open_workshop(step_seconds=0.1) as workshop:
        job_id = workshop.submit(submitted(workshop, files))
        queued = report_of(workshop, job_id)
        assert queued.charts == []
        assert queued.headline == "The job waits for a worker."
        assert "there is nothing to draw" in Page(render_html(queued)).text
        workshop.run_until(job_id, "baseline")
        running = report_of(workshop, job_id)
        assert {"front", "hypervolume", "convergence"} == {chart.key for chart in running.charts}
        assert running.notes[0].startswith("The job goes on")
        assert [target.is_met for target in running.targets] == [None, None]
        assert all(target.budget_ms is not None for target in running.targets)
        states = {stage.stage: stage.state for stage in running.stages}
        assert (states["supernet"], states["search"], states["finish"]) == (
            "done",
            "running",
            "waiting",
        )
        with workshop.database.write() as session:
            lifecycle.request_cancel(session, job_id)
        cancelled = report_of(workshop, job_id)
        assert cancelled.headline.startswith("The job was cancelled")
        assert cancelled.charts == running.charts
        assert any("before its last stage" in note for note in cancelled.notes)
        assert Page(render_html(cancelled)).charts.keys() == {c.key for c in running.charts}


def test_a_job_whose_budget_nothing_can_keep_says_so(
    whole_job: WholeJob,
) -> None:
    spec = {**whole_job.spec, "targets": [{"budget_ms": 1e-5, "workload": {"seq_len": 32}}]}
    job = whole_job.workshop.run(whole_job.workshop.submit(spec))
    report = report_of(whole_job.workshop, job.id)
    assert report.state == "failed"
    assert job.reason_message is not None
    assert in_words(job.reason_message) in report.headline
    assert "targets[" in job.reason_message
    assert "targets[" not in report.headline
    assert report.charts == []
    assert any("Give a larger budget" in note for note in report.notes)
    assert [stage.state for stage in report.stages][1:3] == ["failed", "not reached"]
    assert report.targets[0].sentence == "Nothing was measured: the job ended before."
    page = Page(render_html(report))
    assert report.headline in page.text
    assert "unproven" in page.text


def test_a_missed_target_shows_what_came_closest(
    whole_job: WholeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, result = run_on(Doctored(whole_job, 5.0), whole_job, {"budget_ratio": 1.0}, monkeypatch)
    assert job.state == "failed"
    report = report_of(whole_job.workshop, job.id)
    (target,) = report.targets
    assert target.is_met is False
    assert target.sentence.startswith("Missed:")
    assert target.p50_ms == result["targets"][0].get("p50_ms")
    assert json.loads(report.model_dump_json())["targets"][0]["is_met"] is False
    assert target.sentence in Page(render_html(report)).text
