"""API keys: `snug_<id>_<secret>`, of which only the SHA-256 is stored, and what each may do."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from service.database.db import epoch_now
from service.database.ids import new_id
from service.database.models import ApiKey

JOBS_READ = "jobs:read"
JOBS_WRITE = "jobs:write"
ARTIFACTS_READ = "artifacts:read"
DEVICES_WRITE = "devices:write"
MEASURE = "devices:measure"
ADMIN = "admin"
SCOPES = (JOBS_READ, JOBS_WRITE, ARTIFACTS_READ, DEVICES_WRITE, MEASURE, ADMIN)

LAST_USED_SECONDS = 60.0
"""How exact `last_used_at` is: a write for each request would be a queue at the database."""


# Every request asks this first, so it is put together once, and makes no object of a row.
_BY_HASH = select(
    *(
        ApiKey.__table__.c[name]
        for name in ("id", "tenant_id", "scopes", "revoked_at", "expires_at", "last_used_at")
    ),
    epoch_now().label("now"),
).where(ApiKey.__table__.c.key_sha256 == bindparam("key_sha256"))


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownKey:
    """What a key opens.

    Attributes:
        refused: why it opens nothing, for a person; None when it is good.
        is_use_stale: whether its use should be noted anew.
    """

    id: str
    tenant_id: str
    scopes: frozenset[str]
    refused: str | None
    is_use_stale: bool


def create_key(
    session: Session,
    name: str,
    *,
    tenant_id: str | None = None,
    scopes: Sequence[str] | None = None,
    expires_at: float | None = None,
) -> str:
    """A new key, shown this once; without `scopes` it may do everything.

    Args:
        tenant_id: where it is not the session's.
    """
    allowed = SCOPES if scopes is None else scopes
    assert set(allowed) <= set(SCOPES), allowed
    key_id = new_id("key")
    key = f"snug_{key_id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"
    session.add(
        ApiKey(
            id=key_id,
            tenant_id=tenant_id,
            name=name,
            key_sha256=_hash(key),
            scopes=[scope for scope in SCOPES if scope in allowed],
            expires_at=expires_at,
        )
    )
    session.flush()
    return key


def find_key(session: Session, key: str) -> ApiKey | None:
    return session.scalars(select(ApiKey).where(ApiKey.key_sha256 == _hash(key))).one_or_none()


def look_up(session: Session, key: str) -> KnownKey | None:
    row = session.execute(_BY_HASH, {"key_sha256": _hash(key)}).one_or_none()
    if row is None:
        return None
    used_at = row.last_used_at
    return KnownKey(
        id=row.id,
        tenant_id=row.tenant_id,
        scopes=frozenset(SCOPES if row.scopes is None else row.scopes),
        refused=_why_refused(row.revoked_at, row.expires_at, row.now),
        is_use_stale=used_at is None or row.now - used_at > LAST_USED_SECONDS,
    )


def scopes_of(key: ApiKey) -> tuple[str, ...]:
    """Keys of a time without scopes have all of them."""
    return SCOPES if key.scopes is None else tuple(key.scopes)


def _why_refused(revoked_at: float | None, expires_at: float | None, now: float) -> str | None:
    if revoked_at is not None:
        return "this API key was revoked"
    if expires_at is not None and expires_at <= now:
        return "this API key has expired"
    return None


def list_keys(session: Session) -> list[ApiKey]:
    """Oldest first, revoked ones included."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def revoke_key(session: Session, key_id: str) -> ApiKey | None:
    """None when there is no such key; repeating it changes nothing."""
    key = session.get(ApiKey, key_id)
    if key is not None and key.revoked_at is None:
        key.revoked_at = epoch_now()
        session.flush()
        session.refresh(key)
    return key


def note_use(session: Session, key_id: str) -> None:
    key = session.get(ApiKey, key_id)
    if key is not None:
        key.last_used_at = epoch_now()


def _hash(key: str) -> str:
    # A key has 256 random bits, so a plain hash is enough: there is nothing to guess.
    return hashlib.sha256(key.encode()).hexdigest()
