"""The page of one network."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient

from service.reports.html import chart_data
from service.reports.schema import JobReport
from service.reports.subnets import snippet_in
from service.web.formats import as_ms
from tests.service.reports.conftest import report_of
from tests.service.web.browsing import text_of
from tests.service.web.finished import (
    _one_thread,
    browser,
    files,
    open_workshop,
    page_of,
    report,
    stranger,
    whole_job,
)
from tests.workers.steps.conftest import WholeJob

__all__ = ["_one_thread", "browser", "files", "open_workshop", "report", "stranger", "whole_job"]


def path_of(report: JobReport, index: int = 0) -> str:
    return f"/jobs/{report.id}/subnets/{report.targets[index].fingerprint}"


def test_a_delivered_network_is_drawn_measured_and_explained(
    browser: TestClient, report: JobReport
) -> None:
    target = report.targets[0]
    page = page_of(browser, path_of(report))
    assert target.sentence in page.text
    assert {f"waterfall-0-{name}" for name in ("quality", "latency", "size")} < page.charts.keys()
    for key, drawn in page.charts.items():
        chart = report.chart(key)
        if chart is not None:
            assert drawn.data == chart_data(chart)
            assert drawn.rows == list(chart.rows())
    assert target.architecture is not None
    for layer in target.architecture.layers:
        words = f"{layer.num_heads} of 4" if layer.is_kept else "dropped"
        assert words in page.text


def test_the_latency_of_its_parts_is_the_whole(browser: TestClient, report: JobReport) -> None:
    page = page_of(browser, path_of(report))
    (bars,) = (s for s in page.charts["latency-parts"].data["series"] if s["mark"] == "bars")
    # As is predicted now: other jobs may have taught the predictor since.
    (told,) = re.findall(r"predicted on this-cpu, onnxruntime\s*([0-9.]+ ms)", page.text)
    assert told == as_ms(sum(bars["y"]))
    (whole,) = (s for s in page.charts["latency-parts"].data["series"] if s["mark"] == "points")
    assert sum(whole["y"]) > sum(bars["y"])


def test_every_file_has_its_hash_and_an_address(
    browser: TestClient, whole_job: WholeJob, report: JobReport
) -> None:
    page = page_of(browser, path_of(report))
    addresses = {address for _, address in page.addresses}
    own = [a for a in whole_job.workshop.artifacts(whole_job.job.id) if a.target_index == 0]
    assert own
    for artifact in own:
        assert artifact.sha256 in page.text
        assert f"/artifacts/{artifact.id}" in addresses


def test_the_program_that_runs_the_file_is_the_model_cards(
    browser: TestClient, whole_job: WholeJob, report: JobReport
) -> None:
    (card,) = (
        a
        for a in whole_job.workshop.artifacts(whole_job.job.id)
        if a.target_index == 0 and a.name == "README.md"
    )
    snippet = snippet_in(whole_job.workshop.store.path(card.sha256).read_text())
    assert snippet is not None
    assert "onnxruntime.InferenceSession(" in snippet
    compile(snippet, "snippet", "exec")
    assert " ".join(snippet.split()) in text_of(browser.get(path_of(report)).text)


def test_a_candidate_that_was_not_delivered_has_a_page_too(
    browser: TestClient, whole_job: WholeJob, report: JobReport
) -> None:
    delivered = {target.fingerprint for target in report.targets}
    candidate = next(
        e
        for e in whole_job.workshop.evaluations(whole_job.job.id, "search")
        if e.fingerprint not in delivered
    )
    page = page_of(browser, f"/jobs/{report.id}/subnets/{candidate.fingerprint}")
    assert "it was not delivered" in page.text
    assert list(page.charts) == ["latency-parts"]


def test_other_tenants_and_other_fingerprints_find_nothing(
    browser: TestClient, stranger: TestClient, report: JobReport
) -> None:
    assert stranger.get(path_of(report)).status_code == 404
    assert browser.get(f"/jobs/{report.id}/subnets/0123456789abcdef").status_code == 404


def test_a_network_of_two_targets_has_the_figures_of_each(
    browser: TestClient, whole_job: WholeJob
) -> None:
    target = whole_job.spec["targets"][0]
    spec = {**whole_job.spec, "supernet_of": whole_job.job.id, "targets": [target, target]}
    job = whole_job.workshop.run(whole_job.workshop.submit(spec))
    told = report_of(whole_job.workshop, job.id)
    (network,) = {target.fingerprint for target in told.targets}
    page = page_of(browser, f"/jobs/{job.id}/subnets/{network}")
    assert "Targets 0 and 1" in page.text
    for target in told.targets:
        assert f"For target {target.index}: {target.asked.sentence}" in page.text
        assert f"Target {target.index}: {target.sentence}" in page.text
    offered = text_of(browser.get("/compare").text)
    assert offered.count(f"network of targets 0 and 1 {network}") == 1
