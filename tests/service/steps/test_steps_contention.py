"""Processes that fight for steps, with leases so short that holders overrun them."""

from __future__ import annotations

import multiprocessing
import random
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from service.database.db import Database
from service.database.models import Event, Job, Step
from service.jobs import events
from service.jobs.events import append_event
from service.steps import steps
from service.steps.step_types import LeaseLost, NewStep, StepResult
from tests.service.helpers import create_job

NUM_PROCESSES = 6
NUM_JOBS = 8
LEASE_SECONDS = 0.1
CHAIN = ("one", "two", "three")


def work(url: str, seed: int) -> None:
    """Claim and finish whatever is open until every job has ended."""
    rng = random.Random(seed)
    database = Database(url)
    while True:
        with database.read() as session:
            open_ids = list(
                session.scalars(select(Step.id).where(Step.state.in_(("ready", "running"))))
            )
        if not open_ids:
            return
        with database.write() as session:
            # A held step must not become poison here, so it is claimed as if for the first time.
            step = session.get_one(Step, rng.choice(open_ids))
            step.attempts = 0
            session.flush()
            lease = steps.claim(session, step.id, f"worker {seed}", LEASE_SECONDS)
        if lease is not None:
            time.sleep(rng.choice((0.0, 0.01, 2 * LEASE_SECONDS)))
            _finish(database, lease)


def _finish(database: Database, lease: steps.StepLease) -> None:
    position = CHAIN.index(lease.kind) + 1
    if position < len(CHAIN):
        result = StepResult(output={}, next=NewStep(kind=CHAIN[position]))
    else:
        result = StepResult(result={})
    try:
        with database.write() as session:
            append_event(session, lease.job_id, "finished", lease.kind)
            steps.finish(session, lease, result)
    except LeaseLost:
        pass


def test_no_step_is_done_twice_by_six_processes(database: Database) -> None:
    job_ids = [create_job(database, kind=CHAIN[0]) for _ in range(NUM_JOBS)]
    _run_processes(work, database.url)

    with database.read() as session:
        states = set(session.scalars(select(Job.state)))
        per_kind = session.execute(
            select(Step.job_id, Step.kind, func.count()).group_by(Step.job_id, Step.kind)
        ).all()
        finished = session.scalar(
            select(func.count()).select_from(Event).where(Event.kind == "finished")
        )
    assert states == {"succeeded"}
    assert {count for _, _, count in per_kind} == {1}
    assert len(per_kind) == finished == NUM_JOBS * len(CHAIN)
    for job_id in job_ids:
        _assert_gap_free(database, job_id)


def write_events(database: Database, job_ids: list[str], seed: int) -> None:
    rng = random.Random(seed)
    for number in range(15):
        try:
            with database.write() as session:
                append_event(session, rng.choice(job_ids), "note", f"{seed}/{number}")
                if rng.random() < 0.3:
                    raise RuntimeError("rolled back: leaves no gap")
        except RuntimeError:
            pass


def test_events_of_concurrent_writers_have_no_gaps(database: Database) -> None:
    job_ids = [create_job(database) for _ in range(2)]
    with ThreadPoolExecutor(NUM_PROCESSES) as pool:
        list(pool.map(lambda seed: write_events(database, job_ids, seed), range(NUM_PROCESSES)))
    for job_id in job_ids:
        _assert_gap_free(database, job_id)


def _assert_gap_free(database: Database, job_id: str) -> None:
    with database.read() as session:
        seqs = [event.seq for event in events.list_events(session, job_id, limit=1000)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) > 1


def _run_processes(target: object, url: str) -> None:
    context = multiprocessing.get_context("forkserver")  # imports this module once for all
    context.set_forkserver_preload([__name__])
    processes = [
        context.Process(target=target, args=(url, seed))  # type: ignore[arg-type]
        for seed in range(NUM_PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * NUM_PROCESSES
