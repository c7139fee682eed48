"""The services of docker-compose.yml as plain processes: the same commands, environment, secrets
and health checks, with other host names, ports and paths."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.compose import ROOT, dockerfile_of, environment_of, is_ours

PATIENCE_SECONDS = 240.0
METRICS_PORT = "9100"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@dataclass(kw_only=True)
class Composition:
    """What is started, in a folder of its own.

    Attributes:
        replaced: what stands for what, in every command, variable and secret.
    """

    folder: Path
    services: Mapping[str, Mapping[str, Any]]
    replaced: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start it, and wait for what Compose would make the next one wait for: that it has done
        its work, or that its health check passes."""
        service = self.services[name]
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                cwd=self._data(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if service["restart"] == "on-failure":
            code = self.processes[name].wait(PATIENCE_SECONDS)
            assert code == 0, f"{name} ended with {code}:\n{self.text(name)}"
        else:
            self._wait_until_healthy(name)

    def command(self, name: str) -> list[str]:
        service = self.services[name]
        words = [*(service.get("entrypoint") or ()), *service["command"]]
        return [self._program(words[0]), *(self.rewritten(word, name) for word in words[1:])]

    def environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        image = environment_of(dockerfile_of(service)) if is_ours(service) else {}
        given = {**image, **(service.get("environment") or {})}
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._data(name)),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **{variable: self.rewritten(value, name) for variable, value in given.items()},
        }

    def rewritten(self, text: str, name: str) -> str:
        """Whole words and the longest first, so that nothing is replaced within something else."""
        own = {"/data": str(self._data(name)), "/tmp/alive": str(self._data(name) / "alive")}
        if METRICS_PORT in text:
            own[METRICS_PORT] = str(self.ports.setdefault(name, free_port()))
        replaced = {**self.replaced, **own}
        pattern = "|".join(re.escape(old) for old in sorted(replaced, key=len, reverse=True))
        return re.sub(rf"({pattern})(?![\w-])", lambda found: replaced[found[0]], text)

    def secret(self, name: str) -> str:
        return (Path(self.replaced["/run/secrets"]) / name).read_text()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def text(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")

    def stop(self, *names: str) -> dict[str, int]:
        """SIGTERM, as Compose sends it; how each ended."""
        for name in names:
            self.processes[name].send_signal(signal.SIGTERM)
        return {name: self.processes[name].wait(PATIENCE_SECONDS) for name in names}

    def kill(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _wait_until_healthy(self, name: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_healthy(name):
            ended = self.processes[name].poll()
            assert ended is None, f"{name} ended with {ended}:\n{self.text(name)}"
            assert time.monotonic() < deadline, f"{name} is not healthy:\n{self.text(name)}"
            time.sleep(0.3)

    def is_healthy(self, name: str) -> bool:
        """By the service's own check, run beside it."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        rewritten = [self.rewritten(word.replace("$$", "$"), name) for word in words]
        if kind == "CMD-SHELL":
            command = ["sh", "-c", *rewritten]
        else:
            command = [self._program(rewritten[0]), *rewritten[1:]]
        done = subprocess.run(
            command, env=self.environment(name), capture_output=True, timeout=60, check=False
        )
        return done.returncode == 0

    def _program(self, word: str) -> str:
        """What the image would find under that name."""
        known = {
            "python": sys.executable,
            "snugnet": str(Path(sys.executable).with_name("snugnet")),
        }
        return self.replaced.get(word, known.get(word, word))

    def _data(self, name: str) -> Path:
        folder = self.folder / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
