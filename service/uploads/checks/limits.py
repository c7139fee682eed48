"""What a process may use that reads a stranger's file. Linux keeps all of it; elsewhere what there
is of it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
MAX_OPEN_FILES = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Attributes:
    seconds: of the clock, and of the processor.
    file_bytes: that it may write; 0 writes nothing at all.
    """

    memory_bytes: int
    seconds: float
    file_bytes: int = 0

    def apply(self) -> None:
        """To this process, for good."""
        whole_seconds = int(self.seconds) + 1
        for kind, limit in (
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
            (resource.RLIMIT_CORE, 0),
        ):
            _lower(kind, limit, limit)
        # At the hard limit of this one the kernel sends SIGKILL, which would look like a loss.
        _lower(resource.RLIMIT_CPU, whole_seconds, whole_seconds + 5)
        # Python ignores this one, and goes on.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        # Not a Python handler, which code in C could keep from running: the kernel's own.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)


def leave_the_network() -> bool:
    """Whether this process is now in a network of its own, with nothing in it. The kernel allows
    it to root and, where user namespaces are not forbidden, to everybody with a single thread."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return any(libc.unshare(flags) == 0 for flags in (CLONE_NEWUSER | CLONE_NEWNET, CLONE_NEWNET))


def die_with(parent: int) -> None:
    """Be killed when the thread that started this process ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _lower(kind: int, soft: int, hard: int) -> None:
    _, highest = resource.getrlimit(kind)
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    resource.setrlimit(kind, (soft, hard))
