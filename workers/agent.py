"""The measuring agent: offers this machine to a server and measures what it is asked to.

    python -m workers.agent --server http://host:8000 --name my-device

The key is read from SNUGNET_API_KEY, since arguments can be seen by every user of the machine.
Where SNUGNET_QUIET_LOCK names a file, the agent owns its lock while it measures, and workers on
the same machine pause.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from predictors.device import probe_device
from predictors.measuring import run_measuring_spec
from predictors.protocol import MeasuringAborted
from predictors.spec import MeasuringSpec
from search.errors import SnugnetError
from service.client import ApiError, Client, Conflict, NotAllowed, Unreachable
from service.schemas import ClaimedMeasurementJob

logger = logging.getLogger(__name__)

CLAIM_WAIT_S = 20.0
MIN_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
REPORT_PATIENCE_S = 600.0
MAX_SESSIONS = 2  # of one request, when the first was noisy
LOCK_POLL_S = 0.02  # shorter than a worker's pause between two steps, or the agent would starve


class Agent:
    """One device of one server. `connect` makes a client; each thread needs its own."""

    def __init__(
        self,
        connect: Callable[[], Client],
        name: str,
        *,
        quiet_lock: Path | None = None,
        claim_wait_s: float = CLAIM_WAIT_S,
    ) -> None:
        self._connect = connect
        self._name = name
        self._quiet_lock = quiet_lock
        self._claim_wait_s = claim_wait_s
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends `run` soon; work in hand is dropped, and taken up again when its lease runs out."""
        self._stopping.set()

    def run(self) -> None:
        """Serves until `stop`; outlives restarts of the server.

        Raises:
            NotAllowed: the server does not accept the key.
        """
        backoff_s = MIN_BACKOFF_S
        while not self._stopping.is_set():
            try:
                with self._connect() as client:
                    self._serve(client)
                backoff_s = MIN_BACKOFF_S
            except NotAllowed:
                raise
            except (ApiError, Unreachable) as error:
                logger.warning("no work for %.1f s: %s", backoff_s, error)
                self._stopping.wait(backoff_s)
                backoff_s = min(MAX_BACKOFF_S, 2 * backoff_s)

    def _serve(self, client: Client) -> None:
        """Registers and works until the server says nothing for a while; then registers anew."""
        device = client.register_device(self._name, probe_device().to_dict())
        logger.info("serving %s as %s (%s)", client.url, device.name, device.id)
        while not self._stopping.is_set():
            claimed = client.claim_measurement_job(device.id, wait_s=self._claim_wait_s)
            if claimed is None:
                return
            self._work(client, claimed)

    def _work(self, client: Client, claimed: ClaimedMeasurementJob) -> None:
        started = time.monotonic()
        with _Lease(self._connect, claimed) as lease:
            try:
                result = self._measure(client, claimed, lease)
            except MeasuringAborted:
                logger.warning("dropped %s", claimed.id)
                return
            except Unreachable:
                raise
            except Exception as error:
                logger.exception("%s failed", claimed.id)
                code = error.code if isinstance(error, SnugnetError) else "measuring_failed"
                message = str(error) or type(error).__name__
                self._report(
                    lambda: client.report_failure(claimed.id, claimed.token, code, message)
                )
                return
            self._report(lambda: client.report_result(claimed.id, claimed.token, result))
        logger.info("measured %s in %.1f s", claimed.id, time.monotonic() - started)

    def _measure(
        self, client: Client, claimed: ClaimedMeasurementJob, lease: _Lease
    ) -> dict[str, object]:
        def should_abort() -> bool:
            return lease.is_lost or self._stopping.is_set()

        def fetch(sha256: str, path: Path) -> None:
            client.download_blob(sha256, path)

        spec = MeasuringSpec.from_dict(claimed.spec)
        with exclusive_quiet_lock(self._quiet_lock, should_abort):
            return run_measuring_spec(
                spec, fetch_blob=fetch, should_abort=should_abort, max_sessions=MAX_SESSIONS
            ).to_dict()

    def _report(self, send: Callable[[], None]) -> None:
        """Sends through a restart of the server: minutes of measuring would be lost otherwise."""
        deadline = time.monotonic() + REPORT_PATIENCE_S
        while True:
            try:
                return send()
            except Conflict as error:
                logger.warning("the lease was lost, the result is dropped: %s", error)
                return None
            except Unreachable:
                if self._stopping.wait(MIN_BACKOFF_S) or time.monotonic() > deadline:
                    raise


class _Lease:
    """Renews a claim from a thread of its own; `is_lost` once somebody else may hold it."""

    def __init__(self, connect: Callable[[], Client], claimed: ClaimedMeasurementJob) -> None:
        self._connect = connect
        self._claimed = claimed
        self._lost = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    @property
    def is_lost(self) -> bool:
        return self._lost.is_set()

    def __enter__(self) -> _Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=5.0)

    def _renew(self) -> None:
        with self._connect() as client:
            while not self._done.wait(self._claimed.lease_seconds / 3):
                try:
                    client.renew_measurement_job(self._claimed.id, self._claimed.token)
                except Unreachable as error:
                    # Whoever restarts the server finds the lease; whether it still holds, the
                    # next renewal or the report will show.
                    logger.warning("lease of %s not renewed: %s", self._claimed.id, error)
                except ApiError as error:
                    logger.warning("lease of %s lost: %s", self._claimed.id, error)
                    self._lost.set()
                    return


@contextmanager
def exclusive_quiet_lock(path: Path | None, should_abort: Callable[[], bool]) -> Iterator[None]:
    """Owns the lock that workers share while they run a step, once they have let go of it.

    Raises:
        MeasuringAborted: `should_abort` said so first.
    """
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while not _try_lock(file.fileno()):
            if should_abort():
                raise MeasuringAborted("asked to stop while waiting for the quiet lock")
            time.sleep(LOCK_POLL_S)
        yield  # closing the file unlocks it


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the process; returns its exit status."""
    parser = argparse.ArgumentParser(prog="snugnet agent", description="Measure on this machine.")
    parser.add_argument(
        "--server", default=os.environ.get("SNUGNET_URL"), help="URL of the server"
    )
    parser.add_argument("--key", default=os.environ.get("SNUGNET_API_KEY", ""), help="API key")
    parser.add_argument("--name", default="this-cpu", help="name of this device")
    args = parser.parse_args(argv)
    if not args.server:
        parser.error("--server or SNUGNET_URL is needed")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    lock = os.environ.get("SNUGNET_QUIET_LOCK")
    agent = Agent(
        lambda: Client(args.server, args.key),
        args.name,
        quiet_lock=Path(lock) if lock else None,
    )
    signal.signal(signal.SIGTERM, _exit)
    try:
        agent.run()
    except NotAllowed as error:
        logger.error("the server does not accept this agent: %s", error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _exit(_signal: int, _frame: FrameType | None) -> None:
    # Raised wherever the agent waits: a long poll would take 20 seconds to notice a flag.
    raise SystemExit(0)


if __name__ == "__main__":
    raise SystemExit(main())
