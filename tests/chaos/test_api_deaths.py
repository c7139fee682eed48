"""The API killed amid requests: what was answered is kept, what was not is done once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select, update

from service.database.db import epoch_now
from service.database.models import IdempotencyKey, Job, OutboxRow
from service.jobs.events import append_event
from service.steps.step_types import StepResult
from tests.chaos.checks import assert_sound
from tests.chaos.conftest import OpenSite
from tests.chaos.programs import Program
from tests.chaos.site import PATIENCE_S, Site, post_until_answered
from tests.service.api.test_api_event_streams import sent
from tests.service.helpers import claimed, finish
from tests.workers.waiting import wait_until

pytestmark = pytest.mark.chaos

ONE_STEP = {"prepare": "tests.chaos.steps:patient"}


def unsent(site: Site) -> int:
    with site.database.read() as session:
        query = select(func.count()).select_from(OutboxRow).where(OutboxRow.sent_at.is_(None))
        return session.execute(query).scalar_one()


def num_jobs(site: Site) -> int:
    with site.database.read() as session:
        return session.execute(select(func.count()).select_from(Job)).scalar_one()


def test_a_job_is_not_lost_between_the_commit_and_its_wakeup(
    open_site: OpenSite, tmp_path: Path
) -> None:
    site = open_site(step_handlers=ONE_STEP)
    api = site.start_api()
    spec = site.upload_spec(tmp_path / "files")
    # A broker that hangs keeps the dispatcher between the two for as long as the kill needs.
    (broker,) = (program for program in site.programs if program.name == "broker-0")
    broker.freeze()
    with site.http() as http:
        answers = [http.post("/v1/search-jobs", json=spec) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {201}
    api.kill()
    waiting = unsent(site)
    broker.thaw()
    job_ids = [answer.json()["id"] for answer in answers]
    assert {site.state(job_id) for job_id in job_ids} == {"queued"}
    api.start()
    site.start_worker()
    site.wait_for_state(*job_ids)
    print(f"\nkilled with {waiting} wake-ups unsent, all {len(job_ids)} jobs ran afterwards")
    assert waiting == len(job_ids)
    assert_sound(site.database)


def test_requests_that_were_cut_off_take_effect_once_when_sent_again(
    open_site: OpenSite, tmp_path: Path
) -> None:
    site = open_site(step_handlers=ONE_STEP)
    api = site.start_api()
    spec = site.upload_spec(tmp_path / "files")
    rng = random.Random(3)
    rounds, at_once, cut_off = 6, 4, 0
    with site.http(timeout_s=10.0) as http:
        for number in range(rounds):
            requests = [
                threading.Thread(target=post_once, args=(http, spec, f"{number}/{i}"))
                for i in range(at_once)
            ]
            for request in requests:
                request.start()
            time.sleep(rng.uniform(0.0, 0.12))
            api.kill()
            for request in requests:
                request.join()
            cut_off += forget_the_dead(site)
            api.start()
        keys = [f"{number}/{i}" for number in range(rounds) for i in range(at_once)]
        first = [post_until_answered(http, spec, key) for key in keys]
        again = [post_until_answered(http, spec, key) for key in keys]
    print(f"\n{len(keys)} requests, {rounds} kills, {cut_off} cut off before they took effect")
    assert first == again
    assert len(set(first)) == len(keys) == num_jobs(site)
    site.start_worker()
    site.wait_for_state(*first)
    assert_sound(site.database)


def post_once(http: httpx.Client, spec: dict[str, object], key: str) -> None:
    try:
        http.post("/v1/search-jobs", json=spec, headers={"Idempotency-Key": key})
    except httpx.TransportError:  # cut off
        return


def forget_the_dead(site: Site) -> int:
    """Let the leases of requests run out whose process is no more, as two minutes would."""
    with site.database.write() as session:
        held = (IdempotencyKey.status.is_(None), IdempotencyKey.lease_until > epoch_now())
        found = session.execute(
            update(IdempotencyKey)
            .where(*held)
            .values(lease_until=0.0)
            .returning(IdempotencyKey.key)
        )
        return len(found.all())


def test_a_stream_of_events_goes_on_over_restarts_without_loss_or_doubles(
    open_site: OpenSite,
) -> None:
    site = open_site()
    api = site.start_api()
    job_id = site.submit("link", number=1, total=1)  # nobody runs it: its events are written here
    read: list[int] = []
    reader = threading.Thread(target=follow, args=(site, job_id, read))
    reader.start()
    rng = random.Random(4)
    for _ in range(4):
        seen = len(read)
        writer = threading.Thread(target=write_events, args=(site, job_id, 40))
        writer.start()
        wait_until(lambda seen=seen: len(read) > seen + 5, timeout_s=PATIENCE_S)
        time.sleep(rng.uniform(0.0, 0.3))
        api.kill()
        writer.join()
        api.start()
    finish(site.database, claimed(site.database, job_id), StepResult(result={}))
    reader.join()
    last = site.job(job_id).last_event_seq
    print(f"\n{len(read)} events read over 4 kills of the API, the last one {last}")
    assert read == list(range(1, last + 1))
    assert last > 4 * 40


def follow(site: Site, job_id: str, read: list[int]) -> None:
    """As a browser does: come again, and say what the last one was."""
    path = f"/v1/search-jobs/{job_id}/events/stream"
    with site.http() as http:
        while True:
            headers = {"Last-Event-ID": str(read[-1])} if read else {}
            try:
                with http.stream("GET", path, headers=headers) as answer:
                    for message in sent(answer.iter_lines()):
                        if message.get("event") == "end":
                            return
                        read.append(int(message["id"]))
            except httpx.TransportError:  # killed
                continue


def write_events(site: Site, job_id: str, count: int) -> None:
    for number in range(count):
        with site.database.write() as session:
            append_event(session, job_id, "note", f"note {number}")
        time.sleep(0.01)


def test_an_api_that_is_told_to_end_finishes_what_it_was_asked(
    open_site: OpenSite, tmp_path: Path
) -> None:
    site = open_site(step_handlers=ONE_STEP)
    api = site.start_api()
    spec = site.upload_spec(tmp_path / "files")
    statuses: list[int] = []

    def post(number: int) -> None:
        with site.http() as http:
            answer = http.post("/v1/search-jobs", json={**spec, "name": f"job {number}"})
            statuses.append(answer.status_code)

    requests = [threading.Thread(target=post, args=(number,)) for number in range(6)]
    for request in requests:
        request.start()
    wait_until(lambda: statuses, timeout_s=PATIENCE_S)
    os.kill(api.pid, signal.SIGTERM)
    wait_until(lambda: not api.is_alive, timeout_s=PATIENCE_S)
    restart(api)
    for request in requests:
        request.join()
    print(f"\n{len(statuses)} requests around a SIGTERM, all answered {set(statuses)}")
    assert statuses == [201] * len(requests)
    assert num_jobs(site) == len(requests)


def restart(program: Program) -> None:
    program.start()
