"""Carries out calls and plans, and waits for each answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from service.client.calls import READ_BYTES, Call, FileBody, Page, page_after
from service.client.connection import Connection
from service.client.downloads import Download
from service.client.errors import Corrupted
from service.client.events import SILENCE_SECONDS, Feed
from service.client.plans import Plan, Step
from service.client.retries import Outcome, Tries
from service.schemas import Event

T = TypeVar("T")
Item = TypeVar("Item")


class BlockingConnection(Connection):
    """Safe to keep for long, not to share between threads.

    Args:
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
        super().__init__(
            url, api_key, timeout_s=timeout_s, max_tries=max_tries, backoff_s=backoff_s
        )
        self._http = httpx.Client(transport=transport, **self._options)

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

    def send(self, call: Call[T]) -> T:
        tries = self._tries(call)
        while True:
            outcome = self._try(call)
            pause_s = tries.pause_after(outcome)
            if pause_s is None:
                return self._answer(call, outcome, tries)
            time.sleep(pause_s)

    def run(self, plan: Plan[T]) -> T:
        advance, given = plan.send, None
        try:
            while True:
                step = advance(given)
                try:
                    advance, given = plan.send, self._take(step)
                except BaseException as error:
                    advance, given = plan.throw, error
        except StopIteration as ended:
            result: T = ended.value
            return result

    def iterate(self, call: Call[Page[Item]]) -> Iterator[Item]:
        """Everything of a list, whose pages are fetched as they are needed."""
        following: Call[Page[Item]] | None = call
        while following is not None:
            page = self.send(following)
            yield from page.items
            following = page_after(following, page)

    def follow(self, feed: Feed) -> Iterator[Event]:
        tries = Tries(self._policy, patience_s=feed.patience_s)
        while True:
            outcome: Outcome
            try:
                with self._open(feed.path, feed.headers, SILENCE_SECONDS) as response:
                    if feed.begin(response):
                        for content in response.iter_bytes():
                            tries.note_progress()
                            yield from feed.receive(content)
                        if feed.has_ended:
                            return
                        raise httpx.RemoteProtocolError("the stream of events broke off")
                    response.read()
                    outcome = response
            except httpx.TransportError as error:
                outcome = error
            pause_s = tries.pause_after(outcome)
            if pause_s is None:
                self._fail(outcome)
            time.sleep(pause_s)

    def fetch(self, download: Download) -> None:
        tries = Tries(self._policy)
        download.open()
        with download:
            while (outcome := self._receive(download, tries)) is not None:
                pause_s = tries.pause_after(outcome)
                if pause_s is None:
                    self._fail_download(download, outcome)
                time.sleep(pause_s)

    def _take(self, step: Step) -> Any:
        if isinstance(step, Call):
            return self.send(step)
        return self.fetch(step) if isinstance(step, Download) else step()

    def _try(self, call: Call[Any]) -> Outcome:
        body = iter(call.body) if isinstance(call.body, FileBody) else call.body
        try:
            return self._http.request(
                call.method,
                call.path,
                params=call.params,
                headers=self._headers(call.headers),
                content=body,
                timeout=self._timeout(call.timeout_s),
            )
        except httpx.TransportError as error:
            return error

    def _receive(self, download: Download, tries: Tries) -> Outcome | None:
        """None when the file is complete and in its place."""
        try:
            if not download.is_complete:
                with self._open(download.path, download.headers) as response:
                    if not download.begin(response):
                        response.read()
                        return response
                    for content in response.iter_bytes(READ_BYTES):
                        if download.write(content):
                            tries.note_progress()
            download.finish()
        except (httpx.TransportError, Corrupted) as error:
            return error
        return None

    def _open(
        self, path: str, headers: Mapping[str, str], timeout_s: float | None = None
    ) -> AbstractContextManager[httpx.Response]:
        return self._http.stream(
            "GET", path, headers=self._headers(headers), timeout=self._timeout(timeout_s)
        )
