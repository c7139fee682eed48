"""Who needs which blob: names are counted by rows, and what has none is deleted.

A name of a blob is a job's reference, a file of an upload, a chunk of one, or an artifact. Whoever
gives a name or deletes a file locks the blob's row before. A name is committed before the file is
put; a file is deleted while the row is locked, in the transaction that found no name. So a put
that comes later finds the file gone and writes it, and one that came before is found by its name
(docs/decisions/0026).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.orm import Session

from service.database.db import Database, insert_into
from service.database.models import (
    ArtifactRow,
    BlobReference,
    BlobRow,
    Job,
    Upload,
    UploadChunk,
    UploadFile,
)
from service.store.digest import Digest, HashingWriter
from service.store.protocol import ArtifactStore, BlobDamaged

SHA256 = re.compile(r'"([0-9a-f]{64})"')


def take(session: Session, sha256: str) -> None:
    """Lock the blob's row until the transaction ends, and make it where there is none."""
    new = insert_into(session, BlobRow).values(sha256=sha256)
    unchanged = {"size_bytes": BlobRow.size_bytes}
    session.execute(new.on_conflict_do_update(index_elements=["sha256"], set_=unchanged))


def take_all(session: Session, hashes: Iterable[str]) -> None:
    """In one order, whoever does it: two that take the same never wait for each other."""
    for sha256 in sorted(set(hashes)):
        take(session, sha256)


def describe(session: Session, digest: Digest) -> None:
    """Of a blob that has arrived in the store."""
    session.execute(
        update(BlobRow)
        .where(BlobRow.sha256 == digest.sha256)
        .values(size_bytes=digest.size_bytes, chunks=list(digest.chunks))
    )


def refer(session: Session, job_id: str, sha256: str) -> None:
    """The job needs the blob; to be committed before the file is put."""
    take(session, sha256)
    _add_reference(session, job_id, sha256)


def adopt(session: Session, job_id: str, from_job_id: str, hashes: Iterable[str]) -> None:
    """Of these blobs, the job needs all that the other one needs."""
    query = select(BlobReference.sha256).where(BlobReference.job_id == from_job_id)
    shared = set(session.scalars(query)) & set(hashes)
    take_all(session, shared)
    for sha256 in sorted(shared):
        _add_reference(session, job_id, sha256)


def digest(database: Database, store: ArtifactStore, sha256: str) -> Digest:
    """As it was noted when the blob arrived; of one that is older than such notes, from its
    content.

    Raises: BlobNotFound, BlobDamaged.
    """
    with database.read() as session:
        row = session.get(BlobRow, sha256)
    if row is not None and row.size_bytes is not None and row.chunks is not None:
        return Digest(sha256=sha256, size_bytes=row.size_bytes, chunks=tuple(row.chunks))
    writer = HashingWriter()
    for piece in store.open_range(sha256, 0, store.size_bytes(sha256)):
        writer.write(piece)
    if writer.sha256 != sha256:
        raise BlobDamaged(f"the content of {sha256} is {writer.sha256}")
    with database.write() as session:
        describe(session, writer.digest)
    return writer.digest


def hashes_in(data: Any) -> set[str]:
    """Everything in JSON data that might be the name of a blob."""
    return set(SHA256.findall(json.dumps(data)))


def drop(session: Session, store: ArtifactStore, job_id: str, sha256: str) -> bool:
    """The job needs the blob no more; whether nobody else does, so that it is deleted."""
    take(session, sha256)
    session.execute(
        delete(BlobReference).where(BlobReference.job_id == job_id, BlobReference.sha256 == sha256)
    )
    return _delete_unnamed(session, store, sha256)


def delete_unnamed(database: Database, store: ArtifactStore, hashes: Iterable[str]) -> int:
    """Delete those that nobody names, one transaction each; how many."""
    num_deleted = 0
    for sha256 in hashes:
        with database.write() as session:
            take(session, sha256)
            num_deleted += _delete_unnamed(session, store, sha256)
    return num_deleted


def is_named(session: Session, sha256: str) -> bool:
    """By anybody: bare tables, since a session of one tenant would not see another one's names."""
    classes = (BlobReference, UploadFile, UploadChunk, ArtifactRow)
    tables = [row.__table__ for row in classes]
    named = or_(*(exists().where(table.c.sha256 == sha256) for table in tables))
    return bool(session.execute(select(named)).scalar_one())


def is_visible(session: Session, sha256: str) -> bool:
    """Whether the session's tenant may have it: a job or an artifact of its own names it, or an
    upload that is complete. To have announced a file is not to have it."""
    queries = (
        select(ArtifactRow.id).where(ArtifactRow.sha256 == sha256),
        select(Job.id)
        .join(BlobReference, BlobReference.job_id == Job.id)
        .where(BlobReference.sha256 == sha256),
        select(Upload.id)
        .join(UploadFile, UploadFile.upload_id == Upload.id)
        .where(UploadFile.sha256 == sha256, Upload.state == "ready"),
    )
    return any(session.execute(query.limit(1)).first() for query in queries)


def _add_reference(session: Session, job_id: str, sha256: str) -> None:
    new = insert_into(session, BlobReference).values(job_id=job_id, sha256=sha256)
    session.execute(new.on_conflict_do_nothing())


def _delete_unnamed(session: Session, store: ArtifactStore, sha256: str) -> bool:
    if is_named(session, sha256):
        return False
    session.execute(delete(BlobRow).where(BlobRow.sha256 == sha256))
    # Before the commit: once the row is free, somebody may put the file again.
    store.delete(sha256)
    return True
