"""Wakes long polls of this process when something may have changed.

Workers write from other processes, so a waiter also looks at the database itself now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

POLL_SECONDS = 1.0

Found = TypeVar("Found")


class Notifier:
    def __init__(self) -> None:
        self._waiters: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._is_closed = False

    def notify(self) -> None:
        """Wake every waiter; callable from any thread."""
        for waiter, loop in list(self._waiters.items()):
            try:
                loop.call_soon_threadsafe(waiter.set)
            except RuntimeError:  # that loop has ended, and its waiters with it
                self._waiters.pop(waiter, None)

    def close(self) -> None:
        """Let every long poll answer now with what there is: the server is going down."""
        self._is_closed = True
        self.notify()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    async def wait_for(self, look: Callable[[], Found | None], wait_s: float) -> Found | None:
        """What `look` finds, as soon as it finds something; None after `wait_s`."""
        deadline = time.monotonic() + wait_s
        with self.listening() as woken:
            while True:
                woken.clear()
                found = await run_in_threadpool(look)
                left = deadline - time.monotonic()
                if found is not None or left <= 0 or self._is_closed:
                    return found
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), min(left, POLL_SECONDS))

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever something may have changed; the listener clears it."""
        woken = asyncio.Event()
        self._waiters[woken] = asyncio.get_running_loop()
        try:
            yield woken
        finally:
            self._waiters.pop(woken, None)
