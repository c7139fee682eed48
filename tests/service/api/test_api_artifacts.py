from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.artifacts.artifacts import record_artifacts
from service.client import Client, Corrupted
from service.database.db import Database
from service.steps.step_types import NewArtifact
from service.store.filesystem import FilesystemStore
from service.tenants.auth import create_key
from service.tenants.tenants import create_tenant
from tests.service.helpers import create_job

CONTENT = {"onnx/model.onnx": b"a winner", "metrics.json": b"{}"}


@pytest.fixture
def job_id(database: Database, store: FilesystemStore) -> str:
    job_id = create_job(database)
    new = [
        NewArtifact(
            name=name,
            sha256=store.put_bytes(content),
            size_bytes=len(content),
            media_type="application/octet-stream",
            target_index=index,
        )
        for index, (name, content) in enumerate(CONTENT.items())
    ]
    new.append(
        NewArtifact(
            name="front.png",
            sha256=store.put_bytes(b"png"),
            size_bytes=3,
            media_type="image/png",
        )
    )
    with database.write() as session:
        record_artifacts(session, job_id, new)
    return job_id


def test_download_writes_every_file_in_its_place(
    client: Client, job_id: str, tmp_path: Path
) -> None:
    paths = client.download(job_id, tmp_path)
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in paths}
    assert found == {
        "front.png": b"png",
        "target-0/onnx/model.onnx": b"a winner",
        "target-1/metrics.json": b"{}",
    }


def test_download_repairs_what_is_damaged_and_keeps_what_is_there(
    client: Client, job_id: str, tmp_path: Path
) -> None:
    front, winner, _ = client.download(job_id, tmp_path)
    before = front.stat().st_mtime_ns
    winner.write_bytes(b"damaged")
    client.download(job_id, tmp_path)
    assert winner.read_bytes() == b"a winner"
    assert front.stat().st_mtime_ns == before


def test_content_that_is_not_what_was_announced_is_never_kept(
    client: Client, job_id: str, store: FilesystemStore, tmp_path: Path
) -> None:
    artifact = next(a for a in client.artifacts(job_id) if a.name == "metrics.json")
    blob = store.path(artifact.sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"[]")
    with pytest.raises(Corrupted, match=r"metrics.json"):
        client.download(job_id, tmp_path)
    assert not (tmp_path / "target-1" / "metrics.json").exists()
    assert list((tmp_path / "target-1").iterdir()) == []


def test_a_name_that_leaves_the_folder_is_refused(
    client: Client, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    job_id = create_job(database)
    evil = NewArtifact(
        name="../../evil", sha256=store.put_bytes(b"x"), size_bytes=1, media_type="text/plain"
    )
    with database.write() as session:
        record_artifacts(session, job_id, [evil])
    with pytest.raises(Corrupted, match="unsafe file name"):
        client.download(job_id, tmp_path / "a" / "b")
    assert not (tmp_path / "evil").exists()


def test_an_unknown_artifact_or_blob(http: TestClient) -> None:
    assert http.get("/v1/artifacts/art_x/content").json()["code"] == "not_found"
    assert http.get(f"/v1/blobs/{'0' * 64}").json()["code"] == "not_found"
    assert http.get("/v1/blobs/..%2Fsnugnet.db").status_code == 404
    assert http.get("/v1/blobs/xyz").status_code == 404


def test_another_tenant_gets_neither_file_nor_digests_nor_blob(
    client: Client, http: TestClient, database: Database, job_id: str
) -> None:
    artifact = client.artifacts(job_id)[0]
    urls = (
        f"/v1/artifacts/{artifact.id}/content",
        f"/v1/artifacts/{artifact.id}/digests",
        f"/v1/blobs/{artifact.sha256}",
    )
    assert [http.get(url).status_code for url in urls] == [200, 200, 200]
    everybody = Database(database.url)
    with everybody.write() as session:
        other = create_key(session, "other", tenant_id=create_tenant(session, "other").id)
    everybody.dispose()
    theirs = {"Authorization": f"Bearer {other}"}
    assert [http.get(url, headers=theirs).status_code for url in urls] == [404, 404, 404]
    # To announce a file is not to have it.
    file = {"name": "d.csv", "size_bytes": artifact.size_bytes, "sha256": artifact.sha256}
    body = {"kind": "dataset", "files": [file]}
    assert http.post("/v1/uploads", json=body, headers=theirs).status_code == 201
    assert http.get(urls[2], headers=theirs).status_code == 404
