"""The measuring agent: offers this machine to a server and measures what it is asked to.

    snugnet agent --server https://host --name my-device

The key is best given as SNUGNET_API_KEY: arguments can be seen by every user of the machine. It
needs the scope `devices:measure` and no other. Where SNUGNET_QUIET_LOCK names a file, the agent
owns its lock while it measures, and workers on the same machine pause. A file named by
SNUGNET_ALIVE_FILE is touched whenever the server has answered.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from predictors.measuring import run_measuring_spec
from predictors.memory import SpecTooLarge
from predictors.probe import probe_device
from predictors.protocol import MeasuringAborted
from predictors.runtimes.base import LoadingFailed, RuntimeMissing
from predictors.spec import MeasuringSpec
from search.errors import InvalidInput, SnugnetError
from service.client import ApiError, Client, Conflict, NotAllowed, Rejected, Unreachable
from service.database.ids import new_id
from service.devices.device_schemas import ClaimedMeasurementJob
from service.telemetry import logs, tracing
from workers.agent_state import default_state_dir, hold_identity

logger = logging.getLogger(__name__)

CLAIM_WAIT_S = 20.0
MIN_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
REPORT_PATIENCE_S = 600.0
REGISTER_EVERY_S = 600.0
IN_USE_PATIENCE_S = 90.0  # the server forgets an agent that it did not hear for 60 s
MAX_SESSIONS = 2  # of one request, when the first was noisy
LOCK_POLL_S = 0.02  # shorter than a worker's pause between two steps, or the agent would starve

REFUSED = 1  # exit status: another key or name is needed
RETIRED = 3  # exit status: nothing is to be measured here any more

# What would fail on this machine again.
FINAL_ERRORS = (InvalidInput, SpecTooLarge, RuntimeMissing, LoadingFailed)


class Agent:
    """One device of one server. `connect` makes a client; each thread needs its own."""

    def __init__(
        self,
        connect: Callable[[], Client],
        name: str,
        *,
        agent_id: str | None = None,
        quiet_lock: Path | None = None,
        alive_file: Path | None = None,
        claim_wait_s: float = CLAIM_WAIT_S,
        in_use_patience_s: float = IN_USE_PATIENCE_S,
    ) -> None:
        self._connect = connect
        self._name = name
        self._agent_id = agent_id or new_id("agent")
        self._quiet_lock = quiet_lock
        self._alive_file = alive_file
        self._claim_wait_s = claim_wait_s
        self._in_use_patience_s = in_use_patience_s
        self._in_use_since: float | None = None
        self._backoff_s = MIN_BACKOFF_S
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends `run` soon; work in hand is dropped, and taken up again when its lease runs out."""
        self._stopping.set()

    def run(self) -> None:
        """Serves until `stop`; outlives restarts of the server and losses of the network.

        Raises:
            NotAllowed: the server does not accept the key.
            Rejected: it does not accept the name, or what this machine says it is.
            Conflict: the device was retired, or another agent is connected under its name.
        """
        while not self._stopping.is_set():
            try:
                with self._connect() as client:
                    self._serve(client)
            except (NotAllowed, Rejected):
                raise
            except (ApiError, Unreachable) as error:
                if isinstance(error, Conflict):
                    self._check_patience(error)
                logger.warning("no work for %.1f s: %s", self._backoff_s, error)
                self._stopping.wait(self._backoff_s)
                self._backoff_s = min(MAX_BACKOFF_S, 2 * self._backoff_s)

    def _check_patience(self, error: Conflict) -> None:
        """Raises: the error, once it is clear that waiting does not help."""
        if error.problem.code == "device_retired":
            raise error
        if error.problem.code == "device_in_use":
            now = time.monotonic()
            self._in_use_since = self._in_use_since or now
            if now - self._in_use_since >= self._in_use_patience_s:
                raise error

    def _serve(self, client: Client) -> None:
        """Registers, and works until it is time to register anew."""
        identity = probe_device().to_dict()
        device = client.register_device(self._name, identity, self._agent_id)
        self._backoff_s, self._in_use_since = MIN_BACKOFF_S, None
        logger.info("serving %s as %s (%s)", client.url, device.name, device.id)
        registered_at = time.monotonic()
        while not self._stopping.is_set():
            claimed = client.claim_measurement_job(
                device.id, agent_id=self._agent_id, wait_s=self._claim_wait_s
            )
            self._note_contact()
            if claimed is not None:
                self._work(client, claimed)
            elif time.monotonic() - registered_at >= REGISTER_EVERY_S:
                return

    def _note_contact(self) -> None:
        """The server has answered: whoever watches this process can see since when it has not."""
        if self._alive_file is not None:
            self._alive_file.touch()

    def _work(self, client: Client, claimed: ClaimedMeasurementJob) -> None:
        started = time.monotonic()
        with _told_of(claimed), _Lease(self._connect, claimed, self._note_contact) as lease:
            try:
                result = self._measure(client, claimed, lease)
            except MeasuringAborted:
                logger.warning("dropped %s", claimed.id)
                return
            except (NotAllowed, Unreachable):
                raise
            except Exception as error:
                logger.exception("%s failed", claimed.id)
                self._give_up(client, claimed, error)
                return
            self._hand_in(client, claimed, result)
        logger.info("measured %s in %.1f s", claimed.id, time.monotonic() - started)

    def _hand_in(
        self, client: Client, claimed: ClaimedMeasurementJob, result: dict[str, object]
    ) -> None:
        try:
            self._report(lambda: client.report_result(claimed.id, claimed.token, result))
        except (Rejected, InvalidInput) as error:
            logger.error("the result of %s was refused: %s", claimed.id, error)
            self._give_up(client, claimed, error, code="invalid_result")

    def _give_up(
        self,
        client: Client,
        claimed: ClaimedMeasurementJob,
        error: Exception,
        code: str | None = None,
    ) -> None:
        is_final = code is None and isinstance(error, FINAL_ERRORS)
        if code is None:
            code = error.code if isinstance(error, SnugnetError) else "measuring_failed"
        message = str(error) or type(error).__name__
        self._report(
            lambda: client.report_failure(
                claimed.id, claimed.token, code, message, retry=not is_final
            )
        )

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


