"""A blob as the answer to a request: whole, in part, or not at all where the caller has it.

One implementation for every store, so that they answer alike. The entity tag is strong: it names
the content. Of several ranges in one request none is taken, as RFC 9110 allows.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from service.api.etags import matches
from service.problems import problem_response
from service.store.protocol import ArtifactStore

RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")


def blob_response(
    request: Request,
    store: ArtifactStore,
    sha256: str,
    *,
    size_bytes: int,
    media_type: str = "application/octet-stream",
    filename: str | None = None,
) -> Response:
    """Raises: BlobNotFound, before anything is sent."""
    etag = f'"sha256-{sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        # The content belongs to its hash, but the caller's right to it may end.
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if matches(request.headers.get("If-None-Match", ""), etag):
        return Response(status_code=304, headers=headers)
    part = None
    if request.headers.get("If-Range", etag) == etag:
        part = _asked_range(request.headers.get("Range"), size_bytes)
    if part is not None and not part:
        return problem_response(
            request,
            416,
            "range_not_satisfiable",
            f"the file has {size_bytes} bytes",
            headers={"Content-Range": f"bytes */{size_bytes}", **headers},
        )
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size_bytes}"
    wanted = range(size_bytes) if part is None else part
    headers["Content-Length"] = str(len(wanted))
    headers["Content-Disposition"] = _disposition(filename or sha256)
    return StreamingResponse(
        store.open_range(sha256, wanted.start, wanted.stop),
        status_code=200 if part is None else 206,
        headers=headers,
        media_type=media_type,
    )


def _asked_range(header: str | None, size_bytes: int) -> range | None:
    """None where the whole is to be sent; an empty range where nothing of it is there."""
    found = RANGE.fullmatch(header or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size_bytes - int(last)), size_bytes)
    if last and int(last) < int(first):
        return None  # no valid range: as if it were not there
    stop = min(int(last) + 1, size_bytes) if last else size_bytes
    return range(int(first), stop)


def _disposition(filename: str) -> str:
    quoted = quote(filename, safe="")
    if quoted == filename:
        return f'attachment; filename="{filename}"'
    return f"attachment; filename*=utf-8''{quoted}"
