"""A database that was in use is migrated with what it holds, there and back."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from service.database import migrate
from service.database.db import Database
from service.devices.devices import find_device
from service.jobs.jobs import list_jobs
from service.tenants.auth import SCOPES, find_key, scopes_of

OLD_ROWS = (
    "INSERT INTO api_keys (id, name, key_sha256, created_at)"
    " VALUES ('key_1', 'old', '{sha}', 1.0)",
    "INSERT INTO devices (id, name, identity, fingerprint, last_seen_at)"
    " VALUES ('dev_1', 'this-cpu', '{{}}', 'f', 1.0)",
    "INSERT INTO jobs (id, name, spec, seed, state, last_event_seq, version, created_at)"
    " VALUES ('job_1', 'old', '{{}}', 0, 'running', 0, 1, 1.0)",
    "INSERT INTO measurement_jobs (id, device_id, job_id, spec, state, token, attempts,"
    " created_at)"
    " VALUES ('mj_1', 'dev_1', 'job_1', '{{}}', 'ready', 0, 0, 1.0)",
    "INSERT INTO predictors (id, device_id, workload, workload_key, payload, fit_report,"
    " created_at) VALUES ('pred_1', 'dev_1', '{{}}', 'w', '{{}}', '{{}}', 1.0)",
)
SHA_OF_KEY = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"  # of "key"


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url


def test_what_was_there_outlives_the_way_up_and_down(url: str) -> None:
    migrate.upgrade(url, "0001")
    database = Database(url)
    with database.write() as session:
        for statement in OLD_ROWS:
            session.execute(text(statement.format(sha=SHA_OF_KEY)))
    migrate.upgrade(url)
    with database.read() as session:
        key = find_key(session, "key")
        assert key is not None
        assert scopes_of(key) == SCOPES
        device = find_device(session, "this-cpu")
        assert device is not None
        assert (device.agent_id, device.retired_at) == (None, None)
        assert [(job.id, job.kind) for job in list_jobs(session)] == [("job_1", "search")]
        counts = {
            table: session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("measurement_jobs", "predictors", "measurements")
        }
        assert counts == {"measurement_jobs": 1, "predictors": 0, "measurements": 0}
    migrate.downgrade(url, "0001")
    with database.read() as session:
        row = session.execute(
            text("SELECT name, CAST(identity AS TEXT) AS identity FROM devices")
        ).one()
        assert (row.name, json.loads(row.identity)) == ("this-cpu", {})
        children = session.execute(text("SELECT id, job_id FROM measurement_jobs")).all()
        assert [tuple(child) for child in children] == [("mj_1", "job_1")]
    migrate.upgrade(url)
    assert migrate.is_current(database.engine)
    database.dispose()


BLOB, OTHER, NO_BLOB = "ab" * 32, "cd" * 32, "ef" * 32


def test_files_that_were_stored_before_they_were_counted_keep_their_names(url: str) -> None:
    migrate.upgrade(url, "0003")
    database = Database(url)
    step = json.dumps({"blobs": {"supernet": BLOB}, "sha": NO_BLOB[:-1]}).replace(":", "\\:")
    with database.write() as session:
        for statement in (
            "INSERT INTO jobs (id, name, spec, seed, state, last_event_seq, version, created_at)"
            " VALUES ('job_1', 'old', '{}', 0, 'succeeded', 0, 1, 1.0)",
            "INSERT INTO steps (id, job_id, kind, input, state, attempts, token, not_before,"
            " num_published, created_at)"
            f" VALUES ('step_1', 'job_1', 'search', '{step}', 'done', 1, 1, 0.0, 1, 1.0)",
            "INSERT INTO artifacts (id, job_id, name, sha256, size_bytes, media_type, created_at)"
            f" VALUES ('art_1', 'job_1', 'report.json', '{OTHER}', 7, 'text/plain', 1.0)",
        ):
            session.execute(text(statement))
    migrate.upgrade(url)
    with database.read() as session:
        rows = session.execute(text("SELECT sha256, size_bytes FROM blobs ORDER BY sha256"))
        assert [tuple(row) for row in rows] == [(BLOB, None), (OTHER, 7)]
        rows = session.execute(text("SELECT job_id, sha256 FROM blob_references"))
        assert [tuple(row) for row in rows] == [("job_1", BLOB)]
    migrate.downgrade(url, "0003")
    migrate.upgrade(url)
    assert migrate.is_current(database.engine)
    database.dispose()
