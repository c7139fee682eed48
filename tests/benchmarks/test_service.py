"""Load at planned times, and the figures that it ends in."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import service
from benchmarks.open_loop import Plan, run

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextmanager
def answering(answers_of_a_connection: int) -> Iterator[tuple[str, list[bytes]]]:
    """A server that closes each connection after so many answers; what it was asked."""
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            for _ in range(answers_of_a_connection):
                request = connection.recv(4096)
                if not request:
                    return
                asked.append(request)
                connection.sendall(ANSWER)

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def plan(url: str, **changes: object) -> Plan:
    values: dict[str, object] = {
        "url": url,
        "key": "snug_key",
        "requests": [("GET", "/a", None), ("POST", "/b", "{}")],
        "kind": "open",
        "seconds": 0.5,
        "per_second": 40.0,
        **changes,
    }
    return Plan(**values)  # type: ignore[arg-type]


def test_as_many_requests_are_sent_as_were_planned_and_those_of_the_warm_up_do_not_count() -> None:
    with answering(1000) as (url, asked):
        loaded = asyncio.run(run(plan(url, warm_up_s=0.25)))
    assert len(asked) == 30
    assert loaded.statuses == {200: 20}
    assert len(loaded.latencies_ms) == len(loaded.late_ms) == 20
    assert all(ms >= late for ms, late in zip(loaded.latencies_ms, loaded.late_ms, strict=True))
    assert asked[0].startswith(b"GET /a HTTP/1.1\r\n")
    assert b"Authorization: Bearer snug_key\r\n" in asked[0]
    assert any(request.endswith(b"\r\n\r\n{}") for request in asked)


@pytest.mark.parametrize("kind", ["open", "closed"])
def test_a_connection_that_the_server_closed_is_opened_anew(kind: str) -> None:
    with answering(3) as (url, _):
        loaded = asyncio.run(run(plan(url, kind=kind, num_connections=2)))
    assert set(loaded.statuses) == {200}
    assert len(loaded.latencies_ms) >= 7


def test_a_short_run_under_load_has_every_figure() -> None:
    found = service.under_load("sqlite", service.TINY)
    assert set(found) == {"get", "get_running", "list", "streams", "at_most", "submit", "memory"}
    for name in ("get", "get_running", "list", "streams", "submit"):
        assert 0 < found[name]["p50_ms"] <= found[name]["p99_ms"], name
    assert found["memory"]["after"]["rss_mb"] >= found["memory"]["after"]["pss_mb"] > 0
