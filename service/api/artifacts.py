"""Files over HTTP: what a job made, and what an agent is to measure."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.content import blob_response
from service.api.dependencies import ArtifactsReader, BlobsReader, Caller, Service
from service.artifacts import blobs
from service.artifacts.artifacts import get_artifact
from service.database.models import ArtifactRow
from service.problems import NotFound, described
from service.schemas import ArtifactDigests
from service.store.digest import CHUNK_BYTES

router = APIRouter(prefix="/v1", tags=["artifacts"])

CONTENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"*/*": {}}, "description": "the whole file, of whatever kind it is"},
    206: {"content": {"*/*": {}}, "description": "the range asked for"},
    304: {"description": "the caller has it: `If-None-Match` names it"},
    **described(416),
}


@router.get(
    "/artifacts/{artifact_id}/content", response_class=Response, responses=CONTENT_RESPONSES
)
def content(
    artifact_id: str, request: Request, parts: Service, caller: ArtifactsReader
) -> Response:
    """The file, or a `Range` of it; its entity tag is its SHA-256."""
    row = _find(caller, artifact_id)
    return blob_response(
        request,
        parts.store,
        row.sha256,
        size_bytes=row.size_bytes,
        media_type=row.media_type,
        filename=row.name.rsplit("/", 1)[-1],
    )


@router.get("/artifacts/{artifact_id}/digests")
def digests(artifact_id: str, parts: Service, caller: ArtifactsReader) -> ArtifactDigests:
    """SHA-256 of the file and of each 8 MiB of it: a download that breaks off goes on from the
    last chunk that is right."""
    found = blobs.digest(parts.database, parts.store, _find(caller, artifact_id).sha256)
    return ArtifactDigests(
        sha256=found.sha256,
        size_bytes=found.size_bytes,
        chunk_bytes=CHUNK_BYTES,
        chunks=list(found.chunks),
    )


@router.get("/blobs/{sha256}", response_class=Response, responses=CONTENT_RESPONSES)
def blob(sha256: str, request: Request, parts: Service, caller: BlobsReader) -> Response:
    """A file that the caller's tenant has, such as what an agent of it is to measure."""
    with caller.database.read() as session:
        if not blobs.is_visible(session, sha256):
            raise NotFound("blob", sha256)
    size_bytes = parts.store.size_bytes(sha256)
    return blob_response(request, parts.store, sha256, size_bytes=size_bytes)


def _find(caller: Caller, artifact_id: str) -> ArtifactRow:
    with caller.database.read() as session:
        row = get_artifact(session, artifact_id)
    if row is None:
        raise NotFound("artifact", artifact_id)
    return row
