"""Files over HTTP: what a job made, and what an agent is to measure."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from service.api.dependencies import ArtifactsReader, BlobsReader, Service
from service.api.etags import matches
from service.artifacts import get_artifact, is_visible
from service.problems import NotFound

router = APIRouter(prefix="/v1", tags=["artifacts"])


@router.get("/artifacts/{artifact_id}/content", response_class=FileResponse)
def content(
    artifact_id: str, request: Request, parts: Service, caller: ArtifactsReader
) -> Response:
    """The file; ranges and `If-None-Match` are answered."""
    with caller.database.read() as session:
        row = get_artifact(session, artifact_id)
    if row is None:
        raise NotFound("artifact", artifact_id)
    path = parts.store.path(row.sha256)
    return _file_response(request, path, row.sha256, row.media_type, row.name)


@router.get("/blobs/{sha256}", response_class=FileResponse)
def blob(sha256: str, request: Request, parts: Service, caller: BlobsReader) -> Response:
    """A file that the caller's tenant has as an artifact, or that an agent of it is to measure."""
    with caller.database.read() as session:
        if not is_visible(session, sha256):
            raise NotFound("blob", sha256)
    path = parts.store.path(sha256)
    return _file_response(request, path, sha256, "application/octet-stream", sha256)


def _file_response(
    request: Request, path: Path, sha256: str, media_type: str, name: str
) -> Response:
    headers = {
        "ETag": f'"sha256-{sha256}"',
        # The content belongs to its hash, but the caller's right to it may end.
        "Cache-Control": "private, no-cache",
    }
    # Starlette leaves this header to the application.
    if matches(request.headers.get("If-None-Match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    filename = name.rsplit("/", 1)[-1]
    return FileResponse(path, media_type=media_type, headers=headers, filename=filename)
