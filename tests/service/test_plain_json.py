"""What JSON may hold on its way in, on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.plain_json import MAX_DEPTH, fault_in
from service.schemas import Problem
from tests.service.measuring import IDENTITY

DEVICE = {"name": "cpu", "identity": IDENTITY}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        ({"a": ["b", "c\0"]}, ("a", 1), "holds a NUL character"),
        ({"a": {"\0": 1}}, ("a",), "has a key that holds a NUL character"),
        (["\ud800"], (0,), "holds half of a surrogate pair"),
        ([{"a": float("nan")}], (0, "a"), "should be a finite number"),
        ([-float("inf")], (0,), "should be a finite number"),
        ([2**63], (0,), "should be an integer of at most 64 bits"),
        (nested(MAX_DEPTH + 1), (0,) * (MAX_DEPTH + 1), "is nested deeper than 64 levels"),
    ],
)  # fmt: skip
def test_the_place_is_named_that_cannot_be_kept(
    value: Any, place: tuple[str | int, ...], reason: str
) -> None:
    assert fault_in(value) == (place, reason)


def test_all_else_passes() -> None:
    value = [{"ключ": "ж\U0001f600\n"}, 2**63 - 1, -1.5, None, True, nested(MAX_DEPTH - 1)]
    assert fault_in(value) is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('"\\u0000"', "identity.cpu_model"),
        ('"\\ud800"', "identity.cpu_model"),
        ("1e999", "identity.cpu_model"),
        (f"{'9' * 400}", "identity.cpu_model"),
        ('{"\\u0000": 1}', "identity.cpu_model"),
    ],
)
def test_a_body_that_cannot_be_kept_is_refused_by_field(
    http: TestClient, text: str, field: str
) -> None:
    body = json.dumps(DEVICE).replace(f'"{IDENTITY["cpu_model"]}"', text)
    answer = http.post("/v1/devices", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    problem = Problem.model_validate_json(answer.content)
    assert [error.field for error in problem.errors] == [field]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/search-jobs/%00",
        "/v1/devices?cursor=%00",
        "/v1/search-jobs?label=a%3D%00",
        "/v1/onboardings?device=a%00",
    ],
)
def test_an_address_holds_no_nul(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_name_of_a_job_holds_no_nul(http: TestClient) -> None:
    answer = http.post("/v1/api-keys", json={"name": "a\0", "scopes": ["admin"]})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "name", "reason": "holds a NUL character"}]


@pytest.mark.parametrize("number", [2**31, 2**63, -1])
def test_a_number_beyond_every_event_and_claim_is_refused(http: TestClient, number: int) -> None:
    assert http.get(f"/v1/search-jobs/job_1/events?after={number}").status_code == 422
    renewal = http.post("/v1/measurement-jobs/mj_1/renew", json={"token": number})
    assert renewal.status_code == 422
