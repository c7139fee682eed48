"""Databases that restart in the middle of a transaction, and that somebody else keeps locked."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from service.database.models import Event
from service.jobs.events import append_event
from tests.chaos.checks import assert_sound, num_evaluations
from tests.chaos.conftest import OpenSite
from tests.chaos.site import PATIENCE_S, Site
from tests.chaos.steps import EVALUATIONS_OF_LINK
from tests.service.postgresql import PostgresqlServer
from tests.workers.waiting import wait_until

pytestmark = pytest.mark.chaos

LINKS = 6
LOCKED_SECONDS = 10.0


def test_postgresql_crashes_in_mid_transaction(
    open_site: OpenSite, postgresql_server: PostgresqlServer
) -> None:
    site = open_site("postgresql")
    api = site.start_api()
    worker = site.start_worker()
    job_ids = [site.submit("link", number=1, total=LINKS) for _ in range(2)]
    rng = random.Random(2)
    with site.http() as http:
        for _ in range(3):
            site.wait_for_step(job_ids[0] if site.running_step(job_ids[0]) else job_ids[1])
            time.sleep(rng.uniform(0.0, 0.5))
            with pytest.raises(OperationalError):
                write_half(site, job_ids[0], postgresql_server)
            wait_until(lambda: http.get("/readyz").status_code == 200, timeout_s=PATIENCE_S)
            assert http.get(f"/v1/search-jobs/{job_ids[0]}").status_code == 200
    site.wait_for_state(*job_ids)
    with site.database.read() as session:
        query = select(func.count()).where(Event.message == "half written")
        assert session.execute(query).scalar_one() == 0
    repeated = sum(step.attempts - 1 for job_id in job_ids for step in site.steps(job_id))
    print(f"\n2 jobs of {LINKS} steps ended over 3 crashes of PostgreSQL, {repeated} begun again")
    assert api.is_alive
    assert worker.is_alive
    assert_complete(site, job_ids)


def write_half(site: Site, job_id: str, server: PostgresqlServer) -> None:
    """A transaction that the database's end cuts off."""
    with site.database.write() as session:
        append_event(session, job_id, "note", "half written")
        server.crash()
        session.execute(text("SELECT 1"))


def test_sqlite_locked_by_another_writer(open_site: OpenSite) -> None:
    site = open_site()
    site.start_api()
    site.start_worker()
    job_ids = [site.submit("link", number=1, total=LINKS) for _ in range(2)]
    site.wait_for_step(job_ids[0])
    lock = threading.Thread(target=hold_lock, args=(site.folder / "snugnet.db",))
    read_meanwhile = 0
    with site.http() as http:  # before the lock: its key is written
        lock.start()
        while lock.is_alive():
            assert http.get(f"/v1/search-jobs/{job_ids[0]}").status_code == 200
            read_meanwhile += 1
            time.sleep(0.2)
    lock.join()
    site.wait_for_state(*job_ids)
    print(f"\nlocked for {LOCKED_SECONDS:g} s: {read_meanwhile} reads were answered, 2 jobs ended")
    assert read_meanwhile > 1
    assert_complete(site, job_ids)


def hold_lock(file: Path) -> None:
    connection = sqlite3.connect(file, isolation_level=None, timeout=60.0)
    connection.execute("BEGIN IMMEDIATE")
    time.sleep(LOCKED_SECONDS)
    connection.execute("ROLLBACK")
    connection.close()


def assert_complete(site: Site, job_ids: list[str]) -> None:
    for job_id in job_ids:
        assert num_evaluations(site.database, job_id) == LINKS * EVALUATIONS_OF_LINK
    assert len({str(site.job(job_id).result) for job_id in job_ids}) == 1
    assert_sound(site.database)
