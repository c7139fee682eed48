from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from search.model.checkpoint import check_model_folder
from search.space import SearchSpace
from service.client import Client, Conflict, NotFound, Rejected
from service.database.db import Database
from service.jobs.events import append_event
from service.schemas import JobState
from service.steps import steps
from service.steps.queue import InMemoryQueue
from service.steps.step_types import NewStep, StepResult
from tests.service.helpers import claimed, create_job, steps_of
from tests.service.serving import app_of, upload_both


@pytest.fixture
def spec(client: Client, tmp_path: Path) -> dict[str, Any]:
    return upload_both(client, tmp_path)


def succeed(database: Database, job_id: str, result: dict[str, Any]) -> None:
    lease = claimed(database, job_id)
    with database.write() as session:
        steps.finish(session, lease, StepResult(result=result))


def test_a_submitted_job_is_queued_and_its_worker_woken(
    client: Client, http: TestClient, database: Database, spec: dict[str, Any]
) -> None:
    job = client.submit({**spec, "name": "reviews", "seed": 7})
    assert job.state is JobState.QUEUED
    assert (job.name, job.seed) == ("reviews", 7)
    assert job.spec["search"]["population"] == 24
    assert [found.id for found in client.jobs()] == [job.id]
    (step,) = steps_of(database, job.id)
    queue = app_of(http).state.parts.queue
    assert isinstance(queue, InMemoryQueue)
    for _ in range(200):
        if step.id in queue.step_ids:
            break
        threading.Event().wait(0.02)
    assert step.id in queue.step_ids


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"model": {"upload": "up_none"}}, "model.upload", "there is no upload 'up_none'"),
        ({"data": {"upload": "up_none"}}, "data.upload", "there is no upload"),
        (
            {"targets": [{"budget_ms": 1, "device": "pi"}]},
            "targets[0].device",
            "there is no device 'pi'; known devices: 'this-cpu'",
        ),
        (
            {"targets": [{"budget_ms": 1, "workload": {"runtime": "tensorrt", "seq_len": 16}}]},
            "targets[0].workload.runtime",
            "'tensorrt' is not one of ('onnxruntime', 'openvino', 'torch')",
        ),
        ({"targets": [{"budget_ms": 0}]}, "targets[0].budget_ms", "greater than 0"),
        (
            {"targets": [{"budget_ms": 1, "workload": {"seq_len": 33}}]},
            "targets[0].workload.seq_len",
            "at most 32",
        ),
        ({"training": {"max_seq_len": 64}}, "training.max_seq_len", "at most 32"),
        ({"space": {"num_layers": [1, 3]}}, "space.num_layers", "the model has 2, got 3"),
        ({"space": {"num_heads": [1, 4]}}, "space.num_heads", "the model has 2, got 4"),
        ({"space": {"ffn_dim": [32]}}, "space.ffn_dim", "the model has 16, got 32"),
        ({"trainings": {}}, "trainings", "did you mean training?"),
    ],
)
def test_a_job_that_cannot_run_is_refused_by_field(
    client: Client, spec: dict[str, Any], change: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(Rejected) as caught:
        client.submit({**spec, **change})
    assert caught.value.problem.errors[0].field == field
    assert reason in caught.value.problem.errors[0].reason
    assert client.jobs() == []


def test_uploads_must_be_of_the_right_kind_and_have_the_columns(
    client: Client, spec: dict[str, Any]
) -> None:
    swapped = {**spec, "model": spec["data"]}
    with pytest.raises(Rejected, match=r"model.upload: must be an upload of kind 'model'"):
        client.submit(swapped)
    with pytest.raises(Rejected, match=r"data.label: column 'stars' is missing"):
        client.submit({**spec, "data": {**spec["data"], "label": "stars"}})


def test_events_are_paged_in_order_and_end_with_the_job(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    job_id = client.submit(spec).id
    with database.write() as session:
        for number in range(5):
            append_event(session, job_id, "note", f"note {number}", {"n": number})
    page = client.events_page(job_id, limit=4)
    assert page.more
    assert [event.seq for event in page.items] == [1, 2, 3, 4]
    succeed(database, job_id, {"targets": []})
    messages = [event.message for event in client.events(job_id, after=4)]
    assert messages[:2] == ["note 3", "note 4"]
    assert client.wait(job_id, timeout_s=30).result == {"targets": []}


def test_a_waiting_reader_gets_an_event_when_it_happens(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    job_id = client.submit(spec).id
    after = client.events_page(job_id).items[-1].seq

    def happen() -> None:
        with database.write() as session:
            append_event(session, job_id, "note", "at last")

    timer = threading.Timer(0.3, happen)
    timer.start()
    page = client.events_page(job_id, after=after, wait_s=20)
    timer.join()
    assert [event.message for event in page.items] == ["at last"]


def test_waiting_without_news_ends_with_an_empty_page(
    client: Client, spec: dict[str, Any]
) -> None:
    job_id = client.submit(spec).id
    page = client.events_page(job_id, after=1000, wait_s=0.1)
    assert page.items == []
    assert page.job_state is JobState.QUEUED
    with pytest.raises(TimeoutError):
        client.wait(job_id, timeout_s=0.1)


def test_cancelling_twice_is_the_same_as_once(client: Client, spec: dict[str, Any]) -> None:
    job_id = client.submit(spec).id
    assert client.cancel(job_id).state is JobState.CANCELLED
    assert client.cancel(job_id).state is JobState.CANCELLED


def test_jobs_are_listed_by_state(client: Client, spec: dict[str, Any]) -> None:
    queued, cancelled, paused = (client.submit(spec).id for _ in range(3))
    client.cancel(cancelled)
    client.pause(paused)
    found = client.jobs(states=[JobState.CANCELLED, JobState.PAUSED])
    assert [(job.id, job.terminal) for job in found] == [(paused, False), (cancelled, True)]
    assert [job.id for job in client.jobs(states=[JobState.QUEUED])] == [queued]
    assert len(client.jobs()) == 3


def test_a_job_rests_and_goes_on(client: Client, spec: dict[str, Any]) -> None:
    job_id = client.submit(spec).id
    assert client.pause(job_id).state is JobState.PAUSED
    assert client.resume(job_id).state is JobState.QUEUED


def test_what_has_ended_neither_rests_nor_is_tried_again_unless_it_failed(
    client: Client, database: Database, spec: dict[str, Any]
) -> None:
    job_id = client.submit(spec).id
    succeed(database, job_id, {"targets": []})
    for call in (client.pause, client.resume, client.retry):
        with pytest.raises(Conflict, match="the job is succeeded"):
            call(job_id)
    other = client.submit(spec).id
    client.cancel(other)
    assert client.retry(other).state is JobState.QUEUED


def test_a_search_is_extended_by_a_job_of_its_own(
    client: Client, database: Database, spec: dict[str, Any], tmp_path: Path
) -> None:
    first = client.submit({**spec, "name": "reviews", "seed": 3}).id
    with pytest.raises(Conflict, match="only a search that has ended is extended"):
        client.extend(first, 2)
    lease = claimed(database, first)
    shape = check_model_folder(tmp_path / "model", num_labels=2).shape
    given = {"space": SearchSpace.for_shape(shape).to_dict()}
    with database.write() as session:
        steps.finish(session, lease, StepResult(next=NewStep(kind="search", input=given)))
    succeed(database, first, {"targets": []})
    job = client.extend(first, 2)
    assert (job.state, job.name, job.seed) == (JobState.QUEUED, "reviews", 3)
    assert job.spec["supernet_of"] == first
    assert job.spec["search"]["generations"] == 2
    assert {k: v for k, v in job.spec.items() if k not in ("supernet_of", "search")} == {
        k: v for k, v in client.job(first).spec.items() if k not in ("supernet_of", "search")
    }
    client.cancel(job.id)
    with pytest.raises(Rejected, match="has not trained its supernet"):
        client.extend(job.id, 1)


def test_a_job_that_has_ended_is_deleted(client: Client, spec: dict[str, Any]) -> None:
    job_id = client.submit(spec).id
    with pytest.raises(Conflict, match="cancel it before it is deleted"):
        client.delete(job_id)
    client.cancel(job_id)
    client.delete(job_id)
    with pytest.raises(NotFound):
        client.job(job_id)
    assert client.jobs() == []


def test_a_job_that_does_not_exist(client: Client) -> None:
    for call in (
        client.job,
        client.cancel,
        client.pause,
        client.resume,
        client.retry,
        client.delete,
        client.artifacts,
        client.evaluations,
    ):
        with pytest.raises(NotFound, match="there is no search job 'job_x'"):
            call("job_x")
    with pytest.raises(NotFound):
        client.events_page("job_x")


# --- changes, entity tags, labels --------------------------------------------------------------


def test_a_job_is_known_by_its_tag_until_it_changes(http: TestClient, database: Database) -> None:
    path = f"/v1/search-jobs/{create_job(database)}"
    first = http.get(path)
    etag = first.headers["ETag"]
    assert etag == f'"v{first.json()["version"]}"'
    known = http.get(path, headers={"If-None-Match": f'"v0", {etag}'})
    assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", etag)
    assert http.post(f"{path}:pause").status_code == 202
    assert http.get(path, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("verb", [":cancel", ":pause", ""])
def test_what_has_changed_is_not_changed_by_an_old_tag(
    http: TestClient, database: Database, verb: str
) -> None:
    path = f"/v1/search-jobs/{create_job(database)}"
    method, body = ("POST", None) if verb else ("PATCH", {"name": "new"})
    refused = http.request(method, path + verb, json=body, headers={"If-Match": '"v0"'})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    before = http.get(path)
    assert (before.json()["state"], before.json()["name"]) == ("queued", "job")
    headers = {"If-Match": before.headers["ETag"]}
    assert http.request(method, path + verb, json=body, headers=headers).is_success
    assert http.request(method, path + verb, json=body, headers=headers).status_code == 412


def test_a_job_gets_another_name_and_other_labels(http: TestClient, database: Database) -> None:
    path = f"/v1/search-jobs/{create_job(database, labels={'team': 'nlp'})}"
    named = http.patch(path, json={"name": "better"}).json()
    assert (named["name"], named["labels"]) == ("better", {"team": "nlp"})
    labelled = http.patch(path, json={"labels": {"run": "7"}}).json()
    assert (labelled["name"], labelled["labels"]) == ("better", {"run": "7"})
    wrong = http.patch(path, json={"labels": {"no spaces": "x"}, "state": "succeeded"})
    assert wrong.status_code == 422
    assert {error["field"] for error in wrong.json()["errors"]} >= {"state"}


def test_jobs_are_found_by_their_labels(http: TestClient, database: Database) -> None:
    first = create_job(database, labels={"team": "nlp", "run.id": "7"})
    second = create_job(database, labels={"team": "vision"})
    create_job(database)

    def found(*labels: str) -> list[str]:
        page = http.get("/v1/search-jobs", params={"label": list(labels)}).json()
        return [job["id"] for job in page["items"]]

    assert found("team=nlp") == [first]
    assert found("team") == [second, first]
    assert found("team=nlp", "run.id=7") == [first]
    assert found("team=nlp", "run.id=8") == []
    assert http.get("/v1/search-jobs", params={"label": "=x"}).status_code == 422


def test_labels_of_the_spec_are_the_jobs(client: Client, tmp_path: Path) -> None:
    spec = upload_both(client, tmp_path)
    assert client.submit({**spec, "labels": {"team": "nlp"}}).labels == {"team": "nlp"}
