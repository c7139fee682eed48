"""Whoever belongs to another tenant sees nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.client import Client
from tests.e2e.browser.browsing import Tab, opened
from tests.e2e.browser.journey import NAME
from tests.e2e.browser.views import VIEWS, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

OPEN_TO_ALL = ("sign-in", "not-found")


def test_another_tenant_sees_nothing_on_any_page(
    browser: Browser, site: Site, stranger_key: str, client: Client
) -> None:
    secrets = [
        NAME,
        site.device,
        *(artifact.sha256 for artifact in client.artifacts(site.finished)),
    ]
    with opened(browser, site.working.url) as tab:
        tab.sign_in(stranger_key)
        for path in paths_of(site):
            text = text_at(tab, path)
            # An answer may name what was asked for: that there is no such thing.
            told = [one for one in secrets if one in text and one not in path]
            assert told == [], path


def test_files_of_another_tenant_are_not_there(
    browser: Browser, site: Site, stranger_key: str, client: Client
) -> None:
    paths = [f"/artifacts/{artifact.id}" for artifact in client.artifacts(site.finished)]
    paths += [
        f"/jobs/{site.finished}/{name}" for name in ("report.html", "report.json", "job.json")
    ]
    paths += [f"/jobs/{site.finished}/events", f"/jobs/{site.finished}/charts/front.csv"]
    with opened(browser, site.working.url) as tab:
        tab.sign_in(stranger_key)
        for path in paths:
            assert status_at(tab, path) == 404, path


def test_what_belongs_to_another_tenant_is_not_to_be_found(
    browser: Browser, site: Site, stranger_key: str
) -> None:
    named = [path for path in paths_of(site) if site.finished in path or site.device in path]
    with opened(browser, site.working.url) as tab:
        tab.sign_in(stranger_key)
        assert {path: status_at(tab, path) for path in named} == dict.fromkeys(named, 404)


def paths_of(site: Site) -> list[str]:
    """Of every page that shows what the working service has."""
    views = [view(site) for name, view in VIEWS.items() if name not in OPEN_TO_ALL]
    return [view.path for view in views if view.url == site.working.url] + ["/jobs"]


def text_at(tab: Tab, path: str) -> str:
    tab.page.goto(tab.url + path)
    return tab.page.locator("main").inner_text()


def status_at(tab: Tab, path: str) -> int:
    """Asked by a page's own script, so that a file is not saved."""
    asked = "async (path) => (await fetch(path, { headers: { Accept: 'text/html' } })).status"
    status: int = tab.page.evaluate(asked, path)
    return status
