"""The embedded service of a data directory, as its own processes and the command line see it.

`service.json` tells the local command line where the service is and which key to use. A lock on
`service.lock` is held by every process of the service, so that it is free only when the last of
them has ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from search.errors import SnugnetError

DEFAULT_DATA_DIR = Path(".snugnet")
POLL_SECONDS = 0.1


class AlreadyRunning(SnugnetError):
    """A data directory has room for one service."""

    code = "already_running"


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """Where a service answers; `pid` is its supervisor's, None when it was stopped.

    `agent_key` is that of its own agent, which may only measure.
    """

    url: str
    api_key: str
    pid: int | None
    agent_key: str = ""

    def save(self, data_dir: Path) -> None:
        """Readable by its owner alone, and never half written."""
        temporary = data_dir / f".service.json.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file)
        temporary.replace(data_dir / "service.json")

    @classmethod
    def load(cls, data_dir: Path) -> Instance | None:
        """None when the directory never had a service, or its file cannot be read."""
        try:
            data = json.loads((data_dir / "service.json").read_text())
            return cls(
                url=data["url"],
                api_key=data["api_key"],
                pid=data["pid"],
                agent_key=data.get("agent_key", ""),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def make_data_dir(data_dir: Path) -> Path:
    data_dir = data_dir.expanduser().resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir.chmod(0o700)
    return data_dir


def acquire(data_dir: Path, *, patience_s: float = 20.0) -> int:
    """Take the directory's lock and return its descriptor; children inherit it.

    When the service before was killed, its last processes are waited for.

    Raises:
        AlreadyRunning: a service of this directory is alive.
    """
    descriptor = _open_lock(data_dir)
    deadline = time.monotonic() + patience_s
    while not _try_lock(descriptor):
        instance = Instance.load(data_dir)
        if (instance and _is_alive(instance.pid)) or time.monotonic() > deadline:
            os.close(descriptor)
            where = f" at {instance.url}" if instance else ""
            raise AlreadyRunning(
                f"a service with the data directory {data_dir} is running{where}; "
                "stop it with `snugnet down`, or give another --data-dir"
            )
        time.sleep(POLL_SECONDS)
    return descriptor


def is_running(data_dir: Path) -> bool:
    """Whether any process of the directory's service is alive."""
    return not wait_until_free(data_dir, 0.0)


def wait_until_free(data_dir: Path, timeout_s: float) -> bool:
    """Wait for every process of the service to end; False when one was left at the time-out."""
    if not (data_dir / "service.lock").exists():
        return True
    descriptor = _open_lock(data_dir)
    deadline = time.monotonic() + timeout_s
    try:
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True
    finally:
        os.close(descriptor)


def _open_lock(data_dir: Path) -> int:
    return os.open(data_dir / "service.lock", os.O_RDWR | os.O_CREAT, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
