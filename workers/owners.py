"""Who holds a step: which worker process on which host, for which delivery of a message."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    host: str
    worker_pid: int  #: the Celery parent, whose children run the steps
    task_id: str

    def __str__(self) -> str:
        return f"{self.host}:{self.worker_pid}:{self.task_id}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        host, _, rest = text.partition(":")
        pid, _, task_id = rest.partition(":")
        if not (pid.isdigit() and task_id):
            return None
        return cls(host=host, worker_pid=int(pid), task_id=task_id)

    @classmethod
    def in_worker(cls, worker_pid: int, task_id: str) -> Self:
        return cls(host=socket.gethostname(), worker_pid=worker_pid, task_id=task_id)

    @property
    def is_dead(self) -> bool:
        """Known to be dead: a process of this host that is no more."""
        return self.host == socket.gethostname() and not is_alive(self.worker_pid)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
