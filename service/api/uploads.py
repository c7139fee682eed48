"""Uploads over HTTP: declare, send each file, finalize."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from search.errors import InvalidInput
from service import blobs, problems, uploads
from service.api.dependencies import Caller, Parts, Service, UploadsReader, UploadsWriter
from service.models import Upload as UploadRow
from service.models import UploadFile
from service.problems import Conflict
from service.schemas import NewUpload, Upload
from service.store.digest import Digest
from service.tenants import check_bytes

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

WRITE_BYTES = 1 << 20
BYTES = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
        },
    }
}


@router.post("", status_code=201)
def create(new: NewUpload, parts: Service, caller: UploadsWriter) -> Upload:
    with caller.write() as session:
        unused = uploads.delete_abandoned(session)
        check_bytes(session, caller.tenant_id, sum(file.size_bytes for file in new.files))
        upload = _to_upload(session, parts, uploads.create_upload(session, new))
        caller.answer(session, upload)
    blobs.delete_unnamed(parts.database, parts.store, unused)
    return upload


@router.get("/{upload_id}")
def get(upload_id: str, parts: Service, caller: UploadsReader) -> Upload:
    with caller.database.read() as session:
        return _to_upload(session, parts, uploads.get_upload(session, upload_id))


@router.put(
    "/{upload_id}/files/{name}",
    status_code=204,
    responses=problems.described(507),
    openapi_extra=BYTES,
)
async def receive(
    upload_id: str, name: str, request: Request, parts: Service, caller: UploadsWriter
) -> Response:
    """The file's bytes, streamed; they must have the size and the hash that were declared."""
    file = await run_in_threadpool(_expected_file, caller, upload_id, name)
    with ExitStack() as stack:
        writer = stack.enter_context(parts.store.receive(file.size_bytes))
        async for chunk in _in_pieces(request):
            if writer.size_bytes + len(chunk) > file.size_bytes:
                raise InvalidInput(name, f"has more than the declared {file.size_bytes} bytes")
            await run_in_threadpool(writer.write, chunk)
        if writer.size_bytes < file.size_bytes:
            raise InvalidInput(
                name, f"has {writer.size_bytes} bytes, {file.size_bytes} were declared"
            )
        if writer.sha256 != file.sha256:
            raise InvalidInput(name, "arrived with another SHA-256 than declared")
        # Syncing to the disk takes its time: not in the event loop.
        await run_in_threadpool(stack.close)
    await run_in_threadpool(_note_arrival, parts, caller, upload_id, name, writer.digest)
    return Response(status_code=204)


@router.post("/{upload_id}/finalize")
def finalize(upload_id: str, parts: Service, caller: UploadsWriter) -> Upload:
    """Check the files as a whole. When something is wrong the upload is gone afterwards."""
    with caller.database.read() as session:
        upload = uploads.get_upload(session, upload_id)
        if upload.state == "ready":
            return _to_upload(session, parts, upload)
        try:
            summary = uploads.check_upload(session, parts.store, upload)
        except InvalidInput as error:
            wrong: InvalidInput | None = error
        else:
            wrong = None
    if wrong is not None:
        _discard(parts, caller, upload_id)
        raise wrong
    with caller.write() as session:
        upload = uploads.get_upload(session, upload_id)
        upload.summary = summary
        upload.state = "ready"
        session.flush()
        return caller.answer(session, _to_upload(session, parts, upload))


@router.delete("/{upload_id}", status_code=204)
def discard(upload_id: str, parts: Service, caller: UploadsWriter) -> Response:
    """Give up an upload that was not finalized."""
    with caller.database.read() as session:
        if uploads.get_upload(session, upload_id).state != "open":
            raise Conflict("a finalized upload may be in use by jobs")
    _discard(parts, caller, upload_id)
    return Response(status_code=204)


def _expected_file(caller: Caller, upload_id: str, name: str) -> UploadFile:
    with caller.database.read() as session:
        return uploads.expected_file(session, upload_id, name)


async def _in_pieces(request: Request) -> AsyncIterator[bytes]:
    """Larger pieces than the network's: each one costs a trip to a thread."""
    gathered = bytearray()
    try:
        async for chunk in request.stream():
            gathered += chunk
            if len(gathered) >= WRITE_BYTES:
                yield bytes(gathered)
                gathered.clear()
    except ClientDisconnect:
        raise Conflict("the connection broke off") from None
    if gathered:
        yield bytes(gathered)


def _note_arrival(parts: Parts, caller: Caller, upload_id: str, name: str, digest: Digest) -> None:
    """The upload may have been discarded while its last bytes were under way."""
    with parts.database.write() as session:
        blobs.describe(session, digest)
    if blobs.delete_unnamed(parts.database, parts.store, [digest.sha256]):
        _expected_file(caller, upload_id, name)


def _discard(parts: Parts, caller: Caller, upload_id: str) -> None:
    with caller.write() as session:
        unused = uploads.delete_upload(session, upload_id)
    blobs.delete_unnamed(parts.database, parts.store, unused)


def _to_upload(session: Session, parts: Parts, row: UploadRow) -> Upload:
    files = [
        {
            "name": file.name,
            "size_bytes": file.size_bytes,
            "sha256": file.sha256,
            "received": parts.store.exists(file.sha256),
        }
        for file in uploads.files_of(session, row.id)
    ]
    return Upload(
        id=row.id,
        kind=row.kind,
        state=row.state,
        files=files,
        summary=row.summary,
        created_at=row.created_at,
    )
