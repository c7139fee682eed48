"""Carries out calls and plans within an event loop: what `blocking` does, with `await`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
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


class AwaitingConnection(Connection):
    """Safe to keep for long, and for many tasks of one event loop.

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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(
            url, api_key, timeout_s=timeout_s, max_tries=max_tries, backoff_s=backoff_s
        )
        self._http = httpx.AsyncClient(transport=transport, **self._options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        tries = self._tries(call)
        while True:
            outcome = await self._try(call)
            pause_s = tries.pause_after(outcome)
            if pause_s is None:
                return self._answer(call, outcome, tries)
            await asyncio.sleep(pause_s)

    async def run(self, plan: Plan[T]) -> T:
        advance, given = plan.send, None
        try:
            while True:
                step = advance(given)
                try:
                    advance, given = plan.send, await self._take(step)
                except BaseException as error:
                    advance, given = plan.throw, error
        except StopIteration as ended:
            result: T = ended.value
            return result

    async def iterate(self, call: Call[Page[Item]]) -> AsyncIterator[Item]:
        """Everything of a list, whose pages are fetched as they are needed."""
        following: Call[Page[Item]] | None = call
        while following is not None:
            page = await self.send(following)
            for item in page.items:
                yield item
            following = page_after(following, page)

    async def follow(self, feed: Feed) -> AsyncIterator[Event]:
        tries = Tries(self._policy, patience_s=feed.patience_s)
        while True:
            outcome: Outcome
            try:
                async with self._open(feed.path, feed.headers, SILENCE_SECONDS) as response:
                    if feed.begin(response):
                        async for content in response.aiter_bytes():
                            tries.note_progress()
                            for event in feed.receive(content):
                                yield event
                        if feed.has_ended:
                            return
                        raise httpx.RemoteProtocolError("the stream of events broke off")
                    await response.aread()
                    outcome = response
            except httpx.TransportError as error:
                outcome = error
            pause_s = tries.pause_after(outcome)
            if pause_s is None:
                self._fail(outcome)
            await asyncio.sleep(pause_s)

    async def fetch(self, download: Download) -> None:
        tries = Tries(self._policy)
        await asyncio.to_thread(download.open)
        with download:
            while (outcome := await self._receive(download, tries)) is not None:
                pause_s = tries.pause_after(outcome)
                if pause_s is None:
                    self._fail_download(download, outcome)
                await asyncio.sleep(pause_s)

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Call):
            return await self.send(step)
        if isinstance(step, Download):
            return await self.fetch(step)
        return await asyncio.to_thread(step)

    async def _try(self, call: Call[Any]) -> Outcome:
        body = _pieces(call.body) if isinstance(call.body, FileBody) else call.body
        try:
            return await self._http.request(
                call.method,
                call.path,
                params=call.params,
                headers=self._headers(call.headers),
                content=body,
                timeout=self._timeout(call.timeout_s),
            )
        except httpx.TransportError as error:
            return error

    async def _receive(self, download: Download, tries: Tries) -> Outcome | None:
        """None when the file is complete and in its place."""
        try:
            if not download.is_complete:
                async with self._open(download.path, download.headers) as response:
                    if not download.begin(response):
                        await response.aread()
                        return response
                    async for content in response.aiter_bytes(READ_BYTES):
                        if download.write(content):
                            tries.note_progress()
            await asyncio.to_thread(download.finish)
        except (httpx.TransportError, Corrupted) as error:
            return error
        return None

    def _open(
        self, path: str, headers: Mapping[str, str], timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(
            "GET", path, headers=self._headers(headers), timeout=self._timeout(timeout_s)
        )


async def _pieces(body: FileBody) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece
