"""What the service takes: `python -m benchmarks.service` (about 15 minutes; `--quick` takes two).

On SQLite and on PostgreSQL, ten thousand jobs in the table: latency of GET, of lists and of
submissions at a planned rate, how fast events reach two hundred streams, memory of the API. Then
the embedded service as `snugnet up` starts it: CPU while idle, and how long after the death of a
worker its step runs again. Each figure is the median of runs; the load comes from a process of its
own (`benchmarks.open_loop`), which shares the cores with the service.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, get_args

from benchmarks.common import report_result
from benchmarks.open_loop import Plan
from benchmarks.served import TEAMS, Dialect, Served, served
from benchmarks.worker_deaths import Embedded, embedded, idle_share, seconds_to_run_again
from service.jobs.events import append_event

WANTED = {
    "get_p99_ms": 25.0,
    "submit_p99_ms": 60.0,
    "memory_mb": 150.0,
    "runs_again_s": 45.0,
}
ROOT = Path(__file__).parents[1]
NUM_STREAMS, NUM_WATCHED = 200, 20
STREAMS_OUTLIVE_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    num_jobs: int
    num_runs: int
    seconds: float
    num_streams: int
    idle_seconds: float
    num_deaths: int
    settle_seconds: float


FULL = Effort(
    num_jobs=10_000,
    num_runs=3,
    seconds=8.0,
    num_streams=NUM_STREAMS,
    idle_seconds=60.0,
    num_deaths=3,
    settle_seconds=20.0,
)
QUICK = Effort(
    num_jobs=200,
    num_runs=1,
    seconds=1.0,
    num_streams=10,
    idle_seconds=2.0,
    num_deaths=0,
    settle_seconds=0.0,
)
TINY = replace(QUICK, num_jobs=60, seconds=0.4, num_streams=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--only", choices=(*get_args(Dialect), "embedded"))
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    figures: dict[str, Any] = {"priority": os.nice(0), "wanted": WANTED, "effort": asdict(effort)}
    for dialect in get_args(Dialect):
        if options.only in (None, dialect):
            figures[dialect] = under_load(dialect, effort)
    if options.only in (None, "embedded"):
        figures["embedded"] = _embedded(effort)
    report_result("service", figures, keep=not options.quick and options.only is None)


# --- under load --------------------------------------------------------------------------------


def under_load(dialect: Dialect, effort: Effort) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="snugnet-") as folder,
        served(Path(folder), dialect, effort.num_jobs) as api,
    ):
        time.sleep(effort.settle_seconds)
        at_first = api.memory_mb
        spec = json.dumps(api.spec)
        gets = [("GET", f"/v1/search-jobs/{job_id}", None) for job_id in _spread(api.job_ids)]
        running = [("GET", f"/v1/search-jobs/{job_id}", None) for job_id in api.running_ids]
        submits = [("POST", "/v1/search-jobs", spec)]
        found = {
            "get": _at_rate(api, gets, 200.0, effort),
            "get_running": _at_rate(api, running, 200.0, effort),
            "list": _at_rate(api, _lists(), 20.0, effort),
            "streams": _streams(api, effort),
            "at_most": {
                "get_per_s": _at_most(api, gets, effort),
                "list_per_s": _at_most(api, _lists(), effort),
            },
            "submit": _at_rate(api, submits, 50.0, effort),
        }
        found["at_most"]["submit_per_s"] = _at_most(api, submits, effort)
        return {**found, "memory": {"at_first": at_first, "after": api.memory_mb}}


def _spread(ids: Sequence[str]) -> list[str]:
    """All over the table, not one page of it after the other."""
    return [ids[7919 * index % len(ids)] for index in range(min(2000, len(ids)))]


def _lists() -> list[tuple[str, str, str | None]]:
    filters = ["", "&state=running", "&state=failed", "&label=team%3Dred"]
    filters += [f"&state=succeeded&label=team%3D{team}&label=run%3D7" for team in TEAMS]
    return [("GET", f"/v1/search-jobs?limit=50{text}", None) for text in filters]


def _at_rate(api: Served, requests: Any, per_second: float, effort: Effort) -> dict[str, Any]:
    runs = []
    for _ in range(effort.num_runs):
        busy = api.cpu_seconds
        plan = Plan(
            url=api.url,
            key=api.key,
            requests=requests,
            kind="open",
            seconds=effort.seconds,
            per_second=per_second,
            warm_up_s=min(2.0, effort.seconds / 2),
        )
        loaded = _load(plan)
        assert all(int(status) < 300 for status in loaded["statuses"]), loaded["statuses"]
        runs.append(
            {
                "p50_ms": _share(loaded["latencies_ms"], 0.5),
                "p99_ms": _share(loaded["latencies_ms"], 0.99),
                "most_ms": max(loaded["latencies_ms"]),
                "late_p99_ms": _share(loaded["late_ms"], 0.99),
                "cpu_share": (api.cpu_seconds - busy) / (plan.seconds + plan.warm_up_s),
            }
        )
    return {"per_second": per_second, **_medians(runs), "runs": _rounded(runs)}


def _at_most(api: Served, requests: Any, effort: Effort) -> float:
    """Answers a second on sixteen connections that wait for nothing."""
    plan = Plan(
        url=api.url, key=api.key, requests=requests, kind="closed", seconds=effort.seconds / 2
    )
    runs = [_load(plan) for _ in range(min(3, effort.num_runs))]
    per_second = median(len(run["latencies_ms"]) / run["seconds"] for run in runs)
    return round(float(per_second), 1)


def _streams(api: Served, effort: Effort) -> dict[str, Any]:
    """Events of jobs that several streams watch each, written as a worker would, by another
    process than the API's."""
    watched = api.running_ids[:NUM_WATCHED]
    watchers = [watched[index % len(watched)] for index in range(effort.num_streams)]
    paths = [f"/v1/search-jobs/{job_id}/events/stream?after=0" for job_id in watchers]
    seconds = 2 * effort.seconds
    runs = []
    for _ in range(min(3, effort.num_runs)):
        plan = Plan(
            url=api.url,
            key=api.key,
            requests=[("GET", path, None) for path in paths],
            kind="streams",
            seconds=seconds + STREAMS_OUTLIVE_SECONDS,
        )
        with _loading(plan) as loading:
            busy, began = api.cpu_seconds, time.monotonic()
            committed = _write_events(api, watched, seconds)
            cpu_share = (api.cpu_seconds - busy) / (time.monotonic() - began)
        delays = [
            1000 * (at - committed[path.split("/")[3], seq])
            for path, seq, at in loading.loaded["arrivals"]
            if (path.split("/")[3], seq) in committed
        ]
        assert len(delays) == sum(watchers.count(job_id) for job_id, _ in committed)
        runs.append(
            {
                "p50_ms": _share(delays, 0.5),
                "p99_ms": _share(delays, 0.99),
                "cpu_share": cpu_share,
                "num_arrivals": len(delays),
            }
        )
    return {"num_streams": effort.num_streams, **_medians(runs), "runs": _rounded(runs)}