@contextmanager
def _told_of(claimed: ClaimedMeasurementJob) -> Iterator[None]:
    told = {"measurement_job": claimed.id, "token": claimed.token}
    with tracing.span("measure", parent=claimed.traceparent, **told), logs.log_context(**told):
        yield


class _Lease:
    """Renews a claim from a thread of its own; `is_lost` once somebody else may hold it."""

    def __init__(
        self,
        connect: Callable[[], Client],
        claimed: ClaimedMeasurementJob,
        note_contact: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._note_contact = note_contact
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
                    self._note_contact()
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
    args = _parse(argv)
    logs.configure(secrets=(args.key,))
    tracing.configure("agent")
    lock, alive = os.environ.get("SNUGNET_QUIET_LOCK"), os.environ.get("SNUGNET_ALIVE_FILE")
    signal.signal(signal.SIGTERM, _exit)
    try:
        with hold_identity(args.state_dir or default_state_dir(), args.name) as agent_id:
            agent = Agent(
                lambda: Client(args.server, args.key),
                args.name,
                agent_id=agent_id,
                quiet_lock=Path(lock) if lock else None,
                alive_file=Path(alive) if alive else None,
            )
            agent.run()
    except NotAllowed as error:
        return _refused(f"the server does not accept this key: {error}")
    except SnugnetError as error:
        is_retired = isinstance(error, Conflict) and error.problem.code == "device_retired"
        return _refused(str(error), RETIRED if is_retired else REFUSED)
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="snugnet agent", description="Measure on this machine.")
    parser.add_argument(
        "--server", "--url", default=os.environ.get("SNUGNET_URL"), help="URL of the server"
    )
    parser.add_argument(
        "--key", "--api-key", default=os.environ.get("SNUGNET_API_KEY", ""), help="API key"
    )
    parser.add_argument("--name", default="this-cpu", help="name of this device")
    parser.add_argument("--state-dir", type=Path, default=None, help="where it keeps its identity")
    args = parser.parse_args(argv)
    if not args.server:
        parser.error("--server or SNUGNET_URL is needed")
    return args


def _refused(reason: str, status: int = REFUSED) -> int:
    sys.stderr.write(f"error: {' '.join(reason.split())}\n")
    return status


def _exit(_signal: int, _frame: FrameType | None) -> None:
    # Raised wherever the agent waits: a long poll would take 20 seconds to notice a flag.
    raise SystemExit(0)


if __name__ == "__main__":
    raise SystemExit(main())
