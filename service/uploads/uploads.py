"""Models and data on their way in: declared, received, then checked as a whole or dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select, update
from sqlalchemy.orm import Session

from search.data.dataset import MAX_FILE_BYTES, columns_of, table_of
from search.errors import InvalidInput
from search.model.checkpoint import check_file_names
from service.artifacts import blobs
from service.database.db import epoch_now
from service.database.models import ArtifactRow, Upload, UploadChunk, UploadFile
from service.problems import Conflict, NotFound
from service.store.protocol import ArtifactStore
from service.uploads.upload_schemas import NewUpload

MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".md")
MODEL_KINDS = ("model", "teacher")
MAX_MODEL_FILES = 64
CHUNK_BYTES = 8 * 1024**2
"""Of every chunk of a file but the last."""
HASHES_AT_ONCE = 500
ABANDONED_SECONDS = 24 * 3600.0


def num_chunks(size_bytes: int) -> int:
    """Of a file of this size; an empty one has one."""
    return max(1, -(-size_bytes // CHUNK_BYTES))


def create_upload(session: Session, store: ArtifactStore, new: NewUpload) -> Upload:
    """An open upload that waits for its files, or one that is to be fetched. Files that the tenant
    has sent before are there already.

    Raises:
        InvalidInput: the names alone show that this is no model or no data.
    """
    names = [file.name for file in new.files]
    if new.hub is not None:
        names = [PurePath(new.hub.file).name] if new.hub.file else []
    summary: dict[str, Any] | None = None
    if new.kind in MODEL_KINDS:
        if new.hub is None:
            check_model_names(names)
        summary = None if new.kind == "model" else {"task": new.task}
    else:
        is_labelled = new.kind == "dataset"
        table = _check_data_files(new, names)
        columns = columns_of(new.task, new.columns, name=table, is_labelled=is_labelled)
        summary = {"task": new.task, **columns}
    upload = Upload(kind=new.kind, summary=summary)
    if new.hub is not None:
        upload.state = "fetching"
        upload.hub = {**new.hub.model_dump(), "commit": None}
    session.add(upload)
    session.flush()
    blobs.take_all(session, (file.sha256 for file in new.files))
    known = known_files(session, store, [file.sha256 for file in new.files])
    for file in new.files:
        is_here = file.sha256 in known
        session.add(UploadFile(upload_id=upload.id, received=is_here, **file.model_dump()))
    session.flush()
    session.refresh(upload)
    return upload


def get_upload(session: Session, upload_id: str) -> Upload:
    upload = session.get(Upload, upload_id)
    if upload is None:
        raise NotFound("upload", upload_id)
    return upload


def list_ready(session: Session, *kinds: str, limit: int = 100) -> list[Upload]:
    """Finished ones of these kinds, the newest first."""
    query = select(Upload).where(Upload.kind.in_(kinds), Upload.state == "ready")
    newest = query.order_by(Upload.created_at.desc(), Upload.id.desc()).limit(limit)
    return list(session.scalars(newest))


def top_names(session: Session, upload_ids: Sequence[str]) -> dict[str, str]:
    """The first file of each upload that is in no folder: of data, the table."""
    query = select(UploadFile.upload_id, func.min(UploadFile.name)).where(
        UploadFile.upload_id.in_(upload_ids), UploadFile.name.not_like("%/%")
    )
    rows = session.execute(query.group_by(UploadFile.upload_id))
    return {row[0]: row[1] for row in rows}


def lock_upload(session: Session, upload_id: str) -> Upload:
    """For as long as the transaction lasts, nobody else changes it or what it has.

    Raises: NotFound.
    """
    upload = session.get(Upload, upload_id, with_for_update=True)
    if upload is None:
        raise NotFound("upload", upload_id)
    return upload


def files_of(session: Session, upload_id: str) -> list[UploadFile]:
    query = select(UploadFile).where(UploadFile.upload_id == upload_id)
    return list(session.scalars(query.order_by(UploadFile.name)))


def expected_file(session: Session, upload_id: str, name: str) -> UploadFile:
    """The declared file that is about to arrive."""
    upload = get_upload(session, upload_id)
    if upload.state != "open":
        raise Conflict(f"upload {upload_id!r} is {upload.state} and takes no more files")
    file = session.get(UploadFile, (upload_id, name))
    if file is None:
        raise NotFound("declared file", name)
    return file


def note_received(session: Session, upload_id: str, name: str) -> None:
    """The file is in the store, whole.

    Raises:
        NotFound: the upload was discarded in the meantime.
        Conflict: it was finalized.
    """
    lock_upload(session, upload_id)
    expected_file(session, upload_id, name).received = True
    session.flush()


def all_received(session: Session, upload_id: str) -> None:
    session.execute(
        update(UploadFile)
        .where(UploadFile.upload_id == upload_id)
        .values(received=True)
        .execution_options(synchronize_session=False)
    )


def missing_files(session: Session, upload_id: str) -> list[str]:
    """Names of those that have arrived neither whole nor in all of their chunks."""
    counts = session.execute(
        select(UploadChunk.name, func.count())
        .where(UploadChunk.upload_id == upload_id, UploadChunk.received)
        .group_by(UploadChunk.name)
    )
    arrived = {row[0]: row[1] for row in counts}
    return [
        file.name
        for file in files_of(session, upload_id)
        if not file.received and arrived.get(file.name, 0) < num_chunks(file.size_bytes)
    ]


def ready_upload(session: Session, upload_id: str, field: str, *kinds: str) -> Upload:
    """A finished upload of one of these kinds.

    Raises:
        InvalidInput: of `field`, when there is none.
    """
    upload = session.get(Upload, upload_id)
    if upload is None:
        raise InvalidInput(field, f"there is no upload {upload_id!r}")
    if upload.kind not in kinds:
        wanted = " or ".join(map(repr, kinds))
        raise InvalidInput(
            field, f"must be an upload of kind {wanted}, is of kind {upload.kind!r}"
        )
    if upload.state != "ready":
        raise InvalidInput(field, f"upload {upload_id!r} is {upload.state}; finalize it first")
    return upload


def delete_upload(session: Session, upload_id: str) -> list[str]:
    """Delete the rows; return the blobs that had a name by them, for `delete_unnamed` after the
    commit."""
    # A file that is being noted would go with the upload unseen, and leave its blob behind.
    session.get(Upload, upload_id, with_for_update=True)
    hashes = forget_files(session, upload_id)
    session.execute(delete(Upload).where(Upload.id == upload_id))
    session.flush()
    return hashes


def forget_files(session: Session, upload_id: str) -> list[str]:
    """Of the upload, its row stays; the blobs that had a name by them."""
    hashes: set[str] = set(forget_chunks(session, upload_id))
    mine = UploadFile.upload_id == upload_id
    hashes.update(session.scalars(select(UploadFile.sha256).where(mine)))
    session.execute(delete(UploadFile).where(mine))
    session.flush()
    return sorted(hashes)


def forget_chunks(session: Session, upload_id: str) -> list[str]:
    """Once all files are whole; the blobs that had a name by them."""
    mine = UploadChunk.upload_id == upload_id
    hashes = set(session.scalars(select(UploadChunk.sha256).where(mine)))
    session.execute(delete(UploadChunk).where(mine))
    session.flush()
    return sorted(hashes)


def is_abandoned() -> ColumnElement[bool]:
    """Begun and never finished, or failed, long ago."""
    return and_(
        Upload.state.in_(("open", "failed")),
        Upload.created_at < epoch_now() - ABANDONED_SECONDS,
    )


def delete_abandoned(session: Session) -> list[str]:
    query = select(Upload.id).where(is_abandoned())
    return [sha256 for old in session.scalars(query) for sha256 in delete_upload(session, old)]


def known_files(session: Session, store: ArtifactStore, hashes: Sequence[str]) -> set[str]:
    """Those that the session's tenant has sent before: whoever merely knows the hash of another's
    file is not given it."""
    found: set[str] = set()
    for some in _in_portions(hashes):
        query = select(UploadFile.sha256).join(Upload, Upload.id == UploadFile.upload_id)
        found.update(
            session.scalars(query.where(UploadFile.received, UploadFile.sha256.in_(some)))
        )
        query = select(ArtifactRow.sha256).where(ArtifactRow.sha256.in_(some))
        found.update(session.scalars(query))
    return {sha256 for sha256 in found if store.exists(sha256)}


def _in_portions(hashes: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(hashes), HASHES_AT_ONCE):
        yield hashes[start : start + HASHES_AT_ONCE]


def _check_data_files(new: NewUpload, names: list[str]) -> str:
    """The table's name."""
    try:
        table = table_of(names, new.task, is_labelled=new.kind == "dataset")
    except InvalidInput as error:
        raise InvalidInput("files" if new.hub is None else "hub.file", error.reason) from None
    if sum(file.size_bytes for file in new.files) > MAX_FILE_BYTES:
        raise InvalidInput("files", f"have more than {MAX_FILE_BYTES} bytes together")
    return table


def check_model_names(names: list[str]) -> None:
    check_file_names(names)
    if len(names) > MAX_MODEL_FILES:
        raise InvalidInput("files", f"are {len(names)}; a model has at most {MAX_MODEL_FILES}")
    for name in names:
        if "/" in name:
            raise InvalidInput(name, "must not be in a folder")
        if PurePath(name).suffix.lower() not in MODEL_SUFFIXES:
            raise InvalidInput(name, f"is not needed; files end in {', '.join(MODEL_SUFFIXES)}")
