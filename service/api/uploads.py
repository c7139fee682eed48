"""Uploads over HTTP: declare, send each file whole or in chunks, finalize."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from search.errors import InvalidInput
from service import problems
from service.api.dependencies import Caller, Parts, Service, UploadsReader, UploadsWriter
from service.artifacts import blobs
from service.database.models import Upload as UploadRow
from service.database.models import UploadChunk, UploadFile
from service.problems import Conflict, HubNotAllowed, ProblemError, TooLarge
from service.store.digest import Digest, HashingWriter
from service.tenants.tenants import check_bytes
from service.uploads import chunks, uploads
from service.uploads.checks import leases
from service.uploads.upload_schemas import NewUpload, Upload

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
CHECK_WAIT_SECONDS = 5.0
MAX_WAIT_SECONDS = 20.0
RETRY_AFTER_SECONDS = 1


@router.post("", status_code=201)
def create(new: NewUpload, parts: Service, caller: UploadsWriter) -> Upload:
    """Declare files, to be sent one by one; or say where a hub has them, to be fetched, which
    `finalize` waits for."""
    if new.hub is not None and not parts.settings.allow_hub:
        raise HubNotAllowed
    with caller.write() as session:
        unused = uploads.delete_abandoned(session)
        check_bytes(session, caller.tenant_id, sum(file.size_bytes for file in new.files))
        upload = _to_upload(session, uploads.create_upload(session, parts.store, new))
        caller.answer(session, upload)
    blobs.delete_unnamed(parts.database, parts.store, unused)
    parts.checker.nudge()
    return upload


@router.get("/{upload_id}")
def get(upload_id: str, caller: UploadsReader) -> Upload:
    return _read(caller, upload_id)


# Before the route of whole files, whose names may have slashes.
@router.put(
    "/{upload_id}/files/{name:path}/chunks/{index}",
    status_code=204,
    responses=problems.described(507),
    openapi_extra=BYTES,
)
async def receive_chunk(
    upload_id: str,
    name: str,
    index: Annotated[int, Path(ge=0, lt=2**31)],
    request: Request,
    parts: Service,
    caller: UploadsWriter,
    content_digest: Annotated[str, Header()] = "",
) -> Response:
    """One chunk of a file, in any order, as often as need be. `Content-Digest` has its SHA-256
    (RFC 9530). Every chunk has the upload's `chunk_bytes`, the last one what is left."""
    file = await run_in_threadpool(_expected_file, caller, upload_id, name)
    size_bytes = chunks.chunk_size_bytes(file, index)
    sha256 = chunks.read_digest(content_digest)

    def begin() -> None:
        with caller.database.write() as session:
            old = chunks.name_chunk(session, upload_id, name, index, sha256, size_bytes)
        blobs.delete_unnamed(parts.database, parts.store, old)

    def note(session: Session) -> None:
        chunks.note_chunk(session, upload_id, name, index, sha256)

    await run_in_threadpool(begin)
    await _receive(parts, caller, request, name, size_bytes, sha256, note)
    return Response(status_code=204)


@router.put(
    "/{upload_id}/files/{name:path}",
    status_code=204,
    responses=problems.described(507),
    openapi_extra=BYTES,
)
async def receive(
    upload_id: str, name: str, request: Request, parts: Service, caller: UploadsWriter
) -> Response:
    """The file's bytes, streamed; they must have the size and the hash that were declared."""
    file = await run_in_threadpool(_expected_file, caller, upload_id, name)

    def note(session: Session) -> None:
        uploads.note_received(session, upload_id, name)

    await _receive(parts, caller, request, name, file.size_bytes, file.sha256, note)
    return Response(status_code=204)


@router.post("/{upload_id}/finalize", responses={202: {"model": Upload}})
async def finalize(
    upload_id: str,
    response: Response,
    parts: Service,
    caller: UploadsWriter,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = CHECK_WAIT_SECONDS,
) -> Upload:
    """Have the files checked as a whole. 200: the upload is ready. 202: it is still being checked
    after `wait_s`; ask again. 422 says what is wrong, and nothing of the files stays."""
    await run_in_threadpool(_begin_check, caller, upload_id)
    parts.checker.nudge()

    def look() -> Upload | None:
        upload = _read(caller, upload_id)
        return None if upload.state in leases.UNSETTLED else upload

    upload = await parts.notifier.wait_for(look, wait_s)
    if upload is None:
        response.status_code = 202
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return await run_in_threadpool(_read, caller, upload_id)
    if upload.error is not None:
        raise InvalidInput(upload.error.field, upload.error.reason)
    return upload


