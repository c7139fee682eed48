"""The page of a search: while it runs, when it has ended, and what can be asked of it."""

from __future__ import annotations

import csv
import io
import json
import random
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

from service.database.models import EvaluationRow
from service.jobs.events import append_event
from service.jobs.jobs import create_job
from service.reports.html import chart_data
from service.reports.schema import JobReport
from tests.service.helpers import job_of
from tests.service.reports.conftest import report_of
from tests.service.reports.pages import Page
from tests.service.web.browsing import post, text_of
from tests.service.web.finished import (
    _one_thread,
    browser,
    browsing,
    files,
    open_workshop,
    page_of,
    report,
    stranger,
    whole_job,
)
from tests.workers.steps.conftest import OpenWorkshop, WholeJob, submitted

__all__ = ["_one_thread", "browser", "files", "open_workshop", "report", "stranger", "whole_job"]


def path_of(whole_job: WholeJob) -> str:
    return f"/jobs/{whole_job.job.id}"


def test_the_page_has_every_chart_as_data_and_as_a_table(
    browser: TestClient, whole_job: WholeJob, report: JobReport
) -> None:
    page = page_of(browser, path_of(whole_job))
    shown = [chart for chart in report.charts if not chart.key.startswith("waterfall")]
    assert list(page.charts) == [chart.key for chart in shown]
    for chart in shown:
        assert page.charts[chart.key].data == chart_data(chart)
        assert page.charts[chart.key].rows == list(chart.rows())
    assert report.headline in page.text
    assert all(target.sentence in page.text for target in report.targets)


def test_a_finished_job_is_followed_no_more(browser: TestClient, whole_job: WholeJob) -> None:
    html = browser.get(path_of(whole_job)).text
    assert "data-stream" not in html
    assert f'action="{path_of(whole_job)}/extend"' in html
    assert f'action="{path_of(whole_job)}/cancel"' not in html


def test_its_events_come_after_the_last_one_that_was_seen(
    browser: TestClient, whole_job: WholeJob
) -> None:
    last = job_of(whole_job.workshop.database, whole_job.job.id).last_event_seq
    path = f"{path_of(whole_job)}/events"
    answer = browser.get(path, params={"after": 3}, headers={"Last-Event-ID": str(last - 2)})
    assert answer.headers["content-type"].startswith("text/event-stream")
    ids = [line.removeprefix("id: ") for line in answer.text.splitlines() if line[:3] == "id:"]
    assert ids == [str(last - 1), str(last)]
    assert "event: end" in answer.text
    every = browser.get(path).text
    assert every.count("\nid: ") + every.startswith("id: ") == last


def test_further_rows_of_a_table_have_pages_and_a_file(
    browser: TestClient, whole_job: WholeJob, report: JobReport
) -> None:
    chart = report.chart("front")
    assert chart is not None
    answer = browser.get(f"{path_of(whole_job)}/charts/front.csv")
    assert "attachment" in answer.headers["content-disposition"]
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header == chart.columns
    assert rows == list(chart.rows())
    text = text_of(browser.get(f"{path_of(whole_job)}/charts/front", params={"start": 5}).text)
    assert f"Rows 6 to {chart.num_rows} of {chart.num_rows}" in text
    assert browser.get(f"{path_of(whole_job)}/charts/none").status_code == 404


def test_the_report_is_a_button_away(
    browser: TestClient, whole_job: WholeJob, report: JobReport
) -> None:
    answer = browser.get(f"{path_of(whole_job)}/report.html")
    assert "attachment" in answer.headers["content-disposition"]
    assert Page(answer.text).loaded == []
    told = JobReport.model_validate_json(browser.get(f"{path_of(whole_job)}/report.json").text)
    assert told.charts == report.charts


def test_files_are_downloaded_by_who_may(browser: TestClient, whole_job: WholeJob) -> None:
    page = page_of(browser, path_of(whole_job))
    addresses = [address for _, address in page.addresses if address.startswith("/artifacts/")]
    names = {a.id: a.name for a in whole_job.workshop.artifacts(whole_job.job.id)}
    by_name = {names[address.rpartition("/")[2]]: address for address in addresses}
    answer = browser.get(by_name["report.json"])
    assert answer.headers["content-disposition"] == 'attachment; filename="report.json"'
    assert json.loads(answer.text)["task"] == "text-classification"


@pytest.mark.parametrize(
    "path",
    [
        *("", "/live", "/events", "/log?before=9", "/charts/front", "/charts/front.csv"),
        *("/report.html", "/report.json", "/job.json"),
    ],
)
def test_another_tenant_finds_no_such_job(
    stranger: TestClient, whole_job: WholeJob, path: str
) -> None:
    answer = stranger.get(path_of(whole_job) + path)
    assert answer.status_code == 404
    assert whole_job.job.name not in answer.text or not whole_job.job.name


@pytest.mark.parametrize("verb", ["cancel", "pause", "extend", "retarget", "delete"])
def test_another_tenant_can_ask_nothing_of_it(
    stranger: TestClient, whole_job: WholeJob, verb: str
) -> None:
    answer = post(stranger, f"{path_of(whole_job)}/{verb}", generations="2")
    assert answer.status_code == 404
    assert job_of(whole_job.workshop.database, whole_job.job.id).state == "succeeded"


def test_another_tenant_downloads_nothing(stranger: TestClient, whole_job: WholeJob) -> None:
    for artifact in whole_job.workshop.artifacts(whole_job.job.id):
        assert stranger.get(f"/artifacts/{artifact.id}").status_code == 404


