"""Nothing of a tenant can be seen, changed or fetched by another one: every route, every id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from search.space import SubnetConfig
from service.artifacts.artifacts import list_artifacts, record_artifacts
from service.client import Client
from service.database.db import Database
from service.database.models import PredictorRow, Tenant
from service.devices import measurement_jobs
from service.devices.devices import register_device
from service.jobs.jobs import ONBOARDING, create_job
from service.steps.step_types import NewArtifact, NewMeasurement
from service.store.filesystem import FilesystemStore
from service.tenants.auth import create_key, look_up
from tests.service.measuring import IDENTITY, SHAPE, measuring_spec
from tests.service.serving import TestTransport, app_of, upload_both

OTHER = "ten_other"
SUBNETS = [SubnetConfig.full(SHAPE).to_dict()]
BODIES: dict[str, dict[str, Any]] = {
    "patch /v1/devices/{device_id}": {"retired": True},
    "patch /v1/search-jobs/{job_id}": {"name": "mine now"},
    "patch /v1/webhooks/{webhook_id}": {"is_active": False},
    "post /v1/devices/{device_id}:onboard": {"shape": SHAPE.to_dict()},
    "post /v1/devices/{device_id}:measure": {"shape": SHAPE.to_dict(), "subnets": SUBNETS},
    "post /v1/devices/{device_id}/predictors:predict": {
        "shape": SHAPE.to_dict(),
        "subnets": SUBNETS,
    },
    "post /v1/measurement-jobs/{measurement_job_id}/failure": {
        "token": 1,
        "code": "x",
        "message": "x",
    },
    "post /v1/measurement-jobs/{measurement_job_id}/renew": {"token": 1},
    "post /v1/measurement-jobs/{measurement_job_id}/result": {"token": 1, "result": {}},
    "post /v1/search-jobs/{job_id}:extend": {"generations": 1},
}
# A lost claim answers like any other: whether the work exists is not told.
UNKNOWN = {404, 409}


@pytest.fixture
def key(database: Database) -> str:
    """Of the other tenant, who has one of each."""
    with database.for_tenant(OTHER).write() as session:
        session.add(Tenant(id=OTHER, name="other"))
        return create_key(session, "theirs")


@pytest.fixture
def spec(http: TestClient, key: str, database: Database, tmp_path: Path) -> dict[str, Any]:
    with database.for_tenant(OTHER).write() as session:
        register_device(session, "this-cpu", IDENTITY)
    with Client("http://testserver", key, transport=TestTransport(http)) as client:
        return upload_both(client, tmp_path)


@pytest.fixture
def ids(
    http: TestClient,
    key: str,
    spec: dict[str, Any],
    database: Database,
    store: FilesystemStore,
) -> dict[str, str]:
    """By the names of path parameters."""
    webhook = call(http, key, "POST", "/v1/webhooks", {"url": "https://example.org"}).json()
    call(http, key, "POST", f"/v1/webhooks/{webhook['id']}:test")
    deliveries = call(http, key, "GET", f"/v1/webhooks/{webhook['id']}/deliveries").json()
    sha256 = store.put_bytes(b"secret weights")
    with database.for_tenant(OTHER).write() as session:
        known = look_up(session, key)
        assert known is not None
        device = register_device(session, "this-cpu", IDENTITY)
        job = create_job(session, {"task": "x"}, name="theirs")
        onboarding = create_job(session, {"device": device.id}, name="o", kind=ONBOARDING)
        artifact = NewArtifact(
            target_index=None, name="model.onnx", sha256=sha256, size_bytes=14, media_type="x/y"
        )
        record_artifacts(session, job.id, [artifact])
        measurement = NewMeasurement(device_id=device.id, spec=measuring_spec().to_dict())
        predictor = PredictorRow(
            device_id=device.id,
            device_fingerprint="f",
            predictor_key="k",
            shape_key="s",
            precision="fp32",
            phase="forward",
            version=1,
            payload={},
            fit_report={},
        )
        session.add(predictor)
        session.flush()
        return {
            "job_id": job.id,
            "onboarding_id": onboarding.id,
            "device_id": device.id,
            "predictor_id": predictor.id,
            "measurement_job_id": measurement_jobs.create(session, measurement, job_id=job.id).id,
            "artifact_id": list_artifacts(session, job.id)[0].id,
            "upload_id": spec["data"]["upload"],
            "name": "data.csv",
            "index": "0",
            "sha256": sha256,
            "webhook_id": webhook["id"],
            "delivery_id": deliveries["items"][0]["id"],
            "key_id": known.id,
        }


def call(
    http: TestClient, key: str, method: str, path: str, body: dict[str, Any] | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return http.request(method, path, json=body, headers=headers)


def operations(http: TestClient, *, by_id: bool) -> list[tuple[str, str]]:
    paths = app_of(http).openapi()["paths"]
    return [
        (method, path)
        for path, methods in sorted(paths.items())
        for method in sorted(methods)
        if ("{" in path) is by_id
    ]


def concrete(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: ids[found.group(1)], path)


def test_no_id_of_another_tenant_is_known(http: TestClient, ids: dict[str, str]) -> None:
    mine = http.headers["Authorization"].removeprefix("Bearer ")
    found = {}
    for method, path in operations(http, by_id=True):
        body = BODIES.get(f"{method} {path}")
        answer = call(http, mine, method, concrete(path, ids), body)
        if answer.status_code not in UNKNOWN:
            found[f"{method} {path}"] = (answer.status_code, answer.text[:200])
    assert found == {}


def test_its_owner_knows_each_of_them(http: TestClient, ids: dict[str, str], key: str) -> None:
    """So that the other test would notice: what takes nothing away is let through here."""
    unknown = [
        (path, answer.text)
        for method, path in operations(http, by_id=True)
        if method == "get" and "stream" not in path
        for answer in [call(http, key, method, concrete(path, ids))]
        if answer.status_code == 404
    ]
    assert unknown == []


def test_no_list_shows_what_is_another_tenants(http: TestClient, ids: dict[str, str]) -> None:
    mine = http.headers["Authorization"].removeprefix("Bearer ")
    theirs = [found for name, found in ids.items() if name not in ("name", "index")]
    for method, path in operations(http, by_id=False):
        if method == "get":
            answer = call(http, mine, method, path)
            assert not [found for found in theirs if found in answer.text], path


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "model.upload"),
        ({"supernet_of": "job_id"}, "supernet_of"),
        ({"targets": [{"budget_ratio": 0.5, "device": "device_id"}]}, "targets[0].device"),
    ],
)
def test_a_job_cannot_name_what_is_another_tenants(
    http: TestClient,
    client: Client,
    ids: dict[str, str],
    spec: dict[str, Any],
    tmp_path: Path,
    change: dict[str, Any],
    field: str,
) -> None:
    (tmp_path / "mine").mkdir()
    own = upload_both(client, tmp_path / "mine")
    asked = {**own, **change} if change else {**own, "model": spec["model"]}
    if "supernet_of" in change:
        asked["supernet_of"] = ids["job_id"]
    if "targets" in change:
        asked["targets"] = [{"budget_ratio": 0.5, "device": ids["device_id"]}]
    answer = http.post("/v1/search-jobs", json=asked)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_webhook_cannot_listen_to_another_tenants_job(
    http: TestClient, ids: dict[str, str]
) -> None:
    body = {"url": "https://example.org", "job_id": ids["job_id"]}
    answer = http.post("/v1/webhooks", json=body)
    assert answer.json()["errors"][0]["field"] == "job_id"


def test_two_tenants_may_call_their_devices_the_same(
    http: TestClient, ids: dict[str, str]
) -> None:
    own = http.get("/v1/devices/this-cpu").json()
    assert own["id"] != ids["device_id"]
