"""The stream of a job's events: each one once, whatever happens to the connection."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from service.client import Client, Unreachable
from service.client.events import Feed
from service.database.db import Database
from service.jobs import jobs
from service.jobs.events import append_event
from service.schemas import Event
from service.settings import Settings
from service.steps import steps
from service.steps.step_types import StepResult
from tests.service.client.scripted import CUT, Answer, Call, answers, scripted
from tests.service.helpers import claimed, create_job
from tests.service.serving import listening, new_key
from tests.workers.waiting import wait_until

Connect = Callable[..., Call]

STREAM = httpx.Response(200, headers={"Content-Type": "text/event-stream; charset=utf-8"})
ODD = "a line\nand\u2028two\x85more\x1c{}: data: x"


def one(seq: int, message: str = "m") -> Event:
    return Event(seq=seq, at=1.0, kind="note", level="info", message=message)


def wire(*events: Event, end: bool = False) -> bytes:
    text = "".join(f"data: {e.model_dump_json()}\nid: {e.seq}\n\n" for e in events)
    return (text + ('event: end\ndata: {"state":"new_state"}\n\n' if end else "")).encode()


def sse(content: bytes) -> Answer:
    return (200, {"Content-Type": "text/event-stream"}, content)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_events_are_whole_however_the_bytes_are_cut(size: int, line_end: bytes) -> None:
    sent = [one(1), one(2, ODD), one(3)]
    text = b": ping\n\n" + wire(*sent, end=True)
    text = text.replace(b"\n", line_end)
    feed = Feed("x")
    assert feed.begin(STREAM)
    received: list[Event] = []
    for start in range(0, len(text), size):
        received += feed.receive(text[start : start + size])
    assert received == sent
    assert feed.has_ended


def test_what_a_broken_connection_left_behind_is_not_taken_for_an_event() -> None:
    feed = Feed("x")
    feed.begin(STREAM)
    text = wire(one(1), one(2))
    assert list(feed.receive(text[:-5])) == [one(1)]
    assert feed.headers["Last-Event-ID"] == "1"
    feed.begin(STREAM)
    assert list(feed.receive(wire(one(1), one(2)))) == [one(2)]


def test_the_stream_goes_on_after_the_server_was_away(connect: Connect) -> None:
    away = [CUT] * 9  # more than the tries of one request
    with scripted(sse(wire(one(1))), *away, sse(wire(one(2), end=True))) as server:
        found = connect(server.url, max_tries=2)("stream", "j", after=0)
    assert found == [one(1), one(2)]
    asked = [asked.headers["Last-Event-ID"] for asked in server.asked]
    assert asked == ["0"] + ["1"] * 10


def test_the_stream_loses_patience(connect: Connect) -> None:
    empty = sse(b"")
    for answer in (CUT, empty):
        with scripted(*[answer] * 3) as server, pytest.raises(Unreachable):
            connect(server.url, max_tries=3)("stream", "j", patience_s=0)


def test_waiting_outlasts_a_server_that_is_away_and_a_state_that_is_new(connect: Connect) -> None:
    page = {"items": [], "job_state": "on_hold"}
    over = {"items": [], "job_state": "melted", "terminal": True}
    job = {"id": "j", "name": "", "state": "melted", "spec": {}, "created_at": 1, "terminal": True}
    with scripted(answers(page), *[CUT] * 9, answers(over), answers(job)) as server:
        ended = connect(server.url, max_tries=2)("wait", "j")
    assert (ended.state, ended.terminal) == ("unknown", True)


def test_waiting_has_an_end(connect: Connect, settings: Settings, database: Database) -> None:
    job_id = create_job(database)
    with listening(settings) as (url, key), pytest.raises(TimeoutError, match="still going on"):
        connect(url, key)("wait", job_id, timeout_s=0.2)


def test_an_onboarding_is_followed_like_a_job(
    connect: Connect, settings: Settings, database: Database
) -> None:
    with database.write() as session:
        job_id = jobs.create_job(session, {}, name="", kind=jobs.ONBOARDING).id
    lease = claimed(database, job_id)
    with database.write() as session:
        steps.finish(session, lease, StepResult(result={}))
    with listening(settings) as (url, key):
        found = connect(url, key)("onboarding_stream", job_id)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert found[-1].data["state"] == "succeeded"


class Api:
    """The API as a process of its own, always at the same port."""

    def __init__(self, settings: Settings) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._environment = {
            **os.environ,
            "SNUGNET_DATA_DIR": str(settings.data_dir),
            "SNUGNET_DATABASE_URL": settings.database_url,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        argv = [sys.executable, "-m", "service.server", "--port", str(self.port)]
        self._process = subprocess.Popen(argv, env=self._environment, stderr=subprocess.DEVNULL)
        # It has no broker, so it answers, and is never ready.
        with Client(self.url) as client:
            wait_until(lambda: self._process_answers(client))

    def _process_answers(self, client: Client) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "it did not start"
        try:
            return bool(client.server_info())
        except Unreachable:
            return False

    def end(self, sent: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(sent)
        self._process.wait(timeout=30)


@contextmanager
def api(settings: Settings) -> Iterator[Api]:
    served = Api(settings)
    served.start()
    try:
        yield served
    finally:
        served.end(signal.SIGKILL)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_no_event_is_lost_or_doubled_when_the_server_is_restarted(
    connect: Connect, settings: Settings, database: Database, sent: signal.Signals
) -> None:
    job_id = create_job(database)
    key = new_key(settings)
    found: list[Any] = []

    def follow(url: str) -> None:
        found.extend(connect(url, key)("stream", job_id))

    def note(numbers: range) -> None:
        for number in numbers:
            with database.write() as session:
                append_event(session, job_id, "note", f"n{number}")

    with api(settings) as served:
        follower = threading.Thread(target=follow, args=(served.url,))
        follower.start()
        note(range(30))
        served.end(sent)
        note(range(30, 40))
        served.start()
        note(range(40, 60))
        lease = claimed(database, job_id)
        with database.write() as session:
            steps.finish(session, lease, StepResult(result={}))
        follower.join(timeout=60)
    notes = [event.message for event in found if event.kind == "note"]
    assert notes == [f"n{number}" for number in range(60)]
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
