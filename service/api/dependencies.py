"""What a route needs: the service's parts, and a caller whose key allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.api import idempotency
from service.api.description import BEARER
from service.api.idempotency import Reservation
from service.database.db import Database
from service.jobs.event_watch import EventWatch
from service.jobs.finish_times import FinishTimes
from service.problems import InsufficientScope, Unauthenticated
from service.settings import Settings
from service.steps.notifier import Notifier
from service.steps.queue import JobQueue
from service.store.protocol import ArtifactStore
from service.telemetry.metrics_database import DatabaseMetrics
from service.telemetry.readiness import Readiness
from service.tenants import auth
from service.tenants.audit import record_call
from service.tenants.auth import KnownKey
from service.tenants.key_uses import KeyUses
from service.tenants.limits import RateLimiter
from service.uploads.checks.checker import Checker

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """One of each for the whole process, made by `create_app`."""

    settings: Settings
    database: Database
    store: ArtifactStore
    queue: JobQueue
    notifier: Notifier
    event_watch: EventWatch
    finish_times: FinishTimes
    calls: RateLimiter
    failed_sign_ins: RateLimiter
    key_uses: KeyUses
    readiness: Readiness
    metrics: DatabaseMetrics
    checker: Checker


async def get_parts(request: Request) -> Parts:  # async: no trip to a thread
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


Service = Annotated[Parts, Depends(get_parts)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks, by a good key. `database` shows what its tenant has, and no more.

    Attributes:
        reservation: of a request that may be sent again, the right to carry it out.
    """

    key_id: str
    tenant_id: str
    database: Database
    action: str
    target: str
    request_id: str
    client: str
    status: int
    reservation: Reservation | None

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that changes something for the caller, and is in the audit log with it."""
        with self.database.write() as session:
            yield session
            record_call(
                session,
                key_id=self.key_id,
                action=self.action,
                target=self.target,
                request_id=self.request_id,
                client=self.client,
            )

    def answer(self, session: Session, answer: Answer) -> Answer:
        """The answer, kept in the same transaction for when the request is sent again.

        Raises: InFlight when the request took so long that another one like it was begun.
        """
        if self.reservation is not None:
            body = answer.model_dump_json()
            idempotency.keep_answer(session, self.reservation, self.status, body)
        return answer


def _require(*scopes: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the caller, whose key must have one of `scopes`.

    Raises:
        Unauthenticated: there is no key, or it is unknown, revoked or expired.
        InsufficientScope: it is good, but not for this.
        TooManyRequests: the key is used too often, or too many keys were wrong.
        AlreadyAnswered: the request took effect when it was sent before.
    """

    async def require_caller(
        request: Request,
        parts: Service,
        credentials: Bearer,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Caller:
        key = credentials.credentials if credentials is not None else ""
        if request.method == "POST" and idempotency_key is not None:
            again = Again(
                key=idempotency_key,
                request_sha256=idempotency.fingerprint(
                    request.method,
                    request.url.path,
                    request.scope["query_string"],
                    await request.body(),
                ),
            )
            return await run_in_threadpool(_caller, request, parts, key, scopes, again)
        return await run_in_threadpool(_caller, request, parts, key, scopes, None)

    return require_caller


@dataclass(frozen=True, kw_only=True, slots=True)
class Again:
    """What tells that a request was sent before."""

    key: str
    request_sha256: str


def _caller(
    request: Request, parts: Parts, secret: str, scopes: tuple[str, ...], again: Again | None
) -> Caller:
    key = _signed_in(request, parts, secret)
    if not key.scopes.intersection(scopes):
        raise InsufficientScope(scopes)
    database = parts.database.for_tenant(key.tenant_id)
    reservation = None
    if again is not None:
        reservation = idempotency.reserve(database, again.key, again.request_sha256)
        # Whoever sends the answer gives it back if nothing was done.
        request.state.release = partial(idempotency.release, database, reservation)
    route = request.scope["route"]
    return Caller(
        key_id=key.id,
        tenant_id=key.tenant_id,
        database=database,
        action=f"{request.method} {route.path}",
        target=request.url.path,
        request_id=request.state.request_id,
        client=address_of(request),
        status=route.status_code or 200,
        reservation=reservation,
    )


def _signed_in(request: Request, parts: Parts, secret: str) -> KnownKey:
    if not secret:
        raise Unauthenticated("send the API key as 'Authorization: Bearer snug_...'")
    with parts.database.read() as session:
        key = auth.look_up(session, secret)
    if key is None or key.refused is not None:
        # Good keys from the same address, which may be a proxy's, are let in all the same.
        parts.failed_sign_ins.take(address_of(request))
        raise Unauthenticated(key.refused or "" if key else "this API key is unknown")
    parts.calls.take(key.id)
    if key.is_use_stale:
        parts.key_uses.note(key.id)
    return key


def address_of(request: Request) -> str:
    return request.client.host if request.client is not None else ""


JobsReader = Annotated[Caller, Depends(_require(auth.JOBS_READ))]
JobsWriter = Annotated[Caller, Depends(_require(auth.JOBS_WRITE))]
ArtifactsReader = Annotated[Caller, Depends(_require(auth.ARTIFACTS_READ))]
DevicesReader = Annotated[Caller, Depends(_require(auth.JOBS_READ, auth.DEVICES_WRITE))]
DevicesWriter = Annotated[Caller, Depends(_require(auth.DEVICES_WRITE))]
UploadsReader = Annotated[
    Caller, Depends(_require(auth.JOBS_READ, auth.JOBS_WRITE, auth.DEVICES_WRITE))
]
UploadsWriter = Annotated[Caller, Depends(_require(auth.JOBS_WRITE, auth.DEVICES_WRITE))]
Agent = Annotated[Caller, Depends(_require(auth.MEASURE))]
BlobsReader = Annotated[Caller, Depends(_require(auth.MEASURE, auth.ARTIFACTS_READ))]
Admin = Annotated[Caller, Depends(_require(auth.ADMIN))]
