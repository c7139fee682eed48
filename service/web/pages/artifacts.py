"""Files that a job made, for a browser."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.content import blob_response
from service.api.dependencies import Service
from service.artifacts.artifacts import get_artifact
from service.problems import NotFound
from service.web.viewers import ArtifactsViewer

router = APIRouter(include_in_schema=False)


@router.get("/artifacts/{artifact_id}")
def download(
    artifact_id: str, request: Request, parts: Service, viewer: ArtifactsViewer
) -> Response:
    """To be saved, under its own name; a download that broke off goes on."""
    with viewer.database.read() as session:
        row = get_artifact(session, artifact_id)
    if row is None:
        raise NotFound("artifact", artifact_id)
    return blob_response(
        request,
        parts.store,
        row.sha256,
        size_bytes=row.size_bytes,
        media_type=row.media_type,
        filename=row.name.rsplit("/", 1)[-1],
    )
