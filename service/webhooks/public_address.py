"""Addresses that the service may send to on behalf of a user: none inside of its own network."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection
from urllib.parse import SplitResult, urlsplit

from search.errors import InvalidInput

Resolve = Callable[[str, int], list[str]]
MAX_URL_CHARACTERS = 2000


class NotPublic(InvalidInput):
    """A host that is, or by now is, inside of a private network."""


def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, as text."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_url(url: str, private_hosts: Collection[str], field: str = "url") -> SplitResult:
    """What can be said of a URL without asking anybody.

    Args:
        private_hosts: hosts that the operator allows, by http too.

    Raises: InvalidInput.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise InvalidInput(field, f"has more than {MAX_URL_CHARACTERS} characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(field, f"is not a URL: {error}") from None
    if not parts.hostname:
        raise InvalidInput(field, f"must be a URL such as https://example.org/hook, got {url!r}")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(field, "must hold no user name or password")
    if parts.scheme != "https" and not (
        parts.scheme == "http" and parts.hostname in private_hosts
    ):
        raise InvalidInput(field, "must start with https://")
    if port == 0:
        raise InvalidInput(field, "must have a port above 0")
    return parts


def public_address(
    url: str, private_hosts: Collection[str], look_up: Resolve = resolve, field: str = "url"
) -> str:
    """An address of the URL's host to connect to, looked up this once: a name that changes its
    address between the check and the connection would lead inside.

    Raises:
        NotPublic: any of its addresses is not global.
        OSError: the name is not known.
    """
    parts = check_url(url, private_hosts, field)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = look_up(parts.hostname, port)
    if not addresses:
        raise OSError(f"{parts.hostname} has no address")
    if parts.hostname not in private_hosts:
        for address in addresses:
            if not _is_global(address):
                raise NotPublic(field, f"{parts.hostname} has the private address {address}")
    return addresses[0]


def _is_global(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is not None:
            return _is_global(str(inner))
        if found in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            return _is_global(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
    return found.is_global and not found.is_multicast
