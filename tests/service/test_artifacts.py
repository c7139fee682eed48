from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from search.errors import InvalidInput
from service import artifacts
from service.artifacts import BlobNotFound, FilesystemArtifactStore
from service.db import Database
from service.step_types import NewArtifact
from tests.service.helpers import create_job

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def files_in(store: FilesystemArtifactStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_blob_is_named_by_its_content(store: FilesystemArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(CONTENT)
    assert store.put(source) == SHA256
    assert store.path(SHA256).read_bytes() == CONTENT
    assert store.path(SHA256) == store.root / SHA256[:2] / SHA256
    assert store.size_bytes(SHA256) == len(CONTENT)


def test_equal_content_is_stored_once(store: FilesystemArtifactStore) -> None:
    assert store.put_bytes(CONTENT) == store.put_bytes(CONTENT) == SHA256
    assert len(files_in(store)) == 1


def test_an_interrupted_put_leaves_nothing(store: FilesystemArtifactStore) -> None:
    def receive_half() -> None:
        with store.receive() as writer:
            writer.write(CONTENT[:100])
            raise RuntimeError("the connection broke")

    with pytest.raises(RuntimeError):
        receive_half()
    assert files_in(store) == []
    assert not store.exists(SHA256)


def test_a_missing_blob_is_told(store: FilesystemArtifactStore) -> None:
    with pytest.raises(BlobNotFound):
        store.path(SHA256)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", SHA256.upper(), SHA256[:-1]])
def test_only_digests_name_blobs(store: FilesystemArtifactStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.exists(name)


def test_deleting_a_blob_twice_does_no_harm(store: FilesystemArtifactStore) -> None:
    store.put_bytes(CONTENT)
    store.delete(SHA256)
    store.delete(SHA256)
    assert not store.exists(SHA256)


def test_artifacts_are_listed_by_target_and_name(database: Database) -> None:
    job_id = create_job(database)
    places = [(1, "model.onnx"), (0, "model.onnx"), (None, "report.json"), (0, "README.md")]
    new = [
        NewArtifact(
            name=name, sha256=SHA256, size_bytes=1, media_type="text/plain", target_index=target
        )
        for target, name in places
    ]
    with database.write() as session:
        artifacts.record_artifacts(session, job_id, new)
    with database.read() as session:
        found = artifacts.list_artifacts(session, job_id)
        same = artifacts.get_artifact(session, found[0].id)
    assert [(a.target_index, a.name) for a in found] == [
        (None, "report.json"),
        (0, "README.md"),
        (0, "model.onnx"),
        (1, "model.onnx"),
    ]
    assert same is not None
    assert same.name == "report.json"
