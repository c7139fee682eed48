from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from search.errors import InvalidInput
from service.settings import Settings
from service.telemetry import logs
from service.telemetry.logs import log_context
from tests.service.serving import serving

logger = logging.getLogger("tests.logs")


Written = Callable[[], str]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What was written to standard error; the loggers are as before afterwards."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers


def test_a_line_of_json_carries_the_blocks_around_it(written: Written) -> None:
    logs.configure(log_format="json")
    with log_context(job="job_1", step="step_1"):
        with log_context(token=3):
            logger.warning("lost %s", "it", extra={"fields": {"took_ms": 5}})
        logger.info("inner fields are gone")
    logger.info("all are")
    first, second, third = map(json.loads, written().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "tests.logs",
        "message": "lost it",
        "job": "job_1",
        "step": "step_1",
        "token": 3,
        "took_ms": 5,
    }
    assert ("token" in second, second["job"]) == (False, "job_1")
    assert "job" not in third


def test_an_error_stays_on_its_line_in_json(written: Written) -> None:
    logs.configure(log_format="json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it failed")
    (line,) = written().splitlines()
    assert json.loads(line)["error"].endswith("ValueError: two\nlines")


def test_text_ends_with_the_fields(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNUGNET_LOG_FORMAT", "text")
    logs.configure()
    with log_context(job="job_1", attempt=2):
        logger.warning("lost")
    assert written().endswith(" WARNING lost [job=job_1 attempt=2]\n")


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_a_secret_is_masked_wherever_it_would_stand(written: Written, log_format: str) -> None:
    logs.configure(log_format=log_format, secrets=("pa55word", "abc"))
    try:
        raise ConnectionError("redis://:pa55word@host is away")
    except ConnectionError:
        logger.exception("pa55word, alphabet abc")
    text = written()
    assert "pa55word" not in text
    assert "***, alphabet abc" in text  # too short to be told from a word


def test_a_format_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"SNUGNET_LOG_FORMAT.*text or json, got 'xml'"):
        logs.configure(log_format="xml")


def test_lines_below_the_level_are_left_out(written: Written) -> None:
    own, other = logging.getLogger("service.x"), logging.getLogger("library.x")
    logs.configure(log_level="debug")
    own.debug("own debug")
    other.debug("a library's debug")
    logs.configure(log_level="warning")
    own.info("own info")
    other.info("a library's info")
    own.warning("own warning")
    assert [line.rpartition(" ")[0].split(" ", 2)[2] for line in written().splitlines()] == [
        "DEBUG own",
        "WARNING own",
    ]


def test_a_level_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNUGNET_LOG_LEVEL", "loud")
    with pytest.raises(InvalidInput, match=r"SNUGNET_LOG_LEVEL.*must be debug, info.*got 'loud'"):
        logs.configure()


def test_requests_are_logged_by_route_where_it_is_asked_for(
    settings: Settings, written: Written
) -> None:
    logs.configure(log_format="json")
    with serving(settings.model_copy(update={"log_requests": True})) as http:
        http.get("/v1/search-jobs/job_x", headers={"X-Request-ID": "mine"})
    lines = [json.loads(line) for line in written().splitlines()]
    (line,) = [line for line in lines if line["message"] == "answered"]
    assert line["took_ms"] >= 0
    wanted = {
        "request_id": "mine",
        "method": "GET",
        "route": "/v1/search-jobs/{job_id}",
        "status": 404,
    }
    assert {key: line[key] for key in wanted} == wanted


def test_what_a_route_logs_names_its_request_though_it_runs_in_another_thread(
    http: TestClient, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        logger.warning("in a thread of the pool")
        raise RuntimeError("it failed")

    logs.configure(log_format="json")
    monkeypatch.setattr("service.jobs.jobs.get_job", fail)
    assert http.get("/v1/search-jobs/x", headers={"X-Request-ID": "mine"}).status_code == 500
    lines = [json.loads(line) for line in written().splitlines()]
    told = [line for line in lines if "error" in line or "pool" in line["message"]]
    assert [line["request_id"] for line in told] == ["mine", "mine"]
