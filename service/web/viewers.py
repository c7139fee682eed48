"""Who looks at a page: somebody signed in whose key allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams

from service.api.dependencies import Caller, Parts, Service, address_of
from service.database.db import Database
from service.problems import InsufficientScope, Unauthenticated
from service.tenants import auth
from service.web import sessions
from service.web.protection import SAFE_METHODS, check_csrf_token, check_origin, read_form
from service.web.sessions import KnownSession

COOKIE = "snugnet_session"


class SignInNeeded(Unauthenticated):
    """Nobody is signed in, or not any more.

    Attributes:
        had_session: the browser still has the cookie of one that has ended.
    """

    def __init__(self, *, had_session: bool) -> None:
        super().__init__("your session has ended" if had_session else "nobody is signed in")
        self.had_session = had_session


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewer:
    """Somebody signed in.

    Attributes:
        caller: the same person as the API knows it: what its routes do, pages do by them.
    """

    caller: Caller
    session: KnownSession

    @property
    def csrf_token(self) -> str:
        return self.session.csrf_token

    @property
    def key_name(self) -> str:
        return self.session.key_name

    @property
    def tenant_name(self) -> str:
        return self.session.tenant_name

    @property
    def database(self) -> Database:
        """It shows what the viewer's tenant has, and no more."""
        return self.caller.database

    def write(self) -> AbstractContextManager[Session]:
        """A transaction that changes something, and is in the audit log with it."""
        return self.caller.write()

    def may(self, scope: str) -> bool:
        return scope in self.session.scopes

    @property
    def may_write_jobs(self) -> bool:
        return self.may(auth.JOBS_WRITE)

    @property
    def may_write_devices(self) -> bool:
        return self.may(auth.DEVICES_WRITE)

    @property
    def may_read_artifacts(self) -> bool:
        return self.may(auth.ARTIFACTS_READ)


def require_viewer(*scopes: str) -> Callable[..., Awaitable[Viewer]]:
    """A dependency that gives the viewer, whose key must have one of `scopes`; any, where none is
    named. Whatever changes something must come from a page of this session: no route of a viewer's
    can forget it.

    Raises:
        SignInNeeded: nobody is signed in.
        InsufficientScope: the key is not for this.
        CrossSite, StalePage: the request comes from elsewhere.
        TooManyRequests: the key is used too often.
    """

    async def require(request: Request, parts: Service) -> Viewer:
        changes = request.method not in SAFE_METHODS
        if changes:
            check_origin(request)
        known = await run_in_threadpool(_signed_in, request, parts)
        if changes:
            await check_csrf_token(request, known.csrf_token)
        if scopes and not known.scopes.intersection(scopes):
            raise InsufficientScope(scopes)
        return _viewer(request, parts, known)

    return require


def cookie_name(request: Request) -> str:
    """Cookies know no ports: two servers on one machine would sign each other's viewers out."""
    port = request.url.port
    return COOKIE if port is None else f"{COOKIE}_{port}"


def token_of(request: Request) -> str:
    return request.cookies.get(cookie_name(request), "")


def known_session(parts: Parts, token: str) -> KnownSession | None:
    if not token:
        return None
    with parts.database.read() as session:
        return sessions.look_up(session, token)


def _signed_in(request: Request, parts: Parts) -> KnownSession:
    token = token_of(request)
    known = known_session(parts, token)
    if known is None:
        raise SignInNeeded(had_session=token != "")
    parts.calls.take(known.key_id)
    if known.is_use_stale:
        parts.key_uses.note(known.id, sessions.note_use)
        parts.key_uses.note(known.key_id)
    return known


def _viewer(request: Request, parts: Parts, known: KnownSession) -> Viewer:
    route = request.scope["route"]
    caller = Caller(
        key_id=known.key_id,
        tenant_id=known.tenant_id,
        database=parts.database.for_tenant(known.tenant_id),
        action=f"{request.method} {route.path}",
        target=request.url.path,
        request_id=request.state.request_id,
        client=address_of(request),
        status=route.status_code or 200,
        reservation=None,
    )
    return Viewer(caller=caller, session=known)


AnyViewer = Annotated[Viewer, Depends(require_viewer())]
JobsViewer = Annotated[Viewer, Depends(require_viewer(auth.JOBS_READ))]
JobsEditor = Annotated[Viewer, Depends(require_viewer(auth.JOBS_WRITE))]
ArtifactsViewer = Annotated[Viewer, Depends(require_viewer(auth.ARTIFACTS_READ))]
DevicesViewer = Annotated[Viewer, Depends(require_viewer(auth.JOBS_READ, auth.DEVICES_WRITE))]
DevicesEditor = Annotated[Viewer, Depends(require_viewer(auth.DEVICES_WRITE))]
Uploader = Annotated[Viewer, Depends(require_viewer(auth.JOBS_WRITE, auth.DEVICES_WRITE))]
Form = Annotated[QueryParams, Depends(read_form)]
"""What was typed; declare it after the viewer, who is checked first."""
