"""Has uploads read by processes of their own, with limits: one for each, so that nothing of a file
outlives its reading."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.errors import InvalidInput, SnugnetError
from service.uploads.checks.limits import Limits
from service.uploads.checks.reading import Reading, folder_of

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 64 * 1024**2
GRACE_SECONDS = 5.0
"""After its time the child is ended from outside; it should have ended itself."""
# All that a reader needs of the environment: no secret of the server's is among it.
KEPT_VARIABLES = (
    "PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "TMPDIR",
)
GIVEN_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class ReaderLost(SnugnetError):
    """The process was ended by something else than the file it read: another try may do."""

    code = "reader_lost"


class NoLongerWanted(SnugnetError):
    """Whoever asked for a reading does not want it any more."""

    code = "no_longer_wanted"


class Inspector:
    """Args:
    limits: of each process.
    num_processes: at a time, over all callers.
    scratch: where the files of a reading stand under their names.
    module: what such a process runs.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        num_processes: int,
        scratch: Path,
        module: str = "service.uploads.checks.child",
    ) -> None:
        self._module = module
        self._limits = limits
        self._free = threading.BoundedSemaphore(num_processes)
        self._scratch = scratch

    def inspect(
        self,
        reading: Reading,
        *,
        tick_seconds: float = 1.0,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> dict[str, Any]:
        """What the files say. `is_wanted` is asked every `tick_seconds`.

        Raises:
            InvalidInput: they are not what they should be, or cannot be read within the limits.
            ReaderLost, NoLongerWanted.
        """
        with self._free, self._folder(reading) as folder:
            request = {
                "parent": os.getpid(),
                "limits": asdict(self._limits),
                "reading": {**asdict(reading), "files": dict.fromkeys(reading.files, "")},
                "folder": str(folder),
            }
            ticks = Ticks(self._limits.seconds + GRACE_SECONDS, tick_seconds, is_wanted)
            output, code = run(self._module, request, ticks)
        return self._understand(reading, output, code)

    @contextmanager
    def _folder(self, reading: Reading) -> Iterator[Path]:
        self._scratch.mkdir(parents=True, exist_ok=True)
        prefix = f"{os.getpid()}-check-"
        with folder_of(reading.files, prefix=prefix, dir=self._scratch) as folder:
            yield folder

    def _understand(self, reading: Reading, output: bytes, code: int) -> dict[str, Any]:
        if code or not output:
            raise self._ended(reading, code)
        answer = json.loads(output)
        if not answer["is_isolated"]:
            logger.info("uploads are read with the network in reach: no namespaces here")
        if "found" in answer:
            found: dict[str, Any] = answer["found"]
            return found
        if "wrong" in answer:
            raise InvalidInput(answer["wrong"]["field"], answer["wrong"]["reason"])
        if "out_of_memory" in answer:
            raise InvalidInput(
                reading.field, f"cannot be read within {self._limits.memory_bytes} bytes of memory"
            )
        logger.warning("a reader stumbled over an upload:\n%s", answer["traceback"])
        raise InvalidInput(
            reading.field, f"cannot be read: the reader stumbled ({answer['stumbled']})"
        )

    def _ended(self, reading: Reading, code: int) -> SnugnetError:
        """Of a process that did not answer."""
        if -code in (signal.SIGALRM, signal.SIGXCPU):
            return InvalidInput(
                reading.field, f"cannot be read within {self._limits.seconds:g} seconds"
            )
        if -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL):
            name = signal.Signals(-code).name
            return InvalidInput(reading.field, f"cannot be read: the reader crashed ({name})")
        if -code == signal.SIGXFSZ:
            return InvalidInput(reading.field, "cannot be read: the reader tried to write")
        return ReaderLost(f"the process that read the upload ended with code {code}")


class Ticks:
    """Until when a process may run, and whether it still should.

    Args:
        seconds: in all.
        tick_seconds: between two questions whether it is wanted.
    """

    def __init__(self, seconds: float, tick_seconds: float, is_wanted: Callable[[], bool]) -> None:
        self._deadline = time.monotonic() + seconds
        self._tick_seconds = tick_seconds
        self._is_wanted = is_wanted
        self._next = time.monotonic() + tick_seconds

    def pause_seconds(self) -> float:
        return max(0.0, min(self._deadline, self._next) - time.monotonic())

    def check(self) -> None:
        """Raises: ReaderLost when its time is over, NoLongerWanted."""
        now = time.monotonic()
        if now >= self._deadline:
            raise ReaderLost("the process did not end in its time")
        if now >= self._next:
            self._next = now + self._tick_seconds
            if not self._is_wanted():
                raise NoLongerWanted("the process is no longer wanted")


def run(
    module: str,
    request: Mapping[str, Any],
    ticks: Ticks,
    *,
    environment: Mapping[str, str] | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> tuple[bytes, int]:
    """Start a module as a process, hand it the request, wait: its output and exit code.

    It is killed when it is not wanted any more, and when the thread that waits for it ends.

    Raises:
        ReaderLost, NoLongerWanted.
    """
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env={**kept, **GIVEN_VARIABLES, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A log may be a file, and the process may not write to one.
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as pipe:
            pipe.write(json.dumps(request).encode())
        output = b"".join(_pieces(process.stdout.fileno(), ticks, on_output))
        return output, process.wait(GRACE_SECONDS)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        raise ReaderLost("the process broke off") from None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _pieces(
    descriptor: int, ticks: Ticks, on_output: Callable[[bytes], None] | None
) -> Iterator[bytes]:
    received_bytes = 0
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            is_readable = selector.select(ticks.pause_seconds())
            ticks.check()
            if not is_readable:
                continue
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return
            received_bytes += len(piece)
            if received_bytes > MAX_ANSWER_BYTES:
                raise ReaderLost("the process answered with too much")
            if on_output is not None:
                on_output(piece)
            yield piece
