from __future__ import annotations

import threading
from pathlib import Path

from workers.quiet_lock import exclusive_quiet_lock, shared_quiet_lock


def never() -> bool:
    return False


def test_without_a_file_nobody_waits() -> None:
    with shared_quiet_lock(None, wait_seconds=0.0) as shared:
        assert shared
        with exclusive_quiet_lock(None, should_abort=never) as owned:
            assert owned


def test_steps_share_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "quiet"
    with (
        shared_quiet_lock(path, wait_seconds=0.0) as first,
        shared_quiet_lock(path, wait_seconds=0.0) as second,
    ):
        assert first
        assert second


def test_no_step_begins_while_an_agent_measures(tmp_path: Path) -> None:
    path = tmp_path / "quiet"
    with exclusive_quiet_lock(path, should_abort=never) as owned:
        assert owned
        with shared_quiet_lock(path, wait_seconds=0.0) as shared:
            assert not shared
    with shared_quiet_lock(path, wait_seconds=0.0) as shared:
        assert shared


def test_an_agent_can_be_told_to_stop_waiting(tmp_path: Path) -> None:
    path = tmp_path / "quiet"
    with (
        shared_quiet_lock(path, wait_seconds=0.0),
        exclusive_quiet_lock(path, should_abort=lambda: True) as owned,
    ):
        assert not owned


def test_a_waiting_agent_comes_before_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / "quiet"
    waits, measured = threading.Event(), threading.Event()

    def is_still_waiting() -> bool:
        waits.set()
        return False

    def measure() -> None:
        with exclusive_quiet_lock(path, should_abort=is_still_waiting) as owned:
            assert owned
            measured.set()

    agent = threading.Thread(target=measure)
    with shared_quiet_lock(path, wait_seconds=0.0) as running_step:
        assert running_step
        agent.start()
        assert waits.wait(20.0)
        with shared_quiet_lock(path, wait_seconds=0.0) as next_step:
            assert not next_step
        assert not measured.is_set()
    agent.join()
    assert measured.is_set()
