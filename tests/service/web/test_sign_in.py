from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from service.database.db import Database, epoch_now
from service.database.models import ApiKey, AuditRow, WebSession
from service.tenants import auth
from service.web import sessions
from tests.service.serving import app_of
from tests.service.web.browsing import browser_of, csrf_of, post, sign_in, signed_in, text_of


def key_of(http: TestClient) -> str:
    return http.headers["Authorization"].removeprefix("Bearer ")


def stored(database: Database) -> list[WebSession]:
    with database.read() as session:
        return list(session.scalars(select(WebSession)))


def test_who_is_not_signed_in_is_led_to_the_sign_in_and_back(http: TestClient) -> None:
    browser = browser_of(http)
    assert browser.get("/").headers["location"] == "/sign-in"
    answer = browser.get("/jobs?state=running")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/sign-in?next=%2Fjobs%3Fstate%3Drunning",
    )
    page = browser.get(answer.headers["location"])
    assert page.status_code == 200
    assert 'name="next" value="/jobs?state=running"' in page.text
    answer = sign_in(browser, key_of(http), next="/jobs?state=running")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=running")
    assert browser.get("/jobs").status_code == 200
    assert browser.get("/").headers["location"] == "/jobs"
    assert browser.get("/sign-in").headers["location"] == "/jobs"


def test_the_cookie_is_for_this_server_alone_and_for_no_script(http: TestClient) -> None:
    plain = sign_in(browser_of(http), key_of(http)).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(plain.split("; "))
    assert "Secure" not in plain
    assert "Domain" not in plain
    browser = browser_of(http)
    browser.base_url = "https://testserver"  # type: ignore[assignment]
    assert "Secure" in sign_in(browser, key_of(http)).headers["set-cookie"]


def test_only_the_hash_of_a_token_is_stored(http: TestClient, database: Database) -> None:
    browser = signed_in(http)
    (token,) = browser.cookies.values()
    (row,) = stored(database)
    assert token not in repr(vars(row))
    assert key_of(http) not in repr(vars(row))
    assert len(row.token_sha256) == 64


@pytest.mark.parametrize("key", ["", "snug_guess_guess", "ü\0'\"<script>"])
def test_a_wrong_key_opens_nothing_and_is_told_so(
    http: TestClient, database: Database, key: str
) -> None:
    browser = browser_of(http)
    answer = sign_in(browser, key, next="/devices")
    assert answer.status_code == 401
    assert "did not open" in text_of(answer.text)
    assert 'name="next" value="/devices"' in answer.text
    assert "<script>'" not in answer.text
    assert "www-authenticate" not in answer.headers
    assert not browser.cookies
    assert stored(database) == []


def test_wrong_keys_are_refused_ever_more_slowly_and_good_ones_let_in(http: TestClient) -> None:
    browser = browser_of(http)
    answers = [sign_in(browser, "snug_guess_guess") for _ in range(120)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert "too many requests" in text_of(answers[-1].text)
    assert sign_in(browser, key_of(http)).status_code == 303


def test_an_agents_key_opens_no_pages(http: TestClient, database: Database) -> None:
    with database.write() as session:
        key = auth.create_key(session, "agent", scopes=[auth.MEASURE])
    answer = sign_in(browser_of(http), key)
    assert answer.status_code == 401
    assert "measuring agent" in text_of(answer.text)


@pytest.mark.parametrize(
    "place",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "/a\r\nSet-Cookie: x=1", "x"],
)
def test_nobody_is_led_away_from_this_server(http: TestClient, place: str) -> None:
    answer = sign_in(browser_of(http), key_of(http), next=place)
    assert answer.headers["location"] == "/jobs"


def test_signing_in_again_ends_the_session_before(http: TestClient, database: Database) -> None:
    browser = signed_in(http)
    before = stored(database)
    sign_in(browser, key_of(http))
    after = stored(database)
    assert len(after) == 1
    assert after[0].id != before[0].id


