"""A real browser on real services: one that works, one that only shows what rows say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.client import Client
from service.database.db import Database
from service.embedded.embedded import EmbeddedService
from service.embedded.instance import Instance
from service.schemas import JobState
from service.settings import Settings
from tests.e2e.browser import chromium
from tests.e2e.browser.browsing import signed_in_state
from tests.e2e.browser.exhibition import Exhibition, exhibit, new_tenant
from tests.e2e.browser.journey import Journey, travel
from tests.e2e.browser.specimens import Specimen
from tests.e2e.browser.views import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "SNUGNET_THREADS": "1",
    "SNUGNET_STEP_SECONDS": "2",
}
SCREENSHOTS = Path("test-output/screenshots")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    reason = "" if chromium.find() else "there is no Chromium: see `make e2e`"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        reason = "playwright is not installed: pip install 'snugnet[browser]'"
    if reason and chromium.IS_REQUIRED:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.ARGUMENTS)
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Pictures for people to look at, kept after the tests."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS


# --- a service that works ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("working") / "data"


@pytest.fixture(scope="session")
def working(browser: Browser, working_folder: Path) -> Iterator[Instance]:
    """`snugnet up`: API, broker, worker and measuring agent. Without a browser, it need not."""
    assert browser.is_connected()
    with EmbeddedService(working_folder, environment=ENVIRONMENT) as instance:
        yield instance


@pytest.fixture(scope="session")
def working_database(working: Instance, working_folder: Path) -> Iterator[Database]:
    assert working.pid is not None, "the database is made when the service starts"
    database = Database(Settings(data_dir=working_folder).database_url)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def client(working: Instance) -> Iterator[Client]:
    with Client(working.url, working.api_key) as client:
        yield client


@pytest.fixture(scope="session")
def stranger_key(working_database: Database) -> str:
    """Of another tenant of the working service."""
    return new_tenant(working_database, "stranger")


@pytest.fixture(scope="session")
def journey(
    browser: Browser, working: Instance, tmp_path_factory: pytest.TempPathFactory
) -> Journey:
    """A job, made and watched to its end in the browser."""
    return travel(browser, working, tmp_path_factory.mktemp("journey"))


@pytest.fixture(scope="session")
def unreachable(client: Client, journey: Journey) -> str:
    """A search under way for a network that there is not: a hundred times as fast, at a length
    that nothing is known of before it is measured."""
    spec = client.job(journey.job_id).spec
    first = spec["targets"][0]
    workload = {**first["workload"], "seq_len": 24}
    targets = [{**first, "workload": workload, "budget_ms": None, "budget_ratio": 0.01}]
    return client.submit({**spec, "name": "out of reach", "targets": targets}).id


# --- a service that only shows ----------------------------------------------------------------


@pytest.fixture(scope="session")
def showcase_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("showcase") / "data"


@pytest.fixture(scope="session")
def showcase(browser: Browser, showcase_folder: Path) -> Iterator[Instance]:
    assert browser.is_connected()
    with EmbeddedService(showcase_folder, has_worker=False, has_agent=False) as instance:
        yield instance


@pytest.fixture(scope="session")
def showcase_database(showcase: Instance, showcase_folder: Path) -> Iterator[Database]:
    assert showcase.pid is not None, "the database is made when the service starts"
    database = Database(Settings(data_dir=showcase_folder).database_url)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def exhibition(
    showcase_database: Database, working_database: Database, journey: Journey
) -> Exhibition:
    real = Specimen.read(working_database, journey.job_id)
    return exhibit(showcase_database, real)


# --- everything there is to look at -------------------------------------------------------------


@pytest.fixture(scope="session")
def site(
    browser: Browser,
    working: Instance,
    showcase: Instance,
    client: Client,
    journey: Journey,
    unreachable: str,
    exhibition: Exhibition,
) -> Site:
    job = client.wait(unreachable)
    assert job.state is JobState.FAILED
    report = client.report(journey.job_id)
    return Site(
        working=working,
        working_state=signed_in_state(browser, working.url, working.api_key),
        showcase=showcase,
        showcase_state=signed_in_state(browser, showcase.url, showcase.api_key),
        newcomer_state=signed_in_state(browser, showcase.url, exhibition.newcomer_key),
        exhibition=exhibition,
        finished=journey.job_id,
        unreachable=unreachable,
        device=report.targets[0].asked.device,
        subnets=tuple(
            f"/jobs/{journey.job_id}/subnets/{fingerprint}"
            for fingerprint in dict.fromkeys(target.fingerprint for target in report.targets)
        ),
    )
