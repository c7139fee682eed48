"""API keys: `snug_<id>_<secret>`, of which only the SHA-256 is stored, and what each may do."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db import epoch_now
from service.ids import new_id
from service.models import ApiKey

JOBS = "jobs"
DEVICES = "devices"
MEASURE = "devices:measure"
ADMIN = "admin"
SCOPES = (JOBS, DEVICES, MEASURE, ADMIN)

LAST_USED_SECONDS = 60.0
"""How exact `last_used_at` is: a write for each request would be a queue at the database."""


def create_key(
    session: Session,
    name: str,
    *,
    scopes: Sequence[str] | None = None,
    expires_at: float | None = None,
) -> str:
    """A new key, shown this once; without `scopes` it may do everything."""
    allowed = SCOPES if scopes is None else scopes
    assert set(allowed) <= set(SCOPES), allowed
    key_id = new_id("key")
    key = f"snug_{key_id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"
    session.add(
        ApiKey(
            id=key_id,
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


def scopes_of(key: ApiKey) -> tuple[str, ...]:
    """Keys of a time without scopes have all of them."""
    return SCOPES if key.scopes is None else tuple(key.scopes)


def why_refused(session: Session, key: ApiKey | None) -> str | None:
    """What is wrong with a key, for a person; None when it is good."""
    if key is None:
        return "this API key is unknown"
    if key.revoked_at is not None:
        return "this API key was revoked"
    if key.expires_at is not None and key.expires_at <= _now(session):
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


def is_use_stale(session: Session, key: ApiKey) -> bool:
    """Whether the use of the key should be noted anew."""
    return key.last_used_at is None or _now(session) - key.last_used_at > LAST_USED_SECONDS


def note_use(session: Session, key_id: str) -> None:
    key = session.get(ApiKey, key_id)
    if key is not None:
        key.last_used_at = epoch_now()


def _now(session: Session) -> float:
    return session.execute(select(epoch_now())).scalar_one()


def _hash(key: str) -> str:
    # A key has 256 random bits, so a plain hash is enough: there is nothing to guess.
    return hashlib.sha256(key.encode()).hexdigest()
