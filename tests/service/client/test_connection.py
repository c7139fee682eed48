"""Both clients against real servers on a socket that go away, come back, and misbehave."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from search.errors import InvalidInput
from service.client import (
    AsyncClient,
    Client,
    Conflict,
    HasChanged,
    NotAllowed,
    NotFound,
    Unreachable,
)
from tests.service.client.scripted import CUT, Answer, Call, answers, job, problem, scripted
from tests.service.serving import sdk

Connect = Callable[..., Call]

INFO = answers({"name": "snugnet", "version": "1"})
BUSY: Answer = (429, {"Retry-After": "0"}, b"")
BROKEN: Answer = (502, {}, b"<html>")
TIMED_OUT: Answer = (408, {}, b"")
IN_FLIGHT = problem(409, "idempotency_in_flight", {"Retry-After": "0"})


def test_what_a_network_or_a_busy_server_ate_is_sent_again(connect: Connect) -> None:
    with scripted(CUT, BUSY, BROKEN, TIMED_OUT, INFO) as server:
        assert connect(server.url)("server_info").name == "snugnet"
        assert len(server.asked) == 5


def test_a_post_keeps_its_key_however_often_it_is_sent(connect: Connect) -> None:
    created = answers(job(), 201)
    with scripted(CUT, IN_FLIGHT, created, created) as server:
        call = connect(server.url)
        assert call("submit", {"seed": 1}).id == "j"
        call("submit", {"seed": 1})
    keys = [asked.headers["Idempotency-Key"] for asked in server.asked]
    assert keys[0] == keys[1] == keys[2]
    assert keys[3] != keys[0]
    assert {asked.body for asked in server.asked} == {b'{"seed": 1}'}


def test_a_claim_has_no_key_which_a_server_that_died_with_it_would_keep(
    connect: Connect,
) -> None:
    nothing: Answer = (204, {}, b"")
    with scripted(CUT, nothing, nothing) as server:
        call = connect(server.url)
        assert call("claim_measurement_job", "dev_1", wait_s=0.1) is None
        call("renew_measurement_job", "mj_1", 1)
    assert len(server.asked) == 3
    assert not [asked for asked in server.asked if "Idempotency-Key" in asked.headers]


def test_a_conflict_that_is_no_repetition_is_told_at_once(connect: Connect) -> None:
    for code in ("conflict", "idempotency_mismatch"):
        with scripted(problem(409, code)) as server, pytest.raises(Conflict, match=code):
            connect(server.url)("cancel", "j")


def test_a_change_of_another_version_is_refused(connect: Connect) -> None:
    with scripted(problem(412, "precondition_failed")) as server:
        with pytest.raises(HasChanged):
            connect(server.url)("cancel", "j", version=7)
        assert server.asked[0].headers["If-Match"] == '"v7"'


def test_a_deletion_whose_answer_was_lost_is_done(connect: Connect) -> None:
    gone = problem(404, "not_found")
    with scripted(CUT, gone, gone) as server:
        call = connect(server.url)
        assert call("delete", "j") is None
        with pytest.raises(NotFound):
            call("delete", "j")


def test_a_server_that_keeps_failing_is_unreachable_and_says_why(connect: Connect) -> None:
    down = problem(503, "not_ready", {"Retry-After": "0"})
    with scripted(down, down, down) as server:
        with pytest.raises(Unreachable, match=r"it is not_ready \(r1\)") as failed:
            connect(server.url, max_tries=3)("job", "j")
        assert failed.value.problem is not None
        assert failed.value.problem.code == "not_ready"
        assert len(server.asked) == 3


def test_a_server_that_stays_away_is_unreachable(connect: Connect) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    call = connect(url, max_tries=2)
    with pytest.raises(Unreachable, match=f"no answer from {url}"):
        call("server_info")
    assert call("is_ready") is False


def test_readiness_is_asked_once(connect: Connect) -> None:
    with scripted(problem(503, "not_ready"), answers({"status": "ok"})) as server:
        call = connect(server.url)
        assert [call("is_ready"), call("is_ready")] == [False, True]


def test_something_that_is_not_this_service_is_said_so(connect: Connect) -> None:
    html: Answer = (200, {"Content-Type": "text/html"}, b"<html>hello</html>")
    with scripted(html, html) as server:
        for name, args in (("server_info", ()), ("stream", ("j",))):
            with pytest.raises(Unreachable, match="did not answer as a Snugnet server"):
                connect(server.url)(name, *args)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://[::1"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_wrong_url_is_an_input_error(kind: type[Client] | type[AsyncClient], url: str) -> None:
    with pytest.raises(InvalidInput, match="url"):
        kind(url)


def test_what_has_no_json_is_an_input_error(connect: Connect) -> None:
    for value in (float("nan"), object()):
        with pytest.raises(InvalidInput, match="JSON"):
            connect("http://127.0.0.1:9")("submit", {"budget_ms": value})


def test_an_id_that_somebody_mistyped_stays_one_part_of_the_path(connect: Connect) -> None:
    with scripted(problem(404, "not_found")) as server:
        with pytest.raises(NotFound):
            connect(server.url)("job", "a/b?c\n#d")
        assert server.asked[0].path == "/v1/search-jobs/a%2Fb%3Fc%0A%23d"


def test_a_wrong_key_is_not_allowed(http: Any) -> None:
    http.headers["Authorization"] = "Bearer wrong"
    with sdk(http) as client, pytest.raises(NotAllowed, match="unknown"):
        client.jobs()
