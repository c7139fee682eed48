"""A broker that is killed, wiped, stalled and full: jobs wait for it, the API does not."""

from __future__ import annotations

import random
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.checks import assert_sound
from tests.chaos.conftest import OpenSite
from tests.chaos.programs import Program
from tests.chaos.site import PATIENCE_S, Site
from tests.workers.waiting import wait_until

pytestmark = pytest.mark.chaos

ONE_STEP = {"prepare": "tests.chaos.steps:patient"}


def broker_of(site: Site) -> Program:
    return site.programs[0]


def test_what_was_queued_outlives_a_kill_of_the_broker_and_a_torn_log(
    open_site: OpenSite,
) -> None:
    site = open_site(reconcile_seconds=600.0)  # nobody sends a lost message again
    site.start_dispatcher()
    job_ids = [site.submit("patient") for _ in range(40)]
    wait_until(lambda: site.redis.llen("light") == len(job_ids), timeout_s=PATIENCE_S)
    time.sleep(1.1)  # the log is synced every second
    broker = broker_of(site)
    broker.kill()
    (log,) = (site.folder / "valkey" / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$5\r\nLPUSH\r\n$5\r\nli")  # a write that the kill cut off
    broker.start()
    site.wait_for_broker()
    kept = site.redis.llen("light")
    site.start_worker()
    site.wait_for_state(*job_ids)
    print(f"\n{kept} of {len(job_ids)} messages were kept over kill -9 and a torn end of the log")
    assert kept == len(job_ids)
    assert_sound(site.database)


def test_jobs_end_though_the_broker_is_killed_under_load_and_idle(open_site: OpenSite) -> None:
    site = open_site()
    site.start_dispatcher()
    worker = site.start_worker()
    broker = broker_of(site)
    rng = random.Random(1)
    job_ids: list[str] = []
    for _ in range(4):
        job_ids += [site.submit("link", number=1, total=3, seconds=0.02) for _ in range(4)]
        time.sleep(rng.uniform(0.1, 1.0))
        broker.kill()
        time.sleep(rng.uniform(0.0, 0.5))
        broker.start()
    site.wait_for_state(*job_ids)
    broker.kill()  # idle
    broker.start()
    last = site.submit("link", number=1, total=1)
    site.wait_for_state(last)
    print(f"\n{len(job_ids) + 1} jobs ended over 5 kills of the broker, with one worker")
    assert worker.is_alive
    assert_sound(site.database)


def test_jobs_end_though_the_broker_is_wiped_all_along(open_site: OpenSite) -> None:
    site = open_site()
    site.start_dispatcher()
    site.start_worker()
    job_ids = [site.submit("link", number=1, total=5, seconds=0.05) for _ in range(4)]
    wiped = 0
    while any(site.state(job_id) != "succeeded" for job_id in job_ids):
        site.redis.flushall()
        wiped += 1
        time.sleep(0.5)
        assert wiped < 2 * PATIENCE_S
    print(f"\n{len(job_ids)} jobs of 5 steps ended over {wiped} times FLUSHALL")
    assert_sound(site.database)


def test_a_stalled_broker_delays_jobs_and_no_request(open_site: OpenSite, tmp_path: Path) -> None:
    site = open_site(step_handlers=ONE_STEP)
    site.start_api()
    site.start_worker()
    spec = site.upload_spec(tmp_path / "files")
    with site.http() as http:
        before = median_ms(http, spec)
        wait_until(lambda: http.get("/readyz").status_code == 200, timeout_s=PATIENCE_S)
        broker_of(site).freeze()
        wait_until(lambda: http.get("/readyz").status_code == 503, timeout_s=PATIENCE_S)
        assert http.get("/healthz").status_code == 200
        stalled = median_ms(http, spec)
        job_id = http.post("/v1/search-jobs", json=spec).json()["id"]
        assert http.get(f"/v1/search-jobs/{job_id}").json()["state"] == "queued"
        broker_of(site).thaw()
        wait_until(lambda: http.get("/readyz").status_code == 200, timeout_s=PATIENCE_S)
        items = http.get("/v1/search-jobs", params={"limit": 500}).json()["items"]
    print(f"\nmedians of a request: {before}; with a stalled broker {stalled}")
    site.wait_for_state(*(item["id"] for item in items))
    assert_sound(site.database)


def median_ms(http: httpx.Client, spec: dict[str, Any]) -> dict[str, float]:
    """Of submitting and of looking; every request must be answered well."""
    times: dict[str, list[float]] = {"submit": [], "get": []}
    for _ in range(15):
        started = time.perf_counter()
        created = http.post("/v1/search-jobs", json=spec)
        times["submit"].append(1000 * (time.perf_counter() - started))
        assert created.status_code == 201, created.text
        started = time.perf_counter()
        found = http.get(f"/v1/search-jobs/{created.json()['id']}")
        times["get"].append(1000 * (time.perf_counter() - started))
        assert found.status_code == 200
    return {f"{name} ms": round(statistics.median(ms), 1) for name, ms in times.items()}


def test_a_full_broker_delays_jobs_and_no_request(open_site: OpenSite, tmp_path: Path) -> None:
    site = open_site(step_handlers=ONE_STEP)
    site.start_api()
    worker = site.start_worker()
    spec = site.upload_spec(tmp_path / "files")
    with site.http() as http:
        first = http.post("/v1/search-jobs", json=spec).json()["id"]
        site.wait_for_state(first)
        site.redis.config_set("maxmemory", 1)
        answers = [http.post("/v1/search-jobs", json=spec) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {201}
        job_ids = [answer.json()["id"] for answer in answers]
        time.sleep(2.0)
        full = {site.state(job_id) for job_id in job_ids}
        site.redis.config_set("maxmemory", 0)
    site.wait_for_state(*job_ids)
    print(f"\n{len(job_ids)} jobs were {full} while the broker was full, and ran afterwards")
    assert full == {"queued"}
    assert worker.is_alive
    assert_sound(site.database)


def test_a_broker_that_fills_up_under_load_loses_no_job(open_site: OpenSite) -> None:
    site = open_site()
    site.start_dispatcher()
    worker = site.start_worker()
    # One that starts beside a full broker ends, and is started again by whoever keeps it up.
    site.wait_for_state(site.submit("link", number=1, total=1))
    job_ids = [site.submit("link", number=1, total=4, seconds=0.03) for _ in range(6)]
    stopping = threading.Event()

    def fill_and_empty() -> None:
        while not stopping.wait(0.7):
            site.redis.config_set("maxmemory", 1)
            stopping.wait(0.7)
            site.redis.config_set("maxmemory", 0)

    filler = threading.Thread(target=fill_and_empty)
    filler.start()
    try:
        site.wait_for_state(*job_ids)
    finally:
        stopping.set()
        filler.join()
    print(f"\n{len(job_ids)} jobs of 4 steps ended beside a broker that was full half of the time")
    assert worker.is_alive
    assert_sound(site.database)


def test_a_worker_whose_acknowledgement_was_cut_off_fetches_the_next_message(
    open_site: OpenSite,
) -> None:
    site = open_site()
    site.start_dispatcher()
    worker = site.start_worker()
    gate = site.folder / "gate"
    gate.touch()
    first = site.submit("patient")
    site.wait_for_step(first)
    broker = broker_of(site)
    broker.freeze()  # the acknowledgement will be on its way when the broker is killed
    gate.unlink()
    site.wait_for_state(first)
    time.sleep(0.5)
    broker.kill()
    broker.start()
    second = site.submit("patient")
    site.wait_for_state(second)
    print("\nkilled between an acknowledgement and its answer: the next job ran")
    assert "Couldn't ack" in worker.log.read_text()
    assert_sound(site.database)
