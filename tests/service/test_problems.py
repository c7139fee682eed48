"""Whatever goes wrong, the answer has one shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service.api.app import create_app
from service.database.db import Database
from service.schemas import Problem
from service.settings import Settings
from service.steps.queue import InMemoryQueue
from tests.service.serving import app_of, new_key, signed_in

JSON = {"Content-Type": "application/json"}


def check(answer: Any, status: int, code: str) -> Problem:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.content)
    assert (problem.status, problem.code) == (status, code)
    assert problem.request_id == answer.headers["x-request-id"]
    assert problem.title
    assert problem.detail
    return problem


def test_an_unknown_path_and_an_unknown_method(http: TestClient) -> None:
    check(http.get("/v1/nothing"), 404, "not_found")
    answer = http.delete("/v1/search-jobs")
    check(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    answer = http.put("/v1/search-jobs/job_1")
    assert answer.headers["allow"] == "GET, PATCH, DELETE"
    assert http.put("/v1/devices/dev_1:measure").headers["allow"] == "POST"


def test_a_path_with_a_slash_too_many_is_none(http: TestClient) -> None:
    check(http.post("/v1/search-jobs/", json={}), 404, "not_found")


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer ", "Bearer snug_wrong_key"])
def test_no_route_but_health_answers_without_a_key(http: TestClient, header: str) -> None:
    http.headers["Authorization"] = header
    answer = http.get("/v1/search-jobs")
    check(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    open_paths = {"/healthz", "/readyz", "/v1/server-info", "/v1/signing-keys"}
    for path, operations in app_of(http).openapi()["paths"].items():
        for method in operations:
            concrete = path.replace("{", "").replace("}", "")
            answer = http.request(method, concrete, content="{}", headers=JSON)
            expected = 200 if path in open_paths else 401
            assert answer.status_code == expected, (method, path)


def test_a_body_that_is_not_json(http: TestClient) -> None:
    check(http.post("/v1/search-jobs", content="{", headers=JSON), 422, "invalid_input")
    check(http.post("/v1/search-jobs", content=b"\xff", headers=JSON), 400, "bad_request")
    check(http.post("/v1/search-jobs", content="null", headers=JSON), 422, "invalid_input")


def test_every_wrong_field_is_named(http: TestClient) -> None:
    body = json.dumps({"targets": [{"budget_ms": float("nan")}], "seeds": 1})
    problem = check(http.post("/v1/search-jobs", content=body, headers=JSON), 422, "invalid_input")
    errors = {error.field: error.reason for error in problem.errors}
    assert errors["model"] == "is missing"
    assert "finite" in errors["targets[0].budget_ms"]
    assert errors["seeds"] == "unknown key; did you mean seed?"


def test_a_query_value_out_of_range(http: TestClient) -> None:
    problem = check(http.get("/v1/search-jobs?limit=0"), 422, "invalid_input")
    assert problem.errors[0].field == "limit"


def test_a_body_beyond_the_limit(http: TestClient) -> None:
    big = b"x" * (1024**2 + 1)
    check(http.post("/v1/search-jobs", content=big, headers=JSON), 413, "too_large")
    pieces = (big[:100_000] for _ in range(12))  # no Content-Length
    answer = http.post("/v1/search-jobs", content=pieces, headers=JSON)
    check(answer, 413, "too_large")


@pytest.fixture
def own(settings: Settings) -> Iterator[TestClient]:
    """Of an application that a test may give routes to."""
    with signed_in(create_app(settings, InMemoryQueue()), new_key(settings)) as own:
        yield own


def test_an_unexpected_error_says_nothing_of_its_cause(own: TestClient) -> None:
    def fail() -> None:
        raise RuntimeError("/secret/path")

    app_of(own).add_api_route("/fail", fail)
    answer = own.get("/fail")
    assert "secret" not in check(answer, 500, "internal_error").detail


def test_a_database_that_does_not_answer_is_worth_another_try(
    own: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "folder.db").mkdir()

    def look() -> None:
        with Database(f"sqlite:///{tmp_path / 'folder.db'}").read() as session:
            session.execute(text("SELECT 1"))

    app_of(own).add_api_route("/look", look)
    answer = own.get("/look")
    assert "folder" not in check(answer, 503, "database_unavailable").detail
    assert int(answer.headers["retry-after"]) > 0


def test_the_callers_request_id_is_kept_if_it_is_plain(http: TestClient) -> None:
    answer = http.get("/healthz", headers={"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    answer = http.get("/healthz", headers={"X-Request-ID": "a b" * 100})
    assert answer.headers["x-request-id"].startswith("req_")


def test_the_document_describes_problems(http: TestClient) -> None:
    document = app_of(http).openapi()
    assert "code" in document["components"]["schemas"]["Problem"]["properties"]
    responses = document["paths"]["/v1/search-jobs"]["post"]["responses"]
    assert "application/problem+json" in responses["422"]["content"]
