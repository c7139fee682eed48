"""The commands of the roles, as far as they end; tests/deploy runs those that stay."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from service.database.db import Database
from service.database.migrate import downgrade, newest_revision
from service.tenants.auth import MEASURE, SCOPES, find_key, scopes_of
from tests.service.commands import Cli


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys)


def test_migrate_brings_an_empty_database_up_and_check_says_whether_it_is(
    cli: Cli, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNUGNET_DATABASE_URL", empty_database_url)
    newest = newest_revision()
    code, out, err = cli("migrate", "--check")
    assert (code, out) == (1, "")
    assert err == f"error: the database has schema none, this version needs {newest}\n"

    for _ in range(2):  # the second one finds nothing to do
        assert cli("migrate") == (0, f"the database has schema {newest}\n", "")
    assert cli("migrate", "--check")[0] == 0

    downgrade(empty_database_url, "0001")
    assert "has schema 0001" in cli("migrate", "--check")[2]


def test_migrate_makes_keys_once_and_replaces_those_that_are_not_good(
    cli: Cli,
    database: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SNUGNET_DATABASE_URL", database_url)
    admin, agent = tmp_path / "admin", tmp_path / "agent"
    command = ("migrate", "--admin-key", str(admin), "--agent-key", str(agent))
    _, out, _ = cli(*command)
    assert f"wrote it to {admin}" in out
    first = {path: path.read_text() for path in (admin, agent)}
    assert first[admin].strip() not in out
    assert admin.stat().st_mode & 0o777 == 0o600

    assert "wrote it" not in cli(*command)[1]
    agent.write_text("snug_of_another_database\n")
    assert f"wrote it to {agent}" in cli(*command)[1]
    assert admin.read_text() == first[admin]
    for path, scopes in ((admin, SCOPES), (agent, (MEASURE,))):
        with database.read() as session:
            key = find_key(session, path.read_text().strip())
        assert key is not None
        assert scopes_of(key) == scopes


def test_a_place_that_cannot_hold_a_key_is_said_so(
    cli: Cli, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SNUGNET_DATABASE_URL", database_url)
    missing = tmp_path / "missing" / "key"
    code, _, err = cli("migrate", "--admin-key", str(missing))
    assert code == 2
    assert f"{missing}: cannot hold a key: No such file" in err


def test_the_configuration_is_shown_without_its_passwords(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNUGNET_DATABASE_URL", "postgresql://me:pa55word@db/snugnet")
    code, out, _ = cli("config", "show")
    values = yaml.safe_load(out)
    assert (code, values["database_url"]) == (0, "postgresql://me:***@db/snugnet")
    assert values["lease_seconds"] == 30.0
    _, out, _ = cli("config", "show", "--no-redacted")
    assert yaml.safe_load(out)["database_url"] == "postgresql://me:pa55word@db/snugnet"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("worker", "--queue", "train,mining"), "--queue: names some of train, search, light"),
        (("worker", "--queue", ","), "--queue: names some of"),
        (("dispatcher",), "SNUGNET_LEASE_SECONDS.*greater than 0"),
        (("api",), "SNUGNET_LEASE_SECONDS.*greater than 0"),
    ],
)
def test_what_a_role_cannot_start_with_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], reason: str
) -> None:
    if command[0] != "worker":
        monkeypatch.setenv("SNUGNET_LEASE_SECONDS", "0")
    code, out, err = cli(*command)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(reason, err)


def test_a_worker_becomes_celery_with_the_queues_that_were_asked_for(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def become(_path: str, argv: list[str]) -> None:
        ran.append(argv)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)
    cli("worker", "--queue", "train, light", "--slots", "2")
    ((_, *argv),) = ran
    assert argv[argv.index("--queues") + 1] == "train,light"
    assert argv[argv.index("--concurrency") + 1] == "2"
