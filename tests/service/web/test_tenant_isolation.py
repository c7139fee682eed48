"""Nothing of a tenant can be seen, changed or fetched by another one's viewers: every page."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from service.artifacts.artifacts import list_artifacts, record_artifacts
from service.database.db import Database
from service.database.models import Job, Upload, UploadFile
from service.devices.devices import register_device
from service.jobs.jobs import ONBOARDING, create_job
from service.steps.step_types import NewArtifact
from service.store.filesystem import FilesystemStore
from service.web.protection import SAFE_METHODS, is_page
from tests.service.measuring import IDENTITY
from tests.service.serving import app_of
from tests.service.web.browsing import browser_of, csrf_of
from tests.service.web.conftest import OTHER

OPEN_TO_ALL = {"/", "/sign-in", "/static/{digest}/{name:path}"}
OF_NO_ROW = {"/jobs/new", "/jobs/new/preview"}


@pytest.fixture
def theirs(database: Database, store: FilesystemStore, others_key: str) -> dict[str, str]:
    """Ids of the other tenant, by the names of path parameters."""
    assert others_key
    sha256 = store.put_bytes(b"secret weights")
    with database.for_tenant(OTHER).write() as session:
        device = register_device(session, "their-device", IDENTITY)
        job = create_job(session, {"task": "x", "targets": []}, name="theirs")
        onboarding = create_job(session, {"device": device.id}, name="o", kind=ONBOARDING)
        new = NewArtifact(
            target_index=None, name="model.onnx", sha256=sha256, size_bytes=14, media_type="x/y"
        )
        record_artifacts(session, job.id, [new])
        upload = Upload(kind="dataset", summary={})
        session.add(upload)
        session.flush()
        file = {"name": "data.csv", "size_bytes": 3, "sha256": "0" * 64}
        session.add(UploadFile(upload_id=upload.id, **file))
        session.flush()
        return {
            "job_id": job.id,
            "onboarding_id": onboarding.id,
            "device_id": device.id,
            "artifact_id": list_artifacts(session, job.id)[0].id,
            "upload_id": upload.id,
            "fingerprint": "0123456789abcdef",
            "name": "data.csv",
            "index": "0",
            "key": "front",
            "verb": "cancel",
        }


def routes_of(http: TestClient) -> list[tuple[str, str]]:
    """Method and template of every route that a browser uses."""
    return sorted(
        (method, route.path)
        for route in app_of(http).state.routes
        for method in route.methods
        if is_page(route.path)
    )


def filled(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: ids[found.group(1)], path)


def test_no_page_knows_an_id_of_another_tenant(
    http: TestClient, browser: TestClient, database: Database, theirs: dict[str, str]
) -> None:
    token = csrf_of(browser)
    found, asked = {}, 0
    for method, path in routes_of(http):
        if "{" not in path or path in OPEN_TO_ALL:
            continue
        asked += 1
        answer = browser.request(
            method,
            filled(path, theirs),
            params={"before": 5, "after": 0},
            data={"csrf_token": token, "generations": "1", "name": "mine-now"},
            headers={"X-CSRF-Token": token},
        )
        if answer.status_code != 404:
            found[f"{method} {path}"] = (answer.status_code, answer.text[:200])
    assert found == {}
    assert asked >= 15
    with database.for_tenant(OTHER).read() as session:
        states = {row.name: row.state for row in session.query(Job)}
    assert states == {"theirs": "queued", "o": "queued"}


def test_whoever_is_not_signed_in_sees_nothing_and_changes_nothing(
    http: TestClient, theirs: dict[str, str]
) -> None:
    nobody = browser_of(http)
    for method, path in routes_of(http):
        if path in OPEN_TO_ALL:
            continue
        answer = nobody.request(method, filled(path, theirs))
        expected = 303 if method in SAFE_METHODS else 401
        assert (method, path, answer.status_code) == (method, path, expected)


def test_every_change_needs_the_sessions_token(
    http: TestClient, browser: TestClient, theirs: dict[str, str]
) -> None:
    changes = [(m, p) for m, p in routes_of(http) if m not in SAFE_METHODS and p != "/sign-in"]
    assert len(changes) >= 15
    for method, path in changes:
        answer = browser.request(method, filled(path, theirs), data={"csrf_token": "guess"})
        assert (method, path, answer.status_code) == (method, path, 403)
    assert {path for _, path in changes} >= OF_NO_ROW
