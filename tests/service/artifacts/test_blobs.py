"""Names of blobs: who keeps a file, and what happens where one comes as another one goes."""

from __future__ import annotations

import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from sqlalchemy import select

from service.artifacts import blobs
from service.artifacts.artifacts import record_artifacts
from service.database.db import Database
from service.database.models import BlobReference, BlobRow, Job, Tenant, Upload, UploadFile
from service.jobs import jobs
from service.jobs.lifecycle import delete_job
from service.steps.step_types import NewArtifact
from service.store.digest import digest_of
from service.store.filesystem import FilesystemStore
from service.store.protocol import StoreUnavailable
from service.tenants.tenancy import DEFAULT_TENANT
from tests.service.helpers import create_job

CONTENT = b"weights" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def put(database: Database, store: FilesystemStore, job_id: str, content: bytes = CONTENT) -> str:
    """As a step does it: first the name, then the file."""
    sha256 = hashlib.sha256(content).hexdigest()
    with database.write() as session:
        blobs.refer(session, job_id, sha256)
    return store.put_bytes(content)


def drop(database: Database, store: FilesystemStore, job_id: str, sha256: str = SHA256) -> bool:
    with database.write() as session:
        return blobs.drop(session, store, job_id, sha256)


def rows(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(BlobRow.sha256)))


def references(database: Database) -> set[tuple[str, str]]:
    with database.read() as session:
        found = session.execute(select(BlobReference.job_id, BlobReference.sha256))
        return {(row.job_id, row.sha256) for row in found}


def test_a_blob_that_two_jobs_need_goes_with_the_second(
    database: Database, store: FilesystemStore
) -> None:
    one, two = create_job(database), create_job(database)
    for job_id in (one, two, two):
        put(database, store, job_id)
    assert references(database) == {(one, SHA256), (two, SHA256)}
    assert not drop(database, store, one)
    assert not drop(database, store, one)
    assert store.exists(SHA256)
    assert drop(database, store, two)
    assert not store.exists(SHA256)
    assert rows(database) == set()


def test_an_upload_or_an_artifact_keeps_a_blob(database: Database, store: FilesystemStore) -> None:
    job_id = create_job(database)
    put(database, store, job_id)
    with database.write() as session:
        upload = Upload(tenant_id=DEFAULT_TENANT, kind="dataset")
        session.add(upload)
        session.flush()
        file = UploadFile(upload_id=upload.id, name="d", size_bytes=1, sha256=SHA256)
        session.add(file)
    assert not drop(database, store, job_id)
    artifact = NewArtifact(name="a", sha256=SHA256, size_bytes=1, media_type="text/plain")
    with database.write() as session:
        record_artifacts(session, job_id, [artifact])
        session.delete(session.get_one(UploadFile, (upload.id, "d")))
    assert blobs.delete_unnamed(database, store, [SHA256]) == 0
    assert store.exists(SHA256)


def test_a_deleted_job_needs_nothing_any_more(database: Database, store: FilesystemStore) -> None:
    job_id = create_job(database)
    put(database, store, job_id)
    with database.write() as session:
        session.get_one(Job, job_id).state = "failed"
    with database.write() as session:
        assert delete_job(session, job_id)
    assert references(database) == set()
    assert store.exists(SHA256)  # until garbage is collected
    assert blobs.delete_unnamed(database, store, [SHA256]) == 1


def test_a_job_adopts_what_the_other_one_needs_and_no_more(
    database: Database, store: FilesystemStore
) -> None:
    one, two = create_job(database), create_job(database)
    wanted, unwanted = (put(database, store, one, content) for content in (b"a", b"b"))
    state = {"blobs": {"supernet": wanted}, "data_sha256": "0" * 64, "note": f"not {unwanted}"}
    with database.write() as session:
        blobs.adopt(session, two, one, blobs.hashes_in(state))
    assert references(database) == {(one, wanted), (one, unwanted), (two, wanted)}


