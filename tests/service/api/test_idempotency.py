"""A request that is sent again takes effect once, and is answered as the first time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from service.api.idempotency import (
    AlreadyAnswered,
    InFlight,
    Mismatch,
    Reservation,
    keep_answer,
    release,
    reserve,
)
from service.artifacts.gc import collect
from service.client import Client
from service.database.db import Database, epoch_now
from service.database.models import IdempotencyKey, Job
from service.settings import Settings
from service.store.filesystem import FilesystemStore
from tests.service.serving import listening, upload_both

KEY = {"Idempotency-Key": "only-once"}
NUM_AT_ONCE = 200


def num_jobs(database: Database) -> int:
    with database.read() as session:
        return session.execute(select(func.count(Job.id))).scalar_one()


@pytest.fixture
def spec(client: Client, tmp_path: Path) -> dict[str, Any]:
    return upload_both(client, tmp_path)


def test_the_second_time_gives_the_first_answer(
    http: TestClient, database: Database, spec: dict[str, Any]
) -> None:
    first, second = (http.post("/v1/search-jobs", json=spec, headers=KEY) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert num_jobs(database) == 1


def test_the_key_belongs_to_its_body_and_route(http: TestClient, spec: dict[str, Any]) -> None:
    created = http.post("/v1/search-jobs", json=spec, headers=KEY).json()
    for path, body in (
        ("/v1/search-jobs", {**spec, "name": "other"}),
        (f"/v1/search-jobs/{created['id']}:cancel", None),
    ):
        answer = http.post(path, json=body, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
        assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


def test_a_request_that_was_refused_may_be_corrected(
    http: TestClient, database: Database, spec: dict[str, Any]
) -> None:
    wrong = http.post("/v1/search-jobs", json={**spec, "targets": []}, headers=KEY)
    unknown = {**spec, "model": {"upload": "up_unknown"}}
    refused = http.post("/v1/search-jobs", json=unknown, headers=KEY)
    assert (wrong.status_code, refused.status_code) == (422, 422)
    assert http.post("/v1/search-jobs", json=spec, headers=KEY).status_code == 201
    assert num_jobs(database) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_what_is_no_key_is_named(http: TestClient, spec: dict[str, Any], key: str) -> None:
    answer = http.post("/v1/search-jobs", json=spec, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


def test_a_key_is_one_tenants_own(database: Database) -> None:
    reserve(database, "k", "sha")
    reserve(database.for_tenant("ten_other"), "k", "another sha")


def test_only_one_is_at_it_until_its_lease_runs_out(database: Database) -> None:
    first = reserve(database, "k", "sha")
    with pytest.raises(InFlight):
        reserve(database, "k", "sha")
    with pytest.raises(Mismatch):
        reserve(database, "k", "another sha")
    with database.write() as session:
        session.execute(update(IdempotencyKey).values(lease_until=epoch_now() - 1))
    second = reserve(database, "k", "sha")
    with pytest.raises(InFlight), database.write() as session:
        keep_answer(session, first, 201, "{}")
    with database.write() as session:
        keep_answer(session, second, 201, '{"id": 1}')
    release(database, second)  # after an answer nothing is given back
    with pytest.raises(AlreadyAnswered) as answered:
        reserve(database, "k", "sha")
    assert (answered.value.status, answered.value.body) == (201, '{"id": 1}')


def test_who_takes_longer_than_the_lease_is_done_if_nobody_else_began(database: Database) -> None:
    slow = reserve(database, "a", "hash")
    with database.write() as session:
        session.execute(update(IdempotencyKey).values(lease_until=epoch_now() - 1))
    with database.write() as session:
        keep_answer(session, slow, 201, "made")
    with pytest.raises(AlreadyAnswered) as found:
        reserve(database, "a", "hash")
    assert (found.value.status, found.value.body) == (201, "made")


def test_an_effect_that_was_rolled_back_keeps_no_answer(database: Database) -> None:
    mine = reserve(database, "k", "sha")
    with database.write() as session:
        keep_answer(session, mine, 201, "{}")
        session.rollback()
    release(database, mine)
    assert isinstance(reserve(database, "k", "sha"), Reservation)


def test_keys_are_forgotten_after_a_day(
    database: Database, store: FilesystemStore, settings: Settings
) -> None:
    for key in ("old", "new"):
        reserve(database, key, "sha")
    with database.write() as session:
        day_ago = epoch_now() - 25 * 3600
        query = update(IdempotencyKey).where(IdempotencyKey.key == "old")
        session.execute(query.values(created_at=day_ago))
    report = collect(database, store, settings)
    assert report.classes["idempotency keys"].num == 1
    with pytest.raises(InFlight):
        reserve(database, "new", "sha")


def test_many_at_once_make_one_job(settings: Settings, database: Database, tmp_path: Path) -> None:
    fast = settings.model_copy(update={"calls_per_second": 0})
    with listening(fast) as (url, key):
        with Client(url, key) as client:
            spec = upload_both(client, tmp_path)
        headers = {**KEY, "Authorization": f"Bearer {key}"}
        together = threading.Barrier(16)
        answers: list[httpx.Response] = []

        def send(i: int) -> None:
            if i < together.parties:
                together.wait()
            answers.append(httpx.post(f"{url}/v1/search-jobs", json=spec, headers=headers))

        with ThreadPoolExecutor(together.parties) as pool:
            list(pool.map(send, range(NUM_AT_ONCE)))
    assert num_jobs(database) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.json()["id"] for answer in made}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in made) == 1
    busy = [answer for answer in answers if answer.status_code == 409]
    assert all(answer.json()["code"] == "idempotency_in_flight" for answer in busy)
    assert all(answer.headers["Retry-After"] == "1" for answer in busy)
