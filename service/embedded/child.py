"""One process of the embedded service: started, restarted with growing pauses, stopped."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
MAX_DELAY_SECONDS = 30.0
# A child that ran this long had started well: its next failure is a new one.
HEALTHY_SECONDS = 5.0
MAX_LOG_BYTES = 10 * 1024**2
MANAGED_SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildSpec:
    """What to run. `death_signal` is what it gets when its supervisor is killed; a child that
    ends with one of `final_codes` is not started again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()
    death_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0
    final_codes: Sequence[int] = ()


class Child:
    def __init__(self, spec: ChildSpec, logs: Path) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.num_failures = 0
        self.restart_at: float | None = None
        self.has_ended = False  # for good
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Must be called from the main thread: the death signal follows the thread that forks."""
        self.restart_at = None
        self._started_at = time.monotonic()
        _shorten(self.log)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.spec.command),
                env={**os.environ, **self.spec.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.spec.descriptors,
                # Ctrl-C of a terminal goes to the supervisor alone, which then ends its children.
                start_new_session=True,
                preexec_fn=_child_setup(self.spec.death_signal),
            )

    def note_exit(self) -> None:
        """Plan the restart of a child that has ended by itself."""
        if self._process is None or self.is_alive or self.restart_at is not None:
            return
        if self._process.returncode in self.spec.final_codes:
            self.has_ended = True
            return
        now = time.monotonic()
        if now - self._started_at >= HEALTHY_SECONDS:
            self.num_failures = 0
        self.num_failures += 1
        delay = min(MAX_DELAY_SECONDS, 2.0 ** (self.num_failures - 1))
        self.restart_at = now + delay
        self._kill_group()

    def terminate(self) -> None:
        self.restart_at = None
        if self._process is not None and self.is_alive:
            self._process.terminate()

    def kill(self) -> None:
        self.restart_at = None
        self._kill_group()
        if self._process is not None:
            self._process.wait()

    def log_tail(self, num_lines: int = 15) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-num_lines:])

    def _kill_group(self) -> None:
        """The child with whatever it started: its session is its process group."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def die_with_parent(death_signal: signal.Signals, parent: int) -> None:
    """Between fork and exec: be sent this signal when the parent's thread ends (Linux only)."""
    if sys.platform != "linux":
        return
    _libc.prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:  # it ended before the call above took effect
        os._exit(1)


# Loaded before any fork: after it, only what is in memory already is safe to call.
_libc = ctypes.CDLL(None, use_errno=True)


def _child_setup(death_signal: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()

    def setup() -> None:
        die_with_parent(death_signal, parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MANAGED_SIGNALS)

    return setup


def _shorten(log: Path) -> None:
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
