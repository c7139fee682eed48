"""The connection of the SDK to one server: requests, retries, verified downloads."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from search.errors import InvalidInput
from service import tracing
from service.client.errors import Corrupted, Unreachable, error_of
from service.schemas import Event, EventPage

Answered = TypeVar("Answered", bound=BaseModel)

CHUNK_BYTES = 1 << 20
LONG_POLL_SECONDS = 20.0


class Connection:
    """To one server; safe to keep for long, not to share between threads.

    Args:
        max_tries: of a request that the network or an overloaded server ate.
        transport: another way to carry requests, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout_s: float = 30.0,
        max_tries: int = 5,
        backoff_s: float = 0.5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._max_tries = max_tries
        self._backoff_s = backoff_s
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidInput("url", f"{url!r} is not a URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidInput("url", f"must start with http:// or https://, got {url!r}")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            transport=transport,
            event_hooks={"request": [_trace]},
            # A proxy of the environment cannot reach this machine's own loopback.
            trust_env=not _is_loopback(parsed.host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _call(self, answer: type[Answered], method: str, path: str, **options: Any) -> Answered:
        return parse_answer(answer, self._request(method, path, **options))

    def _request(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float | None = None,
        is_repeatable: bool = True,
        content: Any = None,
        **options: Any,
    ) -> httpx.Response:
        """Send, and send again with growing, jittered pauses.

        What is not repeatable is only sent again when it certainly was not carried out.
        """
        if timeout_s is not None:
            options["timeout"] = httpx.Timeout(timeout_s, connect=5.0)
        for tried in range(1, self._max_tries + 1):
            try:
                body = content() if content is not None else None
                response = self._http.request(method, path, content=body, **options)
            except httpx.TransportError as error:
                was_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if tried == self._max_tries or not (is_repeatable or was_unsent):
                    raise Unreachable(f"no answer from {self.url}: {_cause(error)}") from None
                self._pause(tried, None)
                continue
            except ValueError as error:  # NaN, for one, has no JSON
                raise InvalidInput("request", str(error)) from None
            is_busy = response.status_code in (429, 503)
            is_broken = response.status_code >= 500 and is_repeatable
            if tried < self._max_tries and (is_busy or is_broken):
                self._pause(tried, response.headers.get("Retry-After"))
                continue
            if response.is_error:
                raise error_of(response)
            return response
        raise AssertionError("unreachable: the last try returns or raises")

    def _pause(self, tried: int, retry_after: str | None) -> None:
        if retry_after is not None and retry_after.isdigit():
            time.sleep(min(60.0, float(retry_after)))
        else:
            time.sleep(min(10.0, self._backoff_s * 2 ** (tried - 1)) * random.uniform(0.5, 1.0))

    def _follow(
        self, read: Callable[[int], EventPage], after: int, patience_s: float
    ) -> Iterator[Event]:
        """Every event to the last one; a server that is away for less than `patience_s` is waited
        for."""
        away_since: float | None = None
        while True:
            try:
                page = read(after)
            except Unreachable:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since >= patience_s:
                    raise
                time.sleep(min(2.0, self._backoff_s * 2))
                continue
            away_since = None
            for event in page.items:
                after = event.seq
                yield event
            if page.job_state.is_final and not page.more:
                return

    def _fetch(self, url: str, path: Path, sha256: str) -> Path:
        """Download into a temporary file beside `path`, compare the hash, then rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for tried in range(1, self._max_tries + 1):
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".download-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    received = self._stream(url, file.write)
                if received != sha256:
                    raise Corrupted(f"{path.name} arrived with another SHA-256 than announced")
                Path(temporary).chmod(0o644)
                Path(temporary).replace(path)
            except (httpx.TransportError, Corrupted) as error:
                if tried == self._max_tries:
                    if isinstance(error, Corrupted):
                        raise
                    raise Unreachable(f"no answer from {self.url}: {_cause(error)}") from None
                self._pause(tried, None)
            else:
                return path
            finally:
                Path(temporary).unlink(missing_ok=True)
        raise AssertionError("unreachable: the last try returns or raises")

    def _stream(self, url: str, write: Any) -> str:
        digest = hashlib.sha256()
        with self._http.stream("GET", url) as response:
            if response.is_error:
                response.read()
                raise error_of(response)
            for chunk in response.iter_bytes(CHUNK_BYTES):
                digest.update(chunk)
                write(chunk)
        return digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_answer(answer: type[Answered], response: httpx.Response) -> Answered:
    try:
        return answer.model_validate_json(response.content)
    except ValidationError:
        raise Unreachable(f"{response.url} did not answer as a Snugnet server does") from None


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__


def _trace(request: httpx.Request) -> None:
    request.headers.update(tracing.current_headers())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
