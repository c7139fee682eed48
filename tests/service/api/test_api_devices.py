"""A measuring agent's conversation with the server."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.artifacts import blobs
from service.client import Client, Conflict, NotFound, Rejected
from service.database.db import Database
from service.database.models import Device
from service.store.filesystem import FilesystemStore
from tests.service.helpers import (
    create_job,
    create_measuring_job,
    job_of,
    let_leases_run_out,
    measurement_of,
    steps_of,
)
from tests.service.measuring import IDENTITY, SHAPE, answer, measuring_spec


def test_registering_again_is_a_sign_of_life(client: Client) -> None:
    first = client.register_device("pi", IDENTITY)
    second = client.register_device("pi", IDENTITY | {"num_cores": 8})
    assert second.id == first.id
    assert second.last_seen_at >= first.last_seen_at
    devices = {device.name: device.identity for device in client.devices()}
    assert devices["pi"]["num_cores"] == 8


def test_work_is_claimed_renewed_and_handed_in(client: Client, database: Database) -> None:
    job_id, device_id = create_measuring_job(database)
    claimed = client.claim_measurement_job(device_id, wait_s=0)
    assert claimed is not None
    assert claimed.spec == measuring_spec().to_dict()
    assert claimed.lease_seconds > 0
    assert client.claim_measurement_job(device_id, wait_s=0) is None
    client.renew_measurement_job(claimed.id, claimed.token)
    client.report_result(claimed.id, claimed.token, answer())
    assert measurement_of(database, job_id).result == answer()
    assert steps_of(database, job_id)[-1].input["measurement_job_id"] == claimed.id


def test_a_waiting_agent_gets_work_when_it_comes_up(client: Client, database: Database) -> None:
    device = client.register_device("this-cpu", IDENTITY)
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
    client: Client, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    sha256 = store.put_bytes(b"network")
    with pytest.raises(NotFound):  # nobody's
        client.download_blob(sha256, tmp_path / "network.onnx")
    job_id = create_job(database)
    with database.write() as session:
        blobs.refer(session, job_id, sha256)
    path = client.download_blob(sha256, tmp_path / "new" / "network.onnx")
    assert path.read_bytes() == b"network"
    with pytest.raises(NotFound):
        client.download_blob(hashlib.sha256(b"").hexdigest(), tmp_path / "none")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file() and "download" in p.name] == []


# --- whose device it is --------------------------------------------------------------------------


def test_a_second_agent_of_one_name_is_refused_until_the_first_is_silent(
    client: Client, database: Database
) -> None:
    first = client.register_device("pi", IDENTITY, "agent_first")
    assert client.register_device("pi", IDENTITY, "agent_first").id == first.id
    with pytest.raises(Conflict) as caught:
        client.register_device("pi", IDENTITY, "agent_second")
    assert caught.value.problem.code == "device_in_use"
    be_silent(database)
    assert client.register_device("pi", IDENTITY, "agent_second").id == first.id
    with pytest.raises(Conflict) as caught:  # it must not work beside its heir
        client.claim_measurement_job(first.id, agent_id="agent_first", wait_s=0)
    assert caught.value.problem.code == "device_in_use"
    assert client.claim_measurement_job(first.id, agent_id="agent_second", wait_s=0) is None


def test_an_agent_that_measures_is_not_silent(client: Client, database: Database) -> None:
    _, device_id = create_measuring_job(database)
    claimed = client.claim_measurement_job(device_id, wait_s=0)
    assert claimed is not None
    be_silent(database)
    assert not client.device(device_id).is_online
    client.renew_measurement_job(claimed.id, claimed.token)
    assert client.device(device_id).is_online


def test_a_renamed_device_stays_with_its_agent(client: Client) -> None:
    device = client.register_device("pi", IDENTITY, "agent_first")
    assert client.rename_device("pi", "kitchen").name == "kitchen"
    assert client.register_device("pi", IDENTITY, "agent_first").id == device.id
    assert client.device("kitchen").id == device.id
    client.register_device("pi", IDENTITY, "agent_other")
    with pytest.raises(Conflict, match="another device is called 'pi'"):
        client.rename_device("kitchen", "pi")
    with pytest.raises(Rejected, match="name"):
        client.rename_device("kitchen", "../x")


def test_a_retired_device_takes_no_work_and_loses_none_of_its_past(
    client: Client, database: Database
) -> None:
    job_id, device_id = create_measuring_job(database)
    for _ in range(2):
        assert client.retire_device("this-cpu").retired_at is not None
    job = job_of(database, job_id)
    assert (job.state, job.reason_code) == ("failed", "device_retired")
    assert client.devices() == []
    assert [d.id for d in client.devices(retired=True)] == [device_id]
    for call in (
        lambda: client.register_device("this-cpu", IDENTITY),
        lambda: client.claim_measurement_job(device_id, wait_s=0),
    ):
        with pytest.raises(Conflict) as caught:
            call()
        assert caught.value.problem.code == "device_retired"
    request = {"shape": SHAPE.to_dict(), "workload": {"seq_len": 8}}
    with pytest.raises(Rejected, match="device: 'this-cpu' was retired"):
        client.onboard("this-cpu", request)
    assert client.revive_device("this-cpu").retired_at is None
    assert client.register_device("this-cpu", IDENTITY).id == device_id


def test_a_change_of_nothing_is_refused(http: TestClient) -> None:
    assert http.patch("/v1/devices/this-cpu", json={}).status_code == 422
    assert http.patch("/v1/devices/this-cpu", json={"id": "dev_x"}).status_code == 422


def be_silent(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Device).values(last_seen_at=1.0))
