"""The root of the embedded service's process tree: `python -m service.embedded.supervisor`.

Broker, API with dispatcher, one worker and one measuring agent are its children. It sleeps until
a signal arrives or a restart is due. None of them outlives it: a graceful end stops them in order,
and when it is killed the kernel sends each one its death signal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from search.errors import SnugnetError
from service.client import Client
from service.embedded import broker
from service.embedded.child import MANAGED_SIGNALS, Child, ChildSpec
from service.embedded.instance import Instance, acquire, make_data_dir
from service.roles import METRICS_PORT_VARIABLE, PYTHON, metrics_environment, worker_command

AGENT_NAME = "this-cpu"
AGENT_RETIRED = 3  # exit status of an agent whose device was retired
READY_SECONDS = 120.0
READY_POLL_SECONDS = 0.2
BROKER_SECONDS = 15.0
WORKER_STOP_SECONDS = 30.0


class StartFailed(SnugnetError):
    """The service did not come up."""

    code = "start_failed"


class Interrupted(Exception):
    """A signal asked for the end before everything had started."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    has_worker: bool = True
    has_agent: bool = True


class Supervisor:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._data_dir = make_data_dir(options.data_dir)
        self._logs = self._data_dir / "logs"
        self._logs.mkdir(exist_ok=True)
        self._lock = acquire(self._data_dir)
        self._children: list[Child] = []
        self._environment = {
            "SNUGNET_DATA_DIR": str(self._data_dir),
            "SNUGNET_QUIET_LOCK": str(self._data_dir / "quiet.lock"),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self) -> Instance:
        """Start everything and wait until it works.

        Raises:
            StartFailed: with the end of the log of what failed.
            Interrupted: a signal came meanwhile.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, MANAGED_SIGNALS)
        listener = self._listen()
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._start_broker()
        instance = Instance(url=url, pid=os.getpid(), **self._bootstrap())
        instance.save(self._data_dir)
        started_at = time.time()
        self._start_api(listener)
        if self._options.has_agent:
            self._start_agent(instance)
        if self._options.has_worker:
            self._start_worker()
        self._wait_until_ready(instance, started_at)
        return instance

    def supervise(self) -> None:
        """Restart what ends, until a signal asks for the end."""
        while not self._is_end_asked(self._seconds_to_restart()):
            self._restart_due()

    def stop(self) -> None:
        """End the children, users of a service before the service; a second signal kills them."""
        try:
            for names in (("worker", "agent"), ("api",), ("broker",)):
                self._stop_group([child for child in self._children if child.spec.name in names])
        finally:
            for child in self._children:
                child.kill()
            instance = Instance.load(self._data_dir)
            if instance is not None:
                replace(instance, pid=None).save(self._data_dir)

    # --- starting --------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        host, port = self._options.host, self._options.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise StartFailed(
                f"cannot listen on {host}:{port} ({error.strerror}); "
                "choose another --port, 0 takes any free one"
            ) from None
        listener.listen(128)
        return listener

    def _start_broker(self) -> None:
        given = broker.given_url()
        if given is not None:
            self._environment["SNUGNET_BROKER_URL"] = given
            return
        path = broker.socket_path(self._data_dir)
        path.unlink(missing_ok=True)
        folder = self._data_dir / "valkey"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._environment["SNUGNET_BROKER_URL"] = broker.socket_url(path)
        child = self._add("broker", broker.server_command(broker.find_server(), path, folder))
        deadline = time.monotonic() + BROKER_SECONDS
        while not _accepts(path):
            self._check_start(deadline, [child])

    def _bootstrap(self) -> dict[str, str]:
        """The keys that are valid now."""
        before = Instance.load(self._data_dir)
        keys = {"api_key": before.api_key, "agent_key": before.agent_key} if before else {}
        done = subprocess.run(
            [*PYTHON, "service.embedded.bootstrap"],
            env={**os.environ, **self._environment},
            input=json.dumps(keys),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StartFailed(f"the database could not be prepared:\n{done.stderr[-2000:]}")
        answer: dict[str, str] = json.loads(done.stdout)
        return answer

    def _start_api(self, listener: socket.socket) -> None:
        os.set_inheritable(listener.fileno(), True)
        command = [*PYTHON, "service.server", "--fd", str(listener.fileno())]
        # Our worker runs in the same environment; others may have more packages, or fewer.
        told = {"SNUGNET_WORKER_IS_HERE": str(int(self._options.has_worker))}
        self._add("api", command, environment=told, descriptors=(listener.fileno(),))
        # The descriptor stays open here, so that a restarted API takes the same socket over.
        self._listener = listener

    def _start_worker(self) -> None:
        # Its steps are idempotent and may be deep in a computation: nothing is gained by asking.
        self._add(
            "worker",
            worker_command(),
            environment=self._metrics_environment(),
            death_signal=signal.SIGKILL,
            stop_seconds=WORKER_STOP_SECONDS,
        )

    def _metrics_environment(self) -> dict[str, str]:
        port = os.environ.get(METRICS_PORT_VARIABLE)
        if not port:
            return {}
        folder = self._data_dir / "metrics"
        shutil.rmtree(folder, ignore_errors=True)
        return metrics_environment(port, folder)

    def _start_agent(self, instance: Instance) -> None:
        state = str(self._data_dir / "agent")
        command = [
            *PYTHON, "workers.agent",
            "--server", instance.url, "--name", AGENT_NAME, "--state-dir", state,
        ]  # fmt: skip
        # By the environment: other users of the machine can read a command line.
        self._add(
            "agent",
            command,
            environment={"SNUGNET_API_KEY": instance.agent_key},
            final_codes=(AGENT_RETIRED,),
        )

    def _add(
        self,
        name: str,
        command: list[str],
        *,
        environment: dict[str, str] | None = None,
        descriptors: tuple[int, ...] = (),
        death_signal: signal.Signals = signal.SIGTERM,
        stop_seconds: float = 15.0,
        final_codes: tuple[int, ...] = (),
    ) -> Child:
        spec = ChildSpec(
            name=name,
            command=command,
            environment={**self._environment, **(environment or {})},
            descriptors=(*descriptors, self._lock),
            death_signal=death_signal,
            stop_seconds=stop_seconds,
            final_codes=final_codes,
        )
        child = Child(spec, self._logs)
        child.start()
        self._children.append(child)
        return child

    def _wait_until_ready(self, instance: Instance, started_at: float) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with Client(instance.url, instance.api_key, max_tries=1, timeout_s=5.0) as client:
            while not self._is_ready(client, started_at):
                self._check_start(deadline, self._children)

    def _is_ready(self, client: Client, started_at: float) -> bool:
        if not client.is_ready():
            return False
        if not self._options.has_agent:
            return True
        try:
            devices = client.devices()
        except SnugnetError:
            return False
        if any(child.spec.name == "agent" and child.has_ended for child in self._children):
            return True
        # The clock is the database's, the same machine's; a second covers its rounding. By any
        # name: the device may have been renamed.
        return any(device.last_seen_at >= started_at - 1 for device in devices)

    def _check_start(self, deadline: float, needed: list[Child]) -> None:
        if self._is_end_asked(READY_POLL_SECONDS):
            raise Interrupted
        for child in needed:
            if child.num_failures >= 3:
                raise StartFailed(f"{child.spec.name} keeps failing:\n{child.log_tail()}")
        if time.monotonic() > deadline:
            raise StartFailed(f"the service was not ready in time; its logs are in {self._logs}")
        self._restart_due()

    # --- running ---------------------------------------------------------------------------

    def _is_end_asked(self, wait_s: float) -> bool:
        """Sleep until a signal; note the children that ended, and say whether to stop."""
        received = signal.sigtimedwait(MANAGED_SIGNALS, wait_s)
        for child in self._children:
            child.note_exit()
        return received is not None and received.si_signo != signal.SIGCHLD

    def _seconds_to_restart(self) -> float:
        due = [child.restart_at for child in self._children if child.restart_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else 3600.0

    def _restart_due(self) -> None:
        for child in self._children:
            if child.restart_at is not None and child.restart_at <= time.monotonic():
                _say(f"{child.spec.name} ended and is started again; see {child.log}")
                child.start()

    def _stop_group(self, children: list[Child]) -> None:
        for child in children:
            child.terminate()
        limit = max((child.spec.stop_seconds for child in children), default=0.0)
        deadline = time.monotonic() + limit
        while any(child.is_alive for child in children) and time.monotonic() < deadline:
            left = max(0.0, deadline - time.monotonic())
            received = signal.sigtimedwait(MANAGED_SIGNALS, min(left, 1.0))
            if received is not None and received.si_signo != signal.SIGCHLD:
                raise Interrupted
        for child in children:
            child.kill()


def main() -> None:
    options, ready = _parse()
    try:
        supervisor = Supervisor(options)
    except SnugnetError as error:
        _announce(ready, {"error": str(error), "code": error.code})
        sys.exit(1)
    try:
        instance = supervisor.start()
        _announce(ready, {"url": instance.url, "api_key": instance.api_key})
        supervisor.supervise()
    except Interrupted:
        _announce(ready, {"error": "it was interrupted", "code": "interrupted"})
    except SnugnetError as error:
        _announce(ready, {"error": str(error), "code": error.code})
        supervisor.stop()
        sys.exit(1)
    try:
        supervisor.stop()
    except Interrupted:
        _say("stopped at once")


def _announce(ready: int | None, message: dict[str, str]) -> None:
    """To whoever started us, through its pipe; else to the terminal."""
    if ready is not None:
        try:
            os.write(ready, json.dumps(message).encode())
            os.close(ready)
        except OSError:
            return
    elif "error" in message:
        sys.stderr.write(f"error: {message['error']}\n")
    else:
        _say(f"Snugnet is ready at {message['url']}\nAPI key: {message['api_key']}")
        _say("Ctrl-C stops it.")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _parse() -> tuple[Options, int | None]:
    parser = argparse.ArgumentParser(prog="python -m service.embedded.supervisor")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--no-worker", action="store_true")
    parser.add_argument("--no-agent", action="store_true")
    parser.add_argument("--ready-fd", type=int)
    given = parser.parse_args()
    options = Options(
        data_dir=given.data_dir,
        host=given.host,
        port=given.port,
        has_worker=not given.no_worker,
        has_agent=not given.no_agent,
    )
    return options, given.ready_fd


if __name__ == "__main__":
    main()
