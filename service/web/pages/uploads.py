"""Files from a browser: the API's own routes for them, by the session's cookie."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response

from service.api import uploads
from service.api.dependencies import Service
from service.api.uploads import MAX_WAIT_SECONDS
from service.uploads.upload_schemas import NewUpload, Upload
from service.web.viewers import Uploader

router = APIRouter(prefix="/uploads", include_in_schema=False)


@router.post("", status_code=201)
def create(new: NewUpload, parts: Service, viewer: Uploader) -> Upload:
    return uploads.create(new, parts, viewer.caller)


@router.put("/{upload_id}/files/{name:path}/chunks/{index}", status_code=204)
async def receive_chunk(
    upload_id: str,
    name: str,
    index: Annotated[int, Path(ge=0, lt=2**31)],
    request: Request,
    parts: Service,
    viewer: Uploader,
    content_digest: Annotated[str, Header()] = "",
) -> Response:
    return await uploads.receive_chunk(
        upload_id, name, index, request, parts, viewer.caller, content_digest
    )


@router.put("/{upload_id}/files/{name:path}", status_code=204)
async def receive(
    upload_id: str, name: str, request: Request, parts: Service, viewer: Uploader
) -> Response:
    return await uploads.receive(upload_id, name, request, parts, viewer.caller)


@router.post("/{upload_id}/finalize")
async def finalize(
    upload_id: str,
    response: Response,
    parts: Service,
    viewer: Uploader,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = MAX_WAIT_SECONDS,
) -> Upload:
    return await uploads.finalize(upload_id, response, parts, viewer.caller, wait_s)


@router.delete("/{upload_id}", status_code=204)
def discard(upload_id: str, parts: Service, viewer: Uploader) -> Response:
    return uploads.discard(upload_id, parts, viewer.caller)
