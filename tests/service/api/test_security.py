"""What an attacker tries first, beside the routes' own tests."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import search
from service.database.models import ApiKey
from service.settings import Settings
from tests.service.serving import application, close, new_key, serving, signed_in

ROOT = Path(search.__file__).parents[1]
UNSAFE = re.compile(
    r"\b(?:pickle|marshal|shelve|dill)\.loads?\(|\btorch\.load\(|\bnp\.load\((?!.*allow_pickle=False)"
    r"|trust_remote_code\s*=\s*True|\byaml\.load\(|\beval\(|\bexec\(|shell=True"
)
ALLOWED = re.compile(r"\.eval\(")  # a model's mode


def test_nothing_that_can_run_code_reads_what_users_send() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for layer in ("search", "predictors", "service", "workers")
        for path in (ROOT / layer).rglob("*.py")
        if path.name != "card.py"  # it tells its reader what to run
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNSAFE.search(ALLOWED.sub("(", line))
    ]
    assert found == []


def test_wrong_keys_are_refused_ever_more_slowly_and_good_ones_let_in(http: TestClient) -> None:
    wrong = {"Authorization": "Bearer snug_guess_guess"}
    answers = [http.get("/v1/search-jobs", headers=wrong) for _ in range(120)]
    assert [answer.status_code for answer in answers[:100]] == [401] * 100
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert answers[-1].json()["code"] == "too_many_requests"
    assert http.get("/v1/search-jobs").status_code == 200


def test_a_key_may_ask_only_so_often(settings: Settings) -> None:
    slow = settings.model_copy(update={"calls_per_second": 1})
    with serving(slow) as http:
        codes = [http.get("/v1/search-jobs").status_code for _ in range(10)]
        assert codes[:2] == [200, 200]
        assert 429 in codes
        assert http.get("/healthz").status_code == 200


def test_no_key_reaches_the_log_the_database_or_an_answer(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = new_key(settings)
    secret = key.rsplit("_", 1)[1]
    with application(settings) as app:
        http = signed_in(app, key)
        answers = [
            http.get("/v1/api-keys"),
            http.post("/v1/search-jobs", json={"name": key}),
            http.get("/v1/search-jobs/job_0"),
            http.get("/v1/audit-log"),
        ]
        assert secret not in caplog.text
        assert all(secret not in answer.text for answer in answers)
        with app.state.parts.database.read() as session:
            stored = session.query(ApiKey).one()
            assert secret not in repr(vars(stored))
        close(app)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/artifacts/..%2F..%2Fetc%2Fpasswd/content",
        "/v1/blobs/..%2F..%2Fsnugnet.db",
        "/v1/search-jobs/%2e%2e%2fapi-keys",
        "/v1/uploads/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
    ],
)
def test_paths_lead_nowhere(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("field", ["state", "tenant_id", "result", "seed_", "__class__"])
def test_no_body_sets_what_is_not_offered(http: TestClient, field: str) -> None:
    answer = http.post("/v1/search-jobs", json={field: "x"})
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]


def test_methods_that_nothing_answers_are_refused(http: TestClient) -> None:
    for method in ("TRACE", "PUT", "PATCH"):
        answer = http.request(method, "/v1/search-jobs")
        assert answer.status_code == 405
        assert answer.json()["code"] == "method_not_allowed"
