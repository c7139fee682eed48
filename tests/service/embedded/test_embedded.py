"""The embedded service as real processes: it works, heals, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.client import Client
from service.embedded.embedded import NotStarted, start, stop
from service.embedded.instance import Instance, is_running, wait_until_free

PATIENCE_SECONDS = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    stop(folder)


def light(folder: Path, port: int = 0) -> Instance:
    """Broker and API alone: what starts fast."""
    return start(folder, port=port, has_worker=False, has_agent=False, dies_with_us=True)


def processes_of(folder: Path) -> dict[int, str]:
    """Every process whose environment or arguments name the data directory."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if arguments and (str(folder) in arguments or str(folder) in environment):
            found[int(entry.name)] = arguments
    return found


def process_of(folder: Path, text: str) -> int:
    return next(pid for pid, arguments in processes_of(folder).items() if text in arguments)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux's")
def test_the_whole_tree_works_and_dies_with_its_supervisor(folder: Path) -> None:
    instance = start(folder, port=0, dies_with_us=True)
    with Client(instance.url, instance.api_key) as client:
        (device,) = client.devices()
    assert device.name == "this-cpu"
    assert "onnxruntime" in device.identity["runtimes"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "service.json").stat().st_mode & 0o777 == 0o600
    tree = " ".join(processes_of(folder).values())
    for part in ("valkey", "service.server", "workers.agent", "workers.app"):
        assert part in tree
    assert instance.api_key not in tree  # other users can read command lines
    assert instance.pid is not None
    os.kill(instance.pid, signal.SIGKILL)
    assert wait_until_free(folder, PATIENCE_SECONDS)
    wait_for(lambda: not processes_of(folder))


def test_a_retired_device_keeps_the_service_from_nothing(folder: Path) -> None:
    first = start(folder, port=0, has_worker=False, dies_with_us=True)
    known = Instance.load(folder)
    assert known is not None
    assert known.agent_key not in ("", known.api_key)
    with Client(first.url, first.api_key) as client:
        client.retire_device("this-cpu")
        # Its agent ends with a status of its own, and is not started again.
        wait_for(lambda: not any("workers.agent" in a for a in processes_of(folder).values()))
    stop(folder)
    again = start(folder, port=0, has_worker=False, dies_with_us=True)
    with Client(again.url, again.api_key) as client:
        assert client.devices() == []


def test_a_second_service_in_the_same_directory_is_refused(folder: Path) -> None:
    first = light(folder)
    with pytest.raises(NotStarted, match=rf"is running at {first.url}; stop it with"):
        light(folder)
    with Client(first.url, first.api_key) as client:
        assert client.is_ready()


def test_stopping_ends_every_process_and_the_key_outlives_it(folder: Path) -> None:
    first = light(folder)
    assert stop(folder)
    assert not processes_of(folder)
    assert not is_running(folder)
    assert not stop(folder)
    again = light(folder)
    assert again.api_key == first.api_key


def test_a_child_that_dies_is_started_again_on_the_same_socket(folder: Path) -> None:
    instance = light(folder)
    for part in ("service.server", "valkey-server"):
        killed = process_of(folder, part)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda part=part, killed=killed: _is_replaced(folder, part, killed))
    with Client(instance.url, instance.api_key) as client:
        wait_for(client.is_ready)
        assert client.jobs() == []


def _is_replaced(folder: Path, part: str, killed: int) -> bool:
    return any(part in args and pid != killed for pid, args in processes_of(folder).items())


def test_it_ends_with_the_process_that_started_it(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from service.embedded.embedded import start\n"
        "start(Path(sys.argv[1]), port=0, has_worker=False, has_agent=False, dies_with_us=True)\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert wait_until_free(folder, PATIENCE_SECONDS)
    wait_for(lambda: not processes_of(folder))


def test_in_the_foreground_ctrl_c_stops_it(folder: Path) -> None:
    argv = [sys.executable, "-m", "service.embedded.supervisor", "--data-dir", str(folder)]
    process = subprocess.Popen(
        [*argv, "--port", "0", "--no-worker", "--no-agent"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Snugnet is ready at http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 0
    process.stdout.close()
    assert not processes_of(folder)


def test_a_port_that_is_taken_is_said_so(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NotStarted, match=rf"cannot listen on 127.0.0.1:{port}.*--port"):
            light(folder, port)
    assert not processes_of(folder)


def test_a_service_that_cannot_start_says_why_and_leaves_nothing(folder: Path) -> None:
    environment = {"SNUGNET_LEASE_SECONDS": "nonsense"}
    with pytest.raises(NotStarted, match="lease_seconds"):
        start(folder, port=0, has_agent=False, dies_with_us=True, environment=environment)
    assert not processes_of(folder)
