"""What is wrong with a key, a name, a spec or a result reaches a person, and ends no machine."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.client import Client, Conflict, NotAllowed
from service.database.db import Database
from service.database.models import ApiKey
from service.devices.devices import register_device
from service.settings import Settings
from service.tenants.auth import (
    ADMIN,
    DEVICES_WRITE,
    JOBS_WRITE,
    MEASURE,
    create_key,
    find_key,
    revoke_key,
)
from tests.service.measuring import IDENTITY, measuring_spec
from tests.workers.agent_threads import Running, device_of, set_values
from tests.workers.agents import (
    NAME,
    REPOSITORY,
    AgentProcess,
    Server,
    agent_key,
    ask,
    connect_to,
    job_of,
    registered,
    wait_for_state,
)
from tests.workers.waiting import wait_until
from workers.agent import RETIRED, Agent, main
from workers.agent_state import AlreadyRunning, hold_identity

Connect = Callable[[], Client]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)  # `main` sets its own


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    server = Server(settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect(server: Server, database: Database) -> Connect:
    key = agent_key(database)
    return lambda: connect_to(server, key)


@pytest.fixture
def agent(connect: Connect) -> Iterator[Running]:
    with Running(Agent(connect, NAME, claim_wait_s=0.5)) as running:
        yield running


# --- keys ------------------------------------------------------------------------------------


def test_an_agent_with_a_wrong_key_says_so_in_one_line(server: Server, tmp_path: Path) -> None:
    process = AgentProcess(server.url, "snug_x_y", tmp_path)
    code, line = process.ended()
    assert code == 1
    assert line == "error: the server does not accept this key: this API key is unknown"
    assert len(process.log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("revoked", "was revoked"),
        ("expired", "has expired"),
        ("too narrow", "lacks the scope 'devices:measure'"),
    ],
)
def test_a_key_that_is_not_good_any_more_ends_the_agent(
    server: Server, database: Database, fault: str, reason: str
) -> None:
    with database.write() as session:
        scopes = (JOBS_WRITE, DEVICES_WRITE, ADMIN) if fault == "too narrow" else (MEASURE,)
        expires_at = 1.0 if fault == "expired" else None
        key = create_key(session, "agent", scopes=scopes, expires_at=expires_at)
        if fault == "revoked":
            found = find_key(session, key)
            assert found is not None
            revoke_key(session, found.id)
    with pytest.raises(NotAllowed, match=reason):
        Agent(lambda: Client(server.url, key), NAME).run()


def test_a_key_that_is_revoked_meanwhile_ends_the_agent(
    agent: Running, database: Database
) -> None:
    registered(database)
    with database.write() as session:
        revoke_key(session, session.query(ApiKey).one().id)
    wait_until(lambda: agent.error)
    assert isinstance(agent.error, NotAllowed)


# --- names -----------------------------------------------------------------------------------


def test_a_second_agent_of_one_name_on_a_machine_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_identity(tmp_path, NAME) as agent_id, hold_identity(tmp_path, "other") as other:
        assert agent_id != other
        status = main(["--server", "http://x", "--name", NAME, "--state-dir", str(tmp_path)])
        with pytest.raises(AlreadyRunning):
            hold_identity(tmp_path, NAME).__enter__()
    assert status == 1
    assert capsys.readouterr().err == (
        f"error: an agent named {NAME!r} runs on this machine already\n"
    )
    with hold_identity(tmp_path, NAME) as again:
        assert again == agent_id


@pytest.mark.parametrize(
    ("name", "folder", "field"), [("../x", "state", "--name"), ("pi", "file/state", "--state-dir")]
)
def test_a_name_or_folder_that_cannot_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, folder: str, field: str
) -> None:
    (tmp_path / "file").write_text("")
    state = str(tmp_path / folder)
    assert main(["--server", "http://x", "--name", name, "--state-dir", state]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {field}: ")


def test_a_second_agent_of_one_name_elsewhere_gives_up_after_a_while(
    agent: Running, connect: Connect, database: Database
) -> None:
    device_id = registered(database)
    second = Agent(connect, NAME, agent_id="agent_elsewhere", in_use_patience_s=0.5)
    with pytest.raises(Conflict, match=f"another agent is connected as {NAME!r}") as caught:
        second.run()
    assert caught.value.problem.code == "device_in_use"
    job_id = ask(database, device_id, measuring_spec())  # the first one is not disturbed
    wait_for_state(database, job_id, "done")
    assert agent.error is None


def test_a_name_whose_agent_is_gone_is_taken_over(connect: Connect, database: Database) -> None:
    with database.write() as session:
        register_device(session, NAME, IDENTITY, "agent_before")
    with Running(Agent(connect, NAME, agent_id="agent_after", claim_wait_s=0.5)):
        set_values(database, device_of(database), last_seen_at=1.0)
        wait_until(lambda: device_of(database).agent_id == "agent_after")


def test_an_agent_whose_device_is_retired_ends(agent: Running, database: Database) -> None:
    registered(database)
    set_values(database, device_of(database), retired_at=1.0)
    wait_until(lambda: agent.error)
    assert isinstance(agent.error, Conflict)
    assert agent.error.problem.code == "device_retired"


def test_a_process_of_a_retired_device_ends_with_a_status_of_its_own(
    server: Server, database: Database, tmp_path: Path
) -> None:
    with database.write() as session:
        register_device(session, NAME, IDENTITY).retired_at = 1.0
    code, line = AgentProcess(server.url, agent_key(database), tmp_path).ended()
    assert code == RETIRED
    assert line.startswith(f"error: the device {NAME!r} was retired")


# --- specs and results -----------------------------------------------------------------------


def outside_its_space() -> dict[str, Any]:
    spec = measuring_spec().to_dict()
    spec["networks"][0]["subnet"]["ffn_dim"] = [33]  # the model has 32
    return spec


def too_large() -> dict[str, Any]:
    """A batch that takes terabytes of activations."""
    spec = measuring_spec().to_dict()
    spec["shape"] |= {"max_seq_len": 8192, "ffn_dim": 8192}
    spec["workload"] |= {"seq_len": 8192, "batch_size": 1024}
    return spec


@pytest.mark.parametrize(
    ("make", "code", "reason"),
    [
        (outside_its_space, "invalid_input", "networks.n0.subnet.ffn_dim"),
        (lambda: measuring_spec().to_dict() | {"rounds": 0}, "invalid_input", "rounds"),
        (too_large, "spec_too_large", "GB"),
    ],
)
@pytest.mark.usefixtures("agent")
def test_a_spec_that_cannot_be_measured_fails_at_once_and_the_agent_goes_on(
    database: Database, make: Callable[[], dict[str, Any]], code: str, reason: str
) -> None:
    device_id = registered(database)
    job_id = ask(database, device_id, make())
    next_id = ask(database, device_id, measuring_spec())
    wait_for_state(database, next_id, "done")
    failed = job_of(database, job_id)
    assert (failed.state, failed.attempts) == ("failed", 1)
    assert failed.error is not None
    assert failed.error["code"] == code
    assert reason in failed.error["message"]


def test_a_result_that_the_server_refuses_is_no_endless_loop(
    connect: Connect, database: Database
) -> None:
    class Broken(Client):
        def report_result(
            self, measurement_job_id: str, token: int, result: Mapping[str, Any]
        ) -> None:
            bad = copy.deepcopy(dict(result))
            bad["measurements"][1]["rounds_ms"][0][0] = -1.0
            super().report_result(measurement_job_id, token, bad)

    def connect_broken() -> Client:
        client = connect()
        client.__class__ = Broken
        return client

    with Running(Agent(connect_broken, NAME, claim_wait_s=0.5)) as running:
        job_id = ask(database, registered(database), measuring_spec())
        failed = wait_for_state(database, job_id, "failed")
    assert failed.error is not None
    assert failed.error["code"] == "invalid_result"
    assert "measurements[1].rounds_ms" in failed.error["message"]
    assert running.error is None


# --- what is installed -----------------------------------------------------------------------

BLOCKING = """
import sys
ABSENT = {"torch", "celery", "sqlalchemy", "fastapi", "optuna", "openvino", "sklearn", "scipy"}
class Without:
    def __init__(self, finder):
        self._finder = finder
    def __getattr__(self, name):
        return getattr(self._finder, name)
    def find_spec(self, name, *rest):
        is_absent = name.partition(".")[0] in ABSENT
        return None if is_absent else self._finder.find_spec(name, *rest)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from workers.agent import main
raise SystemExit(main(sys.argv[1:]))
"""


def test_an_agent_needs_neither_torch_nor_what_a_server_needs(
    server: Server, database: Database, tmp_path: Path
) -> None:
    arguments = ["--server", server.url, "--key", agent_key(database), "--name", NAME]
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKING, *arguments, "--state-dir", str(tmp_path)],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            job_id = ask(database, registered(database), measuring_spec())
            wait_for_state(database, job_id, "done")
        finally:
            process.kill()
    identity = device_of(database).identity
    assert list(identity["runtimes"]) == ["onnxruntime"]
    assert set(identity["missing_runtimes"]) == {"openvino", "torch"}
