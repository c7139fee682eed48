"""What nobody needs any more: found, told, and deleted.

Retention first takes names away (checkpoints of jobs that ended long ago, uploads that were never
finished); then what has no name is deleted, and files that no row knows. Everything is looked at
again, under its lock, before it goes: a round may run beside workers and beside another round.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    delete,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session, aliased

from service.api.idempotency import is_old_key
from service.artifacts import blobs
from service.database.db import Database, epoch_now
from service.database.models import (
    ArtifactRow,
    Base,
    BlobReference,
    BlobRow,
    IdempotencyKey,
    Job,
    OutboxRow,
    Upload,
    UploadChunk,
    UploadFile,
    WebhookDelivery,
    WebSession,
)
from service.jobs.events import append_event
from service.jobs.job_states import ACTIVE
from service.settings import Settings
from service.steps.reconciler import is_old_wakeup
from service.store.protocol import ArtifactStore, StoredBlob
from service.uploads import uploads
from service.web.sessions import has_ended

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0
UNNAMED, ABANDONED = "blobs without a name", "abandoned uploads"
UNKNOWN, UNFINISHED = "files that no row knows", "unfinished files"
SWEPT = "jobs that keep only their artifacts"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSweep:
    """Rows of a table that have served their time."""

    name: str
    table: type[Base]
    is_old: ColumnElement[bool]


@dataclass(slots=True)
class Tally:
    num: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int = 0, num: int = 1) -> None:
        self.num += num
        self.size_bytes += size_bytes


@dataclass(frozen=True, slots=True)
class GcReport:
    """What was deleted, or would be, by class; and files that should be there and are not."""

    is_dry_run: bool
    classes: dict[str, Tally] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, name: str, size_bytes: int = 0, num: int = 1) -> None:
        if num:
            self.classes.setdefault(name, Tally()).add(size_bytes, num)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Garbage:
    sha256: str
    kind: str
    size_bytes: int


def collect(
    database: Database, store: ArtifactStore, settings: Settings, *, dry_run: bool = False
) -> GcReport:
    """One round, to its end; `dry_run` only looks."""
    report = GcReport(dry_run)
    listed = {blob.sha256: blob for blob in store.list_blobs()}
    with database.read() as session:
        job_ids = list(session.scalars(_due_jobs(settings)))
        garbage = [*_about_to_be_unnamed(session, settings, listed)]
        garbage += _unknown(session, settings, listed)
        report.missing.extend(_missing(session, settings, listed))
    for job_id in job_ids:
        if dry_run or _sweep_job(database, settings, job_id):
            report.add(SWEPT)
    if not dry_run:
        with database.write() as session:
            uploads.delete_abandoned(session)
    for found in garbage:
        if dry_run or blobs.delete_unnamed(database, store, [found.sha256]):
            report.add(found.kind, found.size_bytes)
    _sweep_unfinished(store, settings, report)
    _sweep_rows(database, settings, report)
    return report


# --- retention ----------------------------------------------------------------------------------


def _due_jobs(settings: Settings) -> Select[str]:
    """Those that ended so long ago that their checkpoints go. One whose supernet a job that goes
    on is to search waits for it."""
    searching = aliased(Job)
    is_searched = exists().where(
        searching.spec["supernet_of"].as_string() == Job.id, searching.state.in_(ACTIVE)
    )
    ended_long_ago = or_(
        false(),
        *(
            and_(Job.state.in_(states), Job.finished_at < epoch_now() - days * DAY_SECONDS)
            for states, days in (
                (("succeeded",), settings.keep_succeeded_days),
                (("failed", "cancelled"), settings.keep_unfinished_days),
            )
            if days > 0
        ),
    )
    # An alias: this query stands in others of the same table.
    reference = aliased(BlobReference)
    has_blobs = exists().where(reference.job_id == Job.id)
    return select(Job.id).where(
        ended_long_ago, Job.swept_at.is_(None), has_blobs, not_(is_searched)
    )


def _sweep_job(database: Database, settings: Settings, job_id: str) -> bool:
    """False where it was tried again, or found a use, or was swept by another meanwhile."""
    with database.write() as session:
        session.get(Job, job_id, with_for_update=True)
        still_due = _due_jobs(settings).where(Job.id == job_id)
        if session.scalars(still_due).one_or_none() is None:
            return False
        session.execute(delete(BlobReference).where(BlobReference.job_id == job_id))
        session.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(swept_at=epoch_now(), version=Job.version + 1)
            .execution_options(synchronize_session=False)
        )
        append_event(session, job_id, "swept", "its checkpoints are gone, its artifacts stay")
    return True


# --- what has no name, or is about to lose its last ---------------------------------------------


def _about_to_be_unnamed(
    session: Session, settings: Settings, listed: dict[str, StoredBlob]
) -> Iterator[_Garbage]:
    due = _due_jobs(settings)
    kept_by_job = exists().where(
        BlobReference.sha256 == BlobRow.sha256, BlobReference.job_id.not_in(due)
    )
    abandoned = select(Upload.id).where(uploads.is_abandoned())
    kept_by_upload, is_uploaded = (
        or_(*(exists().where(row.sha256 == BlobRow.sha256, is_kept) for row, is_kept in rows))
        for rows in (
            [(row, row.upload_id.not_in(abandoned)) for row in (UploadFile, UploadChunk)],
            [(row, true()) for row in (UploadFile, UploadChunk)],
        )
    )
    is_artifact = exists().where(ArtifactRow.sha256 == BlobRow.sha256)
    state = (
        select(func.min(Job.state))
        .join(BlobReference, BlobReference.job_id == Job.id)
        .where(BlobReference.sha256 == BlobRow.sha256)
        .scalar_subquery()
    )
    query = select(BlobRow.sha256, BlobRow.size_bytes, state, is_uploaded).where(
        not_(kept_by_job), not_(kept_by_upload), not_(is_artifact)
    )
    for sha256, size_bytes, job_state, was_uploaded in session.execute(query):
        kind = ABANDONED if was_uploaded else UNNAMED
        if job_state is not None:
            kind = f"checkpoints of {job_state} jobs"
        known = listed.get(sha256)
        size_bytes = known.size_bytes if known else size_bytes or 0
        yield _Garbage(sha256=sha256, kind=kind, size_bytes=size_bytes)


def _unknown(
    session: Session, settings: Settings, listed: dict[str, StoredBlob]
) -> Iterator[_Garbage]:
    """Left by a worker that lost its step while it stored something, and the like."""
    known: set[str] = set()
    for table in (BlobRow, UploadFile, UploadChunk, ArtifactRow):
        known.update(session.scalars(select(table.sha256)))
    before = _grace_ends(settings)
    for blob in listed.values():
        if blob.sha256 not in known and blob.modified_at < before:
            yield _Garbage(sha256=blob.sha256, kind=UNKNOWN, size_bytes=blob.size_bytes)


def _missing(session: Session, settings: Settings, listed: Iterable[str]) -> list[str]:
    """Files that had arrived, are named, and are not in the store."""
    grace_s = settings.gc_grace_hours * 3600
    query = select(BlobRow.sha256).where(
        BlobRow.size_bytes.is_not(None), BlobRow.created_at < epoch_now() - grace_s
    )
    gone = sorted(set(session.scalars(query)) - set(listed))
    return [sha256 for sha256 in gone if blobs.is_named(session, sha256)]


def _sweep_unfinished(store: ArtifactStore, settings: Settings, report: GcReport) -> None:
    for unfinished in list(store.list_unfinished()):
        if unfinished.modified_at < _grace_ends(settings):
            if not report.is_dry_run:
                store.discard(unfinished)
            report.add(UNFINISHED, unfinished.size_bytes)


def _row_sweeps(settings: Settings) -> list[RowSweep]:
    deliveries_end = epoch_now() - settings.keep_deliveries_days * DAY_SECONDS
    is_old_delivery = (
        WebhookDelivery.finished_at < deliveries_end if settings.keep_deliveries_days else false()
    )
    return [
        RowSweep(name="sent wake-ups", table=OutboxRow, is_old=is_old_wakeup()),
        RowSweep(name="idempotency keys", table=IdempotencyKey, is_old=is_old_key()),
        RowSweep(name="webhook deliveries", table=WebhookDelivery, is_old=is_old_delivery),
        RowSweep(name="ended web sessions", table=WebSession, is_old=has_ended()),
    ]


def _sweep_rows(database: Database, settings: Settings, report: GcReport) -> None:
    for sweep in _row_sweeps(settings):
        with database.read() as session:
            query = select(func.count()).select_from(sweep.table).where(sweep.is_old)
            num = session.execute(query).scalar_one()
        if num and not report.is_dry_run:
            with database.write() as session:
                session.execute(delete(sweep.table).where(sweep.is_old))
        report.add(sweep.name, num=num)


def _grace_ends(settings: Settings) -> float:
    return time.time() - settings.gc_grace_hours * 3600
