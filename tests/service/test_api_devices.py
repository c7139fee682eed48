"""A measuring agent's conversation with the server."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from service.artifacts import FilesystemArtifactStore
from service.client import Client, Conflict, NotFound
from service.db import Database
from tests.service.helpers import (
    create_measuring_job,
    job_of,
    let_leases_run_out,
    measurement_of,
    steps_of,
)


def test_registering_again_is_a_sign_of_life(client: Client) -> None:
    first = client.register_device("pi", {"cores": 4})
    second = client.register_device("pi", {"cores": 8})
    assert second.id == first.id
    assert second.last_seen_at >= first.last_seen_at
    devices = {device.name: device.identity for device in client.devices()}
    assert devices["pi"] == {"cores": 8}


def test_work_is_claimed_renewed_and_handed_in(client: Client, database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    claimed = client.claim_measurement_job(device_id, wait_s=0)
    assert claimed is not None
    assert claimed.spec == {"rounds": 3}
    assert claimed.lease_seconds > 0
    assert client.claim_measurement_job(device_id, wait_s=0) is None
    client.renew_measurement_job(claimed.id, claimed.token)
    client.report_result(claimed.id, claimed.token, {"measurements": []})
    assert measurement_of(database, job_id).result == {"measurements": []}
    assert steps_of(database, job_id)[-1].input["measurement_job_id"] == claimed.id


def test_a_waiting_agent_gets_work_when_it_comes_up(client: Client, database: Database) -> None:
    device = client.register_device("this-cpu", {"cpu": "x", "cores": 2})
    timer = threading.Timer(0.3, create_measuring_job, (database,))
    timer.start()
    claimed = client.claim_measurement_job(device.id, wait_s=20)
    timer.join()
    assert claimed is not None


def test_a_lost_lease_is_a_conflict(client: Client, database: Database) -> None:
    _, device_id = create_measuring_job(database)
    first = client.claim_measurement_job(device_id, wait_s=0)
    let_leases_run_out(database)
    second = client.claim_measurement_job(device_id, wait_s=0)
    assert first is not None
    assert second is not None
    assert second.token > first.token
    with pytest.raises(Conflict) as caught:
        client.renew_measurement_job(first.id, first.token)
    assert caught.value.problem.code == "lease_lost"
    with pytest.raises(Conflict):
        client.report_result(first.id, first.token, {})


def test_a_failure_that_repeats_fails_the_job(client: Client, database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    for _ in range(4):
        claimed = client.claim_measurement_job(device_id, wait_s=0)
        assert claimed is not None
        client.report_failure(claimed.id, claimed.token, "noisy", "the machine is too busy")
    job = job_of(database, job_id)
    assert (job.state, job.reason_code) == ("failed", "noisy")


def test_an_unknown_device_gets_no_work(client: Client) -> None:
    with pytest.raises(NotFound, match="there is no device 'dev_x'"):
        client.claim_measurement_job("dev_x", wait_s=0)


def test_a_blob_is_fetched_by_its_hash(
    client: Client, store: FilesystemArtifactStore, tmp_path: Path
) -> None:
    sha256 = store.put_bytes(b"network")
    path = client.download_blob(sha256, tmp_path / "new" / "network.onnx")
    assert path.read_bytes() == b"network"
    with pytest.raises(NotFound):
        client.download_blob(hashlib.sha256(b"").hexdigest(), tmp_path / "none")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file() and "download" in p.name] == []
