"""A service with a little of everything in it, for whoever calls every route of the API."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.orm import Session

from service.artifacts.artifacts import record_artifacts
from service.client import Client
from service.database.db import Database
from service.embedded.broker import find_server, server_command, socket_path, socket_url
from service.jobs.evaluations import Evaluation, record_evaluation
from service.jobs.job_states import conclude_job
from service.settings import Settings
from service.steps.step_types import NewArtifact
from service.tenants.auth import create_key, find_key
from service.tenants.tenancy import DEFAULT_TENANT
from service.uploads.uploads import files_of
from tests.service.api.test_api_measurements import hand_in
from tests.service.api.test_api_predictors import learn
from tests.service.helpers import claim
from tests.service.measuring import IDENTITY, SHAPE, subnet
from tests.service.serving import upload_both

PATIENCE_SECONDS = 60.0

Post = Callable[..., dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Where the service answers, and what is in it.

    Attributes:
        key: may do everything.
        ids: of what there is, by kind.
    """

    url: str
    key: str
    key_id: str
    ids: Mapping[str, list[str]]


@contextmanager
def small_world(folder: Path, settings: Settings) -> Iterator[World]:
    """The API as a process of its own, on a migrated database; nothing else runs."""
    database = Database(settings.database_url).for_tenant(DEFAULT_TENANT)
    with database.write() as session:
        key = create_key(session, "everything")
        found = find_key(session, key)
        assert found is not None
        key_id = found.id
        create_key(session, "other", scopes=["jobs:read"])
    with _broker(folder) as broker_url, _api(folder, settings, broker_url) as url:
        ids = _fill(url, key, database, folder)
        yield World(url=url, key=key, key_id=key_id, ids=ids)
    database.dispose()


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    """So that the service calls itself ready."""
    path = socket_path(folder)
    server = subprocess.Popen(
        server_command(find_server(), path, folder), stdout=subprocess.DEVNULL
    )
    try:
        yield socket_url(path)
    finally:
        server.terminate()
        server.wait()


@contextmanager
def _api(folder: Path, settings: Settings, broker_url: str) -> Iterator[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SNUGNET_")},
        "SNUGNET_DATA_DIR": str(settings.data_dir),
        "SNUGNET_DATABASE_URL": settings.database_url,
        "SNUGNET_BROKER_URL": broker_url,
        "SNUGNET_CALLS_PER_SECOND": "0",  # a limit would hide what is behind it
        "SNUGNET_WEBHOOK_PRIVATE_HOSTS": '["127.0.0.1"]',
    }
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "api.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "service.server", "--fd", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env=environment,
            stdout=log,
            stderr=log,
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        _wait_for(url)
        yield url
    finally:
        server.terminate()
        server.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            httpx.get(f"{url}/healthz", timeout=PATIENCE_SECONDS).raise_for_status()
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the API did not start"
            time.sleep(0.1)
        else:
            return


def _fill(url: str, key: str, database: Database, folder: Path) -> dict[str, list[str]]:
    with Client(url, key) as client:
        spec = upload_both(client, folder)
        device_id = hand_in(client, database)
    predictor_id = learn(database, "fp32")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=PATIENCE_SECONDS) as http:

        def post(path: str, body: Any = None) -> dict[str, Any]:
            answer = http.post(path, json=body).raise_for_status()
            found = answer.json()
            assert isinstance(found, dict)
            return found

        post("/devices", {"name": "other-cpu", "identity": IDENTITY, "agent_id": "agent-of-other"})
        webhook_id = post("/webhooks", {"url": "http://127.0.0.1:9/hook"})["id"]
        jobs = _jobs(post, database, spec)
        measuring = {"shape": SHAPE.to_dict(), "workload": {"seq_len": 8}}
        asked = {**measuring, "subnets": [subnet().to_dict()]}
        return {
            "job": [*jobs["going"], *jobs["ended"]],
            "finished_job": jobs["ended"][-1:],
            "upload": [spec["model"]["upload"], spec["data"]["upload"]],
            "device": [device_id, "this-cpu", "other-cpu"],
            "predictor": [predictor_id],
            "measurement_job": [post(f"/devices/{device_id}:measure", asked)["id"]],
            "onboarding": [post(f"/devices/{device_id}:onboard", measuring)["id"]],
            "webhook": [webhook_id],
            "delivery": [post(f"/webhooks/{webhook_id}:test")["id"]],
            "key": [k["id"] for k in http.get("/api-keys").json()["items"]],
            "artifact": [
                artifact["id"]
                for job_id in jobs["ended"]
                for artifact in http.get(f"/search-jobs/{job_id}/artifacts").json()["items"]
            ],
            "sha256": [
                file["sha256"]
                for upload in (spec["model"], spec["data"])
                for file in http.get(f"/uploads/{upload['upload']}").json()["files"]
            ],
        }


def _jobs(post: Post, database: Database, spec: dict[str, Any]) -> dict[str, list[str]]:
    """Jobs in most of their states, two of them with something to show."""

    def submit(name: str) -> str:
        job = post("/search-jobs", {**spec, "name": name, "labels": {"team": name}})
        return str(job["id"])

    queued, running, paused, failed, cancelled, succeeded = map(
        submit, ("queued", "running", "paused", "failed", "cancelled", "succeeded")
    )
    claim(database, running, lease_seconds=3600.0)
    post(f"/search-jobs/{paused}:pause")
    post(f"/search-jobs/{cancelled}:cancel")
    with database.write() as session:
        conclude_job(session, failed, "failed", code="step_failed", message="it did not work")
        for job_id in (running, succeeded):
            record_evaluation(session, job_id, _evaluation())
        record_artifacts(session, succeeded, [_artifact(session, spec["data"]["upload"])])
        conclude_job(session, succeeded, "succeeded", result={"targets": []})
    return {"going": [queued, running, paused], "ended": [failed, cancelled, succeeded]}


def _evaluation() -> Evaluation:
    return Evaluation(
        source="search",
        generation=0,
        index_in_generation=0,
        fingerprint=subnet().fingerprint,
        fidelity="600",
        subnet=subnet().to_dict(),
        metrics={"quality": 0.9, "latency_ms": 1.5},
    )


def _artifact(session: Session, upload_id: str) -> NewArtifact:
    """A file that is there already, under another name."""
    (file,) = files_of(session, upload_id)
    return NewArtifact(
        name="tables/rows.csv",
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        media_type="text/csv",
        target_index=0,
    )
