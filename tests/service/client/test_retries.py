from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from service.client.errors import Corrupted
from service.client.retries import Outcome, RetryPolicy, Tries

POLICY = RetryPolicy(max_tries=4, backoff_s=1.0)
LOST = httpx.ReadError("lost")


def busy(retry_after: str) -> httpx.Response:
    return httpx.Response(503, headers={"Retry-After": retry_after})


@pytest.mark.parametrize(
    ("outcome", "is_tried_again"),
    [
        (LOST, True),
        (httpx.ConnectTimeout("slow"), True),
        (Corrupted("damaged"), True),
        *((httpx.Response(status), True) for status in (408, 429, 500, 502, 503, 504)),
        *((httpx.Response(status), False) for status in (200, 204, 400, 401, 404, 409, 412, 422)),
    ],
)
def test_what_may_end_otherwise_is_tried_again(outcome: Outcome, is_tried_again: bool) -> None:
    assert (Tries(POLICY).pause_after(outcome) is not None) is is_tried_again


def test_pauses_double_and_differ_until_the_tries_are_used_up() -> None:
    assert len({Tries(POLICY).pause_after(LOST) for _ in range(20)}) > 1
    tries = Tries(POLICY)
    for longest in (1.0, 2.0, 4.0):
        pause_s = tries.pause_after(LOST)
        assert pause_s is not None
        assert longest / 2 <= pause_s <= longest
    assert tries.pause_after(LOST) is None


def test_the_server_is_given_the_time_that_it_asks_for() -> None:
    until = datetime.now(UTC) + timedelta(seconds=30)
    for text, least, most in (
        ("7", 7.0, 7.7),
        ("0", 0.0, 0.0),
        (format_datetime(until, usegmt=True), 25.0, 33.0),
        ("99999", 60.0, 66.0),  # within reason
        ("soon", 0.5, 1.0),  # as if it had said nothing
    ):
        pause_s = Tries(POLICY).pause_after(busy(text))
        assert pause_s is not None
        assert least <= pause_s <= most


def test_patience_outlasts_the_tries() -> None:
    tries = Tries(RetryPolicy(max_tries=1, backoff_s=0.01), patience_s=60.0)
    assert all(tries.pause_after(LOST) is not None for _ in range(50))


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = Tries(RetryPolicy(max_tries=1), patience_s=60.0)
    assert tries.pause_after(LOST) is not None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61.0)
    assert tries.pause_after(LOST) is None


def test_progress_lets_the_tries_begin_anew() -> None:
    tries = Tries(RetryPolicy(max_tries=2))
    for _ in range(10):
        assert tries.pause_after(LOST) is not None
        tries.note_progress()
    assert tries.pause_after(LOST) is not None
    assert tries.pause_after(LOST) is None


def test_a_call_that_is_being_carried_out_is_waited_for() -> None:
    problem = {"title": "", "status": 409, "detail": "", "code": "idempotency_in_flight"}
    tries = Tries(RetryPolicy(max_tries=2))
    for _ in range(20):
        assert tries.pause_after(httpx.Response(409, json=problem)) is not None
    assert tries.pause_after(httpx.Response(409, json={**problem, "code": "conflict"})) is None
