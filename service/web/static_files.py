"""Styles and scripts, from the package's own folder, at addresses that change with them."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from service.problems import NotFound

FOLDER = Path(__file__).with_name("static")
SUFFIXES = (".css", ".js", ".svg", ".woff2", ".txt")
FOR_EVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class StaticFile:
    body: bytes
    gzipped: bytes
    media_type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StaticFiles:
    """All of them, in memory: a few hundred kilobytes.

    Attributes:
        digest: of all files together. It is part of every address, so that a script finds those
            that it imports, of the same version, beside it.
    """

    digest: str
    files: Mapping[str, StaticFile]

    def url(self, name: str) -> str:
        """Raises: KeyError when there is no such file: a template has it wrong."""
        self.files[name]
        return f"/static/{self.digest}/{name}"


@cache
def static_files() -> StaticFiles:
    digest, files = hashlib.sha256(), {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix not in SUFFIXES:
            continue
        name, body = path.relative_to(FOLDER).as_posix(), path.read_bytes()
        digest.update(f"{name}\n{len(body)}\n".encode() + body)
        files[name] = StaticFile(
            body=body,
            gzipped=gzip.compress(body, mtime=0),
            media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
        )
    return StaticFiles(digest=digest.hexdigest()[:16], files=files)


@router.get("/static/{digest}/{name:path}")
def static_file(digest: str, name: str, request: Request) -> Response:
    """The file as it is now; one of another version is not kept."""
    known = static_files()
    file = known.files.get(name)
    if file is None:
        raise NotFound("file", name)
    is_gzipped = "gzip" in request.headers.get("accept-encoding", "")
    headers = {
        "Cache-Control": FOR_EVER if digest == known.digest else "no-cache",
        "Vary": "Accept-Encoding",
        **({"Content-Encoding": "gzip"} if is_gzipped else {}),
    }
    body = file.gzipped if is_gzipped else file.body
    return Response(body, headers=headers, media_type=file.media_type)
