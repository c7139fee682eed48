"""How often the network that a search would choose keeps its budget when it is measured.

Latency alone: no training. For each random budget the winner is the network with the most
multiply-adds, among thousands, whose predicted interval keeps the budget: the choice that exploits
a predictor's errors the most. A miss is repaired as jobs repair it: the measurement goes into the
predictor, the bound is tightened, another winner is measured.

python -m benchmarks.latency_contract [--budgets 30] [--onboardings 3] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.common import MINILM, report_result
from predictors.features import macs_per_byte
from predictors.key import predictor_key
from predictors.measuring import run_measuring_spec
from predictors.onboarding import OnboardingPlan, choose_networks
from predictors.probe import probe_device
from predictors.reach import fastest_ms
from predictors.rows import LatencyRow, rows_of
from predictors.spec import MeasuringResult
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.costs import flops
from search.space import SearchSpace, SubnetConfig

WORKLOAD = Workload(batch_size=1, seq_len=64, threads=1)
SPACE = SearchSpace.for_shape(MINILM)
POOL_SIZE = 3000
MAX_REPAIRS = 3
ROUNDS = 7
REPEATS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """A budget as a share of the unsearched model's latency, and the network chosen for it."""

    budget_ratio: float
    bound_ratio: float
    winner: SubnetConfig
    predicted_ratio: float
    measured_ratio: float | None = None
    repairs: int = 0
    rejected: tuple[SubnetConfig, ...] = ()

    @property
    def is_kept(self) -> bool:
        return self.measured_ratio is not None and self.measured_ratio <= self.budget_ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--budgets", type=int, default=30)
    parser.add_argument("--onboardings", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    promises: list[Promise] = []
    at_once = 0
    noisy = 0
    for number in range(args.onboardings):
        share = args.budgets // args.onboardings + (number < args.budgets % args.onboardings)
        first, settled, num_noisy = _one_onboarding(share, args.seed + 100 * number)
        at_once += first
        noisy += num_noisy
        promises += settled
    kept = sum(promise.is_kept for promise in promises)
    margins = [p.measured_ratio / p.budget_ratio for p in promises if p.measured_ratio is not None]
    report_result(
        "latency_contract",
        {
            "workload": WORKLOAD.to_dict(),
            "budgets": len(promises),
            "kept_at_once": at_once / len(promises),
            "kept_after_repair": kept / len(promises),
            "repairs": [promise.repairs for promise in promises],
            "measured_over_budget": {
                "median": float(np.median(margins)),
                "largest": float(np.max(margins)),
            },
            "prediction_error_median": float(
                np.median([abs(p.predicted_ratio / (p.measured_ratio or 1) - 1) for p in promises])
            ),
            "noisy_sessions": noisy,
            "wall_s": time.monotonic() - started,
            "promises": [_described(promise) for promise in promises],
        },
    )
    return 0 if kept == len(promises) else 1


def _one_onboarding(num_budgets: int, seed: int) -> tuple[int, list[Promise], int]:
    """How many budgets were kept at once, all of them as they ended, and noisy sessions."""
    plan = choose_networks(SPACE, MINILM, WORKLOAD, num_networks=40, num_holdout=0, seed=seed)
    result = _measure(plan.training, seed)
    predictor = _fit(result)
    rng = random.Random(seed)
    lowest = 1.15 * fastest_ms(predictor, SPACE) / predictor.reference_ms
    ratios = [float(np.exp(rng.uniform(np.log(lowest), 0.0))) for _ in range(num_budgets)]
    pools = [_pool(rng) for _ in ratios]
    promises = [
        _chosen(
            predictor,
            pool,
            Promise(
                budget_ratio=ratio, bound_ratio=ratio, winner=SPACE.smallest, predicted_ratio=0.0
            ),
        )
        for ratio, pool in zip(ratios, pools, strict=True)
    ]
    noisy = int(result.session.noisy)
    kept_at_once = 0
    for attempt in range(MAX_REPAIRS + 1):
        open_ = [i for i, promise in enumerate(promises) if not promise.is_kept]
        if not open_:
            break
        winners = list(dict.fromkeys(promises[i].winner for i in open_))
        measured = _measure(winners, seed + 1 + attempt)
        noisy += int(measured.session.noisy)
        rows = {row.subnet: row for row in rows_of(measured, WORKLOAD)}
        for i in open_:
            row = rows[promises[i].winner]
            ratio = row.median_ms / row.reference_ms
            promises[i] = replace(promises[i], measured_ratio=ratio)
        if attempt == 0:
            kept_at_once = sum(promise.is_kept for promise in promises)
        predictor, promises = _repair(predictor, promises, pools, rows, attempt)
    return kept_at_once, promises, noisy


def _repair(
    predictor: WorkloadPredictor,
    promises: list[Promise],
    pools: Sequence[Sequence[SubnetConfig]],
    rows: dict[SubnetConfig, LatencyRow],
    attempt: int,
) -> tuple[WorkloadPredictor, list[Promise]]:
    missed = [i for i, promise in enumerate(promises) if not promise.is_kept]
    if not missed or attempt == MAX_REPAIRS:
        return predictor, promises
    predictor = predictor.with_measurements(
        [rows[subnet] for subnet in dict.fromkeys(promises[i].winner for i in missed)]
    )
    for i in missed:
        promise = promises[i]
        assert promise.measured_ratio is not None
        overshoot = promise.measured_ratio / promise.budget_ratio
        tightened = replace(
            promise,
            bound_ratio=promise.bound_ratio / overshoot,
            repairs=promise.repairs + 1,
            rejected=(*promise.rejected, promise.winner),
            measured_ratio=None,
        )
        promises[i] = _chosen(predictor, pools[i], tightened)
    return predictor, promises


def _chosen(
    predictor: WorkloadPredictor, pool: Sequence[SubnetConfig], promise: Promise
) -> Promise:
    """With the largest network whose interval keeps the bound; the smallest where none does."""
    estimate = predictor.predict(pool)
    bound_ms = promise.bound_ratio * predictor.reference_ms
    fitting = [
        i
        for i, upper_ms in enumerate(estimate.upper_ms)
        if upper_ms <= bound_ms and pool[i] not in promise.rejected
    ]
    best = (
        max(fitting, key=lambda i: flops(MINILM, pool[i], seq_len=WORKLOAD.seq_len))
        if fitting
        else int(np.argmin(estimate.upper_ms))
    )
    predicted = float(estimate.mean_ms[best]) / predictor.reference_ms
    return replace(promise, winner=pool[best], predicted_ratio=predicted)


def _pool(rng: random.Random) -> list[SubnetConfig]:
    drawn = [SPACE.sample(rng) for _ in range(POOL_SIZE)]
    return list(dict.fromkeys([*SPACE.uniform(), *drawn]))


def _measure(subnets: Sequence[SubnetConfig], seed: int) -> MeasuringResult:
    plan = OnboardingPlan(training=tuple(subnets), holdout=())
    spec = plan.to_spec(MINILM, WORKLOAD, rounds=ROUNDS, repeats=REPEATS, seed=seed)
    return run_measuring_spec(spec, max_sessions=2)


def _fit(result: MeasuringResult) -> WorkloadPredictor:
    device = probe_device()
    return WorkloadPredictor.fit(
        rows_of(result, WORKLOAD),
        keys={p: predictor_key(device, WORKLOAD, p) for p in SPACE.precision},
        shape=MINILM,
        workload=WORKLOAD,
        macs_per_byte={p: macs_per_byte(result.peaks, p) for p in SPACE.precision},
    )


def _described(promise: Promise) -> dict[str, Any]:
    names = ("budget_ratio", "predicted_ratio", "measured_ratio", "repairs", "is_kept")
    return {name: getattr(promise, name) for name in names}


if __name__ == "__main__":
    raise SystemExit(main())
