"""API keys over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import Admin
from service.database.models import ApiKey as ApiKeyRow
from service.devices.device_schemas import ApiKey, ApiKeyPage, CreatedKey, NewKey
from service.problems import NotFound
from service.tenants import auth

router = APIRouter(prefix="/v1/api-keys", tags=["API keys"])


@router.post("", status_code=201)
def create(new: NewKey, caller: Admin) -> CreatedKey:
    """A key with these scopes; the key itself is shown this once."""
    with caller.write() as session:
        key = auth.create_key(session, new.name, scopes=new.scopes, expires_at=new.expires_at)
        row = auth.find_key(session, key)
        assert row is not None, "just made"
        session.refresh(row)
        return caller.answer(session, CreatedKey(**to_key(row).model_dump(), key=key))


@router.get("")
def list_all(caller: Admin) -> ApiKeyPage:
    with caller.database.read() as session:
        return ApiKeyPage(items=[to_key(row) for row in auth.list_keys(session)])


@router.post("/{key_id}:revoke")
def revoke(key_id: str, caller: Admin) -> ApiKey:
    """It opens nothing from now on. Repeating it changes nothing."""
    with caller.write() as session:
        row = auth.revoke_key(session, key_id)
        if row is None:
            raise NotFound("API key", key_id)
        return caller.answer(session, to_key(row))


def to_key(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=list(auth.scopes_of(row)),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
