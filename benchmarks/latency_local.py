"""Onboards this machine through the service and its agent, and judges what was learnt.

For each runtime and precision: how many measurements and minutes it took, and how far off the
predictions are for 60 networks that the onboarding never saw. Then the same while another process
loads a core in bursts, judged by the quiet measurements, with what the anchors noticed.

python -m benchmarks.latency_local [--fresh 60] [--seed 0] [--quick]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.common import MINILM, report_result
from predictors.metrics import spearman, spearman_within
from predictors.predictor import anchors_ratio
from predictors.workload import Workload
from search.space import SearchSpace, SubnetConfig
from service.embedded.embedded import EmbeddedService

DEVICE = "this-cpu"
RUNTIMES = {"onnxruntime": ("fp32", "int8"), "openvino": ("fp32",)}
NETWORKS_PER_SESSION = 60
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Truth:
    """p50 of a network, and of the anchors in the session that measured it."""

    median_ms: float
    anchors_ms: tuple[float, ...]


Truths = dict[SubnetConfig, Truth]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fresh", type=int, default=60, help="unseen networks per precision")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few measurements, nothing kept")
    args = parser.parse_args()
    num_fresh = 6 if args.quick else args.fresh
    most = 12 if args.quick else 50
    quiet: dict[str, Any] = {}
    bursty: dict[str, Any] = {}
    with _service() as service:
        truths = {}
        for runtime, precisions in RUNTIMES.items():
            onboarding = service.onboard(runtime, precisions, most, args.seed)
            truths[runtime] = service.measure(runtime, _fresh(precisions, num_fresh, args.seed))
            quiet[runtime] = service.judge(runtime, onboarding, truths[runtime])
    with _service() as service, _bursts():
        for runtime, precisions in RUNTIMES.items():
            onboarding = service.onboard(runtime, precisions, most, args.seed + 1)
            bursty[runtime] = service.judge(runtime, onboarding, truths[runtime])
    report_result("latency_local", {"quiet": quiet, "bursty": bursty}, keep=not args.quick)
    return 0


class Service:
    """What the benchmark asks of the REST API."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def onboard(
        self, runtime: str, precisions: Sequence[str], most: int, seed: int
    ) -> dict[str, Any]:
        """A finished onboarding, with its sessions."""
        body = {
            "shape": MINILM.to_dict(),
            "space": {"precision": list(precisions)},
            "workload": _workload(runtime),
            "max_measurements": most,
            "seed": seed,
        }
        done = self._finished("onboardings", self._post(f"devices/{DEVICE}:onboard", body))
        sessions = self._items(f"devices/{DEVICE}/measuring-sessions")
        own = [s for s in sessions if s["workload"]["runtime"] == runtime]
        return {**done["result"], "sessions": own}

    def measure(self, runtime: str, subnets: Sequence[SubnetConfig]) -> Truths:
        """Of each network, as sessions of their own measured it."""
        found: dict[str, Truth] = {}
        for start in range(0, len(subnets), NETWORKS_PER_SESSION):
            part = subnets[start : start + NETWORKS_PER_SESSION]
            body = {
                "workload": _workload(runtime),
                "shape": MINILM.to_dict(),
                "subnets": [subnet.to_dict() for subnet in part],
                "rounds": 7,
                "repeats": 5,
            }
            job = self._finished("measurement-jobs", self._post(f"devices/{DEVICE}:measure", body))
            path = f"devices/{DEVICE}/measurements"
            rows = self._items(path, {"session": job["session_id"]})
            anchors_ms = self._anchors_ms(job["session_id"])
            found |= {
                row["subnet_fingerprint"]: Truth(row["median_ms"], anchors_ms) for row in rows
            }
        return {subnet: found[subnet.renumbered().fingerprint] for subnet in subnets}

    def judge(self, runtime: str, onboarding: Mapping[str, Any], truths: Truths) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "minutes": onboarding["minutes"],
            "noise_floor": float(
                np.median([s["summary"]["noise_floor"] for s in onboarding["sessions"]])
            ),
            "noisy_sessions": sum(s["is_noisy"] for s in onboarding["sessions"]),
            "noisy_blocks": [
                block for s in onboarding["sessions"] for block in s["summary"]["noisy_blocks"]
            ],
            "num_blocks": sum(s["summary"]["num_blocks"] for s in onboarding["sessions"]),
        }
        for precision in RUNTIMES[runtime]:
            subnets = [subnet for subnet in truths if subnet.precision == precision]
            body = {
                "shape": MINILM.to_dict(),
                "workload": _workload(runtime),
                "subnets": [subnet.to_dict() for subnet in subnets],
            }
            items = self._post(f"devices/{DEVICE}/predictors:predict", body)["items"]
            predictor_id = onboarding["predictors"][precision]
            stored = self._get(f"devices/{DEVICE}/predictors/{predictor_id}")
            anchors_ms = tuple(stored["payload"]["rows"][0]["anchors_ms"])
            figures[precision] = {
                "num_measurements": len(stored["payload"]["rows"]),
                "model": stored["fit_report"]["kinds"],
                **_errors(subnets, items, [truths[subnet] for subnet in subnets], anchors_ms),
            }
        return figures

    def _anchors_ms(self, session_id: str) -> tuple[float, ...]:
        sessions = self._items(f"devices/{DEVICE}/measuring-sessions")
        (session,) = [s for s in sessions if s["id"] == session_id]
        return tuple(anchor["median_ms"] for anchor in session["anchors"])

    def _finished(self, kind: str, started: Mapping[str, Any]) -> dict[str, Any]:
        while True:
            found = self._get(f"{kind}/{started['id']}")
            if found["state"] in ("succeeded", "done"):
                return found
            if found["state"] in ("failed", "cancelled"):
                raise RuntimeError(f"{kind} {started['id']}: {found}")
            time.sleep(POLL_S)

    def _items(self, path: str, params: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self._get(path, {**(params or {}), **cursor})
            items += page["items"]
            if not page.get("next_cursor"):
                return items
            cursor = {"cursor": page["next_cursor"]}

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = self._http.get(f"/v1/{path}", params=dict(params or {}))
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._http.post(f"/v1/{path}", json=dict(body))
        if answer.is_error:
            raise RuntimeError(f"{path}: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found


def _fresh(precisions: Sequence[str], num_fresh: int, seed: int) -> list[SubnetConfig]:
    """Random networks, by a seed that no onboarding uses."""
    rng = random.Random(f"fresh {seed}")
    space = SearchSpace.for_shape(MINILM)
    drawn: dict[SubnetConfig, None] = {}
    for precision in precisions:
        wanted = len(drawn) + num_fresh
        while len(drawn) < wanted:
            drawn[space.sample(rng).with_precision(precision)] = None
    return list(drawn)


def _errors(
    subnets: Sequence[SubnetConfig],
    items: Sequence[Mapping[str, Any]],
    truths: Sequence[Truth],
    anchors_ms: tuple[float, ...],
) -> dict[str, Any]:
    """A prediction refers to the session of its anchors: the machine's speed then and in the
    session that measured the truth is related by them. `unrelated_mape` leaves that out."""
    raw = np.array([truth.median_ms for truth in truths])
    factors = [anchors_ratio(anchors_ms, truth.anchors_ms) for truth in truths]
    measured = raw * factors
    mean, lower, upper = (
        np.array([item[name] for item in items]) for name in ("mean_ms", "lower_ms", "upper_ms")
    )
    errors = np.abs(mean / measured - 1)
    return {
        "num_fresh": len(subnets),
        "mape": float(errors.mean()),
        "unrelated_mape": float(np.abs(mean / raw - 1).mean()),
        "session_factor": float(np.median(factors)),
        "within_5": float((errors <= 0.05).mean()),
        "within_10": float((errors <= 0.10).mean()),
        "spearman": spearman(mean, measured),
        "spearman_equal_depth": spearman_within([s.num_layers for s in subnets], mean, measured),
        "coverage_90": float(((lower <= measured) & (measured <= upper)).mean()),
        "half_width": float(np.median((upper - lower) / 2 / mean)),
    }


def _workload(runtime: str) -> dict[str, Any]:
    workload = asdict(Workload(batch_size=1, seq_len=64, threads=1, runtime=runtime))
    return {name: value for name, value in workload.items() if name != "phase"}


@contextmanager
def _service() -> Iterator[Service]:
    """A service of its own: no predictor and no measurement of an earlier one helps."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedService(Path(folder) / "data") as instance,
        httpx.Client(
            base_url=instance.url,
            headers={"Authorization": f"Bearer {instance.api_key}"},
            timeout=60,
        ) as http,
    ):
        yield Service(http)


@contextmanager
def _bursts() -> Iterator[None]:
    """Another process that loads a core for up to two seconds, again and again."""
    process = multiprocessing.get_context("spawn").Process(target=_load, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _load() -> None:
    rng = random.Random(0)
    matrix = np.ones((256, 256))
    while True:
        end = time.monotonic() + rng.uniform(0.2, 2.0)
        while time.monotonic() < end:
            matrix = np.tanh(matrix @ matrix)
        time.sleep(rng.uniform(0.2, 3.0))


if __name__ == "__main__":
    raise SystemExit(main())
