"""`snugnet watch` on a real terminal: what its screen shows while a job goes on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.cli.errors import INTERRUPTED, JOB_FAILED
from service.client import Client
from service.database.db import Database
from service.jobs import jobs
from service.jobs.events import append_event
from service.settings import Settings
from service.steps import steps
from service.steps.step_types import NewStep, StepLease, StepResult
from tests.service.helpers import claimed
from tests.service.serving import listening
from tests.service.terminal import Terminal, on_terminal

PROGRAM = [sys.executable, "-c", "from service.cli import main; main()"]
WORKLOAD = {"seq_len": 64, "runtime": "onnxruntime"}
SPEC = {
    "task": "text-classification",
    "targets": [
        {"device": "d", "workload": WORKLOAD, "statistic": "p50", "budget_ratio": 0.25},
        {"device": "d", "workload": WORKLOAD, "statistic": "p50", "budget_ratio": 0.125},
    ],
}
COLOURS = re.compile(rb"\x1b\[[0-9;]*(?:3[0-7]|4[0-7]|9[0-7]|38|48)[;m]")


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[str, str]]:
    with listening(settings) as (url, key):
        yield url, key


@pytest.fixture
def lease(database: Database) -> StepLease:
    """Of a job in the middle of its search."""
    with database.write() as session:
        first = NewStep(kind="prepare", input={})
        job_id = jobs.create_job(session, SPEC, name="reviews [small]", first=first).id
    lease = claimed(database, job_id)
    for name in ("prepare", "onboard"):
        happen(database, job_id, "stage", name, stage=name)
    happen(database, job_id, "onboarded", "predictor off by 2.0%", reference_ms=8.0)
    for name in ("teacher", "supernet", "search"):
        happen(database, job_id, "stage", name, stage=name)
    for source, quality, latency_ms in (
        ("search", 0.86, 2.6),
        ("search", 0.84, 1.9),
        ("search", 0.80, 0.9),
        ("search", 0.78, 0.8),
        ("random", 0.79, 1.5),
    ):
        metrics = {"quality": quality, "latency_ms": latency_ms, "latencies_ms": [latency_ms]}
        happen(database, job_id, "evaluation", "a network", source=source, metrics=metrics)
    return lease


def happen(database: Database, job_id: str, kind: str, message: str, **data: Any) -> None:
    with database.write() as session:
        append_event(session, job_id, kind, message, data)


def conclude(database: Database, lease: StepLease, result: dict[str, Any] | None) -> None:
    with database.write() as session:
        if result is None:
            steps.fail(session, lease, "budget_unreachable", "too fast")
        else:
            steps.finish(session, lease, StepResult(result=result))


@contextmanager
def watching(
    server: tuple[str, str], lease: StepLease, *, rows: int = 36, **environment: str
) -> Iterator[Terminal]:
    url, key = server
    given = {"SNUGNET_URL": url, "SNUGNET_API_KEY": key, **environment}
    with on_terminal([*PROGRAM, "watch", lease.job_id], given, rows=rows) as terminal:
        yield terminal


def test_a_terminal_shows_stages_the_front_and_the_best_for_each_target(
    server: tuple[str, str], lease: StepLease
) -> None:
    with watching(server, lease) as terminal:
        screen = terminal.read_until(lambda s: "best so far" in s and "2 ms" in s)
    assert "reviews [small] running" in screen
    assert "time left not known yet" in screen  # nothing like it has run here
    assert re.search(r"✓ prepare 0:0\d  ✓ onboard 0:0\d  .*  ▸ search 0:0\d", screen)
    assert "· finish  · report" in screen
    drawn = screen[screen.index("86.0%") : screen.index("target ")]
    assert (drawn.count("★") - 1, drawn.count("•") - 1, drawn.count("×") - 1) == (2, 1, 1)
    assert drawn.count("·") - 1 == 1  # what random search found
    assert "1 ms" in drawn
    lines = [line.split() for line in screen.splitlines()]
    assert ["0", "(p50)", "2.00", "ms", "1.90", "ms", "84.0%", "best", "so", "far"] in lines
    assert ["1", "(p50)", "1.00", "ms", "0.90", "ms", "80.0%", "best", "so", "far"] in lines


def test_the_picture_follows_the_job_and_stays_when_it_has_ended(
    server: tuple[str, str], lease: StepLease, database: Database
) -> None:
    with watching(server, lease) as terminal:
        terminal.read_until(lambda s: "best so far" in s)
        job_id = lease.job_id
        happen(database, job_id, "stage", "finish", stage="finish")
        happen(database, job_id, "distilled", "better", target=0, before=0.84, quality=0.875)
        told = {"is_met": True, "p50_ms": 1.95, "predicted_ms": 1.9, "budget_ms": 2.1}
        happen(database, job_id, "target", "target 0 met", target=0, **told)
        terminal.read_until(lambda s: "◆ measured" in s and "1.95 ms" in s)
        conclude(database, lease, {"targets": [{"budget_ms": 2.1, "p50_ms": 1.95}]})
        assert terminal.read_to_end() == 0
    screen = terminal.screen
    assert "reviews [small] succeeded  took 0:0" in screen
    assert "▸" not in screen
    assert re.search(r"0 \(p50\) +2\.10 ms +1\.90 ms +1\.95 ms +87\.5% +met", screen)
    assert screen.splitlines()[-1].split() == ["2.1", "1.95"]  # the result, after the picture
    assert terminal.shows_cursor


def test_without_colours_the_glyphs_tell_the_same(
    server: tuple[str, str], lease: StepLease, database: Database
) -> None:
    pictures = []
    for environment in ({}, {"NO_COLOR": "1"}):
        with watching(server, lease, **environment) as terminal:
            screen = terminal.read_until(lambda s: "best so far" in s and "2 ms" in s)
            pictures.append(screen[screen.index("86.0%") :])
            assert bool(COLOURS.search(terminal.written)) == (not environment)
    assert pictures[0] == pictures[1]
    with watching(server, lease, NO_COLOR="1") as terminal:
        terminal.read_until(lambda s: "best so far" in s)
        conclude(database, lease, None)
        assert terminal.read_to_end() == JOB_FAILED
    assert not COLOURS.search(terminal.written)
    assert f"error: {lease.job_id} failed: too fast" in terminal.screen


def test_ctrl_c_detaches_says_so_and_gives_the_cursor_back(
    server: tuple[str, str], lease: StepLease
) -> None:
    with watching(server, lease) as terminal:
        terminal.read_until(lambda s: "best so far" in s)
        assert not terminal.shows_cursor
        terminal.press(b"\x03")
        assert terminal.read_to_end() == INTERRUPTED
    said = f"The job goes on; `snugnet watch {lease.job_id}` follows it again."
    assert terminal.screen.splitlines()[-1] == said
    assert terminal.shows_cursor
    with Client(*server) as client:
        assert client.job(lease.job_id).state == "running"


def test_a_terminal_that_is_too_low_for_the_chart_shows_the_rest(
    server: tuple[str, str], lease: StepLease
) -> None:
    with watching(server, lease, rows=16) as terminal:
        screen = terminal.read_until(lambda s: "best so far" in s and "search" in s)
    assert "┊" not in screen
    assert "84.0%" in screen


def test_a_terminal_that_can_only_print_gets_lines(
    server: tuple[str, str], lease: StepLease, database: Database
) -> None:
    with watching(server, lease, TERM="dumb") as terminal:
        terminal.read_until(lambda s: "predictor off by 2.0%" in s)
        conclude(database, lease, {})
        assert terminal.read_to_end() == 0
    assert b"\x1b" not in terminal.written
    assert "a network" not in terminal.screen  # of hundreds
