"""Keeps training and measuring on one machine apart: steps share a lock, an agent owns it.

A second lock, the gate, makes it fair: the agent closes it as soon as it wants to measure, so that
no further step begins, and then waits for the running ones.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.2


@contextmanager
def shared_quiet_lock(path: Path | None, *, wait_seconds: float) -> Iterator[bool]:
    """Hold the lock shared; yields False when an agent kept it for all of `wait_seconds`."""
    if path is None:
        yield True
        return
    deadline = time.monotonic() + wait_seconds
    with _open(path) as lock:
        while not (is_held := _pass_gate(path, lock)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        yield is_held  # closing the file unlocks it


@contextmanager
def exclusive_quiet_lock(path: Path | None, *, should_abort: Callable[[], bool]) -> Iterator[bool]:
    """Own the lock, once every step has let go of it; yields False when told to abort first."""
    if path is None:
        yield True
        return
    with _open(_gate(path)) as gate, _open(path) as lock:
        yield _wait_for(gate, should_abort) and _wait_for(lock, should_abort)


def _pass_gate(path: Path, lock: IO[str]) -> bool:
    with _open(_gate(path)) as gate:
        return _try_lock(gate, fcntl.LOCK_SH) and _try_lock(lock, fcntl.LOCK_SH)


def _wait_for(file: IO[str], should_abort: Callable[[], bool]) -> bool:
    while not _try_lock(file, fcntl.LOCK_EX):
        if should_abort():
            return False
        time.sleep(POLL_SECONDS)
    return True


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file.fileno(), kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a")


def _gate(path: Path) -> Path:
    return path.with_name(path.name + ".gate")
