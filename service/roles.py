"""The command lines of the roles that other programs carry out for us."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from service.steps.step_kinds import QUEUES

METRICS_PORT_VARIABLE = "SNUGNET_METRICS_PORT"
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# -P: a folder named `service` where the user happens to stand is not ours.
PYTHON = (sys.executable, "-P", "-m")


def worker_command(queues: Sequence[str] = QUEUES, *, slots: int = 1) -> list[str]:
    """A Celery worker of these queues, which runs `slots` steps at a time."""
    return [
        *PYTHON, "celery", "--app", "workers.app", "--quiet", "worker",
        "--queues", ",".join(queues), "--concurrency", str(slots), "--loglevel", "INFO",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip


def metrics_environment(port: int | str, folder: Path) -> dict[str, str]:
    """What a worker needs to add up in `folder` what its children count, and to serve it."""
    folder.mkdir(parents=True, exist_ok=True)
    return {METRICS_PORT_VARIABLE: str(port), MULTIPROCESS_VARIABLE: str(folder)}