def _write_events(api: Served, job_ids: Sequence[str], seconds: float) -> dict[Any, float]:
    """Five a second, each on the next job; when each was committed."""
    committed: dict[Any, float] = {}
    deadline, index = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        job_id = job_ids[index % len(job_ids)]
        with api.database.write() as session:
            seq = append_event(session, job_id, "log", "something happened", {"n": index})
        committed[job_id, seq] = time.time()
        index += 1
        time.sleep(0.2)
    return committed


# --- the client's process ----------------------------------------------------------------------


class _Loading:
    loaded: dict[str, Any]


@contextmanager
def _loading(plan: Plan) -> Iterator[_Loading]:
    """The load beside the block, which begins once all streams are open; what came of it, after
    the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.open_loop"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asdict(plan)))
    process.stdin.close()
    killer = threading.Timer(plan.seconds + 120.0, process.kill)
    killer.start()
    loading = _Loading()
    try:
        if plan.kind == "streams":
            assert process.stdout.readline() == "open\n", "the streams did not open"
        yield loading
        loading.loaded = json.loads(process.stdout.read())
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def _load(plan: Plan) -> dict[str, Any]:
    with _loading(plan) as loading:
        pass
    return loading.loaded


# --- the embedded service ----------------------------------------------------------------------


def _embedded(effort: Effort) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="snugnet-") as folder,
        embedded(Path(folder) / "data") as service,
    ):
        time.sleep(effort.settle_seconds)
        idle = idle_share(service, effort.idle_seconds)
        deaths = range(effort.num_deaths)
        child = [seconds_to_run_again(service, Embedded.pool_children) for _ in deaths]
        group = [seconds_to_run_again(service, Embedded.group) for _ in deaths]
    return {
        "idle_cpu_share": round(idle, 4),
        "runs_again_s": {
            "pool_child_killed": [round(seconds, 1) for seconds in child],
            "worker_and_pool_killed": [round(seconds, 1) for seconds in group],
        },
    }


# --- figures -----------------------------------------------------------------------------------


def _share(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(median(run[name] for run in runs), 3) for name in runs[0]}


def _rounded(runs: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: round(value, 3) for name, value in run.items()} for run in runs]


if __name__ == "__main__":
    main()
