"""Files by content: a store of blobs named by their SHA-256, and the rows that give them names."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from sqlalchemy import Text, cast, delete, select
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.models import ArtifactRow, Job, MeasurementJob
from service.step_types import NewArtifact

CHUNK_BYTES = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobNotFound(Exception):
    """The store holds no blob of this name."""


class ArtifactStore(Protocol):
    """Blobs never change: a put of known content is free, and repeating one does no harm."""

    def put(self, source: Path) -> str:
        """Copy a file into the store and return its SHA-256."""

    def put_bytes(self, content: bytes) -> str: ...

    def path(self, sha256: str) -> Path:
        """A local file with the blob's content, for reading only.

        Raises: BlobNotFound.
        """

    def exists(self, sha256: str) -> bool: ...

    def size_bytes(self, sha256: str) -> int: ...

    def delete(self, sha256: str) -> None:
        """Remove a blob; nothing happens when it is gone already."""


class FilesystemArtifactStore:
    """`<root>/ab/<sha256>`: written beside its place, synced, then renamed, so that no reader and
    no crash ever sees half a blob."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, source: Path) -> str:
        with source.open("rb") as stream:
            return self._put_stream(stream)

    def put_bytes(self, content: bytes) -> str:
        with self.receive() as writer:
            writer.write(content)
        return writer.sha256

    @contextmanager
    def receive(self) -> Iterator[BlobWriter]:
        """A blob that arrives in pieces: stored when the block ends, dropped when it raises."""
        incoming = self.root / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=incoming)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                writer = BlobWriter(stream)
                yield writer
                stream.flush()
                os.fsync(stream.fileno())
            self._move_into_place(temporary, writer.sha256)
        finally:
            temporary.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        place = self._place(sha256)
        if not place.is_file():
            raise BlobNotFound(sha256)
        return place

    def exists(self, sha256: str) -> bool:
        return self._place(sha256).is_file()

    def size_bytes(self, sha256: str) -> int:
        return self.path(sha256).stat().st_size

    def delete(self, sha256: str) -> None:
        self._place(sha256).unlink(missing_ok=True)

    def _put_stream(self, stream: BinaryIO) -> str:
        with self.receive() as writer:
            shutil.copyfileobj(stream, writer, CHUNK_BYTES)
        return writer.sha256

    def _place(self, sha256: str) -> Path:
        if not SHA256.fullmatch(sha256):
            raise InvalidInput("sha256", f"must be 64 hex digits, got {sha256!r}")
        return self.root / sha256[:2] / sha256

    def _move_into_place(self, temporary: Path, sha256: str) -> None:
        place = self._place(sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.chmod(0o444)
        temporary.replace(place)
        _sync_directory(place.parent)


class BlobWriter:
    """Counts and hashes what passes through on its way to the disk."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> int:
        self._hash.update(chunk)
        self.size_bytes += len(chunk)
        return self._stream.write(chunk)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def record_artifacts(session: Session, job_id: str, new: Sequence[NewArtifact]) -> None:
    """Name blobs as artifacts of a job; a repeated or repaired one replaces its row."""
    if not new:
        return
    tenant_id = session.execute(select(Job.tenant_id).where(Job.id == job_id)).scalar_one()
    for artifact in new:
        session.execute(
            delete(ArtifactRow).where(
                ArtifactRow.job_id == job_id,
                ArtifactRow.target_index.is_not_distinct_from(artifact.target_index),
                ArtifactRow.name == artifact.name,
            )
        )
        session.add(
            ArtifactRow(
                tenant_id=tenant_id,
                job_id=job_id,
                target_index=artifact.target_index,
                name=artifact.name,
                sha256=artifact.sha256,
                size_bytes=artifact.size_bytes,
                media_type=artifact.media_type,
            )
        )
        session.flush()


def list_artifacts(session: Session, job_id: str) -> list[ArtifactRow]:
    query = select(ArtifactRow).where(ArtifactRow.job_id == job_id)
    return list(
        session.scalars(query.order_by(ArtifactRow.target_index.nulls_first(), ArtifactRow.name))
    )


def is_visible(session: Session, sha256: str) -> bool:
    """Whether the session's tenant has an artifact of this content, or is to measure it."""
    if not SHA256.fullmatch(sha256):
        return False
    measured = cast(MeasurementJob.spec, Text).contains(sha256)
    return bool(
        session.scalars(
            select(ArtifactRow.id).where(ArtifactRow.sha256 == sha256).limit(1)
        ).first()
        or session.scalars(select(MeasurementJob.id).where(measured).limit(1)).first()
    )


def get_artifact(session: Session, artifact_id: str) -> ArtifactRow | None:
    return session.get(ArtifactRow, artifact_id)
