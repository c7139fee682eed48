"""What a route needs: the service's parts, and a caller whose key allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service import auth
from service.artifacts import FilesystemArtifactStore
from service.db import Database
from service.notifier import Notifier
from service.problems import InsufficientScope, Unauthenticated
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


def _require(*scopes: str) -> Callable[[Request, Parts], str]:
    """A dependency that gives the id of the caller's key, which must have one of `scopes`.

    Raises:
        Unauthenticated: there is no key, or it is unknown, revoked or expired.
        InsufficientScope: it is good, but not for this.
    """

    def require_key(request: Request, parts: Service) -> str:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("send the API key as 'Authorization: Bearer snug_...'")
        with parts.database.read() as session:
            found = auth.find_key(session, key.strip())
            refused = auth.why_refused(session, found)
            if found is None or refused is not None:
                raise Unauthenticated(refused or "")
            is_stale = auth.is_use_stale(session, found)
        if not set(scopes) & set(auth.scopes_of(found)):
            raise InsufficientScope(scopes)
        if is_stale:
            with parts.database.write() as session:
                auth.note_use(session, found.id)
        return found.id

    return require_key


JobsKey = Annotated[str, Depends(_require(auth.JOBS))]
DevicesKey = Annotated[str, Depends(_require(auth.DEVICES))]
UploadsKey = Annotated[str, Depends(_require(auth.JOBS, auth.DEVICES))]
MeasureKey = Annotated[str, Depends(_require(auth.MEASURE))]
BlobsKey = Annotated[str, Depends(_require(auth.MEASURE, auth.JOBS))]
AdminKey = Annotated[str, Depends(_require(auth.ADMIN))]
