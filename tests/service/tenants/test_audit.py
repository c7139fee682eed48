"""Every change is written down with who made it, and stays so."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from service.client import Client
from service.database.db import Database
from service.database.models import AuditRow
from service.tenants.audit import list_calls
from tests.service.serving import upload_both


def calls(database: Database) -> list[AuditRow]:
    with database.read() as session:
        return list_calls(session, limit=100)


def test_a_change_is_written_down_with_its_caller(
    http: TestClient, client: Client, database: Database, tmp_path: Path
) -> None:
    job = client.submit(upload_both(client, tmp_path))
    answer = http.post(f"/v1/search-jobs/{job.id}:cancel", headers={"X-Request-ID": "mine"})
    assert answer.status_code == 202
    newest = calls(database)[0]
    assert newest.action == "POST /v1/search-jobs/{job_id}:cancel"
    assert newest.target == f"/v1/search-jobs/{job.id}:cancel"
    assert (newest.request_id, newest.client) == ("mine", "testclient")
    assert newest.key_id is not None
    assert newest.key_id.startswith("key_")
    actions = [call.action for call in calls(database)]
    assert "POST /v1/search-jobs" in actions
    assert "POST /v1/uploads/{upload_id}/finalize" in actions


def test_what_only_reads_or_fails_is_not(http: TestClient, database: Database) -> None:
    http.get("/v1/search-jobs")
    http.post("/v1/search-jobs/job_0:cancel")
    assert calls(database) == []


@pytest.mark.parametrize("change", ["UPDATE audit_log SET target = 'x'", "DELETE FROM audit_log"])
def test_the_database_refuses_to_change_it(
    client: Client, database: Database, change: str
) -> None:
    client.create_key("x", ["admin"])
    with pytest.raises(DatabaseError, match="append-only"), database.write() as session:
        session.execute(text(change))
    assert len(calls(database)) == 1


def test_it_is_read_page_by_page_with_the_scope_admin(http: TestClient, client: Client) -> None:
    for i in range(5):
        client.create_key(f"key {i}", ["admin"])
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = http.get("/v1/audit-log", params=params).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == 5
    assert {call["action"] for call in seen} == {"POST /v1/api-keys"}
    assert [call["id"] for call in seen] == sorted((c["id"] for c in seen), reverse=True)
