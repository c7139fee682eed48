"""API keys: `snug_<id>_<secret>`, of which only the SHA-256 is stored."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db import epoch_now
from service.ids import new_id
from service.models import ApiKey

LAST_USED_SECONDS = 60.0
"""How exact `last_used_at` is: a write for each request would be a queue at the database."""


def create_key(session: Session, name: str) -> str:
    """A new key, shown this once."""
    key_id = new_id("key")
    key = f"snug_{key_id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"
    session.add(ApiKey(id=key_id, name=name, key_sha256=_hash(key)))
    session.flush()
    return key


def find_key(session: Session, key: str) -> ApiKey | None:
    return session.scalars(select(ApiKey).where(ApiKey.key_sha256 == _hash(key))).one_or_none()


def is_use_stale(session: Session, key: ApiKey) -> bool:
    """Whether the use of the key should be noted anew."""
    if key.last_used_at is None:
        return True
    now = session.execute(select(epoch_now())).scalar_one()
    return now - key.last_used_at > LAST_USED_SECONDS


def note_use(session: Session, key_id: str) -> None:
    key = session.get(ApiKey, key_id)
    if key is not None:
        key.last_used_at = epoch_now()


def _hash(key: str) -> str:
    # A key has 256 random bits, so a plain hash is enough: there is nothing to guess.
    return hashlib.sha256(key.encode()).hexdigest()
