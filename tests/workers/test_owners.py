from __future__ import annotations

import os

import pytest

from workers.owners import Owner


def test_an_owner_survives_its_text_form() -> None:
    owner = Owner.in_worker(os.getpid(), "6a-task")
    assert Owner.parse(str(owner)) == owner
    assert not owner.is_dead


def test_a_process_that_ended_is_dead() -> None:
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(pid, 0)
    assert Owner.in_worker(pid, "task").is_dead


def test_nothing_is_known_of_other_hosts() -> None:
    assert not Owner(host="elsewhere.invalid", worker_pid=2**22 + 1, task_id="task").is_dead


@pytest.mark.parametrize("text", ["", "me", "host:pid:task", "host:1:"])
def test_foreign_texts_are_no_owners(text: str) -> None:
    assert Owner.parse(text) is None
