"""The embedded service for programs: start it, wait until it works, stop it.

with EmbeddedService(Path(".snugnet")) as instance:
    client = Client(instance.url, instance.api_key)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from search.errors import SnugnetError
from service.embedded.child import die_with_parent
from service.embedded.instance import Instance, is_running, make_data_dir, wait_until_free

STOP_SECONDS = 90.0
KILL_SECONDS = 15.0
SERVER_MODULES = ("alembic", "celery", "fastapi", "jinja2", "sqlalchemy", "uvicorn")


class NotStarted(SnugnetError):
    """The service could not be started, or was not there."""

    code = "not_started"


class EmbeddedService:
    """A service that lives as long as the block, and never longer than this process."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        has_worker: bool = True,
        has_agent: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._port = port
        self._has_worker = has_worker
        self._has_agent = has_agent
        self._environment = environment

    def __enter__(self) -> Instance:
        return start(
            self.data_dir,
            port=self._port,
            has_worker=self._has_worker,
            has_agent=self._has_agent,
            dies_with_us=True,
            environment=self._environment,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stop(self.data_dir)


def command(
    data_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    has_worker: bool = True,
    has_agent: bool = True,
) -> list[str]:
    """The supervisor's command line.

    Raises:
        NotStarted: this installation is a client only.
    """
    missing = [module for module in SERVER_MODULES if find_spec(module) is None]
    if missing:
        raise NotStarted(
            f"this installation has no server ({', '.join(missing)} missing); "
            "install snugnet[worker]"
        )
    parts = [sys.executable, "-P", "-m", "service.embedded.supervisor"]
    parts += ["--data-dir", str(data_dir), "--host", host, "--port", str(port)]
    parts += [] if has_worker else ["--no-worker"]
    parts += [] if has_agent else ["--no-agent"]
    return parts


def start(
    data_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    has_worker: bool = True,
    has_agent: bool = True,
    dies_with_us: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Instance:
    """Start a service in the background; returns when it is ready.

    Args:
        port: 0 takes any free one.
        dies_with_us: end the service when this process ends, however that happens.

    Raises:
        NotStarted: with the reason.
    """
    data_dir = make_data_dir(data_dir)
    argv = command(data_dir, host=host, port=port, has_worker=has_worker, has_agent=has_agent)
    logs = data_dir / "logs"
    logs.mkdir(exist_ok=True)
    ready, ready_for_child = os.pipe()
    try:
        with (logs / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                [*argv, "--ready-fd", str(ready_for_child)],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(ready_for_child,),
                start_new_session=True,
                preexec_fn=_death_signal() if dies_with_us else None,
            )
    finally:
        os.close(ready_for_child)
    with os.fdopen(ready, "rb") as pipe:
        answer = _await(process, pipe.read)
    if "url" not in answer:
        process.wait()
        raise NotStarted(answer.get("error", f"the service ended at once; see {logs}"))
    # Nobody waits for the supervisor from here on; `stop` looks at the lock instead.
    process.returncode = 0
    return Instance(url=answer["url"], api_key=answer["api_key"], pid=process.pid)


def stop(data_dir: Path) -> bool:
    """Stop the directory's service and wait for its last process; False when none was running.

    Raises:
        NotStarted: a process would not end.
    """
    data_dir = data_dir.expanduser().resolve()
    if not is_running(data_dir):
        return False
    instance = Instance.load(data_dir)
    pid = instance.pid if instance else None
    for sent, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        if pid is not None:
            _send(pid, sent)
        if wait_until_free(data_dir, patience):
            _reap(pid)
            return True
    raise NotStarted(f"a process of the service in {data_dir} does not end")


def _await(process: subprocess.Popen[bytes], read: Callable[[], bytes]) -> dict[str, str]:
    try:
        text = read()
    except BaseException:  # Ctrl-C while it starts: leave nothing behind
        process.terminate()
        process.wait()
        raise
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _death_signal() -> Callable[[], None]:
    parent = os.getpid()
    return lambda: die_with_parent(signal.SIGTERM, parent)


def _send(pid: int, sent: signal.Signals) -> None:
    try:
        os.kill(pid, sent)
    except ProcessLookupError:
        return


def _reap(pid: int | None) -> None:
    """A supervisor that this process started would stay as a zombie."""
    if pid is None:
        return
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return
