"""A page in a browser, and what it asked for over the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, StorageState

Scheme = Literal["light", "dark"]
WIDE = (1280, 900)
NARROW = (390, 844)
ALL_DRAWN = """() => [...document.querySelectorAll("figure[data-chart] .chart-plot")]
  .every((plot) => plot.querySelector("canvas"))"""
SETTLING_MS = 150.0


@dataclass
class Traffic:
    """Of one page since it was opened, or since `clear`.

    Attributes:
        num_bytes: of every request, headers included, as they came over the network.
        errors: what the browser complains of; refusals by the content security policy among it.
    """

    hosts: set[str] = field(default_factory=set)
    num_bytes: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.hosts.clear()
        self.errors.clear()
        self.num_bytes.clear()

    @property
    def total_bytes(self) -> int:
        return sum(self.num_bytes.values())


@dataclass(frozen=True)
class Tab:
    page: Page
    traffic: Traffic
    url: str

    def open(self, path: str) -> None:
        """Until everything of it is there, and its charts are drawn."""
        self.traffic.clear()
        self.page.goto(self.url + path)
        self.page.wait_for_function(ALL_DRAWN)
        self.page.wait_for_timeout(SETTLING_MS)

    def sign_in(self, key: str) -> None:
        self.page.goto(self.url + "/sign-in")
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.url}/jobs")

    @property
    def path(self) -> str:
        return urlsplit(self.page.url).path


@contextmanager
def opened(
    browser: Browser,
    url: str,
    *,
    scheme: Scheme = "light",
    size: tuple[int, int] = WIDE,
    state: StorageState | None = None,
) -> Iterator[Tab]:
    """A tab that nothing is cached for.

    Args:
        state: cookies of somebody who is signed in; None for nobody's.
    """
    width, height = size
    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        accept_downloads=True,
        storage_state=state,
    )
    try:
        page = context.new_page()
        traffic = Traffic()
        listen(context, page, traffic)
        yield Tab(page, traffic, url)
    finally:
        context.close()


def listen(context: BrowserContext, page: Page, traffic: Traffic) -> None:
    def said(message: Any) -> None:
        if message.type == "error":
            traffic.errors.append(message.text)

    def came(event: dict[str, Any]) -> None:
        so_far = traffic.num_bytes.get(event["requestId"], 0)
        traffic.num_bytes[event["requestId"]] = so_far + int(event["encodedDataLength"])

    def ended(event: dict[str, Any]) -> None:
        traffic.num_bytes[event["requestId"]] = int(event["encodedDataLength"])

    def asked(event: dict[str, Any]) -> None:
        parts = urlsplit(event["request"]["url"])
        if parts.scheme not in ("data", "blob"):
            traffic.hosts.add(parts.netloc)

    page.on("console", said)
    page.on("pageerror", lambda error: traffic.errors.append(str(error)))
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    network.on("Network.requestWillBeSent", asked)
    network.on("Network.dataReceived", came)
    network.on("Network.loadingFinished", ended)


def signed_in_state(browser: Browser, url: str, key: str) -> StorageState:
    """Cookies of whoever has this key."""
    with opened(browser, url) as tab:
        tab.sign_in(key)
        return tab.page.context.storage_state()
