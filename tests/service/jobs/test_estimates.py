"""What a job would come to, told by what earlier ones took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from service.client import Client
from service.database.db import Database
from service.database.models import Event, Job
from service.jobs.events import append_event
from service.steps.step_types import StepResult
from tests.service.helpers import claimed, job_of
from tests.service.helpers import finish as finish_step
from tests.service.serving import upload_both

SECONDS = {
    "prepare": 2.0,
    "onboard": 30.0,
    "teacher": 10.0,
    "supernet": 60.0,
    "search": 40.0,
    "finish": 20.0,
    "report": 5.0,
}


@pytest.fixture
def spec(client: Client, tmp_path: Path) -> dict[str, Any]:
    return upload_both(client, tmp_path)


def ended(client: Client, database: Database, spec: dict[str, Any]) -> str:
    """A job that succeeded, each of whose stages took its seconds."""
    job_id = client.submit(spec).id
    lease = claimed(database, job_id)
    with database.write() as session:
        for stage in SECONDS:
            append_event(session, job_id, "stage", stage, {"stage": stage})
    finish_step(database, lease, StepResult(result={}))
    at = 1000.0
    with database.write() as session:
        for stage, seconds in SECONDS.items():
            of_stage = Event.data["stage"].as_string() == stage
            query = update(Event).where(Event.job_id == job_id, Event.kind == "stage", of_stage)
            session.execute(query.values(at=at))
            at += seconds
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=at))
    return job_id


def dry_run(http: TestClient, spec: dict[str, Any]) -> dict[str, Any]:
    answer = http.post("/v1/search-jobs:dry-run", json=spec)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_without_an_earlier_job_no_time_is_claimed(
    http: TestClient, database: Database, spec: dict[str, Any]
) -> None:
    found = dry_run(http, spec)
    assert int(found["num_networks"]) > 1
    assert found["num_evaluations"] == 144
    assert [stage["seconds"] for stage in found["stages"]] == [None] * len(SECONDS)
    assert (found["total_seconds"], found["num_earlier_jobs"]) == (None, 0)
    assert found["targets"] == [{"device": "this-cpu", "budget_ms": None, "closest_ms": None}]
    with database.read() as session:
        assert session.execute(select(func.count(Job.id))).scalar_one() == 0


def test_times_are_those_of_earlier_jobs_scaled_by_the_work(
    http: TestClient, client: Client, database: Database, spec: dict[str, Any]
) -> None:
    ended(client, database, spec)
    same = dry_run(http, spec)
    assert {s["stage"]: s["seconds"] for s in same["stages"]} == pytest.approx(SECONDS)
    assert same["total_seconds"] == pytest.approx(sum(SECONDS.values()))
    twice = {**spec, "search": {"generations": 12}, "targets": spec["targets"] * 2}
    seconds = {s["stage"]: s["seconds"] for s in dry_run(http, twice)["stages"]}
    assert seconds["search"] == pytest.approx(2 * SECONDS["search"])
    assert seconds["finish"] == pytest.approx(2 * SECONDS["finish"])
    assert seconds["supernet"] == pytest.approx(SECONDS["supernet"])


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [
        ("supernet", 60.0 / 2 + 40.0 + 20.0 + 5.0),
        ("search", 40.0 / 2 + 20.0 + 5.0),
    ],
)
def test_a_running_job_tells_when_it_may_end(
    http: TestClient,
    client: Client,
    database: Database,
    spec: dict[str, Any],
    stage: str,
    seconds: float,
) -> None:
    job_id = client.submit(spec).id
    claimed(database, job_id)
    path = f"/v1/search-jobs/{job_id}"
    assert http.get(path).json()["estimated_finish"] is None
    ended(client, database, spec)
    half = {"stage": stage, "progress_done": 72.0, "progress_total": 144.0}
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(half))
    left = http.get(path).json()["estimated_finish"] - job_of(database, job_id).created_at
    assert left == pytest.approx(seconds, abs=15.0)


def test_what_could_not_be_submitted_is_told(http: TestClient, spec: dict[str, Any]) -> None:
    wrong = {**spec, "targets": [{"device": "nowhere", "budget_ms": 1.0}]}
    answer = http.post("/v1/search-jobs:dry-run", json=wrong)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "targets[0].device"
