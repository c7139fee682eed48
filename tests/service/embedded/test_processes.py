from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.embedded.processes import processes_of

SLEEP = "import sys, time; print('up', flush=True); time.sleep(60)"

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def test_children_are_known_by_what_they_run_and_have_their_own_childrens_memory() -> None:
    worker = (
        "import subprocess, sys; "
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); child.wait()"
    )
    alone = subprocess.Popen([sys.executable, "-c", SLEEP, "service.server"], stdout=-1)
    family = subprocess.Popen([sys.executable, "-c", worker, "celery"], stdout=-1)
    try:
        for process in (alone, family):
            assert process.stdout is not None
            process.stdout.readline()
        found = {process.pid: process for process in processes_of(os.getpid())}
        assert found[alone.pid].role == "api"
        assert found[family.pid].role == "worker"
        assert found[family.pid].resident_bytes > 1.5 * found[alone.pid].resident_bytes > 0
        assert os.getpid() in found
    finally:
        subprocess.run(["kill", *map(str, _children_of(family.pid))], check=False)
        for process in (alone, family):
            process.kill()
            process.communicate()


def _children_of(pid: int) -> list[int]:
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_process_that_has_ended_is_not_there(tmp_path: Path) -> None:
    assert processes_of(1, proc=tmp_path) == []
