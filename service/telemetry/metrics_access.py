"""Who may read the metrics: whoever has their key; without one, only this machine."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Protocol

from service.settings import Settings

FORWARDED = ("forwarded", "x-forwarded-for")


class Headers(Protocol):
    """Found whatever their case."""

    def get(self, name: str, /) -> str | None: ...


def is_allowed(settings: Settings, host: str | None, headers: Headers) -> bool:
    """Args:
    host: the peer's address; None where it is unknown.
    """
    if settings.metrics_key is not None:
        scheme, _, given = (headers.get("authorization") or "").partition(" ")
        key = settings.metrics_key.get_secret_value()
        is_right = hmac.compare_digest(given.strip().encode(), key.encode())
        return scheme.lower() == "bearer" and is_right
    # A proxy on this machine speaks for others.
    return _is_loopback(host) and not any(headers.get(name) for name in FORWARDED)


def _is_loopback(host: str | None) -> bool:
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
