"""A browser's side of the dashboard: a client that sends what browsers send, and reads pages."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx
from fastapi.testclient import TestClient

from tests.service.serving import app_of

ORIGIN = "http://testserver"


def browser_of(http: TestClient) -> TestClient:
    """Another client of the same application, without a key, that follows no redirect."""
    browser = TestClient(app_of(http), raise_server_exceptions=False, follow_redirects=False)
    browser.headers.update({"Accept": "text/html,application/xhtml+xml", "Origin": ORIGIN})
    return browser


def sign_in(browser: TestClient, key: str, **fields: str) -> httpx.Response:
    return browser.post("/sign-in", data={"api_key": key, **fields})


def signed_in(http: TestClient, key: str | None = None) -> TestClient:
    """By this key, or by that of `http`."""
    browser = browser_of(http)
    secret = key or http.headers["Authorization"].removeprefix("Bearer ")
    answer = sign_in(browser, secret)
    assert answer.status_code == 303, answer.text
    return browser


def csrf_of(browser: TestClient) -> str:
    """The token of the browser's session, as a page of it has it."""
    found = re.search(r'<meta name="csrf-token" content="([^"]+)">', browser.get("/jobs").text)
    assert found is not None
    return found.group(1)


def post(browser: TestClient, path: str, **fields: Any) -> httpx.Response:
    """A form of one of the session's own pages."""
    return browser.post(path, data={"csrf_token": csrf_of(browser), **fields})


class _Text(HTMLParser):
    """What a person reads."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


def text_of(html: str) -> str:
    """Of a page, with single spaces."""
    parser = _Text()
    parser.feed(html)
    return " ".join(" ".join(parser.parts).split())


def fields_of(html: str) -> dict[str, str]:
    """What the fields of a page's forms hold, by name: as a browser would send them."""
    parser = _Fields()
    parser.feed(html)
    return parser.found


def error_of(html: str, field: str) -> str:
    """What stands beside a field; empty where nothing is wrong with it."""
    found = re.search(rf'<p class="error" id="{re.escape(field)}-error">([^<]*)</p>', html)
    return unescape(found.group(1)) if found is not None else ""


class _Fields(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._select = self._textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name") or ""
        if tag == "input" and name and given.get("type") != "checkbox":
            self.found[name] = given.get("value") or ""
        elif tag == "select":
            self._select = name
        elif tag == "textarea":
            self._textarea = name
            self.found[name] = ""
        elif tag == "option" and self._select and self._counts(given):
            self.found[self._select] = given.get("value") or ""

    def _counts(self, option: dict[str, str | None]) -> bool:
        """The first one does, unless another is selected."""
        return "selected" in option or self._select not in self.found

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.found[self._textarea] += data
