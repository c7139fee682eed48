"""Which networks to measure on a device, and when enough have been measured.

First those that span the space; then, where intervals near the budgets are still too wide, the
ones there that the predictor is least sure of.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from predictors.features import latency_terms, points_of
from predictors.spec import REFERENCE_KEY, MeasuringSpec, NetworkSpec
from predictors.workload import Workload
from predictors.workload_predictor import WorkloadPredictor
from search.shape import ModelShape
from search.space import SearchSpace, SubnetConfig

POOL_SIZE = 1000  # random networks of each precision, of which those to measure are picked
MAX_DRAWS_PER_NETWORK = 50
NEAR_BUDGET = 0.25  # latencies within this share of a budget are in question there
MIN_NEAR = 10  # networks, or else the nearest so many
DEFAULT_TOLERANCE = 0.05
CHECKED_NETWORKS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class OnboardingPlan:
    """Networks to fit a predictor on, and random others to judge it by."""

    training: tuple[SubnetConfig, ...]
    holdout: tuple[SubnetConfig, ...]

    def purposes(self) -> dict[str, str]:
        """What each network is measured for, by its key in `to_spec`."""
        fitted = {f"n{i}": "onboarding" for i in range(len(self.training))}
        return fitted | {f"h{i}": "holdout" for i in range(len(self.holdout))}

    def to_spec(
        self, shape: ModelShape, workload: Workload, *, rounds: int, repeats: int, seed: int
    ) -> MeasuringSpec:
        """Training networks are called n0, n1, ... and held-out ones h0, h1, ..."""
        named = [(f"n{i}", subnet) for i, subnet in enumerate(self.training)]
        named += [(f"h{i}", subnet) for i, subnet in enumerate(self.holdout)]
        return MeasuringSpec(
            workload=workload,
            shape=shape,
            reference=NetworkSpec(key=REFERENCE_KEY, subnet=SubnetConfig.full(shape)),
            networks=tuple(NetworkSpec(key=key, subnet=subnet) for key, subnet in named),
            rounds=rounds,
            repeats=repeats,
            seed=seed,
        )


def choose_networks(
    space: SearchSpace,
    shape: ModelShape,
    workload: Workload,
    *,
    num_networks: int = 32,
    num_holdout: int = 8,
    seed: int = 0,
) -> OnboardingPlan:
    """Networks that span the space, half of them in each precision, and random held-out ones.

    Always measured: the smallest and the largest of the space in each precision, and the
    unsearched model in each. The rest are k-centers: each the farthest, in log terms, from all
    that are chosen. That halved the worst case of a random choice on public data. A space with
    fewer networks than asked for is measured whole, a third of it held out.
    """
    rng = random.Random(seed)
    holdout = _holdout(space, min(num_holdout, space.num_networks // 3), rng)
    per_precision = -(-num_networks // len(space.precision))
    training: list[SubnetConfig] = []
    for precision in space.precision:
        fixed = [
            subnet.with_precision(precision)
            for subnet in (space.smallest, space.largest, SubnetConfig.full(shape))
        ]
        pool = _pool(space, precision, rng)
        candidates = [s for s in _distinct([*fixed, *pool]) if s not in set(holdout) - set(fixed)]
        terms = _log_terms(shape, workload, candidates)
        num_fixed = len(_distinct(fixed))
        picked = k_center(terms, num_fixed, min(per_precision, len(candidates)))
        training += [candidates[i] for i in picked]
    kept = set(training)
    return OnboardingPlan(
        training=tuple(training[: max(num_networks, 2 * len(space.precision))]),
        holdout=tuple(subnet for subnet in holdout if subnet not in kept),
    )


def uncertainty(
    predictor: WorkloadPredictor,
    space: SearchSpace,
    budgets_ms: Sequence[float],
    *,
    seed: int = 0,
) -> float:
    """Half-width of the interval, as a share, of a typical network near the budget where it is
    widest; over the whole space where no budget is in question."""
    pool = _all_precisions(space, random.Random(seed))
    estimate = predictor.predict(pool)
    widths = estimate.half_widths
    if not budgets_ms:
        return float(np.median(widths))
    logs = np.log(estimate.mean_ms)
    found = []
    for budget_ms in budgets_ms:
        distance = np.abs(logs - np.log(budget_ms))
        near = distance <= max(NEAR_BUDGET, float(np.sort(distance)[:MIN_NEAR][-1]))
        found.append(float(np.median(widths[near])))
    return max(found)


def most_uncertain(
    predictor: WorkloadPredictor,
    space: SearchSpace,
    budgets_ms: Sequence[float],
    measured: Iterable[SubnetConfig],
    *,
    num_networks: int,
    seed: int = 0,
) -> tuple[SubnetConfig, ...]:
    """Networks whose intervals are the widest near the budgets, and that differ from each other.

    Fewer than asked for where the space has no more.
    """
    known = {subnet.renumbered() for subnet in measured}
    pool = [s for s in _all_precisions(space, random.Random(seed)) if s.renumbered() not in known]
    if not pool:
        return ()
    estimate = predictor.predict(pool)
    score = estimate.half_widths.copy()
    if budgets_ms:
        logs = np.log(estimate.mean_ms)
        distance = np.min([np.abs(logs - np.log(budget)) for budget in budgets_ms], axis=0)
        score *= np.exp(-0.5 * (distance / NEAR_BUDGET) ** 2)
    # Of four times as many as are wanted, those that span the widest range: the most uncertain
    # ones alone would be alike.
    best = np.argsort(-score, kind="stable")[: 4 * num_networks]
    shortlist = [pool[i] for i in best]
    points = _log_terms(predictor.shape, predictor.workload, shortlist)
    return tuple(shortlist[i] for i in k_center(points, 1, min(num_networks, len(shortlist))))


def networks_to_check(space: SearchSpace) -> tuple[SubnetConfig, ...]:
    """A few that accompany the anchors when a device is only checked for drift."""
    uniform = [s for s in space.uniform() if s.precision == space.precision[-1]]
    return tuple(uniform[:: max(1, len(uniform) // CHECKED_NETWORKS)][:CHECKED_NETWORKS])


def k_center(points: npt.NDArray[np.float64], num_given: int, num_wanted: int) -> list[int]:
    """Indices of `num_wanted` points: the first `num_given`, then always the farthest one.

    Columns are scaled to unit range, so that no unit counts more than another.
    """
    span = points.max(axis=0) - points.min(axis=0)
    scaled = points / np.where(span > 0, span, 1.0)
    picked = list(range(min(num_given, num_wanted)))
    distance = np.full(len(points), np.inf)
    for index in picked:
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[index], axis=1))
    while len(picked) < num_wanted:
        index = int(np.argmax(distance))
        picked.append(index)
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[index], axis=1))
        distance[picked] = -1.0
    return picked


def _holdout(space: SearchSpace, num_holdout: int, rng: random.Random) -> list[SubnetConfig]:
    """Distinct random networks, precisions in turn."""
    found: list[SubnetConfig] = []
    for _ in range(MAX_DRAWS_PER_NETWORK * num_holdout):
        if len(found) == num_holdout:
            break
        precision = space.precision[len(found) % len(space.precision)]
        subnet = space.sample(rng).with_precision(precision)
        if subnet not in found:
            found.append(subnet)
    return found


def _pool(space: SearchSpace, precision: str, rng: random.Random) -> list[SubnetConfig]:
    """Random networks, and all uniform ones: random widths alone keep to the middle."""
    uniform = [subnet for subnet in space.uniform() if subnet.precision == precision]
    drawn = [space.sample(rng).with_precision(precision) for _ in range(POOL_SIZE)]
    return [*uniform, *drawn]


def _all_precisions(space: SearchSpace, rng: random.Random) -> list[SubnetConfig]:
    pools = [_pool(space, precision, rng) for precision in space.precision]
    return list(_distinct([subnet for pool in pools for subnet in pool]))


def _log_terms(
    shape: ModelShape, workload: Workload, subnets: Sequence[SubnetConfig]
) -> npt.NDArray[np.float64]:
    points = points_of(subnets, batch_size=workload.batch_size, seq_len=workload.seq_len)
    return np.log1p(latency_terms(shape, points, phase=workload.phase))


def _distinct(subnets: Iterable[SubnetConfig]) -> Sequence[SubnetConfig]:
    return list(dict.fromkeys(subnets))
