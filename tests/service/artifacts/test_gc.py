"""What garbage collection finds, tells and deletes, and what it must not touch."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any

import pytest
from sqlalchemy import select, update

from search.errors import InvalidInput
from service.artifacts import blobs, gc
from service.artifacts.artifacts import record_artifacts
from service.artifacts.collector import Collector
from service.artifacts.gc import GcReport, collect
from service.database.db import Database, epoch_now
from service.database.models import (
    BlobReference,
    BlobRow,
    IdempotencyKey,
    Job,
    OutboxRow,
    Upload,
    UploadFile,
    Webhook,
    WebhookDelivery,
    WebSession,
)
from service.jobs import lifecycle, warm_start
from service.jobs.lifecycle import WrongState
from service.settings import Settings
from service.steps.step_types import NewArtifact
from service.store.filesystem import FilesystemStore
from service.tenants.auth import create_key, look_up
from service.tenants.tenancy import DEFAULT_TENANT
from service.web.sessions import begin_session
from tests.service.commands import Cli
from tests.service.helpers import create_job
from tests.workers.waiting import wait_until

DAY_SECONDS = 86_400.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    limits = {"keep_succeeded_days": 30.0, "keep_unfinished_days": 10.0, "gc_grace_hours": 1.0}
    return settings.model_copy(update=limits)


class Yard:
    """Puts things where garbage collection looks."""

    def __init__(self, database: Database, store: FilesystemStore, settings: Settings) -> None:
        self.database = database
        self.store = store
        self.settings = settings

    def job(self, state: str, days_ago: float = 0.0, **spec: Any) -> str:
        job_id = create_job(self.database)
        with self.database.write() as session:
            job = session.get_one(Job, job_id)
            job.state, job.spec = state, spec
            if state in ("succeeded", "failed", "cancelled"):
                job.finished_at = epoch_now() - days_ago * DAY_SECONDS
        return job_id

    def checkpoint(self, job_id: str, size_bytes: int) -> str:
        content = os.urandom(size_bytes)
        sha256 = hashlib.sha256(content).hexdigest()
        with self.database.write() as session:
            blobs.refer(session, job_id, sha256)
        return self.store.put_bytes(content)

    def artifact(self, job_id: str, size_bytes: int) -> str:
        sha256 = self.checkpoint(job_id, size_bytes)
        new = NewArtifact(
            name=sha256, sha256=sha256, size_bytes=size_bytes, media_type="text/plain"
        )
        with self.database.write() as session:
            record_artifacts(session, job_id, [new])
        return sha256

    def upload(self, size_bytes: int, state: str = "open", days_ago: float = 0.0) -> str:
        content = os.urandom(size_bytes)
        sha256 = hashlib.sha256(content).hexdigest()
        with self.database.write() as session:
            upload = Upload(tenant_id=DEFAULT_TENANT, kind="dataset", state=state)
            session.add(upload)
            session.flush()
            blobs.take(session, sha256)
            session.add(
                UploadFile(upload_id=upload.id, name="d", size_bytes=size_bytes, sha256=sha256)
            )
            upload.created_at = epoch_now() - days_ago * DAY_SECONDS
        return self.store.put_bytes(content)

    def orphan(self, size_bytes: int, hours_ago: float) -> str:
        sha256 = self.store.put_bytes(os.urandom(size_bytes))
        os.utime(self.store.path(sha256), (time.time() - hours_ago * 3600,) * 2)
        return sha256

    def collect(self, *, dry_run: bool = False) -> GcReport:
        return collect(self.database, self.store, self.settings, dry_run=dry_run)

    def stored(self) -> set[str]:
        return {blob.sha256 for blob in self.store.list_blobs()}

    def rows(self) -> set[str]:
        with self.database.read() as session:
            return set(session.scalars(select(BlobRow.sha256)))


@pytest.fixture
def yard(database: Database, store: FilesystemStore, settings: Settings) -> Yard:
    return Yard(database, store, settings)


def tallies(report: GcReport) -> dict[str, tuple[int, int]]:
    return {name: (tally.num, tally.size_bytes) for name, tally in report.classes.items()}


def rows(yard: Yard) -> None:
    """Of each kind an old one, and one that still serves."""
    with yard.database.write() as session:
        tenant = {"tenant_id": DEFAULT_TENANT}
        webhook = Webhook(url="https://x", kinds=["job.ended"], secret="s", **tenant)
        session.add(webhook)
        session.flush()
        for number, days_ago in enumerate((2.0, 0.5)):
            at = {"created_at": epoch_now() - days_ago * DAY_SECONDS}
            session.add(
                IdempotencyKey(
                    key=str(number), request_sha256="0", token="t", lease_until=0.0, **at, **tenant
                )
            )
        for days_ago in (31.0, 29.0, None):
            at = None if days_ago is None else epoch_now() - days_ago * DAY_SECONDS
            session.add(
                WebhookDelivery(
                    webhook_id=webhook.id, kind="job.ended", payload={}, finished_at=at, **tenant
                )
            )
        key = look_up(session, create_key(session, "viewer", **tenant))
        assert key is not None
        for used_days_ago in (2.0, 0.5):
            token = begin_session(session, key)
            session.execute(
                update(WebSession)
                .where(WebSession.token_sha256 == hashlib.sha256(token.encode()).hexdigest())
                .values(last_used_at=epoch_now() - used_days_ago * DAY_SECONDS)
            )


def fill(yard: Yard) -> tuple[set[str], dict[str, tuple[int, int]]]:
    """Something of every class: what has to stay, and what will be told of the rest."""
    running, succeeded = yard.job("running"), yard.job("succeeded", 31)
    failed, cancelled = yard.job("failed", 11), yard.job("cancelled", 11)
    kept = {
        yard.checkpoint(running, 1),
        yard.checkpoint(yard.job("succeeded", 29), 2),
        yard.checkpoint(yard.job("failed", 9), 3),
        yard.artifact(succeeded, 4),
        yard.upload(5),
        yard.upload(6, "ready", days_ago=400),
        yard.orphan(7, hours_ago=0.5),
    }
    shared = yard.checkpoint(succeeded, 8)
    with yard.database.write() as session:
        blobs.refer(session, running, shared)
    for size_bytes in (10, 20):
        yard.checkpoint(succeeded, size_bytes)
    yard.checkpoint(failed, 40)
    yard.checkpoint(cancelled, 80)
    yard.upload(100, days_ago=2)
    deleted = yard.job("failed")
    yard.checkpoint(deleted, 200)
    with yard.database.write() as session:
        lifecycle.delete_job(session, deleted)
        session.execute(update(OutboxRow).values(sent_at=epoch_now() - 2 * 3600))
    rows(yard)
    yard.orphan(400, hours_ago=2)
    incoming = yard.store.root / "incoming" / "half"
    incoming.write_bytes(b"x" * 800)
    os.utime(incoming, (time.time() - 2 * 3600,) * 2)
    (yard.store.root / "incoming" / "on-its-way").write_bytes(b"x")
    return kept | {shared}, {
        "jobs that keep only their artifacts": (3, 0),
        "checkpoints of succeeded jobs": (2, 30),
        "checkpoints of failed jobs": (1, 40),
        "checkpoints of cancelled jobs": (1, 80),
        "abandoned uploads": (1, 100),
        "blobs without a name": (1, 200),
        "files that no row knows": (1, 400),
        "unfinished files": (1, 800),
        "sent wake-ups": (6, 0),
        "idempotency keys": (1, 0),
        "webhook deliveries": (1, 0),
        "ended web sessions": (1, 0),
    }


def test_each_class_goes_as_it_was_told_and_the_rest_stays(yard: Yard) -> None:
    kept, expected = fill(yard)
    before = yard.stored()
    assert tallies(yard.collect(dry_run=True)) == expected
    assert yard.stored() == before
    assert tallies(yard.collect()) == expected
    assert yard.stored() == kept
    assert {path.name for path in (yard.store.root / "incoming").iterdir()} == {"on-its-way"}
    again = yard.collect()
    assert (again.classes, again.missing) == ({}, [])
    assert yard.rows() <= kept
    with yard.database.read() as session:
        assert all(blobs.is_named(session, sha256) for sha256 in yard.rows())


def test_zero_days_keep_for_ever(yard: Yard) -> None:
    for state in ("succeeded", "failed", "cancelled"):
        yard.checkpoint(yard.job(state, 1000), 9)
    yard.settings = yard.settings.model_copy(
        update={"keep_succeeded_days": 0.0, "keep_unfinished_days": 0.0}
    )
    assert yard.collect().classes == {}
    assert len(yard.stored()) == 3


def test_a_swept_job_says_so_and_cannot_be_tried_again(yard: Yard) -> None:
    job_id = yard.job("failed", 11)
    yard.checkpoint(job_id, 9)
    yard.collect()
    with yard.database.write() as session, pytest.raises(WrongState, match="checkpoints are gone"):
        lifecycle.retry(session, job_id)
    with yard.database.read() as session:
        job = session.get_one(Job, job_id)
        assert job.swept_at is not None
        assert job.state == "failed"
        with pytest.raises(InvalidInput, match=r"the supernet of job_\w+ is gone"):
            warm_start.trained_state(session, job_id)


def test_a_job_whose_supernet_is_searched_waits_for_the_search(yard: Yard) -> None:
    trained = yard.job("succeeded", 100)
    supernet = yard.checkpoint(trained, 9)
    searching = yard.job("queued", supernet_of=trained)
    assert yard.collect().classes == {}
    assert yard.stored() == {supernet}
    with yard.database.write() as session:
        session.get_one(Job, searching).state = "failed"
    yard.collect()
    assert yard.stored() == set()


def test_what_is_named_and_not_there_is_told(yard: Yard) -> None:
    job_id = yard.job("running")
    lost, never_arrived, new = (yard.checkpoint(job_id, n) for n in (7, 8, 9))
    with yard.database.write() as session:
        old = {"created_at": epoch_now() - 2 * 3600}
        session.execute(update(BlobRow).values(size_bytes=1, **old))
        session.get_one(BlobRow, never_arrived).size_bytes = None
        session.get_one(BlobRow, new).created_at = epoch_now()
    for sha256 in (lost, never_arrived, new):
        yard.store.delete(sha256)
    assert yard.collect().missing == [lost]


def test_a_job_tried_again_while_garbage_is_collected_keeps_its_checkpoints(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the sweep."""
    job_id = yard.job("failed", 11)
    checkpoint = yard.checkpoint(job_id, 9)
    sweep = gc._sweep_job

    def retry_first(*args: Any) -> bool:
        with yard.database.write() as session:
            lifecycle.retry(session, job_id)
        return sweep(*args)

    monkeypatch.setattr(gc, "_sweep_job", retry_first)
    assert yard.collect().classes == {}
    assert yard.stored() == {checkpoint}
    with yard.database.read() as session:
        assert list(session.scalars(select(BlobReference.sha256))) == [checkpoint]


