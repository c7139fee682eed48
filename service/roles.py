"""The command lines of the roles that other programs carry out for us."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from service.step_kinds import QUEUES

# -P: a folder named `service` where the user happens to stand is not ours.
PYTHON = (sys.executable, "-P", "-m")


def worker_command(queues: Sequence[str] = QUEUES, *, slots: int = 1) -> list[str]:
    """A Celery worker of these queues, which runs `slots` steps at a time."""
    return [
        *PYTHON, "celery", "--app", "workers.app", "--quiet", "worker",
        "--queues", ",".join(queues), "--concurrency", str(slots), "--loglevel", "INFO",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
