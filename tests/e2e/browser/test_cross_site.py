"""Requests that a browser is talked into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.client import Client
from service.embedded.instance import Instance
from service.schemas import JobState
from tests.e2e.browser.browsing import opened
from tests.e2e.browser.exhibition import Exhibition
from tests.e2e.browser.hostile import hostile_page
from tests.e2e.browser.views import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

SEND = """async ([path, headers]) => {
  const body = new URLSearchParams({ nothing: "of interest" });
  return (await fetch(path, { method: "POST", body, headers })).status;
}"""


@pytest.fixture
def running(showcase: Instance, exhibition: Exhibition) -> str:
    with Client(showcase.url, showcase.api_key) as client:
        assert client.job(exhibition.one).state is JobState.RUNNING
    return exhibition.one


def is_still_running(service: Instance, job_id: str) -> bool:
    with Client(service.url, service.api_key) as client:
        return client.job(job_id).state is JobState.RUNNING


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_post_without_the_pages_token_is_refused(
    browser: Browser, site: Site, running: str, token: str
) -> None:
    headers = {"X-CSRF-Token": token} if token else {}
    with opened(browser, site.showcase.url, state=site.showcase_state) as tab:
        tab.open("/jobs")
        assert tab.page.evaluate(SEND, [f"/jobs/{running}/cancel", headers]) == 403
    assert is_still_running(site.showcase, running)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_form_of_another_site_is_refused_even_with_the_token(
    browser: Browser, site: Site, running: str, host: str
) -> None:
    """On the same host, at another port, the browser sends the cookie; on another it does not."""
    with opened(browser, site.showcase.url, state=site.showcase_state) as tab:
        tab.open("/jobs")
        token = tab.page.locator('meta[name="csrf-token"]').get_attribute("content") or ""
        action = f"{site.showcase.url}/jobs/{running}/cancel"
        with hostile_page(action, {"csrf_token": token}) as port:
            tab.page.goto(f"http://{host}:{port}/")
            with tab.page.expect_response(action) as waiting:
                tab.page.get_by_role("button").click()
        assert waiting.value.status == 403
    assert is_still_running(site.showcase, running)


def test_no_page_can_be_framed(browser: Browser, site: Site) -> None:
    with opened(browser, site.showcase.url, state=site.showcase_state) as tab:
        answer = tab.page.goto(f"{site.showcase.url}/jobs")
        assert answer is not None
        assert "frame-ancestors 'none'" in (answer.header_value("content-security-policy") or "")
        assert answer.header_value("x-frame-options") == "DENY"
