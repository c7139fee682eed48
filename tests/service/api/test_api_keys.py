"""Keys open what their scopes say, as long as they are good."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from service.client import Client, NotAllowed, Rejected
from service.database.db import Database
from service.database.models import ApiKey
from service.embedded.bootstrap import Keys, prepare
from service.settings import Settings
from service.tenants.auth import (
    ADMIN,
    ARTIFACTS_READ,
    DEVICES_WRITE,
    JOBS_READ,
    JOBS_WRITE,
    MEASURE,
    SCOPES,
    create_key,
)
from tests.service.measuring import IDENTITY
from tests.service.serving import TestTransport

Connect = Callable[[str], Client]


@pytest.fixture
def connect(http: TestClient) -> Connect:
    """A client with this key."""
    del http.headers["Authorization"]
    return lambda key: Client("http://testserver", key, transport=TestTransport(http), max_tries=1)


def key_of(database: Database, *scopes: str) -> str:
    with database.write() as session:
        return create_key(session, "test", scopes=scopes)


CALLS = {
    JOBS_READ: ("GET", "/v1/search-jobs/job_0"),
    JOBS_WRITE: ("POST", "/v1/search-jobs/job_0:cancel"),
    ARTIFACTS_READ: ("GET", "/v1/artifacts/art_0/content"),
    DEVICES_WRITE: ("DELETE", "/v1/devices/dev_0"),
    MEASURE: ("POST", "/v1/devices/dev_0/measurement-jobs/claim"),
    ADMIN: ("POST", "/v1/api-keys/key_0:revoke"),
}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_its_own_calls_alone(
    http: TestClient, database: Database, scope: str
) -> None:
    headers = {"Authorization": f"Bearer {key_of(database, scope)}"}
    for needed, (method, path) in CALLS.items():
        problem = http.request(method, path, headers=headers).json()
        if needed == scope:
            assert problem["status"] == 404  # let in, and there is none
        else:
            assert (problem["status"], problem["code"]) == (403, "insufficient_scope")
            assert f"'{needed}'" in problem["detail"]


def test_a_key_is_made_shown_once_listed_and_revoked(client: Client, connect: Connect) -> None:
    created = client.create_key("pi", [MEASURE])
    assert created.key.startswith("snug_")
    (listed,) = [key for key in client.api_keys() if key.id == created.id]
    assert (listed.name, listed.scopes, listed.revoked_at) == ("pi", [MEASURE], None)
    assert "key" not in listed.model_dump()
    with connect(created.key) as agent:
        agent.register_device("pi", IDENTITY)
        assert client.revoke_key(created.id).revoked_at is not None
        assert client.revoke_key(created.id).revoked_at is not None
        with pytest.raises(NotAllowed, match="was revoked"):
            agent.register_device("pi", IDENTITY)


def test_a_key_expires(client: Client, connect: Connect) -> None:
    early = client.create_key("past", [DEVICES_WRITE], time.time() - 1)
    late = client.create_key("future", [DEVICES_WRITE], time.time() + 3600)
    with connect(late.key) as good, connect(early.key) as expired:
        assert good.devices()
        with pytest.raises(NotAllowed, match="has expired"):
            expired.devices()


@pytest.mark.parametrize("scopes", [[], ["everything"]])
def test_a_key_without_a_known_scope_is_refused(client: Client, scopes: list[str]) -> None:
    with pytest.raises(Rejected, match="scopes"):
        client.create_key("x", scopes)


def test_a_key_of_a_time_without_scopes_opens_everything(
    http: TestClient, database: Database
) -> None:
    headers = {"Authorization": f"Bearer {key_of(database, MEASURE)}"}
    with database.write() as session:
        session.query(ApiKey).update({"scopes": None})
    for method, path in CALLS.values():
        assert http.request(method, path, headers=headers).status_code == 404


def test_a_start_keeps_good_keys_and_replaces_others(settings: Settings, connect: Connect) -> None:
    first = prepare(settings.database_url, Keys())
    assert prepare(settings.database_url, first) == first
    with connect(first.agent_key) as agent:
        agent.register_device("this-cpu", IDENTITY)
        with pytest.raises(NotAllowed):
            agent.jobs()
    with connect(first.api_key) as user:
        assert user.jobs() == []
        local = next(key for key in user.api_keys() if key.name == "local agent")
        user.revoke_key(local.id)
    after = prepare(settings.database_url, first)
    assert after.api_key == first.api_key
    assert after.agent_key != first.agent_key
