"""What a route needs: the service's parts, and a caller with a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.artifacts import FilesystemArtifactStore
from service.auth import find_key, is_use_stale, note_use
from service.db import Database
from service.notifier import Notifier
from service.problems import Unauthenticated
from service.queue import JobQueue
from service.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """One of each for the whole process, made by `create_app`."""

    settings: Settings
    database: Database
    store: FilesystemArtifactStore
    queue: JobQueue
    notifier: Notifier


def get_parts(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


Service = Annotated[Parts, Depends(get_parts)]


def require_key(request: Request, parts: Service) -> str:
    """The id of the caller's key.

    Raises:
        Unauthenticated: there is none, or it is unknown.
    """
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("send the API key as 'Authorization: Bearer snug_...'")
    with parts.database.read() as session:
        found = find_key(session, key.strip())
        is_stale = found is not None and is_use_stale(session, found)
    if found is None:
        raise Unauthenticated("this API key is unknown")
    if is_stale:
        with parts.database.write() as session:
            note_use(session, found.id)
    return found.id


Key = Annotated[str, Depends(require_key)]
