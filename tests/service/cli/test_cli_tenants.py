"""Tenants are made by whoever has the database."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from service.cli.program import run
from service.database.db import Database
from service.database.models import Tenant
from service.tenants.auth import look_up
from service.tenants.tenants import find_tenant

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    monkeypatch.setenv("SNUGNET_DATABASE_URL", database.url)

    def call(*args: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        monkeypatch.setattr(sys, "argv", ["snugnet", "tenants", *args])
        with pytest.raises(SystemExit) as ended:
            run()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def tenant(database: Database, name: str) -> Tenant:
    with database.read() as session:
        return find_tenant(session, name)


def test_a_tenant_is_made_limited_and_given_a_key(cli: Cli, database: Database) -> None:
    code, out, _ = cli("create", "vision", "--max-running-jobs", "2", "--max-bytes", "1000")
    assert (code, out.strip()) == (0, tenant(database, "vision").id)
    assert tenant(database, "vision").max_running_jobs == 2
    assert cli("set", "vision", "--max-running-jobs", "none", "--max-evaluations", "50")[0] == 0
    changed = tenant(database, "vision")
    assert (changed.max_running_jobs, changed.max_evaluations, changed.max_bytes) == (
        None,
        50,
        1000,
    )
    _, key, _ = cli("key", "vision", "--scope", "jobs:read")
    with database.for_tenant(changed.id).read() as session:
        known = look_up(session, key.strip())
    assert known is not None
    assert (known.tenant_id, known.scopes) == (changed.id, {"jobs:read"})
    _, listed, _ = cli("list")
    assert "vision" in listed
    assert "0 of 1,000" in listed
    assert "default" in listed


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("set", "audio", "--max-bytes", "1"), "tenant: there is no tenant 'audio'"),
        (("set", "default", "--max-bytes", "much"), "--max-bytes: must be a whole number"),
        (("set", "default", "--max-bytes", "-1"), "max_bytes: must not be negative"),
        (("create", "default"), "name: there is a tenant 'default' already"),
        (("key", "default", "--scope", "everything"), "--scope: must be of jobs:read"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, args: tuple[str, ...], error: str) -> None:
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert error in err
    assert err.count("\n") == 1
