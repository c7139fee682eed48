"""By which keys manifests are signed: public, as the keys are."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import Service
from service.artifacts.signing_keys import list_signing_keys
from service.schemas import SigningKey, SigningKeyPage

router = APIRouter(prefix="/v1/signing-keys", tags=["artifacts"])


@router.get("")
def signing_keys(parts: Service) -> SigningKeyPage:
    """Ed25519 public keys of everything that ever signed here, the newest first."""
    with parts.database.read() as session:
        rows = list_signing_keys(session)
    return SigningKeyPage(
        items=[
            SigningKey(id=row.id, public_key=row.public_key, created_at=row.created_at)
            for row in rows
        ]
    )
