from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.database.db import Database
from service.database.models import Job
from service.jobs import jobs
from service.jobs.job_states import conclude_job
from service.tenants.auth import JOBS_READ, create_key
from tests.service.web.browsing import signed_in, text_of
from tests.service.web.conftest import OTHER

SPEC = {
    "targets": [
        {"device": "this-cpu", "statistic": "p50", "budget_ms": 2.5, "budget_ratio": None},
        {"device": "pi-4", "statistic": "p95", "budget_ms": None, "budget_ratio": 0.125},
    ]
}
ROW = re.compile(r'<tr id="row-(\w+)">(.*?)</tr>', re.DOTALL)


def make(database: Database, name: str = "job", **values: Any) -> str:
    with database.write() as session:
        labels = values.pop("labels", None)
        job = jobs.create_job(session, SPEC, name=name, labels=labels)
        for column, value in values.items():
            setattr(job, column, value)
        session.flush()
        return job.id


def rows_of(html: str) -> dict[str, str]:
    """What a person reads of each job, by its id."""
    return {job_id: text_of(row) for job_id, row in ROW.findall(html)}


def test_a_newcomer_is_told_how_to_begin(browser: TestClient) -> None:
    page = browser.get("/jobs").text
    assert "No jobs yet" in page
    assert 'href="/jobs/new"' in page


def test_who_may_only_look_is_offered_no_new_job(http: TestClient, database: Database) -> None:
    with database.write() as session:
        key = create_key(session, "reader", scopes=[JOBS_READ])
    page = signed_in(http, key).get("/jobs").text
    assert 'href="/jobs/new"' not in page
    assert "jobs:write" in text_of(page)


def test_a_running_job_shows_its_stage_and_how_far_it_is(
    browser: TestClient, database: Database
) -> None:
    job_id = make(
        database,
        "reviews",
        state="running",
        stage="supernet",
        progress_done=1234.0,
        progress_total=9000.0,
        progress_unit="steps",
        labels={"team": "search"},
    )
    page = browser.get("/jobs").text
    row = rows_of(page)[job_id]
    for told in ("reviews", "running", "training the supernet", "1,234 of 9,000 steps"):
        assert told in row
    assert "4 of 7" in row
    assert "team=search" in row
    assert "open at most 2.50 ms p50 on this-cpu" in row
    assert "open at most 12.5 % of the unsearched p95 on pi-4" in row
    assert f'href="/jobs/{job_id}"' in page


def test_each_target_says_whether_it_is_met(browser: TestClient, database: Database) -> None:
    job_id = make(database)
    found = [
        {"is_met": True, "budget_ms": 2.5, "p50_ms": 1.75, "p95_ms": 9.0},
        {"is_met": False, "budget_ms": 1.0, "p50_ms": 0.5, "p95_ms": 1.25},
    ]
    with database.write() as session:
        conclude_job(session, job_id, "succeeded", result={"targets": found})
    row = rows_of(browser.get("/jobs").text)[job_id]
    assert "met 1.75 ms of 2.50 ms p50 on this-cpu" in row
    assert "missed 1.25 ms of 1.00 ms p95 on pi-4" in row


def test_a_job_that_failed_says_why_and_for_which_targets(
    browser: TestClient, database: Database
) -> None:
    job_id, other_id = make(database), make(database)
    with database.write() as session:
        told = "targets[1]: 0.1 ms asked, closest 0.4 ms"
        data = {"targets": [1]}
        conclude_job(session, job_id, "failed", code="budget_unreachable", message=told, data=data)
        conclude_job(session, other_id, "failed", code="poison_step", message="it broke")
    rows = rows_of(browser.get("/jobs").text)
    assert "target 1: 0.1 ms asked, closest 0.4 ms" in rows[job_id]
    assert "met at most 2.50 ms" in rows[job_id]
    assert "missed at most 12.5 %" in rows[job_id]
    assert "it broke" in rows[other_id]
    assert rows[other_id].count("undecided") == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"a", "b_c", "d"}),
        ("state=active", {"a", "b_c"}),
        ("state=succeeded", {"d"}),
        ("name=B_", {"b_c"}),
        ("name=%25", set()),
        ("label=team", {"a", "d"}),
        ("label=team%3Dx", {"a"}),
        ("state=running&label=team", {"a"}),
        ("state=nonsense", set()),
    ],
)
def test_filters_narrow_the_list(
    browser: TestClient, database: Database, query: str, expected: set[str]
) -> None:
    ids = {
        make(database, "a", state="running", labels={"team": "x"}): "a",
        make(database, "b_c", state="paused"): "b_c",
        make(database, "d", state="succeeded", labels={"team": "y"}): "d",
    }
    page = browser.get(f"/jobs?{query}")
    assert page.status_code == 200
    assert {ids[job_id] for job_id in rows_of(page.text)} == expected


def test_a_wrong_filter_is_told_beside_its_field_and_kept(browser: TestClient) -> None:
    page = browser.get("/jobs?label=%21&name=kept")
    assert page.status_code == 422
    assert "Label must be key=value" in text_of(page.text)
    assert 'value="!"' in page.text
    assert 'value="kept"' in page.text
    assert browser.get("/jobs?cursor=x").status_code == 422


def test_pages_show_every_job_once(browser: TestClient, database: Database) -> None:
    made = [make(database, f"job {i}", labels={"n": "1"}) for i in range(60)]
    seen: list[str] = []
    address = "/jobs?label=n"
    for _ in range(5):
        page = browser.get(address).text
        seen += rows_of(page)
        older = re.search(r'href="(/jobs\?[^"]+)" rel="next"', page)
        if older is None:
            break
        address = unescape(older.group(1))
        make(database, "younger", labels={"n": "1"})
    assert seen == list(reversed(made))
    assert "Newest" in browser.get(address).text


def test_the_list_refreshes_itself_alone(browser: TestClient, database: Database) -> None:
    job_id = make(database)
    part = browser.get("/jobs?state=active", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    assert 'hx-get="/jobs?state=active"' in part
    assert set(rows_of(part)) == {job_id}


def test_names_are_text_and_never_markup(browser: TestClient, database: Database) -> None:
    make(database, "<img src=x onerror=alert(1)>", labels={"k": "\"'><b>"})
    page = browser.get("/jobs").text
    assert "<img" not in page
    assert "<b>" not in page


def test_nothing_of_another_tenant_is_listed(
    http: TestClient, browser: TestClient, database: Database, others_key: str
) -> None:
    theirs = database.for_tenant(OTHER)
    job_id = make(theirs, "secret project", labels={"theirs": "1"})
    for query in ("", "?state=active", "?name=secret", "?label=theirs"):
        assert "secret project" not in browser.get(f"/jobs{query}").text
    assert set(rows_of(signed_in(http, others_key).get("/jobs").text)) == {job_id}


def test_results_are_not_loaded_for_the_list(database: Database) -> None:
    job_id = make(database)
    with database.write() as session:
        conclude_job(session, job_id, "succeeded", result={"targets": [{"is_met": True}], "x": 1})
    with database.read() as session:
        (row,) = jobs.list_jobs(session, with_result=False)
        assert "result" not in vars(row)
        assert jobs.found_for_targets(session, [row.id]) == {job_id: [{"is_met": True}]}
        assert session.get_one(Job, job_id).name == "job"
