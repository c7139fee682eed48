"""Disks that fill up: under blobs, under scratch files, and under everything at once."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from service.database.models import Event
from tests.chaos.checks import assert_sound, num_evaluations
from tests.chaos.conftest import OpenSite
from tests.chaos.site import PATIENCE_S, Site
from tests.chaos.steps import EVALUATIONS_OF_LINK
from tests.workers.waiting import wait_until

pytestmark = pytest.mark.chaos

MIB = 2**20
FILES, FILE_BYTES = 8, MIB // 2
ONE_STEP = {"prepare": "tests.chaos.steps:patient"}

SmallDisk = Callable[[Path, int], Path]


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """A file system of so many bytes at a folder."""
    mounted: list[Path] = []

    def mount(folder: Path, size_bytes: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
        if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    options = f"remount,size={64 * MIB}"
    subprocess.run(["mount", "-o", options, str(folder)], check=True)


@pytest.mark.parametrize("part", ["blobs", "scratch"])
def test_a_step_waits_for_room_and_goes_on(
    open_site: OpenSite, small_disk: SmallDisk, tmp_path: Path, part: str
) -> None:
    disk = small_disk(tmp_path / "data" / part, 2 * MIB)
    site = open_site(reserve_bytes=0, put_off_seconds=0.3)
    site.start_dispatcher()
    worker = site.start_worker()
    job_id = site.submit("writer", files=FILES, size_bytes=FILE_BYTES)
    wait_until(lambda: told(site, job_id), timeout_s=PATIENCE_S)
    assert_whole(site)
    (message,) = told(site, job_id)
    assert site.state(job_id) == "running"
    enlarge(disk)
    site.wait_for_state(job_id)
    (step,) = site.steps(job_id)
    print(f"\n{part}: told once “{message[:70]}”, then {FILES} files were written")
    assert step.attempts == 1  # waiting for room is no attempt
    assert num_evaluations(site.database, job_id) == FILES
    assert len(assert_whole(site)) == FILES
    assert worker.is_alive
    assert_sound(site.database)


def test_a_file_beyond_the_limit_of_a_process_leaves_nothing_behind(open_site: OpenSite) -> None:
    site = open_site(reserve_bytes=0, put_off_seconds=0.3)
    site.start_dispatcher()
    site.start_worker()
    job_id = site.submit("limited", size_bytes=4 * MIB, limit_bytes=MIB)
    wait_until(lambda: told(site, job_id), timeout_s=PATIENCE_S)
    assert assert_whole(site) == []
    (site.folder / "limit-lifted").touch()
    site.wait_for_state(job_id)
    print("\na file of 4 MiB under a limit of 1 MiB: it waited, and was written later")
    assert len(assert_whole(site)) == 1
    assert_sound(site.database)


def test_nothing_is_lost_when_the_whole_disk_is_full(
    open_site: OpenSite, small_disk: SmallDisk, tmp_path: Path
) -> None:
    """Database, broker's log, blobs and scratch are all on it."""
    disk = small_disk(tmp_path / "full", 48 * MIB)
    site = open_site(folder=disk, logs=tmp_path, reserve_bytes=0, put_off_seconds=0.3)
    site.start_api()
    site.start_worker()
    job_ids = [site.submit("link", number=1, total=8, seconds=0.1) for _ in range(3)]
    site.wait_for_step(job_ids[0])
    with site.http() as http:
        fill(disk / "ballast")
        time.sleep(4.0)
        statuses = {http.post("/v1/webhooks", json=webhook(i)).status_code for i in range(20)}
        looked = http.get(f"/v1/search-jobs/{job_ids[0]}")
        (disk / "ballast").unlink()
        wait_until(
            lambda: http.post("/v1/webhooks", json=webhook(0)).status_code == 201,
            timeout_s=PATIENCE_S,
        )
    for program in site.programs:  # as a supervisor would
        if not program.is_alive:
            program.start()
    site.wait_for_state(*job_ids)
    print(f"\nthe whole disk full: writes were answered with {statuses}, reads with 200")
    assert looked.status_code == 200
    assert statuses <= {201, 503}
    assert 503 in statuses
    for job_id in job_ids:
        assert num_evaluations(site.database, job_id) == 8 * EVALUATIONS_OF_LINK
    connection = sqlite3.connect(disk / "snugnet.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert_whole(site)
    assert_sound(site.database)


def webhook(number: int) -> dict[str, object]:
    """Something that is stored at once, and is not small."""
    return {"url": f"https://example.com/{number}/{'x' * 1500}", "kinds": ["job.succeeded"]}


def fill(path: Path) -> None:
    """To the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    assert shutil.disk_usage(path.parent).free < 4096


def told(site: Site, job_id: str) -> list[str]:
    with site.database.read() as session:
        query = select(Event.message).where(Event.job_id == job_id, Event.kind == "waiting")
        return list(session.scalars(query))


def assert_whole(site: Site) -> list[Path]:
    """Every blob is what its name says, and no unfinished one lies about."""
    root = site.settings.blobs_dir
    found = [path for path in root.rglob("*") if path.is_file()]
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
    return found
