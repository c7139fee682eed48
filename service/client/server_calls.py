"""Calls about the server itself, and its API keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.client.calls import Call, get, nothing, path_of, post, reads
from service.client.errors import ApiError, Unreachable
from service.client.plans import Plan, ask
from service.devices.device_schemas import ApiKey, ApiKeyPage, CreatedKey
from service.schemas import AuditPage, ServerInfo, SigningKey, SigningKeyPage

READY_TIMEOUT_SECONDS = 5.0


def server_info() -> Call[ServerInfo]:
    return get(ServerInfo, path_of("server-info"))


def readiness() -> Call[None]:
    """Raises, with the reason, when the server is not ready; never sent twice."""
    return Call(
        method="GET",
        path="/readyz",
        parse=nothing,
        timeout_s=READY_TIMEOUT_SECONDS,
        max_tries=1,
    )


def is_ready() -> Plan[bool]:
    """Whether the server answers and has what it needs; never retried."""
    try:
        yield from ask(readiness())
    except (ApiError, Unreachable):
        return False
    return True


def signing_keys() -> Call[list[SigningKey]]:
    """Public keys by which manifests are, or were, signed; needs no API key."""
    return get(SigningKeyPage, path_of("signing-keys")).then(lambda page: page.items)


def create_key(
    name: str, scopes: Sequence[str], expires_at: float | None = None
) -> Call[CreatedKey]:
    """The key is in the answer, and nowhere else."""
    body = {"name": name, "scopes": list(scopes), "expires_at": expires_at}
    return post(reads(CreatedKey), path_of("api-keys"), body)


def api_keys() -> Call[list[ApiKey]]:
    return get(ApiKeyPage, path_of("api-keys")).then(lambda page: page.items)


def revoke_key(key_id: str) -> Call[ApiKey]:
    return post(reads(ApiKey), f"{path_of('api-keys', key_id)}:revoke")


def audit_log(**paging: Any) -> Call[AuditPage]:
    """Who changed what: one page, newest first; `cursor` of the page before; `limit`."""
    return get(AuditPage, path_of("audit-log"), paging)
