"""Processes of the service that can be killed, frozen and started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from service.embedded.child import die_with_parent


class Program:
    """One role of the service, in a session of its own; it does not outlive the tests."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        logs: Path,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._descriptors = descriptors
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Again, where it ended before; from the main thread, as `die_with_parent` needs it."""
        parent = os.getpid()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self._descriptors,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
            )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def children(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            found: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
            return found
        return []

    def kill(self) -> None:
        """`kill -9` of this process alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_child(self) -> None:
        """`kill -9` of the process that runs a worker's steps."""
        for child in self.children:
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()

    def kill_group(self) -> None:
        """`kill -9` of everything at once: nobody is left to tell."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def terminate(self) -> None:
        """Ask for the end, and wait for it."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def freeze(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.kill_group()

    def log_tail(self, num_lines: int = 40) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-num_lines:])


def left_behind(folder: Path) -> dict[int, str]:
    """Command lines of all processes whose environment or arguments name the folder."""
    found = {}
    for process in _others():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(folder) in line or str(folder) in str(process.environ()):
                found[process.pid] = line
    return found


def _others() -> Iterable[psutil.Process]:
    return (process for process in psutil.process_iter() if process.pid != os.getpid())
