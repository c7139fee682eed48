"""A data folder, settings and a database, made by the real migrations, for each test."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.database import migrate
from service.database.db import Database
from service.settings import Settings
from service.store.filesystem import FilesystemStore
from service.telemetry.logs import OWN_LOGGERS
from service.tenants.tenancy import DEFAULT_TENANT
from tests import s3_server
from tests.s3_server import S3Server


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own shell reaches a test."""
    for name in [name for name in os.environ if name.startswith("SNUGNET_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _clean_logging() -> Iterator[None]:
    """A program that set up its log in a test leaves no handler on a stream that is closed."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {one: one.level for one in (root, *map(logging.getLogger, OWN_LOGGERS))}
    yield
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
    for one, level in levels.items():
        one.setLevel(level)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file as the migrations leave it; copied, never opened for writing."""
    path = tmp_path_factory.mktemp("migrated") / "snugnet.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def data_dir(tmp_path: Path, migrated_sqlite: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(migrated_sqlite, folder / "snugnet.db")
    return folder


@pytest.fixture
def database_url(data_dir: Path) -> str:
    return f"sqlite:///{data_dir / 'snugnet.db'}"


@pytest.fixture
def settings(data_dir: Path, database_url: str) -> Settings:
    return Settings(
        data_dir=data_dir,
        database_url=database_url,
        lease_seconds=2.0,
        heartbeat_seconds=0.2,
        reconcile_seconds=0.2,
        retry_backoff_seconds=0.0,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url).for_tenant(DEFAULT_TENANT)
    yield database
    database.dispose()


@pytest.fixture
def everybody(settings: Settings) -> Iterator[Database]:
    """The database as workers see it: of all tenants."""
    everybody = Database(settings.database_url)
    yield everybody
    everybody.dispose()


@pytest.fixture
def store(settings: Settings) -> FilesystemStore:
    return FilesystemStore(settings.blobs_dir)


@pytest.fixture(scope="session")
def s3_server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server.running_server(tmp_path_factory.mktemp("s3") / "server.log") as server:
        yield server


@pytest.fixture(name="s3_server")
def _s3_server(s3_server_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """With credentials for it in the environment."""
    for name, value in s3_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return s3_server_process
