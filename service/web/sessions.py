"""Who is signed in to the dashboard: a random token in a cookie, of which only the SHA-256 is
stored. A session may do what its API key may, and ends with it."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, delete, or_, select
from sqlalchemy.orm import Session

from service.database.db import epoch_now
from service.database.models import ApiKey, Tenant, WebSession
from service.tenants.auth import LAST_USED_SECONDS, SCOPES, KnownKey

SESSION_SECONDS = 7 * 86_400.0
"""After which everybody signs in anew."""
IDLE_SECONDS = 86_400.0
"""The same of somebody who did not come back."""


def has_ended() -> ColumnElement[bool]:
    """Of a session, whatever became of its key."""
    sessions = WebSession.__table__.c
    return or_(
        sessions.expires_at <= epoch_now(), sessions.last_used_at <= epoch_now() - IDLE_SECONDS
    )


_KEYS, _SESSIONS = ApiKey.__table__.c, WebSession.__table__.c
# Every page asks this first: put together once, without an object for a row.
_BY_TOKEN = (
    select(
        _SESSIONS.id,
        _SESSIONS.api_key_id,
        _SESSIONS.tenant_id,
        _SESSIONS.csrf_token,
        _SESSIONS.last_used_at,
        _KEYS.name.label("key_name"),
        _KEYS.scopes,
        Tenant.__table__.c.name.label("tenant_name"),
        epoch_now().label("now"),
    )
    .join(ApiKey.__table__, _KEYS.id == _SESSIONS.api_key_id)
    .join(Tenant.__table__, Tenant.__table__.c.id == _SESSIONS.tenant_id)
    .where(
        _SESSIONS.token_sha256 == bindparam("token_sha256"),
        ~has_ended(),
        _KEYS.revoked_at.is_(None),
        or_(_KEYS.expires_at.is_(None), _KEYS.expires_at > epoch_now()),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownSession:
    """Somebody who is signed in.

    Attributes:
        csrf_token: what a page of this session's sends back with whatever changes something.
        is_use_stale: whether its use should be noted anew.
    """

    id: str
    key_id: str
    key_name: str
    tenant_id: str
    tenant_name: str
    scopes: frozenset[str]
    csrf_token: str
    is_use_stale: bool


def begin_session(session: Session, key: KnownKey) -> str:
    """Sign in whoever showed a good key; the new session's token, to be seen this once."""
    token = secrets.token_urlsafe(32)
    session.add(
        WebSession(
            tenant_id=key.tenant_id,
            api_key_id=key.id,
            token_sha256=_hash(token),
            csrf_token=secrets.token_urlsafe(32),
            expires_at=epoch_now() + SESSION_SECONDS,
        )
    )
    session.flush()
    return token


def look_up(session: Session, token: str) -> KnownSession | None:
    """None when there is no such session, it has ended, or its key is no longer good."""
    row = session.execute(_BY_TOKEN, {"token_sha256": _hash(token)}).one_or_none()
    if row is None:
        return None
    return KnownSession(
        id=row.id,
        key_id=row.api_key_id,
        key_name=row.key_name,
        tenant_id=row.tenant_id,
        tenant_name=row.tenant_name,
        scopes=frozenset(SCOPES if row.scopes is None else row.scopes),
        csrf_token=row.csrf_token,
        is_use_stale=row.now - row.last_used_at > LAST_USED_SECONDS,
    )


def note_use(session: Session, session_id: str) -> None:
    found = session.get(WebSession, session_id)
    if found is not None:
        found.last_used_at = epoch_now()


def end_session(session: Session, token: str) -> None:
    """Of one that there is not, nothing."""
    session.execute(delete(WebSession).where(WebSession.token_sha256 == _hash(token)))


def _hash(token: str) -> str:
    # 256 random bits, as of a key: there is nothing to guess.
    return hashlib.sha256(token.encode()).hexdigest()
