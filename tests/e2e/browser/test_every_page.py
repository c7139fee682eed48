"""What holds for every page: who can use it, what it weighs, whom it asks, what it looks like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.e2e.browser.accessibility import violations_of
from tests.e2e.browser.browsing import NARROW, WIDE, Scheme, Tab, opened
from tests.e2e.browser.views import VIEWS, Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

MAX_BYTES = 300_000
LOOKS: dict[str, tuple[Scheme, tuple[int, int]]] = {
    "light": ("light", WIDE),
    "dark": ("dark", WIDE),
    "narrow": ("light", NARROW),
}
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", VIEWS)
def test_a_page_is_light_self_contained_and_open_to_everybody(
    browser: Browser, site: Site, screenshots: Path, name: str, look: str
) -> None:
    view = VIEWS[name](site)
    scheme, size = LOOKS[look]
    with opened(browser, view.url, scheme=scheme, size=size, state=view.state) as tab:
        tab.open(view.path)
        tab.page.screenshot(path=screenshots / f"{name}-{look}.png", full_page=True)
        print(f"{name} ({look}): {tab.traffic.total_bytes / 1000:.0f} kB")
        assert wrong_with(tab, is_missing=name == "not-found") == []


def wrong_with(tab: Tab, *, is_missing: bool) -> list[str]:
    """Everything at once: a page is mended once."""
    found = [f"asks {host}" for host in tab.traffic.hosts - {urlsplit(tab.url).netloc}]
    if tab.traffic.total_bytes >= MAX_BYTES:
        found.append(f"{tab.traffic.total_bytes} bytes")
    # The browser reports the answer itself too.
    found += [error for error in tab.traffic.errors if not (is_missing and "404" in error)]
    if too_wide := tab.page.evaluate(TOO_WIDE):
        found.append(f"{too_wide} px wider than the screen")
    return found + violations_of(tab.page)


@pytest.mark.parametrize("look", LOOKS)
def test_a_report_that_was_saved_needs_no_network(
    browser: Browser, site: Site, screenshots: Path, tmp_path: Path, look: str
) -> None:
    with opened(browser, site.working.url, state=site.working_state) as tab:
        tab.open(f"/jobs/{site.finished}")
        with tab.page.expect_download() as waiting:
            tab.page.get_by_role("link", name="Report", exact=True).click()
        waiting.value.save_as(tmp_path / "report.html")
    scheme, size = LOOKS[look]
    with opened(browser, f"file://{tmp_path}", scheme=scheme, size=size) as tab:
        tab.page.context.set_offline(True)
        tab.open("/report.html")
        tab.page.screenshot(path=screenshots / f"report-{look}.png", full_page=True)
        assert tab.page.locator("canvas").count() > 2
        assert tab.traffic.hosts == {""}, "the file itself"
        assert tab.traffic.errors + violations_of(tab.page) == []
        assert tab.page.evaluate(TOO_WIDE) == 0
