"""Hundreds of small jobs, while something is killed every few seconds.

SNUGNET_SOAK_JOBS sets how many jobs, SNUGNET_SOAK_DATABASE=postgresql the other database.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from service.database.models import (
    ArtifactRow,
    BlobReference,
    EvaluationRow,
    Job,
    MeasurementJob,
    MeasurementRow,
    OutboxRow,
    Step,
    UploadFile,
)
from tests.chaos.agent import QuickAgent
from tests.chaos.checks import TERMINAL, assert_sound
from tests.chaos.conftest import OpenSite
from tests.chaos.programs import Program, left_behind
from tests.chaos.site import Site, post_until_answered
from tests.chaos.steps import EVALUATIONS_OF_PART, HANDLERS, PARTS
from tests.service.measuring import measuring_spec
from tests.workers.conftest import REPOSITORY, environment_of
from tests.workers.waiting import wait_until

pytestmark = pytest.mark.chaos

# Read at import: what a test is run with is taken from its environment.
NUM_JOBS = int(os.environ.get("SNUGNET_SOAK_JOBS", "500"))
DIALECT = os.environ.get("SNUGNET_SOAK_DATABASE", "sqlite")

ARTIFACTS_OF_JOB = PARTS + 1
SUBMITTERS = 2
OPEN_JOBS = 60  # at a time, so that the last ones are harmed as much as the first
STEPS_BETWEEN_KILLS = (40, 80)
SEED = 11
SETTINGS = {"lease_seconds": 6.0, "heartbeat_seconds": 1.0, "reconcile_seconds": 2.0}


class Soak:
    def __init__(self, site: Site, spec: dict[str, Any]) -> None:
        self.site = site
        self._spec = spec
        self._rng = random.Random(SEED)
        self._stopping = threading.Event()
        self.broker = site.programs[0]
        self.api = site.start_api()
        self.dispatcher = site.start_dispatcher()
        self.workers = [site.start_worker() for _ in range(2)]
        self.kills: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    # --- users ------------------------------------------------------------------------------

    @contextmanager
    def users(self) -> Iterator[None]:
        """Some submit, one changes its mind; to be left when all jobs have ended."""
        with ThreadPoolExecutor(SUBMITTERS + 1) as pool:
            numbers = iter(range(NUM_JOBS))
            found = [pool.submit(self._submit, numbers) for _ in range(SUBMITTERS)]
            found.append(pool.submit(self._change_minds))
            try:
                yield
            finally:
                self._stopping.set()
            for one in found:
                one.result()

    def _submit(self, numbers: Iterator[int]) -> None:
        with self.site.http(timeout_s=30.0) as http:
            for number in numbers:
                spec = {**self._spec, "name": f"job {number}"}
                post_until_answered(http, spec, f"soak/{number}", patience_s=600.0)
                while self._num_open() >= OPEN_JOBS and not self._stopping.is_set():
                    time.sleep(0.5)

    def _num_open(self) -> int:
        with self.site.database.read() as session:
            query = select(func.count()).where(Job.state.not_in(TERMINAL))
            return session.execute(query).scalar_one()

    def _change_minds(self) -> None:
        """Jobs are paused and resumed, or cancelled, and some of those tried again."""
        rng = random.Random(SEED + 1)
        ways = (("pause", "resume"), ("pause", "resume"), ("cancel", "retry"), ("cancel",))
        with self.site.http(timeout_s=30.0) as http:
            while not self._stopping.wait(0.5):
                job_id = self._any_open_job(rng)
                for verb in rng.choice(ways) if job_id else ():
                    self._ask(http, job_id, verb)
                    self._stopping.wait(rng.uniform(0.0, 1.0))

    def _any_open_job(self, rng: random.Random) -> str:
        with self.site.database.read() as session:
            open_ids = session.scalars(select(Job.id).where(Job.state == "running")).all()
        return rng.choice(open_ids) if open_ids else ""

    def _ask(self, http: httpx.Client, job_id: str, verb: str) -> None:
        """Until it was answered: a paused job that nobody resumes would never end."""
        while True:
            try:
                answer = http.post(f"/v1/search-jobs/{job_id}:{verb}")
            except httpx.TransportError:
                continue
            if answer.is_success:
                self.asked[verb] += 1
                return
            assert answer.status_code in (409, 503), answer.text
            if answer.status_code == httpx.codes.CONFLICT and not self._is_stopping(job_id):
                return  # it has ended meanwhile
            time.sleep(0.2)

    def _is_stopping(self, job_id: str) -> bool:
        return self.site.state(job_id) in ("cancelling", "pausing")

    # --- harm -------------------------------------------------------------------------------

    def harm_until_all_ended(self) -> None:
        """By steps done, not by time: a slow machine would be killed and do nothing else."""
        due = 20
        while not self._have_all_ended():
            num_done = self._num_done()
            if num_done >= due:
                self._harm()
                due = num_done + self._rng.randint(*STEPS_BETWEEN_KILLS)
            time.sleep(0.3)

    def _num_done(self) -> int:
        with self.site.database.read() as session:
            query = select(func.count()).where(Step.state == "done")
            return session.execute(query).scalar_one()

    def _have_all_ended(self) -> bool:
        with self.site.database.read() as session:
            states = Counter(session.scalars(select(Job.state)))
        return states.total() == NUM_JOBS and not states.keys() - set(TERMINAL)

    def _harm(self) -> None:
        worker = self._rng.choice(self.workers)
        ways: list[tuple[str, Program, Callable[[Program], None]]] = [
            ("child", worker, Program.kill_child),
            ("worker", worker, Program.kill),
            ("group", worker, Program.kill_group),
            ("api", self.api, Program.kill),
            ("dispatcher", self.dispatcher, Program.kill),
            ("broker", self.broker, Program.kill),
        ]
        untried = [one for one in ways if one[0] not in self.kills]
        name, program, way = self._rng.choice(untried or ways)
        way(program)
        self.kills[name] += 1
        for one in self.site.programs:  # whatever ended, as a supervisor would
            if not one.is_alive:
                one.start()


def test_many_small_jobs_under_random_kills(open_site: OpenSite, tmp_path: Path) -> None:
    handlers = {**HANDLERS, "prepare": HANDLERS["begin"]}
    site = open_site(DIALECT, step_handlers=handlers, **SETTINGS)
    starter = site.start_api()
    spec = site.upload_spec(tmp_path / "files")
    starter.close()
    site.programs.remove(starter)
    soak = Soak(site, spec)
    started = time.monotonic()
    with QuickAgent(site) as agent:
        with soak.users():
            soak.harm_until_all_ended()
        soak.harm_until_all_ended()  # the last that was cancelled may have been tried again
    took_s = time.monotonic() - started
    counts = assert_nothing_lost(site)
    print(
        f"\n{NUM_JOBS} jobs in {took_s:.0f} s on {DIALECT} ({NUM_JOBS / took_s:.1f} a second), "
        f"{sum(soak.kills.values())} kills {dict(soak.kills)}, asked {dict(soak.asked)}"
    )
    print(f"{counts}, {agent.num_measured} measured, {agent.num_refused} results refused")
    assert set(soak.kills) == {"child", "worker", "group", "api", "dispatcher", "broker"}
    assert_no_file_lost(site)
    assert_nobody_left(site)


def assert_nothing_lost(site: Site) -> dict[str, Any]:
    assert_sound(site.database)
    with site.database.read() as session:
        names = Counter(session.scalars(select(Job.name)))
        states = Counter(session.scalars(select(Job.state)))
        steps, attempts = session.execute(
            select(func.count(), func.sum(Step.attempts)).select_from(Step)
        ).one()
        done = select(Job.id).where(Job.state == "succeeded")
        expected = (
            (EvaluationRow, PARTS * EVALUATIONS_OF_PART),
            (ArtifactRow, ARTIFACTS_OF_JOB),
            (Step, PARTS + 3),
        )
        for table, of_job in expected:
            query = select(table.job_id, func.count()).where(table.job_id.in_(done))
            found = {count for _, count in session.execute(query.group_by(table.job_id))}
            assert found == {of_job}, table
        measured = Counter(
            session.scalars(select(MeasurementJob.job_id).where(MeasurementJob.state == "done"))
        )
        num_measurements = session.scalar(select(func.count()).select_from(MeasurementRow))
        unsent = (
            select(func.count()).select_from(OutboxRow).join(Step, Step.id == OutboxRow.step_id)
        )
        assert session.scalar(unsent.where(Step.state == "ready")) == 0
        reasons = set(session.scalars(select(Job.reason_code).where(Job.state == "failed")))
    assert names == {f"job {number}": 1 for number in range(NUM_JOBS)}
    assert set(states) <= {"succeeded", "cancelled"}, reasons
    assert states["succeeded"] > 0.5 * NUM_JOBS
    assert set(measured.values()) == {1}
    of_session = 1 + len(measuring_spec().networks)
    return {
        "states": dict(states),
        "steps": steps,
        "begun again": attempts - steps,
        "sessions": len(measured),
        "rows": (num_measurements, of_session),
    }


def assert_no_file_lost(site: Site) -> None:
    """Once the killed have been swept up, files and their names are the same."""
    collect_garbage(site)
    with site.database.read() as session:
        named = {
            sha256
            for table in (ArtifactRow, BlobReference, UploadFile)
            for sha256 in session.scalars(select(table.sha256))
        }
    files = [path for path in site.settings.blobs_dir.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {len(named)} names")
    assert {path.name for path in files} == named


def collect_garbage(site: Site) -> None:
    environment = {**os.environ, **environment_of(site.settings), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-P", "-m", "tests.workers.snugnet", "gc"]
    subprocess.run(
        command,
        env={**environment, "SNUGNET_GC_GRACE_HOURS": "0"},
        check=True,
        capture_output=True,
    )


def assert_nobody_left(site: Site) -> None:
    """Whoever is told to end does, and nobody was forgotten."""
    for program in reversed(site.programs):
        program.terminate()
    wait_until(lambda: not left_behind(site.folder))
