"""Events as a browser's EventSource gets them: in order, once each, also after a restart."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from service.client import Client
from service.database.db import Database
from service.jobs.events import append_event
from service.settings import Settings
from service.steps import steps
from service.steps.step_types import StepResult
from tests.service.helpers import claimed, create_job
from tests.service.serving import listening, upload_both


def sent(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Each message by its fields, the data as JSON; comments are left out."""
    message: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if not line and message:
            yield message
            message = {}
        elif name:
            message[name] = json.loads(value) if name == "data" else value


def end(database: Database, job_id: str) -> None:
    with database.write() as session:
        steps.finish(session, claimed(database, job_id), StepResult(result={}))


def stream_of(http: TestClient, job_id: str, **options: Any) -> list[dict[str, Any]]:
    answer = http.get(f"/v1/search-jobs/{job_id}/events/stream", **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return list(sent(iter(answer.text.splitlines())))


def test_a_stream_tells_every_event_and_then_the_end(
    client: Client, http: TestClient, database: Database, tmp_path: Path
) -> None:
    job_id = client.submit(upload_both(client, tmp_path)).id
    end(database, job_id)
    *events, last = stream_of(http, job_id)
    assert [int(event["id"]) for event in events] == [1, 2, 3]
    assert [event["data"]["data"]["state"] for event in events] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert last == {"event": "end", "data": {"state": "succeeded"}}


def test_who_comes_again_misses_nothing_and_gets_nothing_twice(
    http: TestClient, database: Database
) -> None:
    job_id = create_job(database)
    end(database, job_id)
    again = stream_of(http, job_id, headers={"Last-Event-ID": "2"}, params={"after": 1})
    assert [event.get("id") for event in again] == ["3", None]
    assert stream_of(http, job_id, params={"after": 3})[0]["event"] == "end"


def test_events_come_as_they_happen(settings: Settings, database: Database) -> None:
    job_id = create_job(database)
    timer = threading.Timer(0.3, lambda: end(database, job_id))
    with listening(settings) as (url, key), httpx.Client(timeout=20.0) as http:
        path = f"{url}/v1/search-jobs/{job_id}/events/stream"
        headers = {"Authorization": f"Bearer {key}"}
        with http.stream("GET", path, headers=headers) as answer:
            found = sent(answer.iter_lines())
            assert next(found)["data"]["data"] == {"state": "queued"}
            with database.write() as session:
                append_event(session, job_id, "note", "a line\nand another")
            assert next(found)["data"]["message"] == "a line\nand another"
            timer.start()
            assert [one.get("event") for one in found] == [None, None, "end"]
    timer.join()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/search-jobs/job_none/events/stream", {}, 404),
        ("/v1/search-jobs/{id}/events/stream", {"Last-Event-ID": "x"}, 422),
        ("/v1/search-jobs/{id}/events/stream", {"Authorization": ""}, 401),
        ("/v1/search-jobs/job_none/events/stream", {"Authorization": ""}, 401),
    ],
)
def test_what_cannot_be_streamed_is_a_problem(
    http: TestClient, database: Database, path: str, headers: dict[str, str], status: int
) -> None:
    answer = http.get(path.format(id=create_job(database)), headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
