"""Uploads are checked once and for all, whoever dies in the meantime."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.artifacts import blobs
from service.database.db import Database, epoch_now
from service.database.models import Upload
from service.settings import Settings
from service.steps.step_types import LeaseLost
from service.store.filesystem import FilesystemStore
from service.store.protocol import ArtifactStore
from service.uploads import uploads
from service.uploads.checks import leases
from service.uploads.checks.checker import Checker, make_inspector
from service.uploads.checks.inspector import Inspector
from service.uploads.checks.leases import CHECKING, MAX_ATTEMPTS
from service.uploads.checks.limits import Limits
from service.uploads.upload_schemas import NewUpload
from tests.service.serving import files_in, serving, write_data
from tests.service.uploads.checks.test_inspector import MIB, is_alive, pids_in, until
from tests.service.uploads.test_uploads import declare


@pytest.fixture
def store(settings: Settings) -> FilesystemStore:
    return FilesystemStore(settings.blobs_dir)


def waiting_upload(
    database: Database, store: ArtifactStore, path: Path, task: str = "text-classification"
) -> str:
    """An upload that is whole and waits for its check; `task` is what its reader is told."""
    sha256 = store.put(path)
    file = {"name": path.name, "size_bytes": path.stat().st_size, "sha256": sha256}
    new = NewUpload.model_validate({"kind": "dataset", "files": [file]})
    with database.write() as session:
        upload = uploads.create_upload(session, store, new)
        uploads.note_received(session, upload.id, path.name)
        upload.summary = {**(upload.summary or {}), "task": task}
        leases.begin(session, upload, CHECKING)
        return upload.id


def upload_of(database: Database, upload_id: str) -> Upload:
    with database.read() as session:
        return session.get_one(Upload, upload_id)


def sleeping(settings: Settings) -> Inspector:
    return Inspector(
        Limits(memory_bytes=400 * MIB, seconds=60),
        num_processes=2,
        scratch=settings.scratch_dir,
        module="tests.service.uploads.checks.modules.sleeping",
    )


@contextmanager
def checking(
    settings: Settings, database: Database, store: ArtifactStore, inspector: Inspector
) -> Iterator[Checker]:
    checker = Checker(settings, database=database, store=store, inspector=inspector)
    checker.start()
    try:
        yield checker
    finally:
        checker.stop()


def test_what_waits_is_found_without_a_nudge(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    with checking(settings, database, store, make_inspector(settings)):
        ids = [
            waiting_upload(database, store, write_data(tmp_path / f"d{n}.csv", n))
            for n in (40, 50, 60)
        ]
        until(lambda: all(upload_of(database, i).state == "ready" for i in ids))
    assert [(upload_of(database, i).summary or {})["num_rows"] for i in ids] == [40, 50, 60]


def test_an_upload_of_a_killed_server_is_checked_by_another(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    upload_id = waiting_upload(database, store, write_data(tmp_path / "d.csv"))
    with database.write() as session:
        lost = leases.claim(session, CHECKING, "killed", settings.lease_seconds)
        assert lost is not None
        assert leases.claim(session, CHECKING, "me", settings.lease_seconds) is None
        session.execute(update(Upload).values(lease_until=epoch_now() - 1))
    left = settings.scratch_dir / f"{ended_pid()}-check-x"
    left.mkdir(parents=True)
    with checking(settings, database, store, make_inspector(settings)):
        until(lambda: upload_of(database, upload_id).state == "ready")
    assert not left.exists()
    with pytest.raises(LeaseLost), database.write() as session:
        leases.settle(session, lost, "failed")
    assert upload_of(database, upload_id).state == "ready"


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_reader_that_is_killed_is_started_again_and_at_last_given_up(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    upload_id = waiting_upload(database, store, write_data(tmp_path / "d.csv"), str(told))
    with checking(settings, database, store, sleeping(settings)):
        for attempt in range(1, MAX_ATTEMPTS + 1):
            until(lambda attempt=attempt: len(pids_in(told)) == attempt)  # type: ignore[misc]
            os.kill(pids_in(told)[-1], signal.SIGKILL)
        until(lambda: upload_of(database, upload_id).state == "failed")
    error = upload_of(database, upload_id).error
    assert error is not None
    assert error["field"] == "files"
    assert f"could not be checked in {MAX_ATTEMPTS} attempts" in error["reason"]
    assert not files_in(settings.data_dir)


def test_a_check_that_takes_longer_than_a_lease_keeps_it(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    upload_id = waiting_upload(database, store, write_data(tmp_path / "d.csv"), str(told))
    with checking(settings, database, store, sleeping(settings)):
        until(lambda: bool(pids_in(told)))
        first = upload_of(database, upload_id).lease_until
        assert first is not None
        until(lambda: (upload_of(database, upload_id).lease_until or 0) > first + 1)
        assert len(pids_in(told)) == 1


def test_a_server_that_stops_gives_back_what_it_was_at(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    upload_id = waiting_upload(database, store, write_data(tmp_path / "d.csv"), str(told))
    with checking(settings, database, store, sleeping(settings)):
        until(lambda: bool(pids_in(told)))
    upload = upload_of(database, upload_id)
    assert (upload.state, upload.owner, upload.attempts) == (CHECKING, None, 0)
    assert not is_alive(pids_in(told)[0])
    assert not list(settings.scratch_dir.iterdir())


def test_an_upload_that_is_discarded_is_read_no_further(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    upload_id = waiting_upload(database, store, write_data(tmp_path / "d.csv"), str(told))
    with checking(settings, database, store, sleeping(settings)):
        until(lambda: bool(pids_in(told)))
        with database.write() as session:
            unused = uploads.delete_upload(session, upload_id)
        blobs.delete_unnamed(database, store, unused)
        until(lambda: not is_alive(pids_in(told)[0]))
        until(lambda: not files_in(settings.data_dir))


def test_a_blob_that_is_gone_is_the_servers_fault_and_not_asked_for_ever(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    upload_id = waiting_upload(database, store, write_data(tmp_path / "d.csv"))
    store.delete(hashlib.sha256((tmp_path / "d.csv").read_bytes()).hexdigest())
    with checking(settings, database, store, make_inspector(settings)):
        until(lambda: upload_of(database, upload_id).state == "failed")


# --- over HTTP ----------------------------------------------------------------------------------


def test_a_check_that_takes_longer_is_asked_for_again(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    apart = settings.model_copy(update={"runs_checks": False})
    content = write_data(tmp_path / "d.csv").read_bytes()
    with serving(apart, reads_apart=True) as http:
        upload_id = declare(http, content)
        http.put(f"/v1/uploads/{upload_id}/files/d.csv", content=content)
        for _ in range(2):
            answer = http.post(f"/v1/uploads/{upload_id}/finalize", params={"wait_s": 0})
            assert (answer.status_code, answer.json()["state"]) == (202, "checking")
            assert answer.headers["retry-after"] == "1"
        # It is no upload for a job yet, and takes no more files.
        assert http.put(f"/v1/uploads/{upload_id}/files/d.csv", content=content).status_code == 409
        with checking(settings, database, store, make_inspector(settings)):
            answer = http.post(f"/v1/uploads/{upload_id}/finalize", params={"wait_s": 20})
        assert (answer.status_code, answer.json()["state"]) == (200, "ready")


def test_what_was_wrong_is_told_as_often_as_it_is_asked(http: TestClient) -> None:
    content = b"text,label\nx\n"
    upload_id = declare(http, content)
    http.put(f"/v1/uploads/{upload_id}/files/d.csv", content=content)
    for _ in range(2):
        answer = http.post(f"/v1/uploads/{upload_id}/finalize")
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "data")
    assert http.get(f"/v1/uploads/{upload_id}").json()["state"] == "failed"
    assert http.delete(f"/v1/uploads/{upload_id}").status_code == 204


PROGRAM = [sys.executable, "-c", "from service.cli import main; main()", "checker"]


def test_the_program_beside_the_api_checks_and_ends_when_it_is_told_to(
    settings: Settings, database: Database, store: FilesystemStore, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "SNUGNET_DATA_DIR": str(settings.data_dir),
        "SNUGNET_DATABASE_URL": settings.database_url,
    }
    upload_id = waiting_upload(database, store, write_data(tmp_path / "d.csv"))
    process = subprocess.Popen(PROGRAM, env=environment, stderr=subprocess.DEVNULL)
    try:
        until(lambda: upload_of(database, upload_id).state == "ready")
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_reader_has_a_least_memory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="check_memory_bytes"):
        Settings(data_dir=tmp_path, check_memory_bytes=1000)
