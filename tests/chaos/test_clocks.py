"""Clocks that are days off, dispatchers beside each other: the database is asked for both."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from sqlalchemy import Float, func, select

from service.database.db import epoch_now
from service.database.models import Base, Step
from tests.chaos.checks import assert_sound
from tests.chaos.conftest import OpenSite
from tests.chaos.site import PATIENCE_S, Site
from tests.chaos.test_messages import message
from tests.workers.waiting import wait_until

pytestmark = pytest.mark.chaos

DAY_SECONDS = 86_400
HOOK = """
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {skew}
time.time_ns = lambda: _time_ns() + {skew} * 10**9
"""


def skewed(folder: Path, skew_seconds: int) -> dict[str, str]:
    """An environment in which a Python process believes in another time."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK.format(skew=skew_seconds))
    return {"PYTHONPATH": str(folder)}


def test_workers_whose_clocks_are_a_day_off_neither_lose_nor_steal_a_step(
    open_site: OpenSite, tmp_path: Path
) -> None:
    site = open_site(lease_seconds=2.0, heartbeat_seconds=0.3)
    started_at = now(site)
    site.start_api(**skewed(tmp_path / "api", -3 * DAY_SECONDS))
    for days in (1, -1):
        site.start_worker(**skewed(tmp_path / f"worker{days}", days * DAY_SECONDS))
    gate = site.folder / "gate"
    gate.touch()
    job_ids = [site.submit("patient") for _ in range(2)]  # one at each of them
    for job_id in job_ids:
        site.wait_for_step(job_id)
    held = [site.steps(job_id)[0] for job_id in job_ids]
    until = now(site) + 2 * site.settings.lease_seconds
    while now(site) < until:
        for step in held:  # whoever gets it shall find that it is held
            site.redis.lpush("light", json.dumps(message(step.id)))
        time.sleep(0.5)
        for job_id in job_ids:
            (step,) = site.steps(job_id)
            assert (step.state, step.attempts) == ("running", 1)
            assert step.lease_until is not None
            assert step.lease_until - now(site) <= site.settings.lease_seconds
    gate.unlink()
    chain = site.submit("link", number=1, total=6, seconds=0.05)
    site.wait_for_state(*job_ids, chain)
    ended_at = now(site) + site.settings.lease_seconds
    times = all_times(site)
    print(f"\n{len(times)} times written by clocks 1 and 3 days off, all of them the database's")
    assert all(started_at - 1 <= at <= ended_at for at in times)
    assert_sound(site.database)


def now(site: Site) -> float:
    with site.database.read() as session:
        return session.execute(select(epoch_now())).scalar_one()


def all_times(site: Site) -> list[float]:
    """Of everything that was written since the migrations."""
    found: list[float] = []
    with site.database.read() as session:
        for table in Base.metadata.sorted_tables:
            for column in table.columns:
                is_time = isinstance(column.type, Float) and re.search(r"(^|_)at$", column.name)
                if is_time and table.name != "tenants":
                    found += session.scalars(select(column).where(column.is_not(None)))
    assert found
    return found


def test_dispatchers_beside_each_other_send_more_and_do_no_more(open_site: OpenSite) -> None:
    site = open_site()
    site.start_api()  # with a third one
    dispatchers = [site.start_dispatcher() for _ in range(2)]
    workers = [site.start_worker() for _ in range(2)]
    job_ids = [site.submit("link", number=1, total=3, seconds=0.05) for _ in range(6)]
    site.wait_for_step(job_ids[0])
    dispatchers[0].kill()
    job_ids += [site.submit("link", number=1, total=3, seconds=0.05) for _ in range(6)]
    site.wait_for_state(*job_ids)
    wait_until(lambda: site.redis.llen("light") == 0, timeout_s=PATIENCE_S)
    with site.database.read() as session:
        attempts, num_steps = session.execute(
            select(func.sum(Step.attempts), func.count()).select_from(Step)
        ).one()
    answered = sum(w.log.read_text().count("a wake-up was answered") for w in workers)
    print(f"\n{answered} messages for {num_steps} steps of 3 dispatchers, one killed amid")
    assert attempts == num_steps == len(job_ids) * 3
    assert_sound(site.database)
