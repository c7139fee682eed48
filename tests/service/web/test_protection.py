from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tests.service.web.browsing import ORIGIN, browser_of, csrf_of, sign_in, signed_in, text_of

EVERYWHERE = ["/", "/sign-in", "/jobs", "/nowhere", "/static/x/snugnet.css", "/jobs/job_0"]


@pytest.mark.parametrize("path", EVERYWHERE)
def test_every_answer_to_a_browser_is_protected(http: TestClient, path: str) -> None:
    headers = signed_in(http).get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"


def test_pages_are_not_kept_and_the_api_answers_as_before(http: TestClient) -> None:
    assert signed_in(http).get("/jobs").headers["cache-control"] == "no-store"
    answer = http.get("/v1/search-jobs")
    assert "content-security-policy" not in answer.headers
    assert answer.headers["content-type"] == "application/json"


def test_no_page_has_a_script_or_a_style_that_the_policy_would_refuse(http: TestClient) -> None:
    browser = signed_in(http)
    for path in ("/jobs", "/nowhere"):
        html = browser.get(path).text
        assert "<style" not in html
        assert " style=" not in html
        assert " onclick=" not in html
        assert html.count("<script") == html.count("<script src=") > 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_another_site_changes_nothing(http: TestClient, headers: dict[str, str]) -> None:
    browser = signed_in(http)
    token = csrf_of(browser)
    answer = browser.post("/sign-out", data={"csrf_token": token}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in text_of(answer.text)
    assert browser.get("/jobs").status_code == 200


def test_another_site_signs_nobody_in(http: TestClient) -> None:
    browser = browser_of(http)
    browser.headers["Origin"] = "https://evil.example"
    key = http.headers["Authorization"].removeprefix("Bearer ")
    assert sign_in(browser, key).status_code == 403
    assert not browser.cookies


@pytest.mark.parametrize("token", [None, "", "wrong", "ü"])
def test_a_form_without_the_sessions_token_changes_nothing(
    http: TestClient, token: str | None
) -> None:
    browser = signed_in(http)
    answer = browser.post("/sign-out", data={} if token is None else {"csrf_token": token})
    assert answer.status_code == 403
    assert "earlier session" in text_of(answer.text)
    assert browser.get("/jobs").status_code == 200


def test_a_token_of_another_session_is_none(http: TestClient) -> None:
    browser, other = signed_in(http), signed_in(http)
    answer = browser.post("/sign-out", data={"csrf_token": csrf_of(other)})
    assert answer.status_code == 403


def test_a_token_in_a_header_is_as_good(http: TestClient) -> None:
    browser = signed_in(http)
    headers = {"X-CSRF-Token": csrf_of(browser), "Sec-Fetch-Site": "same-origin"}
    assert browser.post("/sign-out", headers=headers).status_code == 303


def test_errors_are_pages_for_people_and_problems_for_programs(http: TestClient) -> None:
    browser = signed_in(http)
    page = browser.get("/nowhere")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Not Found" in text_of(page.text)
    problem = http.get("/nowhere")
    assert problem.headers["content-type"] == "application/problem+json"
    assert browser.get("/v1/search-jobs/job_0").headers["content-type"] == (
        "application/problem+json"
    )


def test_what_nobody_expected_is_a_protected_page_too(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("secret of the server")

    monkeypatch.setattr("service.web.sign_in.known_session", fail)
    answer = browser_of(http).get("/sign-in", headers={"Origin": ORIGIN})
    assert (answer.status_code, answer.headers["x-frame-options"]) == (500, "DENY")
    assert "secret of the server" not in answer.text
    assert answer.headers["x-request-id"] in answer.text
