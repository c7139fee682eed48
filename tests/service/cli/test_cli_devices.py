"""Devices on the command line, against a real server."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select, update

from service.client import Client
from service.database.db import Database
from service.database.models import Device, Job
from service.jobs.events import append_event
from service.settings import Settings
from service.steps import steps
from service.steps.step_types import StepResult
from tests.service.api.test_api_measurements import hand_in
from tests.service.api.test_api_predictors import learn
from tests.service.commands import Cli
from tests.service.helpers import claimed
from tests.service.measuring import SHAPE
from tests.service.serving import listening


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    with listening(settings) as (url, key):
        monkeypatch.setenv("SNUGNET_URL", url)
        monkeypatch.setenv("SNUGNET_API_KEY", key)
        yield url, key


@pytest.fixture
def client(server: tuple[str, str]) -> Iterator[Client]:
    with Client(*server) as client:
        yield client


@pytest.fixture
def cli(
    server: tuple[str, str],  # noqa: ARG001  every command talks to it
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys)


@pytest.fixture
def shape_file(tmp_path: Path) -> str:
    path = tmp_path / "shape.yaml"
    path.write_text(yaml.safe_dump(SHAPE.to_dict()))
    return str(path)


def test_the_list_says_who_is_there(cli: Cli, database: Database) -> None:
    learn(database, "fp32")
    _, out, _ = cli("devices")
    head, line = out.splitlines()
    assert head.split() == ["name", "processor", "cores", "runtimes", "agent", "predictors"]
    assert line.split() == ["this-cpu", "test", "2", "onnxruntime", "1.0", "connected", "1"]
    with database.write() as session:
        session.execute(update(Device).values(last_seen_at=0.0))
    assert "away since 1970-01-01 00:00:00 UTC" in cli("devices")[1]


def test_a_device_is_shown_with_its_predictors_and_what_it_lacks(
    cli: Cli, database: Database
) -> None:
    code, out, _ = cli("devices", "show", "this-cpu")
    assert code == 0
    assert "no openvino  openvino is not installed here (x86_64)" in out
    assert "no predictor yet; `snugnet devices onboard this-cpu` makes one" in out
    predictor_id = learn(database, "fp32")
    _, out, _ = cli("devices", "show", "this-cpu")
    assert predictor_id in out
    assert "onnxruntime-1.0/cpu/fp32/t1/encode" in out
    assert "1.0 %" in out
    assert cli("devices", "show", "toaster") == (
        4, "", "error: there is no device 'toaster'\n"
    )  # fmt: skip


def test_a_device_is_drawn(cli: Cli, client: Client, database: Database, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    learn(database, "fp32")
    hand_in(client, database)
    path = tmp_path / "device.png"
    code, _, err = cli("devices", "show", "this-cpu", "--plot", str(path))
    assert (code, err) == (0, f"drawn: {path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_what_to_install(
    cli: Cli, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(database, "fp32")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = cli("devices", "show", "this-cpu", "--plot", "x.png")
    assert code == 1
    assert err == "error: drawing needs matplotlib; pip install 'snugnet[worker]'\n"


def test_a_device_is_renamed_retired_and_brought_back(cli: Cli) -> None:
    assert cli("devices", "rename", "this-cpu", "kitchen")[:2] == (0, "kitchen\n")
    assert cli("devices", "retire", "kitchen")[:2] == (0, "kitchen is retired\n")
    assert "kitchen" not in cli("devices")[1]
    assert "retired" in cli("devices", "--retired")[1]
    assert cli("devices", "retire", "kitchen", "--undo")[1] == "kitchen is in use again\n"


def test_an_onboarding_is_asked_for_and_followed(
    cli: Cli, client: Client, shape_file: str
) -> None:
    argv = ("devices", "onboard", "this-cpu", "--shape", shape_file, "--seq-len", "8")
    code, out, _ = cli(*argv, "--precision", "int8", "--budget-ms", "2.5", "--no-watch")
    assert code == 0
    onboarding = client.onboarding(out.strip())
    assert onboarding.spec["space"]["precision"] == ["int8"]
    assert onboarding.spec["budgets_ms"] == [2.5]
    assert onboarding.spec["workload"]["seq_len"] == 8
    assert cli("watch", onboarding.id)[0] == 4  # no search job


@pytest.mark.parametrize(("succeeds", "code"), [(True, 0), (False, 1)])
def test_the_end_of_an_onboarding_is_the_end_of_the_command(
    cli: Cli, database: Database, shape_file: str, succeeds: bool, code: int
) -> None:
    worker = threading.Thread(target=end_the_onboarding, args=(database, succeeds))
    worker.start()
    found, out, err = cli(
        "devices", "onboard", "this-cpu", "--shape", shape_file, "--seq-len", "8"
    )
    worker.join()
    assert found == code
    assert re.fullmatch(r"onb_[a-z0-9]+\n", out)
    assert "8 networks measured" in err
    assert ("nobody came" in err) is not succeeds


def end_the_onboarding(database: Database, succeeds: bool) -> None:
    """As soon as there is one."""
    job_id = None
    while job_id is None:
        with database.read() as session:
            job_id = session.scalars(select(Job.id)).one_or_none()
    lease = claimed(database, job_id)
    with database.write() as session:
        append_event(session, job_id, "onboarded", "8 networks measured")
        if succeeds:
            steps.finish(session, lease, StepResult(result={"minutes": 1.0}))
        else:
            steps.fail(session, lease, "no_agent", "nobody came")


def test_what_cannot_be_onboarded_is_a_usage_error(cli: Cli, shape_file: str) -> None:
    code, _, err = cli("devices", "onboard", "this-cpu")
    assert (code, err) == (2, "error: --model: give exactly one of --model and --shape\n")
    argv = ("devices", "onboard", "this-cpu", "--shape", shape_file, "--seq-len", "8")
    code, _, err = cli(*argv, "--runtime", "openvino")
    assert code == 2
    assert "openvino is not installed here" in err
    assert cli("devices", "onboard", "toaster", "--shape", shape_file)[0] == 4
