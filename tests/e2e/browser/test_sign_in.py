from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.embedded.instance import Instance
from tests.e2e.browser.browsing import opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_a_wrong_key_opens_nothing_and_is_told_so(browser: Browser, showcase: Instance) -> None:
    with opened(browser, showcase.url) as tab:
        tab.open("/sign-in")
        tab.page.get_by_label("API key").fill("snug_nobody_knows-this-one")
        tab.page.get_by_role("button", name="Sign in").click()
        assert "unknown" in tab.page.get_by_role("alert").inner_text()
        assert tab.page.context.cookies() == []
        tab.open("/jobs")
        assert tab.path == "/sign-in"


def test_who_signs_in_goes_on_to_the_page_that_was_asked_for(
    browser: Browser, showcase: Instance
) -> None:
    with opened(browser, showcase.url) as tab:
        tab.open("/jobs?state=failed")
        assert tab.path == "/sign-in"
        tab.page.get_by_label("API key").fill(showcase.api_key)
        tab.page.get_by_role("button", name="Sign in").click()
        tab.page.wait_for_url(f"{showcase.url}/jobs?state=failed")


def test_scripts_do_not_see_the_cookie_and_other_sites_do_not_get_it(
    browser: Browser, showcase: Instance
) -> None:
    with opened(browser, showcase.url) as tab:
        tab.sign_in(showcase.api_key)
        (cookie,) = tab.page.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert tab.page.evaluate("() => document.cookie") == ""


def test_who_signed_out_is_out(browser: Browser, showcase: Instance) -> None:
    with opened(browser, showcase.url) as tab:
        tab.sign_in(showcase.api_key)
        kept = tab.page.context.storage_state()
        tab.page.get_by_role("button", name="Sign out").click()
        tab.page.wait_for_url(f"{showcase.url}/sign-in")
        with opened(browser, showcase.url, state=kept) as again:
            again.open("/jobs")
            assert again.path == "/sign-in"
