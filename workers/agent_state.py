"""What an agent keeps on its machine: an identity that outlives restarts, one agent per name."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from search.errors import InvalidInput, SnugnetError
from service.database.ids import new_id

NAME = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,62}")
AGENT_ID = re.compile(r"[A-Za-z0-9_\-]{8,80}")


class AlreadyRunning(SnugnetError):
    """Two agents of one name would measure, and disturb, the same machine."""

    code = "already_running"


def default_state_dir() -> Path:
    """Of the user, by the XDG base directory specification.

    Raises:
        InvalidInput: the user has no home, as in some containers.
    """
    root = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        base = root if root.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        raise InvalidInput("--state-dir", "is needed, since this user has no home") from None
    return base / "snugnet"


@contextmanager
def hold_identity(folder: Path, name: str) -> Iterator[str]:
    """The id of the agent of this name, which no other process has for as long as this lasts.

    Raises:
        AlreadyRunning: another process on this machine is the agent of this name.
        InvalidInput: the name is none, or nothing can be written to the folder.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput(
            "--name", f"must be lower-case letters, digits, '.', '_' and '-', got {name!r}"
        )
    try:
        lock = _lock(folder, name)
    except OSError as error:
        raise _unusable(folder, error) from None
    with lock:
        try:
            agent_id = _read_or_make(folder / f"{name}.json")
        except OSError as error:
            raise _unusable(folder, error) from None
        yield agent_id


def _lock(folder: Path, name: str) -> IO[str]:
    """The locked file; closing it unlocks it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (folder / f"{name}.lock").open("a")
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AlreadyRunning(f"an agent named {name!r} runs on this machine already") from None
    return file


def _read_or_make(path: Path) -> str:
    try:
        known = json.loads(path.read_text())["agent_id"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if isinstance(known, str) and AGENT_ID.fullmatch(known):
        return known
    agent_id = new_id("agent")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"agent_id": agent_id}))
    temporary.replace(path)
    return agent_id


def _unusable(folder: Path, error: OSError) -> InvalidInput:
    return InvalidInput("--state-dir", f"{str(folder)!r}: {error.strerror}")