def test_a_job_is_paused_resumed_and_cancelled_by_its_buttons(
    open_workshop: OpenWorkshop, files: dict[str, Any]
) -> None:
    with open_workshop(step_seconds=0.1) as workshop, browsing(workshop) as browser:
        job_id = workshop.submit(submitted(workshop, files))
        workshop.run_until(job_id, "teacher")
        html = browser.get(f"/jobs/{job_id}").text
        assert f'data-stream="/jobs/{job_id}/events"' in html
        assert f'data-after="{job_of(workshop.database, job_id).last_event_seq}"' in html
        for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
            assert f'action="/jobs/{job_id}/{verb}"' in browser.get(f"/jobs/{job_id}").text
            answer = post(browser, f"/jobs/{job_id}/{verb}")
            assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job_id}")
            assert job_of(workshop.database, job_id).state == state
            assert report_of(workshop, job_id).headline in page_of(browser, f"/jobs/{job_id}").text
        assert post(browser, f"/jobs/{job_id}/pause").status_code == 409
        assert post(browser, f"/jobs/{job_id}/delete").headers["location"] == "/jobs"
        assert browser.get(f"/jobs/{job_id}").status_code == 404


def test_a_button_pressed_on_another_site_does_nothing(
    browser: TestClient, whole_job: WholeJob
) -> None:
    path = f"{path_of(whole_job)}/delete"
    assert browser.post(path).status_code == 403
    answer = browser.post(path, headers={"Origin": "https://elsewhere.example"})
    assert answer.status_code == 403
    assert browser.get(path_of(whole_job)).status_code == 200


def test_a_search_is_extended_and_aimed_at_other_targets(
    browser: TestClient, whole_job: WholeJob
) -> None:
    database = whole_job.workshop.database
    answer = post(browser, f"{path_of(whole_job)}/extend", generations="3")
    assert answer.status_code == 303
    extended = job_of(database, answer.headers["location"].rpartition("/")[2])
    assert extended.spec["supernet_of"] == whole_job.job.id
    assert extended.spec["search"]["generations"] == 3
    given = {"runtime": "onnxruntime", "statistic": "p95", "seq_len": "32", "threads": "1"}
    answer = post(
        browser,
        f"{path_of(whole_job)}/retarget",
        name="others",
        device="this-cpu",
        budget="0.9",
        unit="budget_ratio",
        **given,
    )
    assert answer.status_code == 303, answer.text
    again = job_of(database, answer.headers["location"].rpartition("/")[2])
    assert again.name == "others"
    assert again.spec["supernet_of"] == whole_job.job.id
    (target,) = again.spec["targets"]
    assert (target["budget_ratio"], target["budget_ms"], target["statistic"]) == (0.9, None, "p95")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"budget": "soon"}, "budget_ms: should be a valid number"),
        ({"device": "none"}, "device: there is no device 'none'"),
        ({"threads": "0"}, "workload.threads: should be greater than or equal to 1"),
        ({"budget": ""}, "give at least one budget"),
    ],
)
def test_what_is_wrong_with_other_targets_is_told_beside_them(
    browser: TestClient, whole_job: WholeJob, given: dict[str, str], told: str
) -> None:
    fields = {
        **{"device": "this-cpu", "runtime": "onnxruntime", "statistic": "p50", "budget": "5"},
        **{"unit": "budget_ms", "seq_len": "32", "threads": "1", "name": ""},
        **given,
    }
    answer = post(browser, f"{path_of(whole_job)}/retarget", **fields)
    assert answer.status_code == 422
    assert told in text_of(answer.text)


def test_ten_thousand_candidates_travel_in_less_than_a_quarter_of_a_megabyte(
    browser: TestClient, whole_job: WholeJob
) -> None:
    rng = random.Random(0)
    (known, *_) = whole_job.workshop.evaluations(whole_job.job.id, "search")
    with whole_job.workshop.database.write() as session:
        job_id = create_job(session, whole_job.job.spec, name="many").id
        session.execute(
            insert(EvaluationRow),
            [
                {
                    "id": f"eval_many_{place}",
                    "job_id": job_id,
                    "source": "search",
                    "generation": place // 100,
                    "index_in_generation": place % 100,
                    "fingerprint": f"{rng.getrandbits(64):016x}",
                    "fidelity": known.fidelity,
                    "subnet": known.subnet,
                    "metrics": {
                        **known.metrics,
                        "quality": rng.random(),
                        "latencies_ms": [rng.random()],
                        "within_bounds": [rng.random() < 0.5],
                    },
                }
                for place in range(10_000)
            ],
        )
    with browser.stream("GET", f"/jobs/{job_id}", headers={"Accept-Encoding": "gzip"}) as answer:
        assert sum(map(len, answer.iter_raw())) < 250_000
    page = page_of(browser, f"/jobs/{job_id}")
    drawn = page.charts["front"].data["series"]
    assert sum(len(s["x"]) for s in drawn if s["mark"] == "points") == 10_000
    assert len(page.charts["front"].rows) == 200
    assert "the others" in page.text


def test_what_a_job_is_called_and_told_is_shown_and_never_run(
    browser: TestClient, whole_job: WholeJob
) -> None:
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    with whole_job.workshop.database.write() as session:
        job_id = create_job(session, whole_job.job.spec, name=nasty).id
        append_event(session, job_id, "stage", nasty, {}, level="warning")
    page = page_of(browser, f"/jobs/{job_id}")
    assert page.text.count(nasty) >= 2