def test_signing_out_ends_the_session_for_whoever_kept_its_cookie(
    http: TestClient, database: Database
) -> None:
    browser = signed_in(http)
    kept = dict(browser.cookies)
    answer = post(browser, "/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert not browser.cookies
    assert stored(database) == []
    browser.cookies.update(kept)
    answer = browser.get("/jobs")
    assert answer.headers["location"] == "/sign-in?next=%2Fjobs&ended"
    assert "has ended" in text_of(browser.get(answer.headers["location"]).text)


def test_signing_in_and_out_are_in_the_audit_log(http: TestClient, database: Database) -> None:
    post(signed_in(http), "/sign-out")
    with database.read() as session:
        actions = list(session.scalars(select(AuditRow.action).order_by(AuditRow.id)))
    assert actions == ["POST /sign-in", "POST /sign-out"]


@pytest.mark.parametrize(
    "changed",
    [
        lambda: update(WebSession).values(expires_at=epoch_now() - 1),
        lambda: update(WebSession).values(last_used_at=epoch_now() - sessions.IDLE_SECONDS - 1),
        lambda: update(ApiKey).values(revoked_at=epoch_now()),
        lambda: update(ApiKey).values(expires_at=epoch_now() - 1),
    ],
    ids=["expired", "idle", "key revoked", "key expired"],
)
def test_a_session_ends(http: TestClient, database: Database, changed: Callable[[], Any]) -> None:
    browser = signed_in(http)
    assert browser.get("/jobs").status_code == 200
    with database.write() as session:
        session.execute(changed())
    answer = browser.get("/jobs")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/sign-in?next=%2Fjobs&ended",
    )


def test_a_key_revoked_over_http_signs_its_viewers_out(http: TestClient) -> None:
    made = http.post("/v1/api-keys", json={"name": "guest", "scopes": ["jobs:read"]}).json()
    browser = signed_in(http, made["key"])
    assert browser.get("/jobs").status_code == 200
    http.post(f"/v1/api-keys/{made['id']}:revoke")
    assert browser.get("/jobs").status_code == 303


def test_a_session_may_do_what_its_key_may(http: TestClient, database: Database) -> None:
    with database.write() as session:
        key = auth.create_key(session, "writer", scopes=[auth.DEVICES_WRITE])
    browser = signed_in(http, key)
    answer = browser.get("/jobs")
    assert answer.status_code == 403
    assert "jobs:read" in text_of(answer.text)


def test_the_use_of_a_session_is_noted(http: TestClient, database: Database) -> None:
    browser = signed_in(http)
    with database.write() as session:
        session.execute(update(WebSession).values(last_used_at=epoch_now() - 3600))
    browser.get("/jobs")
    app_of(http).state.parts.key_uses.close()
    with database.read() as session:
        idle_s = session.scalars(select(epoch_now() - WebSession.last_used_at)).one()
    assert idle_s < 1800


def test_the_cookie_opens_nothing_of_the_api(http: TestClient) -> None:
    browser = signed_in(http)
    for path in ("/v1/search-jobs", "/v1/api-keys", "/v1/devices"):
        assert browser.get(path).status_code == 401
    headers = {"X-CSRF-Token": csrf_of(browser)}
    assert browser.post("/v1/search-jobs", json={}, headers=headers).status_code == 401


def test_two_servers_of_one_machine_have_cookies_of_their_own(http: TestClient) -> None:
    names = []
    for port in (8000, 8001):
        browser = browser_of(http)
        browser.base_url = f"http://localhost:{port}"  # type: ignore[assignment]
        browser.headers["Origin"] = f"http://localhost:{port}"
        sign_in(browser, key_of(http))
        names += list(browser.cookies.keys())
    assert len(set(names)) == 2


def test_a_part_of_a_page_leads_the_page_to_the_sign_in(http: TestClient) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/jobs?state=failed"}
    answer = browser_of(http).get("/jobs", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["HX-Redirect"] == "/sign-in?next=%2Fjobs%3Fstate%3Dfailed"
