"""A large file in parts: each is a blob of its own until all of them are there. As any blob, it is
named before it is received (`blobs`)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from search.errors import InvalidInput
from service.artifacts import blobs
from service.database.models import UploadChunk, UploadFile
from service.uploads.uploads import CHUNK_BYTES, expected_file, lock_upload, num_chunks

DIGEST_HEADER = "Content-Digest"
_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:;[^,]*)?(?=,|$)")


def chunk_size_bytes(file: UploadFile, index: int) -> int:
    """Raises: InvalidInput when the file has no such chunk."""
    count = num_chunks(file.size_bytes)
    if not 0 <= index < count:
        raise InvalidInput("index", f"must be from 0 to {count - 1}, got {index}")
    return min(CHUNK_BYTES, file.size_bytes - index * CHUNK_BYTES)


def read_digest(header: str) -> str:
    """The SHA-256 of a `Content-Digest` (RFC 9530), as hex digits.

    Raises:
        InvalidInput: there is none.
    """
    found = _SHA256.search(header)
    if found is None:
        raise InvalidInput(DIGEST_HEADER, "must have the body's hash, as sha-256=:<base64>:")
    try:
        return base64.b64decode(found[1], validate=True).hex()
    except binascii.Error:
        raise InvalidInput(DIGEST_HEADER, "is not base64") from None


def write_digest(sha256: str) -> str:
    """The header's value for a hash in hex digits."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def name_chunk(
    session: Session, upload_id: str, name: str, index: int, sha256: str, size_bytes: int
) -> list[str]:
    """Before a chunk is received; the blobs that had a name by what was in its place.

    Raises:
        NotFound: there is no such upload or file.
        Conflict: it was finalized.
    """
    lock_upload(session, upload_id)
    expected_file(session, upload_id, name)
    chunk = session.get(UploadChunk, (upload_id, name, index))
    if chunk is not None and chunk.sha256 == sha256:
        return []
    old = [] if chunk is None else [chunk.sha256]
    blobs.take(session, sha256)
    if chunk is None:
        chunk = UploadChunk(upload_id=upload_id, name=name, index=index)
        session.add(chunk)
    chunk.sha256, chunk.size_bytes, chunk.received = sha256, size_bytes, False
    session.flush()
    return old


def note_chunk(session: Session, upload_id: str, name: str, index: int, sha256: str) -> None:
    """It has arrived. Another one may have taken its place meanwhile: then it is nothing.

    Raises: NotFound, Conflict; as above.
    """
    lock_upload(session, upload_id)
    expected_file(session, upload_id, name)
    chunk = session.get(UploadChunk, (upload_id, name, index))
    if chunk is not None and chunk.sha256 == sha256:
        chunk.received = True
        session.flush()


def chunks_of(session: Session, upload_id: str) -> Mapping[str, list[UploadChunk]]:
    """Those that have arrived, in order, by the file's name."""
    query = select(UploadChunk).where(UploadChunk.upload_id == upload_id, UploadChunk.received)
    found: dict[str, list[UploadChunk]] = {}
    for chunk in session.scalars(query.order_by(UploadChunk.name, UploadChunk.index)):
        found.setdefault(chunk.name, []).append(chunk)
    return found