def test_what_arrived_is_described(
    database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    job_id = create_job(database)
    put(database, store, job_id)
    (tmp_path / "file").write_bytes(CONTENT)
    with database.write() as session:
        assert session.get_one(BlobRow, SHA256).size_bytes is None
        blobs.describe(session, digest_of(tmp_path / "file"))
        blobs.take(session, SHA256)
    with database.read() as session:
        row = session.get_one(BlobRow, SHA256)
        assert (row.size_bytes, row.chunks) == (len(CONTENT), [SHA256])


def test_a_file_that_cannot_be_deleted_keeps_its_name(
    database: Database, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise StoreUnavailable("the store is away")

    job_id = create_job(database)
    put(database, store, job_id)
    with monkeypatch.context() as patched:
        patched.setattr(store, "delete", refuse)
        with pytest.raises(StoreUnavailable):
            drop(database, store, job_id)
    assert references(database) == {(job_id, SHA256)}
    assert drop(database, store, job_id)


def test_what_was_only_announced_is_not_handed_out(
    database: Database, store: FilesystemStore
) -> None:
    store.put_bytes(CONTENT)
    with database.write() as session:
        upload = Upload(tenant_id=DEFAULT_TENANT, kind="dataset")
        session.add(upload)
        session.flush()
        session.add(UploadFile(upload_id=upload.id, name="d", size_bytes=1, sha256=SHA256))
        assert not blobs.is_visible(session, SHA256)
        upload.state = "ready"
        session.flush()
        assert blobs.is_visible(session, SHA256)
    job_id = create_job(database)
    other = put(database, store, job_id, b"other")
    with database.read() as session:
        assert blobs.is_visible(session, other)
        assert not blobs.is_visible(session, "0" * 64)


def test_a_tenant_sees_its_own_blobs_and_deletes_none_that_another_one_needs(
    database: Database, store: FilesystemStore
) -> None:
    mine, theirs = database.for_tenant(DEFAULT_TENANT), database.for_tenant("ten_other")
    job_id = create_job(database)
    put(database, store, job_id)
    everybody = Database(database.url)
    with everybody.write() as session:
        other = Tenant(id="ten_other", name="other")
        session.add(other)
        session.flush()
        job = jobs.create_job(session, {}, name="job", tenant_id="ten_other")
    everybody.dispose()
    with theirs.read() as session:
        assert not blobs.is_visible(session, SHA256)
    artifact = NewArtifact(name="a", sha256=SHA256, size_bytes=1, media_type="text/plain")
    with theirs.write() as session:
        record_artifacts(session, job.id, [artifact])
    for seen_by in (mine, theirs):
        with seen_by.read() as session:
            assert blobs.is_visible(session, SHA256)
    assert not drop(mine, store, job_id)
    assert store.exists(SHA256)
    with mine.read() as session:
        assert not blobs.is_visible(session, SHA256)


# --- one comes as another one goes --------------------------------------------------------------


class Halting(FilesystemStore):
    """Stops in the middle of an operation until it is told to go on."""

    def __init__(self, root: Path, operation: str) -> None:
        super().__init__(root)
        self._operation = operation
        self.has_stopped, self.may_go_on = threading.Event(), threading.Event()

    def delete(self, sha256: str) -> None:
        self._halt("delete")
        super().delete(sha256)

    def put_bytes(self, content: bytes) -> str:
        self._halt("put")
        return super().put_bytes(content)

    def _halt(self, operation: str) -> None:
        if operation == self._operation:
            self.has_stopped.set()
            assert self.may_go_on.wait(30)


def test_a_put_that_comes_while_the_file_is_deleted_writes_it_again(
    database: Database, store: FilesystemStore
) -> None:
    """The deleter found no name and is about to delete: the put waits, then finds nothing."""
    old, new = create_job(database), create_job(database)
    put(database, store, old)
    halting = Halting(store.root, "delete")
    with ThreadPoolExecutor(2) as pool:
        dropped = pool.submit(drop, database, halting, old)
        assert halting.has_stopped.wait(30)
        stored = pool.submit(put, database, store, new)
        done, _ = wait([stored], 0.3)
        assert not done, "its name has to wait for the deleter's transaction"
        halting.may_go_on.set()
        assert dropped.result()
        assert stored.result() == SHA256
    assert store.path(SHA256).read_bytes() == CONTENT
    assert references(database) == {(new, SHA256)}


def test_a_deleter_that_comes_while_the_file_is_put_finds_its_name(
    database: Database, store: FilesystemStore
) -> None:
    old, new = create_job(database), create_job(database)
    put(database, store, old)
    halting = Halting(store.root, "put")
    with ThreadPoolExecutor(2) as pool:
        stored = pool.submit(put, database, halting, new)
        assert halting.has_stopped.wait(30)  # the name is committed, the file not yet put
        assert not drop(database, store, old)
        halting.may_go_on.set()
        stored.result()
    assert store.path(SHA256).read_bytes() == CONTENT


def test_many_jobs_that_put_and_drop_the_same_never_lose_a_file(
    database: Database, store: FilesystemStore
) -> None:
    contents = [bytes([number]) * 100 for number in range(3)]
    job_ids = [create_job(database) for _ in range(6)]

    def work(job_id: str) -> set[str]:
        """What the job needs at the end."""
        rng = random.Random(job_ids.index(job_id))
        held: set[str] = set()
        for _ in range(40):
            content = rng.choice(contents)
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 in held:
                assert store.path(sha256).read_bytes() == content
                drop(database, store, job_id, sha256)
                held.remove(sha256)
            else:
                held.add(put(database, store, job_id, content))
        return held

    with ThreadPoolExecutor(len(job_ids)) as pool:
        held = dict(zip(job_ids, pool.map(work, job_ids), strict=True))
    assert references(database) == {(j, sha256) for j, all_ in held.items() for sha256 in all_}
    needed = set().union(*held.values())
    assert {blob.sha256 for blob in store.list_blobs()} == rows(database) == needed
