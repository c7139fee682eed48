"""A shell that runs blocks one after the other, as somebody who copies them would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.docs.blocks import ROOT, Block

PATIENCE_SECONDS = 240.0
PROGRAMS = {
    "python": '-P "$@"',
    "snugnet": '-P -c "from service.cli import main; main()" "$@"',
}


class Failed(AssertionError):
    """A block did not run, with what it said."""


class Shell:
    """Variables, functions and the folder stay from block to block.

    Args:
        replaced: text that stands for something else where the blocks run, such as a port.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], replaced: Mapping[str, str]):
        self.folder = folder
        self._environment = environment
        self._replaced = replaced
        self._state = folder / ".state.sh"
        self._state.write_text("")
        self._background: list[subprocess.Popen[bytes]] = []
        self._background_log = folder / ".background.log"

    def run(self, block: Block) -> None:
        """Raises: Failed."""
        code = block.code
        for text, other in self._replaced.items():
            code = code.replace(text, other)
        if block.mark == "file":
            (self.folder / block.told).write_text(code)
        elif block.language == "python":
            self._execute(block, ["python", "-c", code])
        elif block.mark == "in the background":
            self._background.append(self._start(code))
        else:
            # What the block defines is there for the next one.
            script = f'. "{self._state}"\n{code}\n{{ declare -p; }} > "{self._state}.new"\n'
            self._execute(block, ["bash", "-e", "-o", "pipefail", "-c", script])
            self._keep_variables()

    def close(self) -> None:
        for process in self._background:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        if self._background:
            sys.stdout.write(f"--- in the background\n{self._background_log.read_text()}")

    def _keep_variables(self) -> None:
        """Those that the block made: none that are read-only, the shell's own, or of before."""
        kept = []
        for line in Path(f"{self._state}.new").read_text().splitlines():
            declared, _, value = line.partition("=")
            words = declared.split()
            if words[:1] != ["declare"] or len(words) != 3 or words[1] not in ("--", "-x"):
                continue
            name = words[2]
            if name.isupper() and name not in self._environment and not name.startswith("BASH"):
                kept.append(f"{'export ' if words[1] == '-x' else ''}{name}={value}")
        self._state.write_text("\n".join(kept) + "\n")

    def _start(self, code: str) -> subprocess.Popen[bytes]:
        with self._background_log.open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", f'. "{self._state}"\n{code}'],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _execute(self, block: Block, command: list[str]) -> None:
        # To a file: a service that the block starts would keep a pipe open.
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            said.seek(0)
            text = said.read().decode(errors="replace")
        sys.stdout.write(f"--- {block}\n{text}")  # shown by pytest when the test failed
        if code != 0:
            raise Failed(f"{block} ended with {code}:\n{block.code}\n{text[-4000:]}")


@contextmanager
def opened_shell(folder: Path, port: int) -> Iterator[Shell]:
    """With `snugnet` and `python` of this repository on its path, on a port that is free."""
    programs = folder / ".bin"
    programs.mkdir()
    for name, arguments in PROGRAMS.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}\n')
        program.chmod(0o755)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("SNUGNET_")},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "SNUGNET_THREADS": "1",
    }
    replaced = {"snugnet up": f"snugnet up --port {port}", "127.0.0.1:8000": f"127.0.0.1:{port}"}
    shell = Shell(folder, environment, replaced)
    try:
        yield shell
    finally:
        shell.close()
        subprocess.run(
            [str(programs / "snugnet"), "down"], cwd=folder, env=environment, check=False
        )
