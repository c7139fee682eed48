"""A program on a pseudo-terminal of the kernel, and what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyte

PATIENCE_SECONDS = 60.0


class Terminal:
    """A running program; `screen` is what a person would see by now."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, size: tuple[int, int]):
        self.process = process
        self.written = b""
        self._master = master
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def screen(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def shows_cursor(self) -> bool:
        return not self._screen.cursor.hidden

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def read_until(self, is_seen: Callable[[str], bool]) -> str:
        """The screen as soon as it is as wanted."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_seen(self.screen):
            assert time.monotonic() < deadline, self.screen
            assert self._read() or is_seen(self.screen), self.screen
        return self.screen

    def read_to_end(self) -> int:
        """The exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE_SECONDS)
        assert ready, f"it says nothing any more:\n{self.screen}"
        try:
            content = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that nobody has the other end open
            return False
        self.written += content
        self._stream.feed(content)
        return bool(content)


@contextmanager
def on_terminal(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    columns: int = 100,
    rows: int = 36,
) -> Iterator[Terminal]:
    """Start the program with all of its streams on a terminal of this size, as its session's."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        process = subprocess.Popen(
            command,
            env={**_plain(), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    finally:
        os.close(slave)
    try:
        yield Terminal(process, master, (columns, rows))
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _plain() -> dict[str, str]:
    """The environment without what would decide on colours, or on the size of the screen."""
    deciding = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if name not in deciding}
