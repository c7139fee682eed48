"""Requests that may be sent again: whatever becomes of the connection, they take effect once.

A key is reserved in a transaction of its own, under a lease; the answer is kept in the transaction
of the effect. So a request that died before it took effect can be sent again, one that died after
is answered as it would have been, and of many at once one alone is carried out.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from search.errors import InvalidInput, SnugnetError
from service.database.db import Database, epoch_now
from service.database.models import IdempotencyKey
from service.problems import ProblemError

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
MAX_KEY_CHARACTERS = 255
LEASE_SECONDS = 30.0
"""How long a server that died keeps a request from being carried out by another. A living one may
take longer, and is undone only if the request was sent again meanwhile."""
KEEP_SECONDS = 24 * 3600.0


class InFlight(ProblemError):
    """The same request is being carried out."""

    code = "idempotency_in_flight"
    status = 409
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("a request with this Idempotency-Key is being carried out; ask again")


class Mismatch(ProblemError):
    """The key was given to another request."""

    code = "idempotency_mismatch"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was sent with another request; give each its own",
            [InvalidInput(HEADER, "was sent with another request")],
        )


class AlreadyAnswered(SnugnetError):
    """Not an error: the request took effect before, and this is its answer."""

    code = "already_answered"

    def __init__(self, status: int, body: str) -> None:
        super().__init__("the request took effect before")
        self.status = status
        self.body = body


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """The right to carry a request out."""

    key: str
    token: str


def fingerprint(method: str, path: str, query: bytes, body: bytes) -> str:
    """What makes two requests the same."""
    digest = hashlib.sha256()
    for part in (method.encode(), path.encode(), query, body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def reserve(database: Database, key: str, request_sha256: str) -> Reservation:
    """
    Raises:
        InvalidInput: this is no key.
        AlreadyAnswered: it took effect before.
        InFlight: somebody else is at it.
        Mismatch: the key belongs to another request.
    """
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isprintable():
        raise InvalidInput(HEADER, f"must have 1 to {MAX_KEY_CHARACTERS} printable characters")
    _check_answer(database, key, request_sha256)
    mine = Reservation(key=key, token=secrets.token_hex(16))
    try:
        with database.write() as session:
            if not _take_over(session, mine, request_sha256):
                session.add(
                    IdempotencyKey(
                        key=key,
                        request_sha256=request_sha256,
                        token=mine.token,
                        lease_until=epoch_now() + LEASE_SECONDS,
                    )
                )
    except IntegrityError:
        # Another one was there first, and is at it or has an answer by now.
        _check_answer(database, key, request_sha256)
        raise InFlight from None
    return mine


def keep_answer(session: Session, reservation: Reservation, status: int, body: str) -> None:
    """In the transaction of what the request does.

    Raises: InFlight when the lease ran out and somebody else took it over: nothing may be done.
    """
    changed = session.execute(
        update(IdempotencyKey)
        .where(*_held_by(reservation))
        .values(status=status, body=body)
        .returning(IdempotencyKey.key)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if changed is None:
        raise InFlight


def release(database: Database, reservation: Reservation) -> None:
    """After a request that did nothing: it may be sent again at once, corrected or not."""
    with database.write() as session:
        session.execute(delete(IdempotencyKey).where(*_held_by(reservation)))


def is_old_key() -> ColumnElement[bool]:
    return IdempotencyKey.created_at < epoch_now() - KEEP_SECONDS


def _check_answer(database: Database, key: str, request_sha256: str) -> None:
    with database.read() as session:
        query = select(IdempotencyKey, epoch_now()).where(IdempotencyKey.key == key)
        found = session.execute(query).one_or_none()
    if found is None:
        return
    row, now = found
    if row.request_sha256 != request_sha256:
        raise Mismatch
    if row.status is not None:
        raise AlreadyAnswered(row.status, row.body or "")
    if row.lease_until > now:
        raise InFlight


def _take_over(session: Session, mine: Reservation, request_sha256: str) -> bool:
    """From somebody who died while at it."""
    taken = session.execute(
        update(IdempotencyKey)
        .where(
            IdempotencyKey.key == mine.key,
            IdempotencyKey.request_sha256 == request_sha256,
            IdempotencyKey.status.is_(None),
            IdempotencyKey.lease_until <= epoch_now(),
        )
        .values(token=mine.token, lease_until=epoch_now() + LEASE_SECONDS)
        .returning(IdempotencyKey.key)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return taken is not None


def _held_by(reservation: Reservation) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotencyKey.key == reservation.key,
        IdempotencyKey.token == reservation.token,
        IdempotencyKey.status.is_(None),
    )