def test_the_service_collects_by_itself(yard: Yard) -> None:
    orphan = yard.orphan(9, hours_ago=2)
    often = yard.settings.model_copy(update={"gc_hours": 0.01 / 3600})
    collector = Collector(yard.database, yard.store, often)
    collector.start()
    wait_until(lambda: not yard.store.exists(orphan))
    collector.stop()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], yard: Yard) -> Cli:
    monkeypatch.setenv("SNUGNET_DATABASE_URL", yard.settings.database_url)
    monkeypatch.setenv("SNUGNET_GC_GRACE_HOURS", "1")
    monkeypatch.setenv("SNUGNET_DATA_DIR", str(yard.settings.data_dir))
    return Cli(monkeypatch, capsys)


def test_the_command_tells_what_would_go_and_lets_it_go(cli: Cli, yard: Yard) -> None:
    orphan = yard.orphan(4000, hours_ago=2)
    code, out, err = cli("gc", "--dry-run")
    assert (code, err) == (0, "")
    assert "would be deleted" in out
    assert ["files", "that", "no", "row", "knows", "1", "4,000"] in [
        line.split() for line in out.splitlines()
    ]
    assert yard.store.exists(orphan)
    code, out, _ = cli("gc", "-o", "json")
    assert code == 0
    assert json.loads(out) == {
        "is_dry_run": False,
        "classes": {"files that no row knows": {"num": 1, "size_bytes": 4000}},
        "missing": [],
    }
    assert not yard.store.exists(orphan)


def test_the_command_fails_where_files_are_missing_or_cannot_be_listed(
    cli: Cli, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = yard.checkpoint(yard.job("running"), 7)
    with yard.database.write() as session:
        session.execute(update(BlobRow).values(size_bytes=7, created_at=1.0))
    yard.store.delete(lost)
    code, _, err = cli("gc")
    assert (code, err.splitlines()) == (
        1,
        [f"missing: {lost}", "error: 1 files that are needed are not in the store"],
    )
    monkeypatch.setenv("SNUGNET_ARTIFACTS_URL", "s3://bucket")
    monkeypatch.setenv("SNUGNET_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    code, _, err = cli("gc")
    assert code == 1
    assert err.startswith("error: cannot list the bucket 'bucket'")
    assert len(err.splitlines()) == 1
