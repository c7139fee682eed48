"""The SDK against a real server on a socket that goes away, comes back, and misbehaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from search.errors import InvalidInput
from service.client import Client, NotAllowed, Unreachable, sha256_of
from service.evaluations import Evaluation, record_evaluation
from tests.service.helpers import create_job
from tests.service.serving import sdk


class Script(BaseHTTPRequestHandler):
    """Answers with the next line of the server's script, whatever is asked."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.command, self.path))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = server.script.pop(0)
        if status is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def scripted(*answers: tuple[int | None, dict[str, str], bytes]) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    server.script, server.asked = list(answers), []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def client_of(server: Any) -> Client:
    return Client(f"http://127.0.0.1:{server.server_port}", "key", backoff_s=0.001)


INFO = (200, {}, b'{"name": "snugnet", "version": "1"}')
BUSY = (429, {"Retry-After": "0"}, b"")
BROKEN = (502, {}, b"<html>")
CUT = (None, {}, b"")
JOB_ANSWER = (201, {}, b'{"id": "j", "name": "", "state": "queued", "spec": {}, "created_at": 1}')


def test_what_a_network_or_a_busy_server_ate_is_sent_again() -> None:
    with scripted(CUT, BUSY, BROKEN, INFO) as server, client_of(server) as client:
        assert client.server_info().name == "snugnet"
        assert len(server.asked) == 4


def test_a_submission_that_may_have_arrived_is_not_repeated() -> None:
    with scripted(CUT, JOB_ANSWER) as server, client_of(server) as client:
        with pytest.raises(Unreachable):
            client.submit({})
        assert len(server.asked) == 1
    with scripted(BUSY, JOB_ANSWER) as server, client_of(server) as client:
        assert client.submit({}).id == "j"


def test_a_server_that_stays_away_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}", max_tries=2, backoff_s=0.001) as client,
        pytest.raises(Unreachable, match=rf"no answer from http://127.0.0.1:{port}"),
    ):
        client.server_info()
    with Client(f"http://127.0.0.1:{port}") as client:
        assert not client.is_ready()


def test_something_that_is_not_this_service_is_said_so() -> None:
    html = (200, {}, b"<html>hello</html>")
    reason = "did not answer as a Snugnet server"
    with (
        scripted(html) as server,
        client_of(server) as client,
        pytest.raises(Unreachable, match=reason),
    ):
        client.server_info()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://[::1"])
def test_a_wrong_url_is_an_input_error(url: str) -> None:
    with pytest.raises(InvalidInput, match="url"):
        Client(url)


def test_a_number_without_json_is_an_input_error(client: Client) -> None:
    with pytest.raises(InvalidInput, match="JSON"):
        client.submit({"targets": [{"budget_ms": float("nan")}]})


def test_a_wrong_key_is_not_allowed(http: Any) -> None:
    http.headers["Authorization"] = "Bearer wrong"
    with sdk(http) as client, pytest.raises(NotAllowed, match="unknown"):
        client.jobs()


def page(seq: int, state: str) -> tuple[int, dict[str, str], bytes]:
    items = f'{{"seq": {seq}, "at": 1, "kind": "k", "level": "info", "message": "m{seq}"}}'
    return (200, {}, f'{{"items": [{items}], "job_state": "{state}"}}'.encode())


def test_the_stream_of_events_goes_on_after_the_server_was_away() -> None:
    away = [CUT] * 5  # all tries of one request
    with scripted(page(1, "running"), *away, page(2, "succeeded")) as server:
        with client_of(server) as client:
            messages = [event.message for event in client.events("j")]
        assert messages == ["m1", "m2"]
        assert "after=0" in server.asked[0][1]
        assert "after=1" in server.asked[-1][1]


def test_the_stream_of_events_loses_patience() -> None:
    with (
        scripted(*[CUT] * 5) as server,
        client_of(server) as client,
        pytest.raises(Unreachable),
    ):
        list(client.events("j", patience_s=0))


def test_evaluations_come_with_their_metrics(client: Client, database: Any) -> None:
    job_id = create_job(database)
    one = Evaluation(
        source="search",
        generation=0,
        index_in_generation=0,
        fingerprint="f",
        fidelity="600",
        subnet={"layers": [0]},
        metrics={"quality": 0.5},
    )
    with database.write() as session:
        record_evaluation(session, job_id, one)
    (found,) = client.evaluations(job_id)
    assert found.metrics == {"quality": 0.5}


def test_files_are_named_by_their_hash(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256_of(path).startswith("ba7816bf")
