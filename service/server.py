"""The API as a program: `python -m service.server`. Knows how to stop while clients long-poll."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import socket
from contextlib import suppress
from types import FrameType

import uvicorn

from service.api.app import create_app
from service.api.dependencies import Parts
from service.settings import Settings
from service.telemetry import logs, tracing

GRACE_SECONDS = 10
TICK_SECONDS = 1.0
M_ARENA_MAX = -8  # of <malloc.h>


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Like uvicorn's own, but one tick a second instead of ten: an idle service sleeps."""
        self._loop = asyncio.get_running_loop()
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 10) % 864_000
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Otherwise every long poll would hold up the shutdown until its time is over.
        self._parts.notifier.close()
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)


def serve(settings: Settings, *, host: str, port: int, fd: int | None = None) -> None:
    """Answer requests until a signal.

    Args:
        fd: a listening socket to take over, instead of host and port.
    """
    logs.configure(
        log_format=settings.log_format, log_level=settings.log_level, secrets=settings.secrets
    )
    _keep_few_arenas()
    tracing.configure("api")
    app = create_app(settings)
    _spare_what_stays()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="info",
        log_config=None,  # as of every other role
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    server = _Server(config, app.state.parts)
    if fd is None:
        server.run()
    else:
        # A socket that a supervisor opened: it stays, so clients queue while we are restarted.
        server.run(sockets=[socket.socket(fileno=fd)])


def _keep_few_arenas() -> None:
    """glibc keeps a heap for each of forty threads and gives little of them back: with two, an API
    under load stays 50 MB smaller."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)


def _spare_what_stays() -> None:
    """What was loaded by now stays for good. Looking through it for garbage once in a while would
    hold up every request for 130 ms."""
    gc.collect()
    gc.freeze()


def main() -> None:
    options = _parse()
    serve(Settings(), host=options.host, port=options.port, fd=options.fd)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--fd", type=int, help="a listening socket to take over")
    return parser.parse_args()


if __name__ == "__main__":
    main()
