"""Workers that are killed, told to end, and frozen beyond their leases."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from service.database.models import Step
from tests.chaos.checks import assert_sound, num_evaluations
from tests.chaos.conftest import DIALECTS, OpenSite
from tests.chaos.programs import Program
from tests.chaos.site import ENDED, PATIENCE_S, Site
from tests.chaos.steps import EVALUATIONS_OF_LINK
from tests.workers.small_steps import read_log
from tests.workers.waiting import wait_until
from workers.owners import Owner

pytestmark = pytest.mark.chaos

WAYS: tuple[Callable[[Program], None], ...] = (
    Program.kill_child,
    Program.kill,
    Program.kill_group,
    Program.terminate,
)
ROUNDS = 3
LINKS = 6
SEED = 5


@pytest.mark.parametrize("dialect", DIALECTS)
def test_jobs_outlive_kills_at_random_points(open_site: OpenSite, dialect: str) -> None:
    site = open_site(dialect)
    site.start_dispatcher()
    workers = [site.start_worker() for _ in range(2)]
    rng = random.Random(SEED)
    ways = list(WAYS) * ROUNDS
    rng.shuffle(ways)
    job_ids = [site.submit("link", number=1, total=LINKS)]
    killed_in: dict[str, str] = {}
    for way in ways:
        step = next_step(site, job_ids, killed_in)
        time.sleep(rng.uniform(0.0, 0.7))
        while (worker := holder_of(step, workers)) is None:
            # The one before went on to this step just when it was killed.
            killed_in[step.id] = "by the way"
            step = next_step(site, job_ids, killed_in)
        way(worker)
        killed_in[step.id] = way.__name__
        if not worker.is_alive:
            worker.start()
    site.wait_for_state(*job_ids)
    steps = [step for job_id in job_ids for step in site.steps(job_id)]
    repeated = [killed_in.get(step.id, "by the way") for step in steps if step.attempts > 1]
    print(f"\n{dialect}: {len(ways)} kills in {len(steps)} steps, {len(repeated)} begun again")
    assert len(steps) == len(job_ids) * LINKS
    assert repeated
    # What was told to end gave its step back: that was no attempt.
    assert "terminate" not in repeated
    for job_id in job_ids:
        assert num_evaluations(site.database, job_id) == LINKS * EVALUATIONS_OF_LINK
    assert len({str(site.job(job_id).result) for job_id in job_ids}) == 1
    assert_sound(site.database)


def next_step(site: Site, job_ids: list[str], killed_in: dict[str, str]) -> Step:
    """One that runs, of the last job or a new one. Each is killed once: what is killed again and
    again is poison, and rightly so."""
    found: list[Step] = []

    def look() -> bool:
        if site.state(job_ids[-1]) in ENDED:
            job_ids.append(site.submit("link", number=1, total=LINKS))
        step = site.running_step(job_ids[-1])
        found.extend([step] if step is not None and step.id not in killed_in else [])
        return bool(found)

    wait_until(look, timeout_s=PATIENCE_S)
    return found[-1]


def holder_of(step: Step, workers: list[Program]) -> Program | None:
    owner = Owner.parse(step.owner or "")
    assert owner is not None
    return next((worker for worker in workers if worker.pid == owner.worker_pid), None)


def test_a_worker_frozen_beyond_its_lease_changes_nothing_when_it_wakes(
    open_site: OpenSite,
) -> None:
    site = open_site(lease_seconds=2.0, heartbeat_seconds=0.2)
    site.start_dispatcher()
    gate = site.folder / "gate"
    gate.touch()
    frozen = site.start_worker()
    job_id = site.submit("stubborn")
    site.wait_for_step(job_id)
    freeze_between_writes(frozen, site)
    time.sleep(2 * site.settings.lease_seconds)

    site.start_worker()
    site.wait_for_state(job_id)
    finished = site.job(job_id)
    gate.unlink()
    frozen.thaw()
    wait_until(lambda: "what this attempt did is dropped" in frozen.log.read_text())

    (step,) = site.steps(job_id)
    ends = [attempt for _, attempt, _, what in read_log(site.folder) if what == "end"]
    print(f"\nthe attempts {ends} came to their ends, token {step.token} was taken")
    assert ends == [2, 1]
    assert (step.state, step.token, step.attempts) == ("done", 2, 2)
    after = site.job(job_id)
    assert after.result == finished.result == {"attempt": 2}
    assert (after.version, after.last_event_seq) == (finished.version, finished.last_event_seq)
    assert_sound(site.database)
    # It is as good as any other worker again.
    site.programs[-1].close()
    again = site.submit("patient")
    site.wait_for_state(again)


def freeze_between_writes(worker: Program, site: Site) -> None:
    """SQLite's one lock, held by somebody frozen, would hold up everybody: no matter of leases."""
    database = str(site.settings.data_dir / "snugnet.db")
    while True:
        worker.freeze()
        with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                worker.thaw()
                time.sleep(0.1)
            else:
                return


def test_a_child_that_starts_slowly_is_waited_for(open_site: OpenSite, tmp_path: Path) -> None:
    """As on a machine that is busy: Celery by itself would kill it again and again."""
    site = open_site()
    site.start_dispatcher()
    hook = "import sys, time\nif '--billiard-fork' in sys.orig_argv: time.sleep(6)\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    worker = site.start_worker(PYTHONPATH=str(tmp_path))
    job_id = site.submit("patient")
    site.wait_for_state(job_id)
    log = worker.log.read_text()
    print("\na child that took 6 s longer to start ran its step")
    assert "Timed out waiting for UP" not in log