@router.delete("/{upload_id}", status_code=204)
def discard(upload_id: str, parts: Service, caller: UploadsWriter) -> Response:
    """Give up an upload that is not ready."""
    with caller.write() as session:
        if uploads.lock_upload(session, upload_id).state == "ready":
            raise Conflict("a finalized upload may be in use by jobs")
        unused = uploads.delete_upload(session, upload_id)
    blobs.delete_unnamed(parts.database, parts.store, unused)
    return Response(status_code=204)


def _begin_check(caller: Caller, upload_id: str) -> None:
    with caller.database.read() as session:
        if uploads.get_upload(session, upload_id).state != "open":
            return
    with caller.write() as session:
        upload = uploads.lock_upload(session, upload_id)
        if upload.state != "open":
            return
        missing = uploads.missing_files(session, upload_id)
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise Conflict(f"not received yet: {', '.join(missing[:5])}{more}")
        leases.begin(session, upload, leases.CHECKING)


def _expected_file(caller: Caller, upload_id: str, name: str) -> UploadFile:
    with caller.database.read() as session:
        return uploads.expected_file(session, upload_id, name)


async def _receive(
    parts: Parts,
    caller: Caller,
    request: Request,
    name: str,
    size_bytes: int,
    sha256: str,
    note: Callable[[Session], None],
) -> None:
    """Take a body of exactly this size and hash into the store, then note it in the upload.

    Args:
        note: that it has arrived. Raises: NotFound, Conflict; then it was for nothing.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > size_bytes:
        raise _too_large(name, size_bytes)
    with ExitStack() as stack:
        writer = stack.enter_context(parts.store.receive(size_bytes))
        async for piece in _in_pieces(request):
            if writer.size_bytes + len(piece) > size_bytes:
                raise _too_large(name, size_bytes)
            await run_in_threadpool(writer.write, piece)
        _check_received(writer, name, size_bytes, sha256)
        # Syncing to the disk takes its time: not in the event loop.
        await run_in_threadpool(stack.close)
    await run_in_threadpool(_note_arrival, parts, caller, writer.digest, note)


def _check_received(writer: HashingWriter, name: str, size_bytes: int, sha256: str) -> None:
    if writer.size_bytes < size_bytes:
        raise InvalidInput(name, f"has {writer.size_bytes} bytes, {size_bytes} were declared")
    if writer.sha256 != sha256:
        raise InvalidInput(name, "arrived with another SHA-256 than declared")


def _too_large(name: str, size_bytes: int) -> TooLarge:
    error = InvalidInput(name, f"has more than the declared {size_bytes} bytes")
    return TooLarge(str(error), [error])


def _note_arrival(
    parts: Parts, caller: Caller, digest: Digest, note: Callable[[Session], None]
) -> None:
    try:
        with caller.database.write() as session:
            note(session)
            blobs.describe(session, digest)
    except ProblemError:
        # The upload was discarded while its last bytes were under way.
        blobs.delete_unnamed(parts.database, parts.store, [digest.sha256])
        raise


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


def _read(caller: Caller, upload_id: str) -> Upload:
    with caller.database.read() as session:
        return _to_upload(session, uploads.get_upload(session, upload_id))


def _to_upload(session: Session, row: UploadRow) -> Upload:
    arrived, files = chunks.chunks_of(session, row.id), uploads.files_of(session, row.id)
    return Upload(
        id=row.id,
        kind=row.kind,
        state=row.state,
        files=[_to_file(file, arrived.get(file.name)) for file in files],
        chunk_bytes=uploads.CHUNK_BYTES,
        summary=row.summary,
        error=row.error,
        hub=row.hub,
        progress=row.progress,
        created_at=row.created_at,
    )


def _to_file(file: UploadFile, arrived: list[UploadChunk] | None) -> dict[str, object]:
    found: dict[str, object] = {
        "name": file.name,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "received": file.received,
    }
    return found if arrived is None else {**found, "chunks_received": [c.index for c in arrived]}
