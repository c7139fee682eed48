"""The embedded service as a user meets it on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.database.db import Database
from service.embedded.embedded import stop
from service.embedded.instance import is_running
from service.tenants.tenancy import DEFAULT_TENANT
from tests.service.commands import Cli
from tests.service.helpers import create_job


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "service"
    monkeypatch.setenv("SNUGNET_DATA_DIR", str(folder))
    yield folder
    stop(folder)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Cli:
    monkeypatch.chdir(folder.parent)
    return Cli(monkeypatch, capsys)


def test_a_service_is_started_looked_at_and_deleted(cli: Cli, folder: Path) -> None:
    code, out, err = cli("up", "--port", "0", "--no-worker", "--no-agent", "-o", "json")
    assert code == 0
    assert "snugnet down" in err
    started = json.loads(out)
    assert f"Dashboard, to sign in to with an API key: {started['url']}/" in err
    database = Database(f"sqlite:///{folder / 'snugnet.db'}")
    create_job(database.for_tenant(DEFAULT_TENANT))
    database.dispose()
    code, out, _ = cli("status", "-o", "json")
    found = json.loads(out)
    assert code == 0
    assert (found["url"], found["is_ready"]) == (started["url"], True)
    assert found["jobs"] == {"queued": 1}
    assert found["open_steps"] == {"ready": 1}
    roles = [process["role"] for process in found["processes"]]
    assert sorted(roles) == ["api", "broker", "supervisor"]
    code, out, _ = cli("status")
    assert "1 queued" in out
    assert "none is connected" in out
    code, out, _ = cli("doctor", "-o", "json")
    states = {check["name"]: check["state"] for check in json.loads(out)["checks"]}
    assert code == 0
    assert states["broker"] == states["database"] == states["ready"] == "ok"
    assert states["agents"] == "warn"
    code, _, err = cli("reset", "--yes")
    assert (code, err) == (0, f"deleted {folder}\n")
    assert not folder.exists()
    code, out, _ = cli("status")
    assert code == 5
    assert "snugnet up" in out


def test_reset_asks_and_touches_nothing_that_is_not_ours(cli: Cli, folder: Path) -> None:
    assert cli("reset", "--yes") == (0, "", f"there is nothing of a service in {folder}\n")
    (folder / "blobs").mkdir(parents=True)
    (folder / "snugnet.db").write_bytes(b"")
    (folder / "thesis.tex").write_text("mine")
    (folder / "logs").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere").mkdir()
    code, _, err = cli("reset")
    assert (code, "--yes" in err) == (2, True)
    assert (folder / "snugnet.db").exists()
    code, _, err = cli("reset", "--yes")
    assert (code, err) == (0, f"deleted; {folder} still holds thesis.tex\n")
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    assert (folder.parent / "elsewhere").exists()
    assert not is_running(folder)


def test_doctor_ends_with_1_when_something_is_broken(cli: Cli, folder: Path) -> None:
    folder.mkdir()
    (folder / "snugnet.db").write_bytes(b"broken " * 99)
    code, out, _ = cli("doctor")
    assert code == 1
    assert any(line.startswith("fail  database") for line in out.splitlines())
