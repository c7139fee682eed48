"""Without a mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.client import Client
from service.embedded.instance import Instance
from service.schemas import JobState
from tests.e2e.browser.browsing import Tab, opened
from tests.e2e.browser.journey import Journey

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

MAX_STOPS = 60
FOCUSED = """() => {
  const one = document.activeElement;
  return one.getAttribute("aria-label") || one.innerText || one.labels?.[0]?.innerText || "";
}"""
HAS_OUTLINE = """() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
}"""


def test_a_keyboard_signs_in_opens_a_job_and_cancels_it(
    browser: Browser, working: Instance, client: Client, journey: Journey
) -> None:
    spec = client.job(journey.job_id).spec
    job = client.submit({**spec, "name": "not wanted"})
    with opened(browser, working.url) as tab:
        tab.open("/sign-in")
        tab_to(tab, "API key")
        tab.page.keyboard.type(working.api_key)
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_url(f"{working.url}/jobs")
        tab_to(tab, "not wanted")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_url(f"{working.url}/jobs/{job.id}")
        tab_to(tab, "Cancel")
        tab.page.keyboard.press("Enter")
        badge = tab.page.locator("#part-head .badge")
        badge.and_(tab.page.locator("[data-state=cancelled]")).wait_for()
    assert client.job(job.id).state is JobState.CANCELLED


def test_the_first_stop_leads_past_the_navigation(browser: Browser, working: Instance) -> None:
    with opened(browser, working.url) as tab:
        tab.sign_in(working.api_key)
        tab.page.goto(f"{working.url}/jobs")
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate(FOCUSED) == "Skip to the content"
        tab.page.keyboard.press("Enter")
        assert tab.page.evaluate("() => document.activeElement.tagName") == "MAIN"


def tab_to(tab: Tab, name: str) -> None:
    """Press Tab until the focus is on what has this name, and can be seen there."""
    if tab.page.evaluate(FOCUSED) == name:  # a page may have put it there
        return
    stops = []
    for _ in range(MAX_STOPS):
        tab.page.keyboard.press("Tab")
        stops.append(str(tab.page.evaluate(FOCUSED)).strip())
        if stops[-1] == name:
            assert tab.page.evaluate(HAS_OUTLINE), f"the focus on {name} cannot be seen"
            return
    raise AssertionError(f"Tab never comes to {name!r}, but to {stops}")
