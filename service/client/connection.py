"""How a client reaches its server: what the blocking and the awaiting one have in common."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import httpx

from search.errors import InvalidInput
from service.client.calls import Call
from service.client.downloads import Download
from service.client.errors import Corrupted, Unreachable, error_of
from service.client.retries import Outcome, RetryPolicy, Tries
from service.telemetry import tracing

T = TypeVar("T")

CONNECT_SECONDS = 5.0


class Connection:
    """To one server.

    Args:
        max_tries: of a request that the network or an overloaded server ate.
        backoff_s: the first pause between two tries; it doubles.
    """

    def __init__(
        self, url: str, api_key: str, *, timeout_s: float, max_tries: int, backoff_s: float
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._policy = RetryPolicy(max_tries=max_tries, backoff_s=backoff_s)
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidInput("url", f"{url!r} is not a URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidInput("url", f"must start with http:// or https://, got {url!r}")
        self._options: Mapping[str, Any] = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            # A proxy of the environment cannot reach this machine's own loopback.
            "trust_env": not _is_loopback(parsed.host),
        }

    def _tries(self, call: Call[Any]) -> Tries:
        return Tries(self._policy, max_tries=call.max_tries, patience_s=call.patience_s)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Of one try: with the trace that it belongs to."""
        return {**headers, **tracing.current_headers()}

    def _timeout(self, seconds: float | None) -> httpx.Timeout:
        return httpx.Timeout(seconds or self._timeout_s, connect=CONNECT_SECONDS)

    def _answer(self, call: Call[T], outcome: Outcome, tries: Tries) -> T:
        """What the last try came to.

        Raises:
            ApiError: the server said no.
            Unreachable: it said nothing, or failed.
        """
        if isinstance(outcome, httpx.Response):
            is_gone = outcome.status_code == httpx.codes.NOT_FOUND and tries.num_tried > 1
            if outcome.is_success or (call.is_done_when_gone and is_gone):
                return call.parse(outcome)
        self._fail(outcome)

    def _fail(self, outcome: Outcome, kept: str = "") -> NoReturn:
        if isinstance(outcome, Corrupted):
            raise outcome
        if isinstance(outcome, httpx.Response):
            raise error_of(outcome)
        cause = str(outcome) or type(outcome).__name__
        raise Unreachable(f"no answer from {self.url}: {cause}{kept}") from None

    def _fail_download(self, download: Download, outcome: Outcome) -> NoReturn:
        kept = f"; {download.part} keeps what has arrived" if download.num_bytes else ""
        self._fail(outcome, kept)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
