"""The processes of an embedded service, as Linux shows them; nothing where there is no /proc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What the command line of each holds; the supervisor's children are told apart by it.
ROLES = {
    "service.embedded.supervisor": "supervisor",
    "service.server": "api",
    "celery": "worker",
    "workers.agent": "agent",
    "valkey-server": "broker",
    "redis-server": "broker",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceProcess:
    role: str
    pid: int
    resident_bytes: int


def processes_of(supervisor_pid: int, proc: Path = Path("/proc")) -> list[ServiceProcess]:
    """The supervisor and its children; a worker's own children count as its memory."""
    found = [_describe(proc, pid, _tree(proc, pid)) for pid in _children(proc, supervisor_pid)]
    supervisor = _describe(proc, supervisor_pid, [supervisor_pid])
    return [process for process in (supervisor, *found) if process is not None]


def _describe(proc: Path, pid: int, members: list[int]) -> ServiceProcess | None:
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    role = next(
        (role for text, role in ROLES.items() if any(text in word for word in words)), "other"
    )
    resident = sum(_resident_bytes(proc, member) for member in members)
    return ServiceProcess(role=role, pid=pid, resident_bytes=resident)


def _tree(proc: Path, pid: int) -> list[int]:
    return [pid, *(found for child in _children(proc, pid) for found in _tree(proc, child))]


def _children(proc: Path, pid: int) -> Iterator[int]:
    try:
        tasks = list((proc / str(pid) / "task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            yield from map(int, (task / "children").read_text().split())
        except OSError:
            continue


def _resident_bytes(proc: Path, pid: int) -> int:
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(sizes[0]) * 1024 if sizes else 0
